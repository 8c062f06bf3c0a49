"""CONTRIBUTING.md names the rooms and layers that are held, and files that are there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOST = ROOT / "sglora_cli"
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_rooms_stand_on_the_layers_that_import_linter_holds():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (contract,) = [one for one in settings["contracts"] if one["type"] == "layers"]
    layers = contract["layers"]
    held = {name: len(layers) - n for n, line in enumerate(layers) for name in line.split(" | ")}
    table = {
        name.removesuffix(".py"): int(layer)
        for layer, names in re.findall(r"^\| (\d) \| (.*?) \|", TEXT, re.MULTILINE)
        for name in re.findall(r"`([^`]+)`", names)
    }
    assert table == held


def test_every_room_is_in_the_table():
    rooms = {path.parent.name for path in HOST.glob("*/__init__.py")}
    assert rooms <= set(re.findall(r"^\| \d \| `(\w+)` \|", TEXT, re.MULTILINE))


def test_files_that_it_names_are_there():
    paths = re.findall(r"`((?:\.ci|[a-z_]+)/[\w./]*)`", TEXT)
    assert len(paths) > 20
    assert [path for path in paths if "NAME" not in path and not any((r / path).exists() for r in (ROOT, HOST))] == []


def test_lines_are_short():
    assert [line for line in TEXT.splitlines() if len(line) > 120] == []
