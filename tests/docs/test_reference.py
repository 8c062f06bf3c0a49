"""The reference and the list of pages are generated from the program, and the plugin guide from plugins/README.md."""

from __future__ import annotations

import pytest
from docs.reference import ADAPTER, PACK, PAGES

from sglora_cli.cli.commands.docs import FOLDER
from sglora_cli.files.tensors import read_metadata
from sglora_cli.files.text import read_json


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_up_to_date(name):
    written = (FOLDER / name).read_text(encoding="utf-8")
    assert written == PAGES[name](), f"{name} is out of date: run `python -m tests.docs.reference`"


def test_the_reference_is_the_same_at_any_width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert PAGES["reference.md"]() == (FOLDER / "reference.md").read_text(encoding="utf-8")


def test_the_files_have_the_keys_that_the_reference_lists(run, toy_pack, tmp_path, own_home):
    out = tmp_path / "mug.safetensors"
    assert run("generate", "--name", "mug", "--name", "nest", "-o", out).exit_code == 0
    assert set(read_metadata(out)) == set(ADAPTER) - {"imported"}
    assert run("import", out, "-o", tmp_path / "in.safetensors").exit_code == 0
    assert set(read_metadata(tmp_path / "in.safetensors")) == set(ADAPTER)
    assert set(PACK) <= set(read_json(own_home / "cache" / "packs" / toy_pack / "pack.json"))
