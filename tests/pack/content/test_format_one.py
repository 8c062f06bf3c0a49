"""Packs of format 1 are read for good, and `pack migrate` writes them in today's format with the same numbers."""

from __future__ import annotations

import json

import pytest
import torch
from pack_folders import BUNDLED
from safetensors.torch import load_file

from sglora_cli.adapter.file import load_adapter
from sglora_cli.generate.session import Session
from sglora_cli.pack.content.names import file_name
from sglora_cli.pack.coverage import COVERAGE, SeenTasks
from sglora_cli.pack.pack import Pack
from sglora_cli.plugin.values import ROLES

GENERATORS = ("top-k", "cvae", "joint", "ties", "model-soups")


def adapters(run, tmp_path) -> list[bytes]:
    made = []
    for name in GENERATORS:
        path = tmp_path / f"{name}.safetensors"
        result = run("generate", "a photo of a mug", "--generator", name, "-o", path, "--force")
        assert result.exit_code == 0, result.output
        made.append(path.read_bytes())
    return made


def test_it_is_read_as_its_files_say(format_one):
    pack, manifest = Pack(format_one), json.loads((format_one / "pack.json").read_text())
    assert manifest["format"] == pack.format == 1
    assert pack.verify() == []
    for role in ROLES:
        assert list(pack.tasks.of(role)) == [task for task in manifest["tasks"] if task["role"] == role]
    for row, key in enumerate(pack.experts.names):
        tensors = load_file(format_one / "experts" / file_name(key))
        assert torch.equal(pack.experts.means([row])[0], tensors["mu"])
        assert torch.equal(pack.experts.variances([row])[0], tensors["var"])
    index = load_file(format_one / "index.safetensors")
    assert torch.equal(pack.index_ED, index["index"])
    assert torch.equal(pack.meaning_EW, index["meaning"])
    assert torch.equal(pack.visual_ED, index["visual"])
    assert [task.key for task in pack.unseen()] == ["toys/mug", "toys/nest"]


def test_migrated_it_makes_the_very_same_adapters(run, format_one, tmp_path):
    before = adapters(run, tmp_path)
    old = Pack(format_one)
    means_EP, variances_EP = old.experts.means(), old.experts.variances()
    index_ED, meaning_EW, visual_ED = old.index_ED, old.meaning_EW, old.visual_ED
    shown = json.loads(run("pack", "show", "toys", "--json").stdout)["tasks"]
    result = run("pack", "migrate", "toys")
    assert (result.stdout, result.stderr, result.exit_code) == (f"{format_one}\n", "format     1 -> 2\n", 0)
    new = Pack(format_one)
    assert new.format == 2
    assert new.verify() == []
    assert torch.equal(new.experts.means(), means_EP)
    assert torch.equal(new.experts.variances(), variances_EP)
    assert torch.equal(new.index_ED, index_ED)
    assert torch.equal(new.meaning_EW, meaning_EW)
    assert torch.equal(new.visual_ED, visual_ED)
    assert adapters(run, tmp_path) == before
    tasks = json.loads(run("pack", "show", "toys", "--json").stdout)["tasks"]
    assert [task | ({"states": 4} if task["role"] == "expert" else {}) for task in shown] == tasks
    assert run("bench", "--baselines", "oracle,top-k").exit_code == 0
    assert not (format_one / "index.safetensors").exists()


def test_what_is_kept_of_its_tasks_is_what_would_be_measured(run, format_one):
    session = Session.open()
    measured = SeenTasks.measured(*zip(*seen(session.pack), strict=True), session._meaning)
    assert run("pack", "migrate", "toys").exit_code == 0
    kept = Session.open().seen_tasks
    assert kept.keys == measured.keys
    assert torch.equal(kept.tasks_TW, measured.tasks_TW)
    assert torch.equal(kept.background_BW, measured.background_BW)
    assert torch.equal(kept.others_T, measured.others_T)


def seen(pack: Pack) -> list[tuple[str, str]]:
    return [(task["key"], task["description"]) for role in ROLES[:2] for task in pack.tasks.of(role)]


def test_a_pack_of_todays_format_stays_as_it_is(run, toy_pack, own_home):
    folder = own_home / "cache/packs/toys"
    before = (folder / "pack.json").stat().st_ino
    result = run("pack", "migrate", "toys", "--json")
    assert json.loads(result.stdout) == {"folder": str(folder), "from": 2, "to": 2}
    assert (folder / "pack.json").stat().st_ino == before


@pytest.mark.filterwarnings("ignore:how far a sentence is:sglora_cli.errors.SgloraWarning")
@pytest.mark.filterwarnings("always:the coverage of its tasks")
def test_without_its_backbone_it_is_migrated_without_what_that_would_say(run, format_one):
    text = (format_one / "pack.json").read_text()
    (format_one / "pack.json").write_text(text.replace('"backbone": "tiny"', '"backbone": "tinny"'))
    result = run("pack", "migrate", "toys")
    assert result.exit_code == 0
    assert "will be computed with the first sentence: no backbone named 'tinny'" in result.stderr
    new = Pack(format_one)
    assert COVERAGE not in new.manifest["files"]
    assert new.verify() == []


def test_a_damaged_one_is_not_migrated(run, format_one):
    path = format_one / "experts" / file_name("toys/ball")
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    result = run("pack", "migrate", "toys")
    assert result.exit_code == 4
    assert f"experts/{path.name} has changed since the pack was built" in result.stderr
    assert Pack(format_one).format == 1


def test_an_edit_writes_todays_format(run, format_one, tmp_path):
    assert run("generate", "a photo of a mug", "--generator", "top-k", "-o", tmp_path / "a.safetensors").exit_code == 0
    before = Pack(format_one).experts.means()
    assert run("pack", "add", "toys", tmp_path / "a.safetensors", "--text", "a cap").exit_code == 0
    new = Pack(format_one)
    assert new.format == 2
    assert torch.equal(new.experts.means()[:4], before)
    wanted = load_adapter(tmp_path / "a.safetensors").flat_P
    assert torch.equal(new.experts.means([4])[0], wanted)
    assert new.verify() == []


def test_a_bundled_pack_is_of_todays_format():
    assert Pack(BUNDLED).format == 2
