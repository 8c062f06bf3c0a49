"""Imports point one way, read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import sglora_cli.api

ROOT = Path(__file__).parent.parent
ORDER = [  # a module may import those above it
    ("errors", "__init__"),
    ("configs", "contracts", "devices", "files", "progressing", "printing"),
    ("hookspecs", "settings", "rows"),
    ("host", "shelves"),
    ("adapters", "retrieval"),
    ("lowrank",),
    ("semantics", "training", "formats", "recipes", "cards"),
    ("packs", "features"),
    ("generating", "building", "inspecting"),
    ("benchmarking",),
    ("api",),
    ("cli",),
]
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}


def imported(path: Path) -> set[str]:
    """Modules imported at run time: what stands under TYPE_CHECKING does not count."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) not in typing_only:
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = (
                    [f"{node.module}.{a.name}" for a in node.names] if node.module == "sglora_cli" else [node.module]
                )
                found.update(names)
            elif isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "sglora_cli").glob("*.py")), ids=lambda p: p.stem)
def test_the_host_imports_downwards_only(path):
    assert path.stem in LEVEL, f"give {path.name} a level in ORDER"
    for name in imported(path):
        if name.startswith("sglora_cli.") and name != "sglora_cli.__version__":
            other = name.split(".")[1]
            if path.stem in ("api", "cli") and other == "commands":
                continue
            assert LEVEL[other] < LEVEL[path.stem], f"{path.stem} imports {other}"
        assert name.split(".")[0] not in {p.stem for p in (ROOT / "plugins").iterdir()}, f"the host knows {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "plugins").rglob("*.py")), ids=lambda p: p.stem)
def test_plugins_import_the_api_only(path):
    assert {n for n in imported(path) if n.startswith("sglora_cli")} <= {"sglora_cli.api"}


def test_all_of_the_api_exists():
    for name in sglora_cli.api.__all__:
        assert getattr(sglora_cli.api, name) is not None
