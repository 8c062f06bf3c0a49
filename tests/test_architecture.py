"""Imports point one way, read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import sglora_cli.api

ROOT = Path(__file__).parent.parent
ORDER = [  # a module may import those above it
    ("errors", "__init__"),
    ("strict",),
    ("drafts",),
    (
        "configs",
        "contracts",
        "devices",
        "documents",
        "files",
        "progressing",
        "printing",
        "offline",
        "stopping",
        "text_rows",
    ),
    (
        "guarding",
        "vetting",
        "hookspecs",
        "settings",
        "rows",
        "rows_files",
        "lookalikes",
        "findings",
        "page_parts",
        "toml_lines",
        "caption_files",
        "manifests",
        "signatures",
        "wording",
        "schemas",
    ),
    ("checkpoints", "journal", "locking", "losses", "templating", "tensor_rows"),
    ("host", "packages", "shelves", "faults", "caption_texts", "statistics"),
    ("charts", "caching", "preferences"),
    ("completing",),
    ("plotting",),
    ("adapters", "retrieval", "captioning"),
    ("batches", "lowrank", "attaching", "caption_import"),
    ("semantics", "training", "recipes", "cards"),
    ("kit_tools",),
    ("kits",),
    ("variants", "judging", "formats.native", "formats.pickles", "classifying"),
    ("features",),
    ("formats.loose",),
    ("formats.clip_lora", "formats.merged", "formats.peft"),
    ("formats.reading",),
    ("formats.writing",),
    ("formats",),
    ("packs", "steps", "descriptions"),
    ("estimating", "evidence", "health", "measuring"),
    ("held_out",),
    ("generating", "building", "inspecting", "converting", "archives", "removing"),
    ("adding", "explaining", "batching", "doctoring", "recording"),
    ("evaluation",),
    ("benchmarking", "testing", "trying", "checking"),
    ("ablations", "reporting"),
    ("planning", "exhibits"),
    ("adapter_maps", "strips"),
    ("pages", "check_page", "report_page"),
    ("gathering",),
    ("api",),
    ("cli",),
]
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}


def module_file(name: str) -> bool:
    return (ROOT / f"{name.replace('.', '/')}.py").exists() or (ROOT / name.replace(".", "/")).is_dir()


def name_of(path: Path) -> str:
    """`sglora_cli/formats/peft.py` -> `formats.peft`; a package's own file has the package's name."""
    parts = path.relative_to(ROOT / "sglora_cli").with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


HOST = sorted([*(ROOT / "sglora_cli").glob("*.py"), *(ROOT / "sglora_cli/formats").glob("*.py")])


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
                # `from sglora_cli import files` imports a module, `from sglora_cli.files import inside` a name of one.
                inner = [f"{node.module}.{a.name}" for a in node.names]
                found.update(name if module_file(name) else node.module for name in inner)
            elif isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
    return found


@pytest.mark.parametrize("path", HOST, ids=name_of)
def test_the_host_imports_downwards_only(path):
    own = name_of(path)
    assert own in LEVEL, f"give {path.name} a level in ORDER"
    for name in imported(path):
        if name.startswith("sglora_cli.") and name != "sglora_cli.__version__":
            other = name.removeprefix("sglora_cli.")
            if own in ("api", "cli") and other.startswith("commands"):
                continue
            assert LEVEL[other] < LEVEL[own], f"{own} imports {other}"
        assert name.split(".")[0] not in {p.stem for p in (ROOT / "plugins").iterdir()}, f"the host knows {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "plugins").rglob("*.py")), ids=lambda p: p.stem)
def test_plugins_import_the_api_only(path):
    assert {n for n in imported(path) if n.startswith("sglora_cli")} <= {"sglora_cli.api"}


def test_all_of_the_api_exists():
    for name in sglora_cli.api.__all__:
        assert getattr(sglora_cli.api, name) is not None
