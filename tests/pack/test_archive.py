"""Packs as one file: the way there and back."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zipfile

import pytest
from zips import contents, listed, packs, rezipped, tree

from sglora_cli.pack import archive as archive_module


def test_a_pack_comes_back_as_it_was(run, toy_pack, tmp_path, own_home):
    first, second = tmp_path / "a.sglora.zip", tmp_path / "b.zip"
    folder = own_home / "cache/packs/toys"
    before = tree(folder)
    exported = run("pack", "export", "toys", "-o", first)
    size, sha256 = first.stat().st_size, hashlib.sha256(first.read_bytes()).hexdigest()
    assert exported.stdout == f"{first}\n"
    assert exported.stderr == f"pack       toys, {len(before)} files, {size} bytes\nsha256     {sha256}\n"
    run("pack", "remove", "toys", "--yes")
    assert not folder.exists()

    imported = run("pack", "import", first)
    assert imported.stdout == f"{folder}\n"
    assert imported.stderr == "pack       toys, 4 experts\nbackbone   tiny, fingerprint tiny-1\n"
    assert tree(folder) == before
    assert stat.S_IMODE(folder.stat().st_mode) & 0o700 == 0o700
    assert run("pack", "verify", "toys").exit_code == 0
    assert run("generate", "a mug", "--pack", "toys").exit_code == 0
    os.utime(folder / "pack.json")  # times are not content
    facts = json.loads(run("pack", "export", "toys", "-o", second, "--json").stdout)
    assert facts == {"file": str(second), "pack": "toys", "bytes": size, "sha256": sha256}
    assert first.read_bytes() == second.read_bytes()


def test_the_archive_is_plain_sorted_and_without_dates(archive):
    with zipfile.ZipFile(archive) as file:
        entries = file.infolist()
    assert [e.filename for e in entries] == sorted(e.filename for e in entries)
    assert {e.date_time for e in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {e.compress_type for e in entries} == {zipfile.ZIP_STORED}
    assert {oct(e.external_attr >> 16) for e in entries} == {"0o100644"}


def test_a_deflated_archive_is_read_too(run, archive, tmp_path):
    files = contents(archive)
    with zipfile.ZipFile(tmp_path / "d.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in reversed(files.items()):
            file.writestr(name, data)
    assert run("pack", "import", tmp_path / "d.zip").exit_code == 0
    assert run("pack", "verify", "toys").exit_code == 0


def test_a_pack_takes_another_name(run, archive, own_home):
    report = json.loads(run("pack", "import", archive, "--name", "mine", "--json").stdout)
    folder = own_home / "cache/packs/mine"
    assert report == {
        "pack": "mine",
        "backbone": "tiny",
        "fingerprint": "tiny-1",
        "folder": str(folder),
        "signed_by": None,
        "warnings": [],
    }
    assert json.loads((folder / "pack.json").read_text())["name"] == "mine"
    assert (folder / "README.md").read_text().startswith("# mine\n")
    assert run("pack", "verify", "mine").exit_code == 0


UNSAFE = ("x$(touch y)", "a b", "; rm -rf ~", "~", "*", "`y`", "é", "con", "NUL.txt", "com1", "a.", "<b>")


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "-x", "a\nb", "x" * 101, "c:", "a\\b", *UNSAFE])
def test_a_name_that_is_no_folder_is_refused(run, archive, own_home, name):
    result = run("pack", "import", archive, f"--name={name}")
    assert result.exit_code == 2
    hint = "use letters, digits and hyphens, and no name that Windows reserves"
    assert result.stderr == f"error: invalid pack name {name[:100]!r}\nhint: {hint}\n"
    assert packs(own_home) == []


def test_a_pack_that_is_there_stays_unless_forced(run, toy_pack, tmp_path, own_home):
    path, folder = tmp_path / "toys.zip", own_home / "cache/packs/toys"
    run("pack", "export", "toys", "-o", path)
    (folder / "README.md").write_text("mine")
    result = run("pack", "import", path)
    assert result.stderr == (
        f"error: pack 'toys' exists in {folder}\nhint: pass --name NAME, or --force to replace it\n"
    )
    assert (result.exit_code, (folder / "README.md").read_text()) == (2, "mine")
    assert run("pack", "import", path, "--force").exit_code == 0
    assert run("pack", "verify", "toys").exit_code == 0
    assert packs(own_home) == ["toys"]


def test_a_failed_import_keeps_the_pack_that_is_there(run, toy_pack, tmp_path, own_home):
    path, folder = tmp_path / "toys.zip", own_home / "cache/packs/toys"
    run("pack", "export", "toys", "-o", path)
    files = contents(path)
    before = tree(folder)
    rezipped(path, {**files, "joint.safetensors": files["joint.safetensors"] + b"x"})
    assert run("pack", "import", path, "--force").exit_code == 4
    assert tree(folder) == before
    assert packs(own_home) == ["toys"]


def test_a_damaged_pack_is_not_exported(run, toy_pack, tmp_path, own_home):
    (own_home / "cache/packs/toys/README.md").write_text("changed")
    result = run("pack", "export", "toys", "-o", tmp_path / "x.zip")
    assert result.exit_code == 4
    assert result.stderr == (
        "error: pack 'toys' is damaged: README.md has changed since the pack was built\nhint: build or fetch it again\n"
    )
    assert not (tmp_path / "x.zip").exists()


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("x.tar", "a pack file must end in .zip, got {}", "try -o {}"),
        ("there.zip", "{} exists", "choose another name, or pass --force to replace it"),
        ("folder.zip", "{} is a folder", "choose another name"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused(run, toy_pack, tmp_path, name, message, hint):
    (tmp_path / "there.zip").write_text("mine")
    (tmp_path / "folder.zip").mkdir()
    path = tmp_path / name
    result = run("pack", "export", "toys", "-o", path)
    assert result.exit_code == 2
    assert result.stderr == f"error: {message.format(path)}\nhint: {hint.format(tmp_path / 'x.sglora.zip')}\n"
    assert (tmp_path / "there.zip").read_text() == "mine"
    assert run("pack", "export", "toys", "-o", tmp_path / "there.zip", "--force").exit_code == 0


def test_a_pack_is_not_written_into_itself(run, toy_pack, own_home):
    path = own_home / "cache/packs/toys/experts/x.zip"
    result = run("pack", "export", "toys", "-o", path)
    assert (result.exit_code, result.stderr) == (
        2,
        f"error: {path} is inside the pack\nhint: write it elsewhere with -o FILE\n",
    )
    assert run("pack", "verify", "toys").exit_code == 0


def test_an_interrupted_import_leaves_nothing(run, archive, own_home, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(archive_module, "_copied", interrupt)
    assert run("pack", "import", archive).exit_code == 130
    assert packs(own_home) == []


def test_without_o_the_file_is_called_like_the_pack(run, toy_pack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("pack", "export", "toys").stdout == "toys.sglora.zip\n"
    assert (tmp_path / "toys.sglora.zip").is_file()


def test_a_backbone_that_is_not_here_is_warned_about(run, archive, tmp_path):
    rezipped(archive, listed(contents(archive), backbone="tinny"))
    assert run("pack", "import", archive).stderr.splitlines()[2:] == [
        "warning: its backbone is not available: no backbone named 'tinny'; install the plugin that provides it"
    ]


def test_a_bundled_pack_is_hidden_and_brought_back(run, archive, own_home):
    result = run("pack", "import", archive, "--name", "starter")
    assert (
        result.stderr.splitlines()[2]
        == "warning: it hides the bundled pack 'starter'; `sglora pack remove starter` restores the bundled one"
    )
    assert run("pack", "remove", "starter", "--yes").stderr.splitlines()[1] == (
        "note       the bundled pack 'starter' is no longer hidden"
    )
