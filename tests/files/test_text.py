"""Lines that are added to a file: whole, in order, and whatever was there before."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest

from sglora_cli.files.text import append_lines, drop_torn_line

WHOLE = b'{"n": 1}\n{"n": "\xc3\xbc"}\n'


def test_lines_are_added_to_a_file_that_is_made_for_them(tmp_path):
    path = tmp_path / "new" / "x.jsonl"
    append_lines(path, ())
    assert path.read_bytes() == b""
    append_lines(path, ['{"n": 1}\n', '{"n": "\u00fc"}\n'])
    assert path.read_bytes() == WHOLE


def test_a_line_starts_on_a_line_of_its_own(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"half")
    append_lines(path, ["one\n"])
    append_lines(path, ["two\n"])
    assert path.read_bytes() == b"half\none\ntwo\n"


def test_a_disk_that_takes_a_byte_at_a_time_gets_them_all(tmp_path, monkeypatch):
    class Slow(io.FileIO):
        def write(self, data):
            return super().write(bytes(data[:1]))

    path = tmp_path / "x.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, *_, **__: Slow(path, "a+"))
        append_lines(path, [WHOLE.decode()])
    assert path.read_bytes() == WHOLE


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_said_and_a_device_without_a_disk_is_none(tmp_path):
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        append_lines(Path("/dev/full"), ["x\n"])
    append_lines(Path(os.devnull), ["x\n"])


@pytest.mark.parametrize("size", range(len(WHOLE) + 1))
def test_of_a_file_cut_anywhere_whole_lines_stay(tmp_path, size):
    path = tmp_path / "x.jsonl"
    path.write_bytes(WHOLE[:size])
    drop_torn_line(path)
    ends = [0, 8, 9, len(WHOLE) - 1, len(WHOLE)]  # a line that lacks nothing but its line break is whole
    assert path.read_bytes() == WHOLE[: max(end for end in ends if end <= size)]
