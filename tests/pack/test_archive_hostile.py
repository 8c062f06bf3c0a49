"""Everything an archive may try: each is refused with its entry named, and nothing is written."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from zips import contents, listed, packs, rezipped

from sglora_cli.pack import archive as archive_module

TERMINAL = "it could manipulate the terminal"
AGAIN = "use a file that `sglora pack export` wrote"


def entry(name: str, mode: int = 0o100644, **fields: object) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    for field, value in fields.items():
        setattr(info, field, value)
    return info


LONG = "experts/" + "x" * 256
DEEP = "/".join(["d" * 200] * 6)
SYSTEMS = "are the same file on some systems"
NOBODY = {"expert": 0, "training": 0, "unseen": 0}
KIND = "is a link, a folder or a device, not a file"
OUT = "is a folder, or its name leads out of the pack"
SIGNS = "has a backslash, a colon or a control character in its name"
WINDOWS = "has a name that is reserved on Windows: a device, or a part that ends in a dot or a blank"
BOTH = "is both a file and a folder"
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
    "file and folder": (entry("README.md/x"), b"", f"entry 'README.md' {BOTH}, that of 'README.md/x'"),
    "file and folder by case": (entry("readme.md/x"), b"", f"entry 'README.md' {BOTH}, that of 'readme.md/x'"),
    "dot at the end": (entry("README.md."), b"", f"entry 'README.md.' {WINDOWS}"),
    "blank at the end": (entry("README.md "), b"", f"entry 'README.md ' {WINDOWS}"),
    "device of Windows": (entry("experts/con"), b"", f"entry 'experts/con' {WINDOWS}"),
    "device with an ending": (entry("aux.txt"), b"", f"entry 'aux.txt' {WINDOWS}"),
    "folder named as a device": (entry("COM1/x"), b"", f"entry 'COM1/x' {WINDOWS}"),
    "wildcard": (entry("a*"), b"", "entry 'a*' has one of * ? \" < > | in its name, which Windows does not allow"),
    "long": (
        entry(LONG),
        b"",
        f"entry {LONG[:100]!r} has a name that has a part of 256 bytes, more than a file system allows",
    ),
    "deep": (entry(DEEP), b"", f"entry {DEEP[:100]!r} has a name that has 1205 bytes, more than a file system allows"),
    "bomb": (
        entry("bomb", compress_type=zipfile.ZIP_DEFLATED),
        bytes(5_000_000),
        "entry 'bomb' would expand from {size} to 5000000 bytes",
    ),
    "method": (
        entry("x", compress_type=zipfile.ZIP_BZIP2),
        b"x",
        "entry 'x' uses the unsupported compression method 12",
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
    monkeypatch.setattr(archive_module, "ENTRY_LIMIT", 3)
    refused(run, own_home, archive, f"{archive} has {len(contents(archive))} entries, the limit is 3")


def test_too_much_content_is_refused(run, archive, own_home, monkeypatch):
    monkeypatch.setattr(archive_module, "TOTAL_LIMIT", 1000)
    total = sum(map(len, contents(archive).values()))
    refused(run, own_home, archive, f"{archive} would unpack to {total} bytes, the limit is 1000")


def test_many_small_bombs_are_refused_for_their_sum(run, archive, own_home, monkeypatch):
    monkeypatch.setattr(archive_module, "TOTAL_FROM", 1 << 20)
    bombs = [(entry(f"x{n}", compress_type=zipfile.ZIP_DEFLATED), bytes(1 << 20)) for n in range(30)]
    rezipped(archive, contents(archive), *bombs)
    total = sum(map(len, contents(archive).values()))
    refused(run, own_home, archive, f"{archive} has {archive.stat().st_size} bytes, but would unpack to {total}")


def test_entries_that_share_their_bytes_are_refused(run, archive, own_home):
    data = bytearray(archive.read_bytes())
    packed, last = sum(len(content) for content in contents(archive).values()), data.rindex(b"PK\1\2")
    size = int.from_bytes(data[last + 20 : last + 24], "little")
    data[last + 20 : last + 28] = (len(data)).to_bytes(4, "little") * 2  # its bytes are those of all others, too
    archive.write_bytes(data)
    message = f"{archive} has {len(data)} bytes, but would unpack to {packed - size + len(data)}"
    refused(run, own_home, archive, message)


def test_a_manifest_of_any_size_is_not_read(run, archive, own_home, monkeypatch):
    monkeypatch.setattr(archive_module, "MANIFEST_LIMIT", 10)
    size = len(contents(archive)["pack.json"])
    refused(run, own_home, archive, f"{archive}: pack.json has {size} bytes, the limit is 10")


def test_a_pack_larger_than_the_disk_is_refused(run, archive, own_home, monkeypatch):
    from collections import namedtuple

    monkeypatch.setattr(archive_module.shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(7))
    total, there = sum(map(len, contents(archive).values())), own_home / "cache/packs"
    there.mkdir(parents=True, exist_ok=True)
    message = f"the pack needs {total} bytes, but {there} has 7 bytes free"
    refused(run, own_home, archive, message, "free some space there", code=6)


def test_bytes_are_counted_whatever_an_entry_declares():
    out = io.BytesIO()
    digest, size = archive_module._copied(io.BytesIO(bytes(5 << 20)), out, limit=10)
    assert size == 1 << 20 == len(out.getvalue())
    assert digest == hashlib.sha256(bytes(1 << 20)).hexdigest()


def test_a_changed_file_is_named(run, archive, own_home):
    files = contents(archive)
    rezipped(archive, {**files, "joint.safetensors": files["joint.safetensors"][:-1] + b"!"})
    message = f"{archive}: the hash of entry 'joint.safetensors' differs from pack.json"
    refused(run, own_home, archive, message, "fetch it again")


def test_a_missing_file_is_named(run, archive, own_home):
    files = contents(archive)
    del files["joint.safetensors"]
    rezipped(archive, files)
    refused(run, own_home, archive, f"{archive}: 'joint.safetensors' is missing")


@pytest.mark.parametrize(
    ("manifest", "message", "hint"),
    [
        (None, "{} has no pack.json, so it is not a pack", AGAIN),
        (b"{", "{}, pack.json, line 1: not JSON: Expecting property name enclosed in double quotes", ""),
        (b"[" * 100_000, "{}, pack.json: nested too deeply", ""),
        (b"\xff", "{}, pack.json is not UTF-8 text: invalid start byte in line 1", None),
        (b"9" * 5000, "{}, pack.json: Exceeds the limit", None),
        (b"[]", "{}/pack.json is not a JSON object", ""),
        (b'{"format": 99}', "{}/pack.json has format 99, but this sglora reads 1 and 2", "update sglora"),
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
        ({"name": "../../x"}, "{}: the pack's name '../../x' is not a valid folder name", "pass --name NAME"),
        ({"name": "x$(touch y)"}, "{}: the pack's name 'x$(touch y)' is not a valid folder name", "pass --name NAME"),
        ({"name": "con"}, "{}: the pack's name 'con' is not a valid folder name", "pass --name NAME"),
        ({"name": ""}, "{}: the pack's name '' is not a valid folder name", "pass --name NAME"),
        (
            {"files": {"../x": ""}},
            "'../x' leads out of {}",
            "remove it; a pack or data set names only files of its own",
        ),
        ({"files": {"\ud800": ""}}, "{}, pack.json: '\\ud800' has half a character", ""),
        (
            {"backbone": "tiny\x1b[2J"},
            "{}/pack.json has a control character in 'tiny\\x1b[2J'",
            TERMINAL,
        ),
        (
            {"recipe": {"summary": [["\x9b2J"]]}},
            "{}/pack.json has a control character in '\\x9b2J'",
            TERMINAL,
        ),
        ({"files": {"a\0": ""}}, "{}/pack.json has a control character in 'a\\x00'", TERMINAL),
        ({"edits": "x"}, "{}/pack.json: edits must be a list", ""),
        ({"layout": {}}, "{}: pack.json: not a LoRA layout: 'sites'", AGAIN),
        ({"shards": [], "counts": NOBODY}, "{}: pack.json lists no experts", AGAIN),
        ({"shards": [3]}, "{}/pack.json: shards must have the number of experts of each file, 4 in all", ""),
        ({"shards": [True, 3]}, "{}/pack.json: shards must have the number of experts of each file, 4 in all", ""),
        ({"shards": [4, 0]}, "{}/pack.json: shards must have the number of experts of each file, 4 in all", ""),
        ({"shards": [2, 2]}, "{}: pack.json does not list experts/00001.safetensors", AGAIN),
        ({"counts": {"expert": 4}}, "{}/pack.json: counts must have the number of tasks of each role ({roles})", ""),
        (
            {"counts": {**NOBODY, "expert": 4, "unseen": 10**15}},
            "{}/pack.json lists only 14 files for 1000000000000004 tasks",
            "",
        ),
        ({"prior": {"k": "4"}}, "{}: pack.json, prior: k must be a whole number, got '4'", AGAIN),
    ],
)
def test_a_manifest_that_lies_is_refused(run, archive, own_home, changes, message, hint):
    rezipped(archive, listed(contents(archive), **changes))
    refused(run, own_home, archive, message.format(archive, roles="expert, training, unseen"), hint)


LINE = {"key": "a/b", "dataset": "a", "name": "b", "role": "expert", "description": "a b"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([LINE] * 3, "{} does not have 4 lines"),
        ([LINE] * 5, "{} does not have 4 lines"),
        ([LINE, LINE, {**LINE, "key": "c/d"}, {**LINE, "key": "e/f"}], "the pack has two tasks 'a/b'"),
        (["[" * 100_000, LINE, LINE, LINE], "{}, line 1: not JSON: nested too deeply"),
        ([LINE, 3, LINE, LINE], "{}, line 2: a task has no key, dataset, name, role or description"),
        ([{**LINE, "role": "unseen"}] * 4, "{}, line 1: the role of 'a/b' is 'unseen', not 'expert'"),
        ([{**LINE, "key": "a/\x1b[2J"}] * 4, "{}, line 1 has a control character in 'a/\\x1b[2J'"),
        ([{**LINE, "n": 10**40}] * 4, "{}, line 1: not JSON: a number has 41 digits"),
    ],
)
def test_tasks_that_lie_are_refused(run, archive, own_home, lines, message):
    name = "tasks/expert-00000.jsonl"
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    rezipped(archive, listed({**contents(archive), name: text.encode()}))
    refused(run, own_home, archive, f"{archive}: " + message.format(name))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mu": torch.ones(3, 4)}, "tensor 'mu' has shape [3, 4] of torch.float32, expected 4 x 288 of torch.float32"),
        ({"mu": torch.ones(4, 288).half()}, "expected 4 x 288 of torch.float32"),
        ({"mu": None}, "has no tensor 'mu' of floating-point numbers"),
        ({"mu": torch.full((4, 288), torch.nan)}, "contains numbers that are not finite"),
        ({"var": torch.full((4, 288), -1.0)}, "has a negative variance"),
        (
            {"index": torch.ones(5, 8)},
            "tensor 'index' has shape [5, 8] of torch.float32, expected 4 x any of torch.float32",
        ),
        (
            {"index": torch.ones(4, 0)},
            "tensor 'index' has shape [4, 0] of torch.float32, expected 4 x any of torch.float32",
        ),
    ],
)
def test_experts_that_do_not_fit_the_pack_are_refused(run, archive, own_home, changes, message):
    name, files = "experts/00000.safetensors", contents(archive)
    tensors = {**load(files[name]), **changes}
    data = save({key: tensor for key, tensor in tensors.items() if tensor is not None})
    rezipped(archive, listed({**files, name: data}))
    result = run("pack", "import", archive)
    assert result.exit_code == 4
    assert message in result.stderr
    assert packs(own_home) == []


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("coverage", {"tasks": torch.ones(9, 8)}, "coverage.safetensors does not fit the pack's tasks"),
        ("coverage", {"others": torch.ones(6, 1)}, "coverage.safetensors does not fit the pack's tasks"),
        ("coverage", {"background": torch.full((2, 8), torch.inf)}, "contains numbers that are not finite"),
        ("gauge", {"farthest": torch.ones(1)}, "gauge.safetensors does not fit this pack's experts"),
        ("gauge", {"mean": torch.full((288,), torch.nan)}, "contains numbers that are not finite"),
        ("visual", {"visual": torch.ones(3, 8)}, "visual.safetensors does not hold one row for each of 4 experts"),
        ("visual", {"nearest": torch.ones(4, 1)}, "visual.safetensors does not hold one row for each of 4 experts"),
    ],
)
def test_what_a_pack_keeps_beside_its_experts_fits_them(run, archive, own_home, name, changes, message):
    name, files = f"{name}.safetensors", contents(archive)
    size = int.from_bytes(files[name][:8], "little")
    metadata = json.loads(files[name][8 : 8 + size])["__metadata__"]
    data = save({**load(files[name]), **changes}, metadata=metadata)
    rezipped(archive, listed({**files, name: data}))
    result = run("pack", "import", archive)
    assert result.exit_code in (4, 5)
    assert message in result.stderr
    assert packs(own_home) == []


def test_a_row_beyond_the_end_of_its_file_is_refused(run, archive, own_home):
    name, files = "experts/00000.safetensors", contents(archive)
    size = int.from_bytes(files[name][:8], "little")
    header = files[name][8 : 8 + size].decode()
    far = header.replace('"data_offsets":[0,', f'"data_offsets":[{1 << 40},').encode()
    far = far.rstrip().ljust(-(-len(far) // 8) * 8)
    rezipped(archive, listed({**files, name: len(far).to_bytes(8, "little") + far + files[name][8 + size :]}))
    result = run("pack", "import", archive)
    assert result.exit_code == 4
    assert result.stderr.startswith(f"error: {archive}: {name} ")
    assert packs(own_home) == []


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
    assert result.stderr == f"error: {tmp_path / 'x.zip'} does not exist\nhint: searched in {tmp_path}\n"
    assert result.exit_code == 4
    result = run("pack", "import", tmp_path)
    assert result.stderr == (
        f"error: {tmp_path} is a folder, not an archive\nhint: pass the file that `sglora pack export` wrote\n"
    )
