"""Packs that are removed: what is asked, what is said, and what is left."""

from __future__ import annotations

import json
import shutil

import pytest
from pack_folders import BUNDLED, built_packs

from sglora_cli.pack.library import Library
from sglora_cli.pack.pack import Pack


def test_a_built_pack_is_removed(run, toy_pack, own_home):
    folder = own_home / "cache/packs/toys"
    result = run("pack", "remove", "toys", "--yes")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{folder}\n", "removed    toys\n")
    assert built_packs(own_home) == []
    assert run("pack", "list").stdout == "*  starter  starter  36 experts  bundled\n"


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_argument_removes_nothing(run, toy_pack, own_home, empty):
    for arguments, what in ((("toys", empty), "EXPERT"), ((empty,), "PACK")):
        result = run("pack", "remove", *arguments, "--yes")
        assert result.exit_code == 2
        assert result.stderr == f"error: {what} is empty\nhint: pass a value; --help describes it\n"
    assert built_packs(own_home) == ["toys"]
    assert Pack(own_home / "cache/packs/toys").verify() == []


def test_the_copy_that_another_process_has_just_made_is_what_is_changed(run, tmp_path, own_home):
    library, target = Library([BUNDLED.parent]), own_home / "cache/packs/starter"
    assert library.own_folder(BUNDLED) == target
    assert library.copied(BUNDLED) == BUNDLED
    shutil.copytree(BUNDLED, target)  # while this process waited for the lock
    assert library.copied(BUNDLED) == target
    assert library.copied(target) == target
    assert library.copied(tmp_path) == tmp_path


def test_without_a_terminal_a_yes_is_needed(run, toy_pack, own_home):
    folder = own_home / "cache/packs/toys"
    for expert, what in (("", "pack 'toys'"), ("toys/ball", "expert toys/ball from pack 'toys'")):
        result = run("pack", "remove", "toys", *filter(None, [expert]))
        assert result.exit_code == 2
        assert result.stderr == (
            f"error: confirmation to remove {what} in {folder} needs a terminal\nhint: pass --yes\n"
        )
    assert len(Pack(folder).experts.names) == 4


def test_on_a_terminal_it_asks(answer, toy_pack, own_home):
    folder = own_home / "cache/packs/toys"
    result = answer("n\n", "pack", "remove", "toys")
    assert result.exit_code == 130
    assert result.stderr == f"remove pack 'toys' in {folder}? [y/N]: n\nnothing was removed\n"
    asked_json = answer("n\n", "pack", "remove", "toys", "--json")
    assert asked_json.stdout == ""
    assert json.loads(asked_json.stderr.splitlines()[-1]) == {
        "error": {"class": "Declined", "message": "nothing was removed", "hint": "", "exit_code": 130}
    }
    assert built_packs(own_home) == ["toys"]
    assert answer("y\n", "pack", "remove", "toys").exit_code == 0
    assert built_packs(own_home) == []


def test_a_bundled_pack_stays(run, own_home):
    bundled = Pack(BUNDLED)
    for thing in ("starter", str(bundled.folder)):
        result = run("pack", "remove", thing, "--yes")
        assert result.exit_code == 2
        assert result.stderr == (
            "error: pack 'starter' is bundled with a plugin and cannot be removed\n"
            "hint: uninstall the plugin, or build a pack with the same name to hide it\n"
        )
    assert bundled.verify() == []


def test_a_folder_of_the_user_stays(run, tiny, toys, recipe, tmp_path, own_home):
    folder = tmp_path / "mine"
    assert run("pack", "build", recipe, "--data", toys, "-o", folder).exit_code == 0
    result = run("pack", "remove", folder, "--yes")
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: {folder} is not one of the packs in {own_home / 'cache/packs'}\nhint: delete the folder yourself\n"
    )
    assert run("pack", "remove", folder, "toys/ball", "--yes").stdout == f"{folder}\n"
    assert tuple(Pack(folder).experts.names) == ("toys/box", "toys/cup", "toys/hat")


def test_of_a_link_only_the_link_is_removed(run, toy_pack, tmp_path, own_home):
    folder, elsewhere = own_home / "cache/packs/toys", tmp_path / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    assert run("pack", "remove", "toys", "--yes").exit_code == 2  # it lies elsewhere
    assert Pack(elsewhere).verify() == []


def test_a_pack_that_the_settings_name_is_said(run, toy_pack, monkeypatch):
    monkeypatch.setenv("SGLORA_PACK", "toys")
    assert run("pack", "remove", "toys", "--yes").stderr == (
        "removed    toys\nnote       the default pack in the settings is still 'toys'\n"
    )


def test_a_damaged_pack_can_be_removed(run, toy_pack, own_home):
    (own_home / "cache/packs/toys/pack.json").write_text("{")
    assert run("pack", "remove", "toys", "--yes").exit_code == 0
    assert built_packs(own_home) == []
