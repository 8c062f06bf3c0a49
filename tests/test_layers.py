"""What import-linter cannot say of imports (pyproject.toml has its contracts): of plugins, their host, and tests."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import sglora_cli.api

ROOT = Path(__file__).parent.parent
HOST = sorted(p for p in (ROOT / "sglora_cli").rglob("*.py") if "templates" not in p.parts)


def imported(path: Path) -> set[str]:
    """Modules imported at run time: what stands under TYPE_CHECKING does not count."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    modules = set()
    for node in ast.walk(tree):
        if id(node) not in typing_only:
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                whole = node.module == "sglora_cli"  # `from sglora_cli import network` imports a module, too
                modules.update(f"sglora_cli.{alias.name}" for alias in node.names if whole)
                modules.add(node.module)
            elif isinstance(node, ast.Import):
                modules.update(alias.name for alias in node.names)
    return modules


@pytest.mark.parametrize("path", HOST, ids=lambda p: p.relative_to(ROOT / "sglora_cli").as_posix())
def test_the_host_knows_no_plugin(path):
    known = {p.stem for p in (ROOT / "plugins").iterdir()}
    assert not {name for name in imported(path) if name.split(".")[0] in known}


@pytest.mark.parametrize("path", sorted((ROOT / "plugins").rglob("*.py")), ids=lambda p: p.stem)
def test_plugins_import_the_api_only(path):
    assert {n for n in imported(path) if n.startswith("sglora_cli")} <= {"sglora_cli.api"}


def test_all_of_the_api_exists():
    assert len(set(sglora_cli.api.__all__)) == len(sglora_cli.api.__all__)
    for name in sglora_cli.api.__all__:
        assert getattr(sglora_cli.api, name) is not None


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("test_*.py")), ids=lambda p: p.stem)
def test_no_test_imports_another(path):
    assert not {name for name in imported(path) if name.rpartition(".")[2].startswith("test_")}
