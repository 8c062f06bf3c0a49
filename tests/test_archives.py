"""Packs as one file: the way there and back, and everything an archive may try."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import zipfile
from pathlib import Path

import pytest

from sglora_cli import archives

AGAIN = "ask for a file made by `sglora pack export`"


_made: dict[str, bytes] = {}


@pytest.fixture
def archive(request, tiny, run, tmp_path) -> Path:
    """The toy pack as a file, and no pack in the user's cache. It is built for the first test only."""
    path = tmp_path / "toys.sglora.zip"
    if not _made:
        assert run("pack", "export", request.getfixturevalue("toy_pack"), "-o", path).exit_code == 0
        assert run("pack", "remove", "toys", "--yes").exit_code == 0
        _made["toys"] = path.read_bytes()
    path.write_bytes(_made["toys"])
    return path


def packs(own_home: Path) -> list[str]:
    """Names in the folder of built packs, hidden ones too."""
    folder = own_home / "cache/packs"
    return os.listdir(folder) if folder.exists() else []


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {entry.filename: file.read(entry) for entry in file.infolist()}


def rezipped(path: Path, files: dict[str, bytes], *more: tuple[zipfile.ZipInfo, bytes]) -> Path:
    """An archive of these files and entries; a new pack.json is made if the files lack one."""
    with zipfile.ZipFile(path, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
        for entry, data in more:
            file.writestr(entry, data)
    return path


def listed(contents: dict[str, bytes], **changes: object) -> dict[str, bytes]:
    """The files with a pack.json that lists them as they are, but for the changes."""
    manifest = json.loads(contents["pack.json"])
    rest = {name: data for name, data in contents.items() if name != "pack.json"}
    manifest["files"] = {name: hashlib.sha256(data).hexdigest() for name, data in rest.items()}
    return {"pack.json": json.dumps({**manifest, **changes}).encode(), **rest}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


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
    found = json.loads(run("pack", "import", archive, "--name", "mine", "--json").stdout)
    folder = own_home / "cache/packs/mine"
    assert found == {
        "pack": "mine",
        "backbone": "tiny",
        "fingerprint": "tiny-1",
        "folder": str(folder),
        "warnings": [],
    }
    assert json.loads((folder / "pack.json").read_text())["name"] == "mine"
    assert (folder / "README.md").read_text().startswith("# mine\n")
    assert run("pack", "verify", "mine").exit_code == 0


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "-x", "a\nb", "x" * 101, "c:", "a\\b"])
def test_a_name_that_is_no_folder_is_refused(run, archive, own_home, name):
    result = run("pack", "import", archive, f"--name={name}")
    assert result.exit_code == 2
    assert result.stderr == f"error: a pack cannot be called {name[:100]!r}\nhint: take letters, digits and hyphens\n"
    assert packs(own_home) == []


def test_a_pack_that_is_there_stays_unless_forced(run, toy_pack, tmp_path, own_home):
    path, folder = tmp_path / "toys.zip", own_home / "cache/packs/toys"
    run("pack", "export", "toys", "-o", path)
    (folder / "README.md").write_text("mine")
    result = run("pack", "import", path)
    assert result.stderr == (
        f"error: a pack 'toys' exists in {folder}\nhint: pass --name NAME, or --force to replace it\n"
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
        ("x.tar", "a pack is written as .zip, got {}", "try -o {}"),
        ("there.zip", "{} exists", "choose another name with -o, or pass --force to replace it"),
        ("folder.zip", "{} is a folder", ""),
    ],
)
def test_a_place_that_cannot_be_written_is_refused(run, toy_pack, tmp_path, name, message, hint):
    (tmp_path / "there.zip").write_text("mine")
    (tmp_path / "folder.zip").mkdir()
    path = tmp_path / name
    result = run("pack", "export", "toys", "-o", path)
    assert result.exit_code == 2
    expected = f"error: {message.format(path)}\n"
    assert result.stderr == expected + (f"hint: {hint.format(tmp_path / 'x.sglora.zip')}\n" if hint else "")
    assert (tmp_path / "there.zip").read_text() == "mine"
    assert run("pack", "export", "toys", "-o", tmp_path / "there.zip", "--force").exit_code == 0


def test_without_o_the_file_is_called_like_the_pack(run, toy_pack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("pack", "export", "toys").stdout == "toys.sglora.zip\n"
    assert (tmp_path / "toys.sglora.zip").is_file()


def test_a_backbone_that_is_not_here_is_warned_about(run, archive, tmp_path):
    rezipped(archive, listed(contents(archive), backbone="tinny"))
    assert run("pack", "import", archive).stderr.splitlines()[2:] == [
        "warning: its backbone is not usable here: no backbone named 'tinny'; install the plugin that brings it"
    ]


def test_a_bundled_pack_is_hidden_and_brought_back(run, archive, own_home):
    found = run("pack", "import", archive, "--name", "starter")
    assert (
        found.stderr.splitlines()[2]
        == "warning: it hides the bundled pack 'starter'; `sglora pack remove starter` brings it back"
    )
    assert run("pack", "remove", "starter", "--yes").stderr.splitlines()[1] == (
        "note       the bundled pack 'starter' is no longer hidden"
    )


def entry(name: str, mode: int = 0o100644, **fields: object) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    for field, value in fields.items():
        setattr(info, field, value)
    return info


LONG = "experts/" + "x" * 256
DEEP = "/".join(["d" * 200] * 6)
SYSTEMS = "are the same file on some systems"
KIND = "is a link, a folder or a device, not a file"
OUT = "is a folder, or its name leads out of the pack"
SIGNS = "has a backslash, a colon or a control character in its name"
ENTRIES = {
    "parent": (entry("../x"), b"", f"entry '../x' {OUT}"),
    "inner parent": (entry("experts/../../x"), b"", f"entry 'experts/../../x' {OUT}"),
    "absolute": (entry("/etc/x"), b"", f"entry '/etc/x' {OUT}"),
    "dot": (entry("./x"), b"", f"entry './x' {OUT}"),
    "empty part": (entry("experts//x"), b"", f"entry 'experts//x' {OUT}"),
    "folder": (entry("experts/", 0o040755), b"", f"entry 'experts/' {OUT}"),
    "backslash": (entry("..\\x"), b"", f"entry '..\\\\x' {SIGNS}"),
    "drive": (entry("C:x"), b"", f"entry 'C:x' {SIGNS}"),
    "control": (entry("a\x1b[2Jb"), b"", f"entry 'a\\x1b[2Jb' {SIGNS}"),
    "link": (entry("link", 0o120777), b"/etc/passwd", f"entry 'link' {KIND}"),
    "pipe": (entry("pipe", 0o010644), b"", f"entry 'pipe' {KIND}"),
    "device": (entry("device", 0o060644), b"", f"entry 'device' {KIND}"),
    "hidden folder": (entry("x", external_attr=0x10), b"", f"entry 'x' {KIND}"),
    "twice": (entry("README.md"), b"", f"entries 'README.md' and 'README.md' {SYSTEMS}"),
    "twice by case": (entry("readme.MD"), b"", f"entries 'README.md' and 'readme.MD' {SYSTEMS}"),
    "file and folder": (entry("README.md/x"), b"", "entry 'README.md' is a file and a folder"),
    "long": (entry(LONG), b"", f"entry {LONG[:100]!r} has a name of 264 bytes, more than a file system allows"),
    "deep": (entry(DEEP), b"", f"entry {DEEP[:100]!r} has a name of 1205 bytes, more than a file system allows"),
    "bomb": (
        entry("bomb", compress_type=zipfile.ZIP_DEFLATED),
        bytes(5_000_000),
        "entry 'bomb' would grow from {size} to 5000000 bytes",
    ),
    "method": (
        entry("x", compress_type=zipfile.ZIP_BZIP2),
        b"x",
        "entry 'x' is compressed by method 12, which no pack uses",
    ),
    "not listed": (entry("evil.py"), b"import os", "'evil.py' is not listed in pack.json"),
    "second manifest": (entry("experts/pack.json"), b"{}", "'experts/pack.json' is not listed in pack.json"),
}


def refused(run, own_home: Path, path: Path, message: str, hint: str = AGAIN, code: int = 4) -> None:
    """The import says so, and leaves nothing anywhere."""
    around = sorted(p for p in path.parent.rglob("*") if "data" not in p.parts)
    result = run("pack", "import", path)
    assert result.stderr == f"error: {message}\n" + (f"hint: {hint}\n" if hint else "")
    assert (result.exit_code, result.stdout) == (code, "")
    assert packs(own_home) == []
    assert sorted(p for p in path.parent.rglob("*") if "data" not in p.parts) == around


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("case", ENTRIES)
def test_an_entry_that_no_pack_has_is_refused(run, archive, own_home, case):
    info, data, message = ENTRIES[case]
    rezipped(archive, contents(archive), (info, data))
    with zipfile.ZipFile(archive) as file:
        size = file.infolist()[-1].compress_size
    refused(run, own_home, archive, f"{archive}: {message.replace('{size}', str(size))}")


def test_a_name_cut_by_a_nul_is_refused(run, archive, own_home):
    rezipped(archive, contents(archive), (entry("READMExmd.txt"), b""))
    archive.write_bytes(archive.read_bytes().replace(b"READMExmd.txt", b"README.md\0txt"))
    refused(run, own_home, archive, f"{archive}: entry 'README.md\\x00txt' {SIGNS}")


def test_an_encrypted_entry_is_refused(run, archive, own_home):
    data = bytearray(archive.read_bytes())
    where = data.index(b"PK\1\2")
    data[where + 8] |= 1  # the flag in the central directory
    archive.write_bytes(data)
    refused(run, own_home, archive, f"{archive}: entry 'README.md' is encrypted")


def test_too_many_entries_are_refused(run, archive, own_home, monkeypatch):
    monkeypatch.setattr(archives, "ENTRY_LIMIT", 3)
    refused(run, own_home, archive, f"{archive} has {len(contents(archive))} entries, more than 3")


def test_too_much_content_is_refused(run, archive, own_home, monkeypatch):
    monkeypatch.setattr(archives, "TOTAL_LIMIT", 1000)
    total = sum(map(len, contents(archive).values()))
    refused(run, own_home, archive, f"{archive} would unpack to {total} bytes, more than 1000")


def test_a_manifest_of_any_size_is_not_read(run, archive, own_home, monkeypatch):
    monkeypatch.setattr(archives, "MANIFEST_LIMIT", 10)
    size = len(contents(archive)["pack.json"])
    refused(run, own_home, archive, f"{archive}: pack.json has {size} bytes, more than 10")


def test_a_pack_larger_than_the_disk_is_refused(run, archive, own_home, monkeypatch):
    from collections import namedtuple

    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(7))
    total, there = sum(map(len, contents(archive).values())), own_home / "cache/packs"
    there.mkdir(parents=True, exist_ok=True)
    message = f"the pack needs {total} bytes, {there} has 7 left"
    refused(run, own_home, archive, message, "make room there", code=6)


def test_bytes_are_counted_whatever_an_entry_declares():
    out = io.BytesIO()
    digest, size = archives._copied(io.BytesIO(bytes(5 << 20)), out, limit=10)
    assert size == 1 << 20 == len(out.getvalue())
    assert digest == hashlib.sha256(bytes(1 << 20)).hexdigest()


def test_a_changed_file_is_named(run, archive, own_home):
    files = contents(archive)
    rezipped(archive, {**files, "joint.safetensors": files["joint.safetensors"][:-1] + b"!"})
    message = f"{archive}: entry 'joint.safetensors' is not what pack.json says: its hash differs"
    refused(run, own_home, archive, message, "fetch it again")


def test_a_missing_file_is_named(run, archive, own_home):
    files = contents(archive)
    del files["joint.safetensors"]
    rezipped(archive, files)
    refused(run, own_home, archive, f"{archive}: 'joint.safetensors' is missing")


@pytest.mark.parametrize(
    ("manifest", "message", "hint"),
    [
        (None, "{} has no pack.json, so it is no pack", AGAIN),
        (b"{", "{}, pack.json, line 1: not JSON: Expecting property name enclosed in double quotes", ""),
        (b"[" * 100_000, "{}, pack.json: nested too deeply", ""),
        (b"\xff", "cannot read {}, pack.json: 'utf-8' codec can't decode byte 0xff in position 0", None),
        (b"9" * 5000, "cannot read {}, pack.json: Exceeds the limit", None),
        (b"[]", "{}/pack.json is not a table", ""),
        (b'{"format": 99}', "{}/pack.json has format 99, this program reads 1", "update sglora"),
        (b'{"format": 1}', "{}/pack.json: name must be a str, got None", ""),
    ],
)
def test_a_broken_manifest_is_refused(run, archive, own_home, manifest, message, hint):
    files = contents(archive)
    del files["pack.json"]
    rezipped(archive, files if manifest is None else {**files, "pack.json": manifest})
    if hint is not None:
        refused(run, own_home, archive, message.format(archive), hint)
    else:
        result = run("pack", "import", archive)
        assert result.exit_code == 4
        assert result.stderr.startswith("error: " + message.format(archive))


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"name": "../../x"}, "{}: the pack is called '../../x', which cannot be a folder's name", "pass --name NAME"),
        ({"name": ""}, "{}: the pack is called '', which cannot be a folder's name", "pass --name NAME"),
        (
            {"files": {"../x": ""}},
            "'../x' leads out of {}",
            "remove it; a pack or data set names only files of its own",
        ),
        ({"files": {"a\0": ""}}, "'a\\x00' is no file name", ""),
        ({"files": {"\ud800": ""}}, "'\\ud800' is no file name", ""),
        (
            {"backbone": "tiny\x1b[2J"},
            "{}/pack.json has a control character in 'tiny\\x1b[2J'",
            "it could do anything to a terminal",
        ),
        ({"layout": {}}, "{}: pack.json: not a LoRA layout: 'sites'", AGAIN),
        ({"tasks": []}, "{}: pack.json names no expert", AGAIN),
        ({"prior": {"k": "4"}}, "{}: pack.json, prior: k must be a whole number, got '4'", AGAIN),
    ],
)
def test_a_manifest_that_lies_is_refused(run, archive, own_home, changes, message, hint):
    rezipped(archive, listed(contents(archive), **changes))
    refused(run, own_home, archive, message.format(archive), hint)


def test_a_listed_file_that_is_no_tensor_file_is_refused(run, archive, own_home):
    files = contents(archive)
    name = next(n for n in files if n.startswith("experts/"))
    rezipped(archive, listed({**files, name: b"\x80\x04cos\nsystem\n."}))
    result = run("pack", "import", archive)
    assert result.exit_code == 4
    assert result.stderr.startswith(f"error: {archive}: {name} ")
    assert packs(own_home) == []


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip" * 100, b"PK\5\6" + bytes(18)])
def test_what_is_no_archive_is_refused(run, toy_pack, tmp_path, content):
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    result = run("pack", "import", path)
    assert result.exit_code == 4
    assert result.stderr.startswith(f"error: {path} ")


def test_an_archive_cut_or_changed_anywhere_is_refused_or_whole(run, archive, own_home):
    data = archive.read_bytes()
    for step in range(0, len(data), max(1, len(data) // 60)):
        for changed in (data[:step], data[:step] + bytes([data[step] ^ 0xFF]) + data[step + 1 :]):
            archive.write_bytes(changed)
            result = run("pack", "import", archive)
            assert result.exit_code in (0, 4), (step, result.output, result.exception)
            if result.exit_code == 0:  # a byte that means nothing, such as a date
                assert run("pack", "verify", "toys").exit_code == 0
                run("pack", "remove", "toys", "--yes")
            assert packs(own_home) == []


def test_a_file_that_is_not_there_is_named(run, tmp_path):
    result = run("pack", "import", tmp_path / "x.zip")
    assert result.stderr == f"error: {tmp_path / 'x.zip'} does not exist\n"
    assert result.exit_code == 4
    result = run("pack", "import", tmp_path)
    assert result.stderr == (
        f"error: {tmp_path} is a folder, not an archive\nhint: name the file that `sglora pack export` wrote\n"
    )
