"""Read and write text files: JSON, JSON lines, CSV and plain lines."""

from __future__ import annotations

import codecs
import csv
import errno
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from sglora_cli.errors import BadFile
from sglora_cli.files.atomic import sync_folder, write_bytes
from sglora_cli.files.hashes import data_hash
from sglora_cli.files.untrusted import JSON_LIMIT, TEXT_LIMIT, json_value, read_bytes


def file_bytes(path: Path) -> bytes:
    """Read a text file within the size limit. Raises BadFile."""
    return read_bytes(path, TEXT_LIMIT)


def text_lines(path: Path, data: bytes | None = None) -> list[tuple[int, str]]:
    """Return non-blank lines with their numbers. `data` is the content, if already read. Raises BadFile."""
    return [(n, line) for n, line in enumerate(_text(path, data).split("\n"), 1) if line.strip()]


def jsonl_rows(path: Path, data: bytes | None = None) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield number, text and object of every line of a .jsonl. Raises BadFile with path and line."""
    for number, line in text_lines(path, data):
        where = f"{path}, line {number}"
        try:
            row = json_value(line)
        except ValueError as error:
            raise BadFile(f"{where}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise BadFile(f"{where}: expected an object, got {type(row).__name__}")
        yield number, line, row


def csv_rows(path: Path, needed: Sequence[Sequence[str]], header: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the last line number and the cells of every row of a .csv with one column of each group in `needed`.

    header: an example of the first line, for the hint. Raises BadFile with path and line.
    """
    reader = csv.DictReader(io.StringIO(_text(path, None), newline=""), strict=True)
    try:
        names = reader.fieldnames or ()
        if missing := [group[0] for group in needed if not {*group} & {*names}]:
            raise BadFile(f"{path}, line 1: no column {min(missing)!r}", f"the header is {header}")
        for row in reader:
            number = reader.reader.line_num
            if None in row or None in row.values():
                raise BadFile(f"{path}, line {number}: expected {len(names)} columns", "quote commas")
            yield number, row
    except csv.Error as error:
        raise BadFile(f"{path}, line {reader.reader.line_num}: not CSV: {error}") from None


def text_field(row: Any, key: str, where: str) -> str:
    """Return a non-empty string of an object. Raises BadFile."""
    if not isinstance(row, dict):
        raise BadFile(f"{where}: expected an object, got {type(row).__name__}")
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BadFile(f"{where}: {key!r} must be a non-empty string, got {value!r:.100}")
    return value


def texts_field(row: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    """Return a list of strings of an object. Raises BadFile."""
    value = row.get(key)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise BadFile(f"{where}: {key!r} must be a list of strings, got {value!r:.100}")
    return tuple(value)


UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""The first bytes of a file in UTF-16."""


def decoded(data: bytes, where: str) -> str:
    """Decode UTF-8 and skip a byte order mark. Raises BadFile for another encoding.

    where: the file, for the error message.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if data.startswith(UTF_16):  # as `>` of Windows PowerShell writes
            fault, encoding = "is in UTF-16, not UTF-8", "UTF-16"
        else:
            line = data.count(b"\n", 0, error.start) + 1
            fault, encoding = f"is not UTF-8 text: {error.reason} in line {line}", "WINDOWS-1252"
        hint = f"save it as UTF-8, for example with: iconv -f {encoding} -t UTF-8 FILE > NEW"
        raise BadFile(f"{where} {fault}", hint) from None


def _text(path: Path, data: bytes | None) -> str:
    text = decoded(file_bytes(path) if data is None else data, str(path))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Append lines, which include their line breaks, and flush them to disk. They start on a new line.

    Creates the file and its folder if necessary. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a+b", buffering=0) as file:
        text = "".join(lines) if _ends_with_a_line(file) else "\n" + "".join(lines)
        data = memoryview(text.encode())  # a single write, so that lines of two processes do not mix
        while data:  # an unbuffered write may be partial, for example if the disk is full
            data = data[file.write(data) :]
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno != errno.EINVAL:  # devices such as /dev/null cannot be synced
                raise
    if new:
        sync_folder(path.parent)


def _ends_with_a_line(file: BinaryIO) -> bool:
    if not file.seek(0, os.SEEK_END):
        return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def drop_torn_line(path: Path) -> str:
    """Remove the last line of a .jsonl if an interruption truncated it, and return it. Raises OSError, BadFile."""
    data = file_bytes(path)
    if (size := whole_size(data)) == len(data):
        return ""
    with path.open("r+b") as file:
        if os.fstat(file.fileno()).st_size == len(data):  # no other process has appended since
            file.truncate(size)
    return data[size:].decode(errors="replace")


def whole_size(data: bytes) -> int:
    """Return the size of a .jsonl without a truncated last line.

    A last line without a line break may be complete. One that is invalid for other reasons was edited by hand and is
    kept, so that its reader reports the error.

    >>> [whole_size(b'{"n": 1}\\n' + line) for line in (b'{"n": 2', b'{"n": 2}', b'{"n": oops}')]
    [9, 17, 20]
    """
    last = data.rpartition(b"\n")[2]
    return len(data) - len(last) if _is_beginning(last) else len(data)


_CUT_VALUE = re.compile(r"-|-?I[a-z]*|N[a-z]*|[tfn][a-z]*|\.|[eE][+-]?")
"""The rest that the parser reports for a truncated value: a number, or a name such as `true`."""
_CUT_ESCAPE = re.compile(r"\\u[0-9a-fA-F]{0,4}")


def _is_beginning(line: bytes) -> bool:
    """Return whether this is a JSON object that is valid so far but truncated."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return line[:1] == b"{" and error.reason == "unexpected end of data"
    if not text.startswith("{"):
        return False
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg.startswith("Invalid \\u"):
            return bool(_CUT_ESCAPE.fullmatch(text[text.rindex("\\") :]))
        left = text[error.pos :]
        return error.msg.startswith("Unterminated string") or not left.strip() or bool(_CUT_VALUE.fullmatch(left))
    except (ValueError, RecursionError):
        pass
    return False


def write_json(path: Path, content: Any) -> None:
    write_bytes(path, (json_text(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())


def json_text(content: Any, **format: Any) -> str:
    """Return a value as JSON, with null in the place of NaN and infinite numbers. format: as for json.dumps."""
    try:
        return json.dumps(content, allow_nan=False, **format)
    except ValueError:
        return json.dumps(_finite(content), allow_nan=False, **format)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_sealed(path: Path, content: Any) -> None:
    """Write a JSON value to a cache file, with a checksum of its content and file name."""
    write_bytes(path, json.dumps({"seal": _seal(path, content), "content": content}).encode())


def read_sealed(path: Path) -> Any:
    """Read the value in a file of `write_sealed`. Raises BadFile if it is missing, or its checksum does not match."""
    table = read_json(path, limit=TEXT_LIMIT)
    if not isinstance(table, dict) or table.get("seal") != _seal(path, table.get("content")):
        raise BadFile(f"{path} is damaged", "run the command again to recreate it")
    return table["content"]


def _seal(path: Path, content: Any) -> str:
    return data_hash(json.dumps([path.stem, content], sort_keys=True).encode())


def read_json(path: Path, hook: Callable[[dict[str, Any]], Any] | None = None, limit: int = JSON_LIMIT) -> Any:
    """Read a JSON file. `hook` may replace every object as soon as it is parsed, so that a large file never has to be
    in memory as objects. Raises BadFile with the line of a syntax error, or for more than `limit` bytes."""
    return parse_json(read_bytes(path, limit), str(path), hook)


def parse_json(data: bytes, where: str, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Parse JSON in UTF-8. Raises BadFile with the line of a syntax error."""
    text = decoded(data, where)
    try:
        return json_value(text, hook)
    except json.JSONDecodeError as error:
        raise BadFile(f"{where}, line {error.lineno}: not JSON: {error.msg}") from None
    except ValueError as error:
        raise BadFile(f"{where}: {error}") from None
