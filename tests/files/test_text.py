"""Lines that are added to a file: whole, in order, and whatever was there before."""

from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path

import pytest

from sglora_cli.files import text
from sglora_cli.files.text import append_lines, drop_torn_line, read_json, whole_size, write_json

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
    dropped = drop_torn_line(path)
    ends = [0, 8, 9, len(WHOLE) - 1, len(WHOLE)]  # a line that lacks nothing but its line break is whole
    end = max(end for end in ends if end <= size)
    assert path.read_bytes() == WHOLE[:end]
    assert dropped == WHOLE[end:size].decode(errors="replace")


VALUE = {
    "a\u00fc\\": 'b"\u2028\u6f22\U0001f600',
    "n": [-12.5e-7, 10, True, False, None],
    "o": {"p": [{}]},
    "x": float("-inf"),
}


@pytest.mark.parametrize("ascii", [True, False])
def test_every_beginning_of_a_line_is_cut_off_and_a_whole_line_is_not(ascii):
    line = json.dumps(VALUE, ensure_ascii=ascii).encode()
    assert [whole_size(b"{}\n" + line[:n]) for n in range(1, len(line))] == [3] * (len(line) - 1)
    assert whole_size(b"{}\n" + line) == 3 + len(line)


@pytest.mark.parametrize(
    "line", ['{"a": x}', '{"a": "b" "c"', '{"a" 1', "{'a': 1}", '{"a": "\\q"', '{"a": \xff"', "[1, 2", "12", '"a', "}"]
)
def test_a_last_line_that_could_never_become_right_is_left_for_its_reader(line):
    data = b"{}\n" + line.encode("latin-1")
    assert whole_size(data) == len(data)


def test_a_line_that_somebody_adds_while_a_torn_one_is_cut_off_stays(tmp_path, monkeypatch):
    path, real = tmp_path / "x.jsonl", text.whole_size
    path.write_bytes(b'{"n": 1}\n{"n"')

    def slow(data: bytes) -> int:
        path.write_bytes(b'{"n": 1}\n{"n": 2}\n')
        return real(data)

    monkeypatch.setattr(text, "whole_size", slow)
    drop_torn_line(path)
    assert path.read_bytes() == b'{"n": 1}\n{"n": 2}\n'


def test_what_is_written_as_json_can_be_read(tmp_path):
    write_json(tmp_path / "x.json", {"loss": float("nan"), "é": [1.5, float("inf")]})
    assert read_json(tmp_path / "x.json") == {"loss": None, "é": [1.5, None]}
