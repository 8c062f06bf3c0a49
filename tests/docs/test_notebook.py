"""The tutorial's notebook runs from its first cell to its last, and its cells print what is stored in it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from console import Shown, difference
from docs.notebook import VARY
from html_page import Page

from sglora_cli.cli.commands.docs import FOLDER

NOTEBOOK = FOLDER / "tutorial.ipynb"
SCRIPT = Path(__file__).with_name("notebook.py")


def cells(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


CODE = [cell for cell in cells(NOTEBOOK) if cell["cell_type"] == "code"]


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The cells as a fresh kernel runs them, by their ids: in a process of its own, as kernels leave sockets open."""
    target = tmp_path_factory.mktemp("notebook") / "tutorial.ipynb"
    command = [sys.executable, str(SCRIPT), str(NOTEBOOK), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    return {cell["id"]: cell for cell in cells(target)}


def texts(output: dict[str, Any]) -> list[str]:
    """What a person reads of an output: a stream, a line, and the texts of a table."""
    data = output.get("data", {})
    table = Page("".join(data.get("text/html", ""))).texts
    return ["".join(output.get("text", [])), "".join(data.get("text/plain", [])), "\n".join(map(str.strip, table))]


@pytest.mark.slow
@pytest.mark.parametrize("cell", CODE, ids=lambda cell: cell["id"])
def test_a_cell_prints_what_is_stored(cell, again):
    now = again[cell["id"]]["outputs"]
    assert [one["output_type"] for one in now] == [one["output_type"] for one in cell["outputs"]]
    for stored, printed in zip(cell["outputs"], now, strict=True):
        assert sorted(stored.get("data", {})) == sorted(printed.get("data", {}))
        for wanted, got in zip(texts(stored), texts(printed), strict=True):
            shown = Shown(cell["id"], tuple(wanted.splitlines()), 0, VARY in cell["metadata"].get("tags", []))
            assert difference(shown, got) == ""


@pytest.mark.slow
def test_a_cell_that_fails_is_seen(tmp_path):
    broken = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    broken["cells"] = [CODE[0] | {"source": "1 / 0"}]
    (tmp_path / "broken.ipynb").write_text(json.dumps(broken))
    command = [sys.executable, str(SCRIPT), str(tmp_path / "broken.ipynb"), str(tmp_path / "out.ipynb")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode != 0
    assert "ZeroDivisionError" in done.stderr
    assert not (tmp_path / "out.ipynb").exists()


def test_nothing_is_stored_that_differs_from_run_to_run():
    text = NOTEBOOK.read_text(encoding="utf-8")
    notebook = json.loads(text)
    assert text == json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    assert [cell["id"] for cell in notebook["cells"]] == [f"cell-{n:02}" for n in range(1, len(notebook["cells"]) + 1)]
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    assert all(cell["metadata"] in ({}, {"tags": [VARY]}) for cell in notebook["cells"])
    assert notebook["metadata"]["language_info"] == {"name": "python"}
    assert not re.search(r"(?<![\w.])/(?:home|root|tmp|work|Users|mnt|opt)/|0x[0-9a-f]{6}", text)
    assert len(text) < 100_000


def test_no_stored_output_is_an_error_or_a_warning():
    outputs = [output for cell in CODE for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "execute_result"}
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}


def test_pages_that_the_notebook_names_are_there():
    prose = "\n".join("".join(cell["source"]) for cell in cells(NOTEBOOK) if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)\s]+)\)", prose)
    assert len(links) >= 3
    assert all((FOLDER / link).exists() for link in links)
