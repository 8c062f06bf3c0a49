"""Packs and experts that go: what is asked, what is said, and what is left."""

from __future__ import annotations

import json
import os

import pytest
import torch

from sglora_cli.files import atomic
from sglora_cli.pack.pack import Pack


@pytest.fixture
def answer(monkeypatch):
    """Somebody is at the terminal and types this."""
    import click.testing

    def call(text: str, *args: str):
        from sglora_cli.cli.main import main

        runner = click.testing.CliRunner()
        with monkeypatch.context() as patch:
            patch.setattr(click.testing._NamedTextIOWrapper, "isatty", lambda self: True, raising=False)
            return runner.invoke(main, list(args), input=text)

    return call


def packs(own_home) -> list[str]:
    return sorted(os.listdir(own_home / "cache/packs"))


def test_a_built_pack_is_removed(run, toy_pack, own_home):
    folder = own_home / "cache/packs/toys"
    result = run("pack", "remove", "toys", "--yes")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{folder}\n", "removed    toys\n")
    assert packs(own_home) == []
    assert run("pack", "list").stdout == "*  starter  starter  28 experts  bundled\n"


def test_without_a_terminal_a_yes_is_needed(run, toy_pack, own_home):
    folder = own_home / "cache/packs/toys"
    for expert, what in (("", "pack 'toys'"), ("toys/ball", "expert toys/ball from pack 'toys'")):
        result = run("pack", "remove", "toys", *filter(None, [expert]))
        assert result.exit_code == 2
        assert result.stderr == (f"error: nobody can be asked whether to remove {what} in {folder}\nhint: pass --yes\n")
    assert len(Pack(folder).experts.names) == 4


def test_on_a_terminal_it_asks(answer, toy_pack, own_home):
    folder = own_home / "cache/packs/toys"
    result = answer("n\n", "pack", "remove", "toys")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"remove pack 'toys' in {folder}? [y/N]:")
    assert result.stderr.endswith("error: nothing was removed\n")
    assert packs(own_home) == ["toys"]
    assert answer("y\n", "pack", "remove", "toys").exit_code == 0
    assert packs(own_home) == []


def test_a_bundled_pack_stays(run, own_home):
    bundled = Pack(bundled_folder())
    for thing in ("starter", str(bundled.folder)):
        result = run("pack", "remove", thing, "--yes")
        assert result.exit_code == 2
        assert result.stderr == (
            "error: pack 'starter' is bundled with a plugin and cannot be removed\n"
            "hint: uninstall the plugin that brings it, or leave it: a pack built under its name hides it\n"
        )
    assert bundled.verify() == []


def bundled_folder():
    from pathlib import Path

    import sglora_packs

    return Path(sglora_packs.__file__).parent / "starter"


def test_a_folder_of_the_user_stays(run, tiny, toys, recipe, tmp_path, own_home):
    folder = tmp_path / "mine"
    assert run("pack", "build", recipe, "--data", toys, "-o", folder).exit_code == 0
    result = run("pack", "remove", folder, "--yes")
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: {folder} is a folder of your own, not one of the packs in {own_home / 'cache/packs'}\n"
        "hint: remove it yourself\n"
    )
    assert run("pack", "remove", folder, "toys/ball", "--yes").stdout == f"{folder}\n"
    assert Pack(folder).experts.names == ("toys/box", "toys/cup", "toys/hat")


def test_of_a_link_only_the_link_is_removed(run, toy_pack, tmp_path, own_home):
    folder, elsewhere = own_home / "cache/packs/toys", tmp_path / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    assert run("pack", "remove", "toys", "--yes").exit_code == 2  # it lies elsewhere
    assert Pack(elsewhere).verify() == []


def test_a_pack_that_the_settings_name_is_said(run, toy_pack, monkeypatch):
    monkeypatch.setenv("SGLORA_PACK", "toys")
    assert run("pack", "remove", "toys", "--yes").stderr == (
        "removed    toys\nnote       the settings still name 'toys' as the pack to use\n"
    )


def test_a_damaged_pack_can_be_removed(run, toy_pack, own_home):
    (own_home / "cache/packs/toys/pack.json").write_text("{")
    assert run("pack", "remove", "toys", "--yes").exit_code == 0
    assert packs(own_home) == []


def test_an_expert_goes_and_the_rest_stays(run, toy_pack, own_home):
    folder = own_home / "cache/packs/toys"
    old = Pack(folder)
    means_EP, index_ED, meaning_EW = old.experts.means(), old.index_ED, old.meaning_EW
    result = run("pack", "remove", "toys", "toys/box", "--yes")
    assert result.stdout == f"{folder}\n"
    assert result.stderr == (
        "removed    toys/box from toys\nnote       cvae, joint: trained with the expert, not trained again\n"
    )
    new, kept = Pack(folder), [0, 2, 3]
    assert new.verify() == []
    assert new.experts.names == ("toys/ball", "toys/cup", "toys/hat")
    assert torch.equal(new.experts.means(), means_EP[kept])
    assert torch.equal(new.index_ED, index_ED[kept])
    assert torch.equal(new.meaning_EW, meaning_EW[kept])
    assert "toys/box" not in (folder / "README.md").read_text()
    assert new.manifest["edits"] == ["removed expert toys/box"]
    assert run("pack", "show", "toys").stdout.endswith("\nchanged    removed expert toys/box\n")
    assert not (folder / "experts/toys-box.safetensors").exists()
    assert packs(own_home) == ["toys"]
    assert run("generate", "a box").exit_code == 0
    assert run("bench", "--json").exit_code == 0


def test_the_priors_k_experts_stay(run, toy_pack, own_home):
    for name in ("toys/ball", "toys/box"):
        assert run("pack", "remove", "toys", name, "--yes").exit_code == 0
    result = run("pack", "remove", "toys", "toys/cup", "--yes")
    assert result.exit_code == 5
    assert result.stderr == (
        "error: pack 'toys' has 2 experts and leans on K = 2 of them: it cannot do with fewer\n"
        "hint: build it again with a smaller k in [prior] of its recipe, or remove the whole pack\n"
    )
    assert Pack(own_home / "cache/packs/toys").verify() == []


@pytest.mark.parametrize(
    ("expert", "code", "message"),
    [
        ("toys/bal", 3, "error: no expert in this pack named 'toys/bal'\nhint: did you mean 'toys/ball'?\n"),
        ("toys/mug", 5, "error: 'toys/mug' is no expert of pack 'toys': its role is unseen\n"),
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
    assert (result.exit_code, packs(own_home)) == (4, ["toys"])


def test_of_a_bundled_pack_a_copy_is_changed(run, own_home):
    folder, bundled = own_home / "cache/packs/starter", Pack(bundled_folder())
    result = run("pack", "remove", "starter", "pets/birman", "--json")
    notes = [
        "pack 'starter' is bundled and stays as it is: this copy of it hides it",
        "calibrated, cvae, joint: trained with the expert, not trained again",
    ]
    assert json.loads(result.stdout) == {
        "pack": "starter",
        "expert": "pets/birman",
        "folder": str(folder),
        "notes": notes,
    }
    assert (len(Pack(folder).experts.names), len(bundled.experts.names)) == (27, 28)
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
    assert packs(own_home) == ["toys"]
