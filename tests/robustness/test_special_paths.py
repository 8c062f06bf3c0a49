"""Pipes, devices and links in the place of files: refused or followed, never waited for and never replaced."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import threading
from pathlib import Path

import pytest

from sglora_cli.errors import BadFile, UsageError, failure_of
from sglora_cli.files.atomic import check_free, drop_drafts, put_file, put_folder, recover, write_bytes
from sglora_cli.files.untrusted import read_bytes

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
REFUSED = "is a device, a pipe or a socket, not a file"


@pytest.fixture(autouse=True)
def no_waiting():
    """A test that waits for the other end of a pipe fails."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits for a pipe"))
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def is_pipe(path: Path) -> bool:
    return stat.S_ISFIFO(path.lstat().st_mode)


@pytest.mark.parametrize("linked", [False, True])
def test_a_result_does_not_replace_a_pipe(pipe, tmp_path, linked):
    path = tmp_path / "link" if linked else pipe
    if linked:
        path.symlink_to(pipe)
    for write in (lambda: write_bytes(path, b"x"), lambda: check_free(path, force=True)):
        with pytest.raises(UsageError, match=REFUSED):
            write()
    assert is_pipe(pipe)
    assert path.is_symlink() == linked
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted({path.name, "pipe"})


def test_a_result_is_written_where_a_link_leads(tmp_path):
    (tmp_path / "folder").mkdir()
    for name in ("there", "new"):
        (tmp_path / name).symlink_to(tmp_path / "folder" / name)
    (tmp_path / "folder/there").write_bytes(b"old")
    for name in ("there", "new"):
        write_bytes(tmp_path / name, b"new")
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / "folder" / name).read_bytes() == b"new"
        (tmp_path / "draft").write_bytes(b"newer")
        put_file(tmp_path / "draft", tmp_path / name)
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / "folder" / name).read_bytes() == b"newer"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "new", "there"]
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["new", "there"]


def test_a_pipe_named_like_a_draft_is_left_alone(tmp_path):
    draft = tmp_path / ".pug.safetensors.abcdefgh.draft"
    os.mkfifo(draft)
    drop_drafts(tmp_path / "pug.safetensors")
    write_bytes(tmp_path / "pug.safetensors", b"x")
    assert is_pipe(draft)


def test_a_pipe_that_nobody_writes_to_has_no_bytes(pipe):
    assert read_bytes(pipe, 10) == b""


def test_a_pipe_is_read_to_its_end_as_its_program_writes(pipe):
    def write():
        with pipe.open("wb", buffering=0) as file:
            for part in (b"one ", b"two"):
                file.write(part)
                threading.Event().wait(0.2)

    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # so that the program may begin
    writer = threading.Thread(target=write)
    writer.start()
    threading.Event().wait(0.1)
    assert read_bytes(pipe, 100) == b"one two"
    writer.join()
    os.close(reader)


STARTER = ("-o", "x.safetensors", "--backbone", "starter")
COMMANDS = {
    "generate": (("generate", "a pug", "-o", "{pipe}.safetensors", "--force"), 2, REFUSED),
    "report": (("report", "rows.jsonl", "-o", "{pipe}.html"), 2, REFUSED),
    "bench": (("bench", "--baselines", "zero-shot", "--as", "csv", "-o", "{pipe}"), 2, REFUSED),
    "bench --rows": (("bench", "--baselines", "zero-shot", "--rows", "{pipe}"), 6, "cannot write"),
    "bench --adapter": (("bench", "--adapter", "{pipe}.safetensors"), 4, "is a pipe, a socket or a device"),
    "inspect": (("inspect", "{pipe}.safetensors"), 4, "is a pipe, a socket or a device"),
    "inspect without an ending": (("inspect", "{pipe}"), 4, "is a pipe, a socket or a device"),
    "import": (("import", "{pipe}", "-o", "x.safetensors"), 4, "is a pipe, a socket or a device"),
    "import folder": (
        ("import", "peft", *STARTER),
        4,
        "is a pipe, a socket or a device",
    ),
    "import config": (("import", "config", *STARTER), 4, "line 1: not JSON"),
    "diff": (("diff", "{pipe}.safetensors", "{pipe}.safetensors"), 4, "is a pipe, a socket or a device"),
    "pack import": (("pack", "import", "{pipe}"), 4, "is a pipe, a socket or a device"),
    "sentences": (("generate", "--file", "{pipe}"), 4, "has no sentences"),
    "photos": (("search", "{pipe}", "a pug"), 4, "lists no photo"),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_a_command_refuses_a_pipe_and_leaves_it(run, pipe, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    for name in ("pipe.safetensors", "pipe.html"):
        os.mkfifo(tmp_path / name)
    for folder, file in (("peft", "adapter_model.safetensors"), ("config", "adapter_config.json")):
        (tmp_path / folder).mkdir()
        os.mkfifo(tmp_path / folder / file)
    (tmp_path / "peft/adapter_config.json").write_text('{"peft_type": "LORA", "target_modules": ["q_proj"]}')
    arguments, code, message = COMMANDS[case]
    result = run(*(one.format(pipe=pipe) for one in arguments))
    assert message in result.stderr
    assert result.exit_code == code
    assert all(map(is_pipe, (pipe, tmp_path / "pipe.safetensors", tmp_path / "pipe.html")))


def test_a_device_is_not_replaced_either(tmp_path):
    with pytest.raises(UsageError, match=REFUSED):
        write_bytes(Path(os.devnull), b"x")
    assert Path(os.devnull).is_char_device()


@pytest.mark.parametrize("name", ["漢" * 80, "\U0001d504" * 62, "a" * 250, os.fsdecode(b"\xff" * 250)])
def test_every_name_that_the_file_system_takes_can_be_written(tmp_path, name, monkeypatch):
    monkeypatch.setattr("sglora_cli.files.atomic.exchanged", lambda *_: False)  # as on systems other than Linux
    write_bytes(tmp_path / name, b"x")
    assert (tmp_path / name).read_bytes() == b"x"
    (tmp_path / name).unlink()
    for content in (b"1", b"2"):
        (tmp_path / "new").mkdir()
        (tmp_path / "new/file").write_bytes(content)
        recover(tmp_path / name)
        put_folder(tmp_path / "new", tmp_path / name)
        assert (tmp_path / name / "file").read_bytes() == content
    assert [os.fspath(p) for p in tmp_path.iterdir()] == [os.fspath(tmp_path / name)]


def test_an_unreadable_path_stays_an_error_of_its_own(tmp_path):
    with pytest.raises(BadFile, match="does not exist"):
        read_bytes(tmp_path / "none", 10)


ODD = os.fsdecode(b"p\xffg")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no names that are not UTF-8")
def test_names_that_are_not_utf_8_are_used_or_refused(run, tmp_path, monkeypatch, own_home):
    monkeypatch.chdir(tmp_path)
    out = f"{ODD}.safetensors"
    made = run("generate", "a pug", "-o", out, "--json")
    assert made.exit_code == 0, made.stderr
    json.loads(made.stdout)
    for arguments in (("inspect", out), ("diff", out, out), ("export", out, "-o", f"{ODD}/"), ("list", ".")):
        result = run(*arguments)
        assert (result.exit_code, result.stderr) == (0, ""), result.output
    assert Path(out).is_file()
    result = run("settings", "set", "data", ODD)  # a folder now, which the settings file cannot name
    assert result.exit_code == 2
    assert result.stderr.startswith("error: a name is not UTF-8: ")
    assert result.stderr.endswith("\nhint: rename the file or folder\n")


def test_text_that_another_encoding_lacks_is_still_a_bug():
    for text, encoding in (("é", "ascii"), ("漢", "latin-1")):
        with pytest.raises(UnicodeEncodeError) as error:
            text.encode(encoding)
        assert failure_of(error.value) is None
