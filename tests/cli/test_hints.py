"""Every command and option that a text of the program names exists and is complete, and hints lead on."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from named_commands import HOLE, faults

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for folder in ("sglora_cli", "plugins")
    for path in (ROOT / folder).rglob("*.py")
    if not path.is_relative_to(ROOT / "sglora_cli/docs") and path.name != "train.py"  # a program of its own
)


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and content of each string of a module but docstrings, with holes for what is filled in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            inside.add(node.value)
        elif isinstance(node, ast.JoinedStr):
            inside.update(ast.walk(node))
            inside.discard(node)
            parts = [part.value if isinstance(part, ast.Constant) else HOLE for part in node.values]
            yield node.lineno, "".join(map(str, parts))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside:
            yield node.lineno, node.value


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_commands_and_options_that_a_module_names_exist(path):
    wrong = [f"line {line}: {fault}" for line, text in texts(path) for fault in faults(text) if not begun(text, fault)]
    assert wrong == []


def begun(text: str, fault: str) -> bool:
    """Whether the text is the beginning of a command, to which more is added."""
    return text.startswith("sglora ") and fault.endswith(" is missing")
