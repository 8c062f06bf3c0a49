"""A manifest is read once a version, and names nothing outside its folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sglora_cli.errors import BadFile, Unavailable
from sglora_cli.lora.prior import Query
from sglora_cli.pack import pack as pack_module
from sglora_cli.pack.content.tasks import TaskLines
from sglora_cli.pack.pack import Pack


@pytest.fixture
def folder(toy_pack, own_home) -> Path:
    return own_home / "cache/packs/toys"


def change(folder: Path, **changes: object) -> None:
    path = folder / "pack.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_opening_and_asking_for_a_prior_read_no_task(folder, monkeypatch):
    monkeypatch.setattr(TaskLines, "_task", None)
    pack = Pack(folder)
    assert len(pack.experts.names) == 4
    assert pack.prior(pack.expert_query(2)).rows[0] == 2


def test_that_it_is_still_there_is_seen_without_reading_it(folder, monkeypatch):
    pack = Pack(folder)
    monkeypatch.setattr(pack_module, "read_json", None)
    pack.check_there()


def test_the_same_content_in_a_new_file_is_no_change_and_another_is(folder):
    pack = Pack(folder)
    text = (folder / "pack.json").read_text()
    (folder / "pack.json").unlink()
    (folder / "pack.json").write_text(text)
    pack.check_there()
    change(folder, made_by="somebody else")
    with pytest.raises(Unavailable, match="was changed while it was read"):
        pack.check_there()
    (folder / "pack.json").unlink()
    with pytest.raises(Unavailable, match="was removed while it was read"):
        pack.check_there()


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "experts/../../x", "a//../../../x"])
def test_a_name_that_leads_out_is_refused(folder, name):
    change(folder, files={**json.loads((folder / "pack.json").read_text())["files"], name: ""})
    with pytest.raises(BadFile, match="leads out of"):
        Pack(folder)


def test_a_folder_that_is_a_link_out_of_the_pack_is_refused(folder, tmp_path):
    (folder / "evaluation").rename(tmp_path / "elsewhere")
    (folder / "evaluation").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadFile, match="leads out of"):
        Pack(folder)


def test_a_version_that_replaces_an_open_one_is_noticed_by_whoever_reads_on(run, folder):
    pack = Pack(folder)
    _ = pack.index_ED
    assert run("pack", "remove", "toys", "toys/ball", "--yes").exit_code == 0
    with pytest.raises(Unavailable, match="was changed while it was read"), pack.unchanged():
        list(pack.experts.names)
    with pytest.raises(Unavailable, match="was changed while it was read"), pack.unchanged():
        pack.prior(Query(unit_D := torch.ones(8) / 8**0.5, unit_D))
