"""Experts are added in the pack's rank and gauge, and removed; or nothing changes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from pack_folders import BUNDLED, built_packs
from thirdparty.sglora_tiny import TinyModel

from sglora_cli.adapter.file import load_adapter, save_adapter
from sglora_cli.adapter.read import read_adapter, recognise
from sglora_cli.build.edit import foreign_states
from sglora_cli.errors import BadFile, Mismatch
from sglora_cli.files import atomic
from sglora_cli.lora.algebra import update_error
from sglora_cli.lora.layout import Layout, Site
from sglora_cli.pack.coverage import load_coverage
from sglora_cli.pack.pack import Pack


@pytest.fixture
def pack(toy_pack: str, own_home: Path) -> Pack:
    return Pack(own_home / "cache/packs/toys")


def foreign(path: Path, pack: Pack, rank: int, seed: int, fingerprint: str = "tiny-1") -> Path:
    """An adapter of another rank, scale and gauge, of the pack's backbone."""
    layout = Layout(pack.layout.sites, rank, 5.0)
    flat = 0.4 * torch.randn(layout.size, generator=torch.Generator().manual_seed(seed))
    save_adapter(path, layout, flat, {"fingerprint": fingerprint} if fingerprint else {})
    return path


def bare(path: Path) -> Path:
    """The same as a PEFT folder of a stranger."""
    from safetensors.torch import load_file, save_file

    layout, folder = load_adapter(path).layout, path.with_suffix("")
    folder.mkdir()
    save_file(load_file(path), folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": layout.rank, "lora_alpha": layout.alpha, "target_modules": ["q", "k", "v"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.filterwarnings("ignore:.*does not say which model:sglora_cli.errors.SgloraWarning")
def test_an_expert_from_elsewhere_is_added(run, pack, tmp_path):
    path, old_index = bare(foreign(tmp_path / "cap.safetensors", pack, rank=4, seed=1)), pack.index_ED
    old_names = tuple(pack.experts.names)
    result = run("pack", "add", "toys", path, "--text", "a photo of a cap", "--name", "heads/cap")
    lines = result.stderr.splitlines()
    assert lines[0] == f"read       {path} (peft)"
    assert lines[1].startswith("rank       4 -> 2: the update changes by ")
    assert lines[2:4] == [
        "made for   weights unknown: the file has none",
        "states     1 (with one state, the variance is 0)",
    ]
    assert lines[4].startswith("gauge      moved from ")
    assert lines[5].startswith("note: it is farther from the experts' mean than any expert")
    assert lines[6:] == [
        "expert     heads/cap: 'a photo of a cap'",
        "note: these generators were trained without the new expert: cvae",
        "note: it has no photos, so the pack no longer has visual embeddings of its experts",
    ]
    assert not Pack(pack.folder).has_visual
    assert (result.stdout, result.exit_code) == (f"{pack.folder}\n", 0)

    new = Pack(pack.folder)
    assert new.verify() == []
    assert tuple(new.experts.names) == (*old_names, "heads/cap")
    assert torch.equal(new.index_ED[:-1], old_index)
    assert not new.experts.variances([4]).any()
    wanted, error = read_adapter(path.with_suffix(".safetensors")).fitted(pack.layout)
    assert update_error(pack.layout, new.experts.means([4])[0], wanted) < 1e-5
    task = new.tasks.of("expert")[-1]
    assert (task["role"], task["description"]) == ("expert", "a photo of a cap")
    assert task["origin"]["adapters"][0]["error"] == pytest.approx(error, rel=1e-2)
    assert task["origin"]["gauge"]["after"] < task["origin"]["gauge"]["before"]
    assert str(tmp_path) not in json.dumps([new.manifest, *new.tasks])
    assert "heads/cap" in (pack.folder / "README.md").read_text()
    report = json.loads(run("generate", "a photo of a cap", "--json").stdout)
    assert report["experts"][0]["task"] == "heads/cap"
    assert report["experts"][0]["similarity"] == pytest.approx(1, abs=1e-5)


def test_several_adapters_are_several_states(run, pack, tmp_path):
    paths = [foreign(tmp_path / f"{seed}.safetensors", pack, rank=2, seed=seed) for seed in range(3)]
    result = run("pack", "add", "toys", *paths, "--text", "a photo of a cap", "--json")
    assert json.loads(result.stdout)["task"]["key"] == "added/cap"
    new = Pack(pack.folder)
    assert float(new.experts.variances([4]).sum()) > 0


def test_an_expert_of_the_pack_itself_keeps_its_numbers(run, pack, tmp_path):
    save_adapter(
        tmp_path / "ball.safetensors", pack.layout, pack.experts.means([0])[0], {"fingerprint": pack.fingerprint}
    )
    result = run("pack", "add", "toys", tmp_path / "ball.safetensors", "--text", "a photo of a ball", "--name", "x/y")
    assert "\ngauge      0." in result.stderr
    assert "note: it is farther" not in result.stderr
    assert "made for   weights the backbone's own\n" in result.stderr
    new = Pack(pack.folder)
    assert torch.equal(new.experts.means([4]), new.experts.means([0]))


def test_an_expert_for_an_unseen_task_is_said_to_spoil_its_measurement(run, pack, tmp_path):
    path = foreign(tmp_path / "x.safetensors", pack, 2, 0)
    result = run("pack", "add", "toys", path, "--text", "a photo of a mug", "--name", "mine/mug")
    assert result.stderr.endswith(
        "note: unseen task toys/mug has the same sentence, so results on it no longer count as unseen\n"
    )


def test_a_bundled_pack_is_copied_first(run, own_home, tmp_path):
    before, pack = held(BUNDLED), Pack(BUNDLED)
    path = tmp_path / "x.safetensors"
    flat = pack.experts.means([0])[0]
    save_adapter(path, pack.layout, flat, {"fingerprint": pack.fingerprint})
    result = run("pack", "add", "starter", path, "--text", "a photo of a teapot")
    copy = own_home / "cache/packs/starter"
    assert result.stdout == f"{copy}\n", result.stderr
    assert "note: the bundled pack 'starter' is not changed, but this copy takes precedence over it\n" in result.stderr
    assert held(BUNDLED) == before
    assert Pack(copy).verify() == []
    assert Pack(copy).experts.names[-1] == "added/teapot"
    assert run("pack", "add", BUNDLED, path, "--text", "a photo of a kettle").exit_code == 2
    assert run("pack", "add", "starter", path, "--text", "a photo of a kettle").exit_code == 0


@pytest.mark.parametrize(
    ("options", "code", "message", "hint"),
    [
        (["--text", " "], 2, "the sentence has no word: ' '", 'describe the task, as in "a photo of a pug"'),
        (
            ["--text", "a cap", "--name", "toys/ball"],
            5,
            "pack 'toys' already has a task 'toys/ball' with role expert",
            "choose another name with --name GROUP/NAME",
        ),
        (
            ["--text", "a cap", "--name", "Toys/Mug"],
            5,
            "pack 'toys' already has a task 'toys/mug' with role unseen",
            "choose another name with --name GROUP/NAME",
        ),
        (
            ["--text", "a cap", "--name", "../x/y"],
            2,
            "'../x/y' is not a valid expert name",
            "choose another name with --name GROUP/NAME, for example pets/pug",
        ),
        (
            ["--text", "a cap", "--name", "cap"],
            2,
            "'cap' is not a valid expert name",
            "choose another name with --name GROUP/NAME, for example pets/pug",
        ),
    ],
)
def test_what_cannot_be_added(run, pack, tmp_path, own_home, options, code, message, hint):
    path = foreign(tmp_path / "x.safetensors", pack, 2, 0)
    unchanged(run, own_home, ["pack", "add", "toys", path, *options], code, message, hint)


def unchanged(run, own_home, arguments, code, message, hint) -> None:
    before = held(own_home)
    result = run(*arguments)
    assert result.stderr == f"error: {message}\nhint: {hint}\n"
    assert (result.exit_code, result.stdout) == (code, "")
    assert held(own_home) == before


def held(folder: Path) -> dict[Path, bytes]:
    """Every file but locks."""
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".lock"}


def test_an_adapter_of_other_weights_is_not_added(run, pack, tmp_path, own_home):
    path = foreign(tmp_path / "x.safetensors", pack, 2, 0, fingerprint="other")
    unchanged(
        run,
        own_home,
        ["pack", "add", "toys", path, "--text", "a cap"],
        5,
        "the adapter was made for a backbone with fingerprint other, this one has tiny-1",
        "use the backbone and the weights it was made for",
    )


def test_a_damaged_pack_is_not_sealed_again(run, pack, tmp_path, own_home):
    (pack.folder / "joint.safetensors").write_bytes(b"damaged")
    path = foreign(tmp_path / "x.safetensors", pack, 2, 0)
    unchanged(
        run,
        own_home,
        ["pack", "add", "toys", path, "--text", "a cap"],
        4,
        "pack 'toys' is damaged: joint.safetensors has changed since the pack was built",
        "build or fetch it again",
    )


def test_a_new_version_that_does_not_open_leaves_the_old_one(pack, own_home):
    from sglora_cli.pack.writer import edited

    before = {p: p.read_bytes() for p in sorted(own_home.rglob("*")) if p.is_file()}
    with pytest.raises(BadFile, match="does not hold one row"), edited(pack) as draft:
        draft.remove(0)  # and not what its photos look like
    assert {p: p.read_bytes() for p in sorted(own_home.rglob("*")) if p.is_file()} == before


def test_an_added_expert_goes_without_a_word_about_training(run, pack, tmp_path):
    path = foreign(tmp_path / "teapot.safetensors", pack, rank=2, seed=1)
    assert run("pack", "add", "toys", path, "--text", "a photo of a teapot").exit_code == 0
    result = run("pack", "remove", "toys", "added/teapot", "--yes")
    assert result.exit_code == 0, result.output
    assert "trained with" not in result.stderr


def test_an_expert_goes_and_the_rest_stays(run, toy_pack, own_home):
    folder = own_home / "cache/packs/toys"
    old = Pack(folder)
    means_EP, index_ED, meaning_EW, visual_ED = old.experts.means(), old.index_ED, old.meaning_EW, old.visual_ED
    result = run("pack", "remove", "toys", "toys/box", "--yes")
    assert result.stdout == f"{folder}\n"
    assert result.stderr == (
        "removed    toys/box from toys\nnote       trained with this expert and not trained again: cvae, joint\n"
    )
    new, kept = Pack(folder), [0, 2, 3]
    assert new.verify() == []
    assert tuple(new.experts.names) == ("toys/ball", "toys/cup", "toys/hat")
    assert torch.equal(new.experts.means(), means_EP[kept])
    assert torch.equal(new.index_ED, index_ED[kept])
    assert torch.equal(new.meaning_EW, meaning_EW[kept])
    assert torch.equal(new.visual_ED, visual_ED[kept])
    assert load_coverage(new).keys == tuple(key for key in load_coverage(old).keys if key != "toys/box")
    assert "toys/box" not in (folder / "README.md").read_text()
    assert new.manifest["edits"] == ["removed expert toys/box"]
    assert run("pack", "show", "toys").stdout.endswith("\nchanged    removed expert toys/box\n")
    assert "toys/box" not in (folder / "tasks/expert-00000.jsonl").read_text()
    assert built_packs(own_home) == ["toys"]
    assert run("generate", "a box").exit_code == 0
    assert run("bench", "--json").exit_code == 0


def test_the_priors_k_experts_stay(run, toy_pack, own_home):
    for name in ("toys/ball", "toys/box"):
        assert run("pack", "remove", "toys", name, "--yes").exit_code == 0
    result = run("pack", "remove", "toys", "toys/cup", "--yes")
    assert result.exit_code == 5
    assert result.stderr == (
        "error: pack 'toys' has 2 experts and needs at least K = 2\n"
        "hint: rebuild it with a smaller k in [prior] of its recipe, or remove the pack\n"
    )
    assert Pack(own_home / "cache/packs/toys").verify() == []


@pytest.mark.parametrize(
    ("expert", "code", "message"),
    [
        ("toys/bal", 3, "error: no expert in this pack named 'toys/bal'\nhint: did you mean 'toys/ball'?\n"),
        ("toys/mug", 5, "error: 'toys/mug' is not an expert of pack 'toys', its role is unseen\n"),
    ],
)
def test_what_is_no_expert_is_named(run, toy_pack, own_home, expert, code, message):
    result = run("pack", "remove", "toys", expert, "--yes")
    assert (result.exit_code, result.stderr, result.stdout) == (code, message, "")


def test_a_damaged_pack_is_not_changed(run, toy_pack, own_home):
    (own_home / "cache/packs/toys/joint.safetensors").unlink()
    result = run("pack", "remove", "toys", "toys/ball", "--yes")
    assert result.stderr == (
        "error: pack 'toys' is damaged: joint.safetensors is missing\nhint: build or fetch it again\n"
    )
    assert (result.exit_code, built_packs(own_home)) == (4, ["toys"])


def test_of_a_bundled_pack_a_copy_is_changed(run, own_home):
    folder, bundled = own_home / "cache/packs/starter", Pack(BUNDLED)
    result = run("pack", "remove", "starter", "pets/birman", "--json")
    notes = [
        "the bundled pack 'starter' is not changed, but this copy takes precedence over it",
        "trained with this expert and not trained again: calibrated, cvae, joint",
    ]
    assert json.loads(result.stdout) == {
        "pack": "starter",
        "expert": "pets/birman",
        "folder": str(folder),
        "notes": notes,
    }
    assert (len(Pack(folder).experts.names), len(bundled.experts.names)) == (35, 36)
    assert Pack(folder).verify() == bundled.verify() == []
    result = run("pack", "remove", str(bundled.folder), "pets/bombay")
    assert result.exit_code == 2
    assert result.stderr == (f"error: there is a pack 'starter' in {folder}\nhint: name it instead: starter\n")


def test_if_the_new_version_cannot_be_put_there_the_old_one_comes_back(run, toy_pack, own_home, monkeypatch):
    monkeypatch.setattr(atomic, "exchanged", lambda one, other: False)  # a system that cannot exchange two names
    folder, replace = own_home / "cache/packs/toys", os.replace

    def refuse(source, target):
        if str(source).endswith(".draft") and str(target) == str(folder):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    result = run("pack", "remove", "toys", "toys/ball", "--yes")
    assert result.exit_code == 6
    assert result.stderr == (
        f"error: cannot put 'toys' into {folder.parent}: No space left on device\n"
        "hint: make room there, or choose another place\n"
    )
    assert len(Pack(folder).experts.names) == 4
    assert built_packs(own_home) == ["toys"]


def test_an_adapter_with_a_projection_is_no_expert_of_a_pack_without(pack, tmp_path):
    class Projecting(TinyModel):
        projection = Site("head", 8, 12)

        def projection_weight(self):
            return self.head

        def unprojected(self, stem):
            return torch.zeros(len(stem), 12)

    layout = Layout((*pack.layout.sites, Projecting.projection), 2, 5.0)
    path = tmp_path / "cap.safetensors"
    save_adapter(path, layout, torch.ones(layout.size), {"fingerprint": "tiny-1"})
    with pytest.raises(
        Mismatch, match=r"cap.safetensors has an update of head, but the experts of pack 'toys' have none"
    ):
        foreign_states(pack, Projecting(), [recognise(path)], None, False)
