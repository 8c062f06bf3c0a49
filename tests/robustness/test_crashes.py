"""Killed anywhere, on a full disk, without permission, at once with others: what is visible is whole."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from drafts import age_drafts
from writing_commands import COMMANDS, content, lasting

from sglora_cli.errors import Unavailable
from sglora_cli.files import atomic
from sglora_cli.files.atomic import drop_drafts, put_folder, recover, scratch_folder, write_bytes, writing
from sglora_cli.generate.session import Session
from sglora_cli.pack.library import Library
from sglora_cli.pack.pack import Pack
from sglora_cli.system.locks import locked, pack_lock
from sglora_cli.system.progress import Journal

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes that were forked")
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "shutil.copyfile"}
KILLED = 9


def in_a_child(work: Callable[[], object]) -> int:
    """The exit code of a forked process that does this."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        work()
        os._exit(0)
    except SystemExit as error:
        os._exit(int(error.code or 0))
    finally:
        os._exit(1)


def killed(root: Path, change: int, work: Callable[[], object]) -> bool:
    """Do this in a process that dies, with no chance to clean up, just before its so-manieth change below root."""
    count = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        opens = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (event in CHANGES or opens) and str(root) in str(arguments[0]):
            count += 1
            if count == change:
                os._exit(KILLED)

    def watched() -> None:
        sys.addaudithook(watch)
        work()

    return in_a_child(watched) == KILLED


def folder_of(path: Path, text: str) -> Path:
    for name in ("a", "b/c"):
        write_bytes(path / name, text.encode())
    return path


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_is_replaced_whole_wherever_the_process_is_killed(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(atomic, "exchanged", lambda one, other: False)
    target, change, dead = tmp_path / "x/pack", 0, True
    old, new = ({"a": text, "b/c": text} for text in (b"old", b"new"))

    def replace() -> None:
        with scratch_folder(target) as folder:
            put_folder(folder_of(folder, "new"), target)

    while dead:
        change += 1
        shutil.rmtree(tmp_path / "x", ignore_errors=True)
        folder_of(target, "old")
        dead = killed(tmp_path, change, replace)
        recover(target)
        assert content(target) in (old, new)
        drop_drafts(target, locked=True)
        assert os.listdir(tmp_path / "x") == ["pack"]
    assert change > 8
    assert content(target) == new


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_killed_anywhere_leaves_whole_things_and_goes_on(stage, own_home, run, tmp_path_factory, name):
    from sglora_cli.cli.main import main

    before, arguments = tmp_path_factory.mktemp("before"), [text.format(stage) for text in COMMANDS[name]]
    pairs = [(own_home, before / "home"), (stage, before / "stage")]
    for source, copy in pairs:
        shutil.copytree(source, copy)
    assert run(*arguments).exit_code == 0
    expected, change, deaths = [lasting(source) for source, _ in pairs], 1, 0
    while True:
        for source, copy in pairs:
            shutil.rmtree(source)
            shutil.copytree(copy, source)
        dead = killed(own_home.parent, change, lambda: main(arguments))  # both folders are in it
        for location in Library([]).packs():
            assert Pack(location.folder).verify() == []
        age_drafts(own_home.parent)
        run(*arguments)  # it may be refused where the work was done before the kill
        assert [lasting(source) for source, _ in pairs] == expected
        deaths, change = deaths + dead, change + 1 + change * 2 // 3
        if not dead:
            break
    assert deaths >= 3


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("remove",)])
@pytest.mark.parametrize("owner", ["fsync", "mkstemp"])
def test_a_full_or_forbidden_disk_is_said_and_nothing_is_left(stage, own_home, run, monkeypatch, name, owner):
    arguments = [text.format(stage) for text in COMMANDS[name]]
    before = [content(own_home), content(stage)]

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number := errno.ENOSPC if owner == "fsync" else errno.EACCES, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if owner == "fsync" else (tempfile, "mkstemp")), refuse)
        patch.setattr(tempfile, "mkdtemp", refuse if owner == "mkstemp" else tempfile.mkdtemp)
        result = run(*arguments)
    assert result.exit_code == 6, result.stderr
    error, hint = result.stderr.splitlines()[-2:]
    assert error.startswith("error: cannot ")
    assert error.endswith(os.strerror(errno.ENOSPC if owner == "fsync" else errno.EACCES))
    assert hint.startswith("hint: ")
    after = [content(own_home), content(stage)]
    rows = {"out/rows.jsonl"} if name == "bench" else set()  # its header is written before it is synced
    assert [{k: v for k, v in files.items() if k not in rows} for files in after] == before
    assert run(*arguments).exit_code == 0


@pytest.mark.parametrize(("batches", "left"), [(1, 40), (2, 8), (3, 0)])
def test_a_search_that_is_killed_goes_on_with_the_same_results(images, tiny, run, monkeypatch, batches, left):
    from sglora_cli.cli.main import main
    from sglora_cli.data.photo_store import PhotoStore, store_file

    arguments = ["search", str(images), "a red ball", "--backbone", "tiny", "--json"]
    expected = json.loads(run(*arguments).stdout)
    store_file().unlink()
    put, calls = PhotoStore.put, []

    def die(store: PhotoStore, *rows: object) -> None:
        put(store, *rows)
        calls.append(1)
        if len(calls) == batches:  # of 32, 32 and 8 photos
            os._exit(KILLED)

    with monkeypatch.context() as patch:
        patch.setattr(PhotoStore, "put", die)
        assert in_a_child(lambda: main(arguments)) == KILLED
    assert json.loads(run(*arguments).stdout) == {**expected, "computed": left}


def test_a_draft_of_a_killed_process_goes_after_an_hour_or_under_the_lock(tmp_path):
    target = tmp_path / "x"

    def die() -> None:
        with writing(target) as file:
            file.write(b"half")
            file.flush()
            os._exit(KILLED)

    def drafts() -> list[Path]:
        return list(tmp_path.glob(".x.????????.draft"))

    for age, left in ((3500, 1), (3700, 0)):
        assert in_a_child(die) == KILLED
        (draft,) = drafts()
        os.utime(draft, (time.time() - age,) * 2)
        write_bytes(target, b"whole")
        assert len(drafts()) == left
        with locked(target):
            assert drafts() == []
    assert target.read_bytes() == b"whole"


def test_a_folder_is_as_old_as_its_newest_file(tmp_path):
    target = tmp_path / "pack"
    with scratch_folder(target) as folder:
        (folder / "inner").mkdir()
        (folder / "inner/file").touch()
        for path in (folder, folder / "inner"):
            os.utime(path, (0, 0))
        drop_drafts(target)
        assert (folder / "inner/file").exists()
        os.utime(folder / "inner/file", (0, 0))
        drop_drafts(target)
        assert not folder.exists()


def test_drafts_of_other_packs_go_unless_somebody_writes_these(own_home):
    packs = own_home / "cache/packs"
    for name in ("one", "two"):
        (packs / f".{name}.12345678.draft").mkdir(parents=True)

    def other() -> None:
        with pack_lock(packs / "three"):
            os._exit(0)

    with pack_lock(packs / "one"), scratch_folder(packs / "one") as folder:
        in_a_child(other)
        assert sorted(os.listdir(packs)) == [folder.name]


def test_a_lock_of_a_killed_process_is_free_and_one_that_is_held_refuses(tmp_path):
    def die() -> None:
        with locked(tmp_path / "x"):
            os._exit(KILLED)

    assert in_a_child(die) == KILLED

    def refused() -> None:
        try:
            with locked(tmp_path / "x", wait=False):
                pass
        except Unavailable as error:
            sys.exit(error.exit_code if "another process is writing" in error.message else 1)

    with locked(tmp_path / "x", wait=False):
        assert in_a_child(refused) == 6
    assert in_a_child(refused) == 0


def test_two_processes_that_add_to_one_pack_both_do(stage, own_home):
    from sglora_cli.cli.main import main

    children = []
    for n in range(3):
        child = os.fork()
        if not child:
            in_child = ["pack", "add", "toys", f"{stage}/mug-peft", "--text", f"a pot {n}", "--name", f"x/{n}"]
            os._exit(in_a_child(lambda arguments=in_child: main(arguments)))
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    pack = Pack(own_home / "cache/packs/toys")
    assert {"x/0", "x/1", "x/2"} <= set(pack.experts.names)
    assert pack.verify() == []


def test_a_pack_that_is_replaced_while_it_is_read_is_not_mixed(stage, run, own_home):
    session = Session.open("toys")
    assert run("pack", "remove", "toys", "toys/ball", "--yes").exit_code == 0
    with pytest.raises(Unavailable, match="pack 'toys' was changed while it was read"):
        session.generate("a photo of a mug")
    assert run("pack", "remove", "toys", "--yes").exit_code == 0
    with pytest.raises(Unavailable, match="pack 'toys' was removed while it was read"):
        session.generate("a photo of a mug")


def test_a_pack_caught_between_two_names_comes_back(stage, own_home, run):
    """Where two names cannot be exchanged: killed after the old version left and before the new one came."""
    packs = own_home / "cache/packs"
    os.replace(packs / "toys", packs / ".toys.old")
    assert [location.name for location in Library([]).packs()] == ["toys"]
    assert run("pack", "verify", "toys").exit_code == 0


def test_two_processes_may_empty_a_removed_pack(stage, own_home, run, monkeypatch):
    erase = atomic.erase

    def swept(path: Path) -> None:
        erase(path)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(atomic, "erase", swept)
    assert run("pack", "remove", "toys", "--yes").exit_code == 0
    assert os.listdir(own_home / "cache/packs") == []


def test_a_pack_of_a_wrong_clock_is_not_the_newest(stage, own_home, run, archive):
    assert run("pack", "import", archive, "--name", "older").exit_code == 0
    packs, now = own_home / "cache/packs", time.time()
    os.utime(packs / "toys/pack.json", (now - 50, now - 50))
    os.utime(packs / "older/pack.json", (now - 500, now - 500))
    assert run("pack", "show").stdout.startswith("pack toys: ")
    os.utime(packs / "older/pack.json", (now + 1e8, now + 1e8))
    assert run("pack", "show").stdout.startswith("pack toys: ")


def test_a_home_that_is_a_file_is_named(run, tmp_path, monkeypatch):
    (tmp_path / "home").write_text("")
    monkeypatch.setenv("SGLORA_HOME", str(tmp_path / "home"))
    result = run("pack", "list")
    assert (result.exit_code, result.stderr) == (
        6,
        f"error: SGLORA_HOME is {tmp_path}/home, a file\nhint: name a folder; it is made if it does not exist\n",
    )


def test_a_working_folder_that_was_removed_is_named(run, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    result = run("pack", "list")
    assert (result.exit_code, result.stderr) == (
        6,
        "error: the working folder no longer exists\nhint: change to an existing folder with cd\n",
    )


@pytest.mark.parametrize(("number", "code", "word"), [("SIGTERM", 143, "terminated"), ("SIGINT", 130, "interrupted")])
@pytest.mark.parametrize("arguments", [COMMANDS["generate"], COMMANDS["bench"]], ids=["generate", "bench"])
def test_a_signal_ends_a_command_and_says_how_to_go_on(stage, run, monkeypatch, number, code, word, arguments):
    import sglora_tiny

    def stopped(*_: object) -> None:
        os.kill(os.getpid(), getattr(signal, number))
        time.sleep(1)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in a shell's background
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(sglora_tiny.TinyModel, "encode_text", stopped)
        result = run(*[text.format(stage) for text in arguments])
    signal.signal(signal.SIGINT, handler)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        code,
        f"{word}; finished steps are saved, and the same command resumes after them",
    )
    assert signal.getsignal(signal.SIGTERM) == before
    assert not list(stage.rglob("*.draft"))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
            "not enough memory: ",
        ),
        (MemoryError(), "not enough memory: no memory is left"),
        (RuntimeError("CUDA error: unspecified launch failure\nCompile with"), "the device failed: CUDA error"),
        (OSError(errno.EIO, "Input/output error", "x"), "cannot use x: Input/output error"),
    ],
)
def test_a_machine_that_fails_is_no_bug(stage, run, monkeypatch, error, message):
    import sglora_tiny

    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(sglora_tiny.TinyModel, "encode_text", failing)
    result = run(*COMMANDS["generate"])
    assert result.exit_code == 6
    assert result.stderr.startswith(f"error: {message}")
    assert "\nhint: " in result.stderr


def test_another_error_is_still_a_bug(stage, run, monkeypatch):
    from sglora_cli.generate import session

    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(session, "check_trained", failing)
    result = run(*COMMANDS["generate"])
    assert result.exit_code == 1
    assert isinstance(result.exception, RuntimeError)


def test_a_file_that_is_no_rows_file_keeps_its_last_line(stage, run):
    (stage / "notes.txt").write_text("one\ntwo, without a line break")
    result = run("bench", "--pack", "toys", "--baselines", "top-k", "--rows", stage / "notes.txt")
    assert result.exit_code == 4
    assert (stage / "notes.txt").read_text() == "one\ntwo, without a line break"


def test_a_log_goes_on_after_half_a_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": "one"}\n{"st')
    journal = Journal(path)
    journal("two")
    journal("three")
    lines = path.read_text().splitlines()
    assert lines[1] == '{"st'
    assert [json.loads(line)["step"] for line in lines[2:]] == ["two", "three"]
