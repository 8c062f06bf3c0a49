"""The rows file: JSON lines that are appended to. No torch.

    {"sglora_rows": 1, "pack": "starter", "backbone": "starter", "labels": {"top-k": "Top-K weighted"},
     "against": "top-k", "made_by": "sglora 0.1.0"}
    {"method": "top-k", "dataset": "pets", "task": "pug", "sample": 0, "seed": 0, "direction": "I2T", "k": 1,
     "value": 40.0, "hits": "5:SA=="}

A header line describes the rows up to the next header. It may have further keys. `labels` has the methods in the
order of the table. Further keys of a row are ignored.

`direction` is "I2T" or "T2I" (recall at k in percent) or "ACC" (accuracy in percent, at k = 1).
`hits`, if present, records which queries were right: their number, a colon, and one bit per query in base64. The
highest bit of each byte comes first.
`sentence`, if present, is the key of the other task whose sentence made the adapter.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sglora_cli import __version__
from sglora_cli.bench.rows import row_key
from sglora_cli.errors import BadFile, Mismatch, Unavailable, unwritable
from sglora_cli.files.hashes import data_hash
from sglora_cli.files.swap import swapped
from sglora_cli.files.text import append_lines, decoded, drop_torn_line
from sglora_cli.files.untrusted import TEXT_LIMIT, json_value, read_bytes
from sglora_cli.plugin.values import AGAINST, Row
from sglora_cli.system.locks import locked
from sglora_cli.system.paths import cache_folder

FORMAT = 1
KEY = "sglora_rows"
ROW_DIRECTIONS = ("I2T", "T2I", "ACC")
_HITS = re.compile(r"([0-9]{1,7}):([A-Za-z0-9+/]*={0,2})")


@dataclass(frozen=True)
class Header:
    """Describes the rows that follow."""

    pack: str
    backbone: str
    labels: Mapping[str, str]
    """Method name to label, in the order of the table."""
    against: str = AGAINST
    """The method that others are compared with."""
    made_by: str = f"sglora {__version__}"
    more: Mapping[str, Any] = field(default_factory=dict)
    """All other keys of the line."""

    def line(self) -> str:
        own = {KEY: FORMAT, **asdict(self)}
        more = own.pop("more")
        return json.dumps({**own, **{k: v for k, v in more.items() if k not in own}}, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class Run:
    """A header and its rows."""

    header: Header
    rows: Sequence[Row]


def row_line(row: Row) -> str:
    return json.dumps({key: value for key, value in asdict(row).items() if value != ""}, ensure_ascii=False) + "\n"


def pack_hits(hits: Sequence[bool]) -> str:
    """Encode hits as their number, a colon, and one bit per hit in base64.

    >>> pack_hits([False, True, False, False, True])
    '5:SA=='
    """
    bits = "".join("1" if hit else "0" for hit in hits)
    whole = int(bits.ljust(-(-len(bits) // 8) * 8, "0") or "0", 2)
    return f"{len(hits)}:{base64.b64encode(whole.to_bytes(-(-len(bits) // 8), 'big')).decode()}"


def unpack_hits(text: str) -> list[bool]:
    """Undo `pack_hits`. Raises ValueError.

    >>> unpack_hits("5:SA==")
    [False, True, False, False, True]
    """
    count, bits = _bits(text)
    return [bit == "1" for bit in f"{bits:0{count}b}"] if count else []


def count_hits(text: str) -> tuple[int, int]:
    """Return the number of right queries and of all queries. Raises ValueError.

    >>> count_hits("5:SA==")
    (2, 5)
    """
    count, bits = _bits(text)
    return bits.bit_count(), count


def _bits(text: str) -> tuple[int, int]:
    """Return the number of queries, and an integer with one binary digit per query."""
    match = _HITS.fullmatch(text)
    if match is None:
        raise ValueError("hits must be a number, a colon and base64")
    count = int(match[1])
    try:
        data = base64.b64decode(match[2], validate=True)
    except binascii.Error as error:
        raise ValueError(f"hits: {error}") from None
    if len(data) != -(-count // 8):
        raise ValueError(f"hits of {count} queries have {-(-count // 8)} bytes, not {len(data)}")
    return count, int.from_bytes(data, "big") >> (8 * len(data) - count)


def read_rows(path: Path, data: bytes | None = None) -> list[Run]:
    """Read all runs of a rows file. Raises BadFile with path and line.

    data: the content, if it was already read.
    """
    runs: list[tuple[Header, list[Row]]] = []
    for n, line in enumerate(_lines(path, read_bytes(path, TEXT_LIMIT) if data is None else data), 1):
        where = f"{path}, line {n}"
        content = _object(line, where)
        if KEY in content:
            runs.append((_header(content, where), []))
        elif not runs:
            raise BadFile(f"{where}: a rows file starts with {{{json.dumps(KEY)}: {FORMAT}, ...}}", "check the path")
        else:
            runs[-1][1].append(_row(content, where))
    if not runs:
        raise BadFile(f"{path} is empty", "write a rows file with `sglora bench --rows FILE`")
    return [Run(header, rows) for header, rows in runs]


def append(path: Path, lines: Iterable[str]) -> None:
    """Append lines of `Header.line` and `row_line` and flush them to disk. Raises Unavailable."""
    try:
        append_lines(path, lines)
    except OSError as error:
        hint = "pass another file with --rows; complete lines are kept, and the same command resumes after them"
        raise unwritable(f"cannot write {path}", error, hint) from error


def mend(path: Path) -> None:
    """Remove an incomplete last line left by an interruption. Other files than rows files are not changed."""
    start = f'{{"{KEY}"'.encode()
    if not path.is_file():
        return
    try:
        with path.open("rb") as file:
            first = file.read(len(BOM_UTF8) + len(start)).removeprefix(BOM_UTF8)
        if start.startswith(first[: len(start)]):
            drop_torn_line(path)
    except OSError as error:
        raise unwritable(f"cannot repair {path}", error, "pass another file with --rows") from error


def _lines(path: Path, data: bytes) -> list[str]:
    text = decoded(data, str(path))
    return text.removesuffix("\n").split("\n") if text else []


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        content = json_value(line)
    except ValueError as error:
        hint = "if a run was interrupted, repeat the same `sglora bench --rows FILE` to repair the file and resume"
        raise BadFile(f"{where}: not JSON: {getattr(error, 'msg', error)}", hint) from None
    if not isinstance(content, dict):
        raise BadFile(f"{where}: not a JSON object")
    return content


def _header(content: dict[str, Any], where: str) -> Header:
    if content[KEY] != FORMAT:
        raise BadFile(
            f"{where}: unsupported rows format {content[KEY]!r}, this version reads format {FORMAT}", "update sglora"
        )
    values = {"against": AGAINST, "made_by": "", **content}
    texts = {name: _text(values, name, where) for name in ("pack", "backbone", "against", "made_by")}
    labels = values.get("labels")
    if not isinstance(labels, dict) or not all(isinstance(v, str) and (k + v).isprintable() for k, v in labels.items()):
        raise BadFile(f"{where}: labels must be an object of printable strings, got {labels!r:.200}")
    more = {key: value for key, value in content.items() if key not in (KEY, "labels", *texts)}
    return Header(labels=labels, more=more, **texts)


def _row(content: dict[str, Any], where: str) -> Row:
    direction, hits = content.get("direction"), content.get("hits", "")
    value: Any = content.get("value")
    if direction not in ROW_DIRECTIONS:
        raise BadFile(f"{where}: direction must be one of {', '.join(ROW_DIRECTIONS)}, got {direction!r}")
    if type(value) not in (int, float) or not (math.isfinite(value) and 0 <= value <= 100):
        raise BadFile(f"{where}: value must be a percentage from 0 to 100, got {value!r}")
    try:
        if hits:
            _check_value(value, *count_hits(hits))
    except (ValueError, TypeError) as error:
        raise BadFile(f"{where}: {error}") from None
    texts = {"sentence": "", **content}
    method, dataset, task, sentence = (_text(texts, n, where) for n in ("method", "dataset", "task", "sentence"))
    sample, seed = (_whole({"seed": 0, **content}, name, 0, where) for name in ("sample", "seed"))
    k = _whole(content, "k", 1, where)
    return Row(method, dataset, task, sample, direction, k, float(value), seed, hits, sentence)


def _check_value(value: float, right: int, asked: int) -> None:
    expected = 100 * right / asked if asked else value
    if abs(value - expected) > 0.01:
        raise ValueError(f"value is {value:g}, but the hits give {expected:g}")


def _whole(content: Mapping[str, Any], name: str, least: int, where: str) -> int:
    number = content.get(name)
    if type(number) is not int or number < least:
        raise BadFile(f"{where}: {name} must be an integer of at least {least}, got {number!r}")
    return number


def _text(content: Mapping[str, Any], name: str, where: str) -> str:
    text = content.get(name)
    if not isinstance(text, str) or not text.isprintable():  # the file may be untrusted, and names get printed
        raise BadFile(f"{where}: {name} must be a printable string, got {text!r:.200}")
    return text


class Log:
    """The rows of one plan in a rows file. Rows of other plans before them are not changed.

    Before anything is measured, raises BadFile if the file is not a valid rows file, and Mismatch if its rows come from
    another backbone, because one report cannot combine both.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path, self.header = path, header
        self._rows: list[Row] = []
        self._known: dict[tuple[object, ...], Row] = {}
        if path.exists():
            mend(path)
        data = read_bytes(path, TEXT_LIMIT) if path.exists() else b""
        runs = read_rows(path, data) if data else []
        _check_fingerprint(path, runs, header)
        self._content, self._ends = hashlib.sha256(data), not data or data.endswith(b"\n")
        if runs and runs[-1].header.more.get("plan") == header.more["plan"]:
            self._start = _offset_of_last(data, runs)
            self._known = {row_key(row): row for row in runs[-1].rows}
        else:
            self._append([header.line()])
            self._start = path.stat().st_size - len(header.line().encode())

    def __len__(self) -> int:
        """Return the number of rows of this plan that the file had."""
        return len(self._known)

    def add(self, rows: Sequence[Row]) -> None:
        """Append the rows that the file lacks. If a stored row differs, replace all rows of the plan."""
        self._rows += rows
        if any(self._known.get(row_key(row), row) != row for row in rows):
            self._known = {}
            self._start_anew()
        elif new := [row for row in rows if row_key(row) not in self._known]:
            self._append(map(row_line, new))

    def _append(self, lines: Iterable[str]) -> None:
        text = "".join(lines)
        append(self.path, [text])
        self._content.update(f"{'' if self._ends else chr(10)}{text}".encode())
        self._ends = True

    def _start_anew(self) -> None:
        """Replace the rows of the plan. Raises Unavailable if another program has changed the file."""
        data = read_bytes(self.path, TEXT_LIMIT)
        new = data[: self._start] + "".join([self.header.line(), *map(row_line, self._rows)]).encode()
        whole = data_hash(data) == self._content.hexdigest()
        if not whole or not swapped(self.path, data_hash(data), new):
            raise Unavailable(
                f"{self.path} was changed by another program while rows were written into it",
                "run the command again, or pass another file with --rows",
            )
        self._content, self._ends = hashlib.sha256(new), True


def _check_fingerprint(path: Path, runs: Sequence[Run], header: Header) -> None:
    own = header.more.get("fingerprint")
    for other in (run.header.more.get("fingerprint", own) for run in runs):
        if other != own:
            raise Mismatch(
                f"{path} has rows of a backbone with fingerprint {other}, but this backbone has {own}",
                "pass another file with --rows",
            )


def _offset_of_last(data: bytes, runs: Sequence[Run]) -> int:
    lines = data.splitlines(keepends=True)
    return sum(map(len, lines[: len(lines) - len(runs[-1].rows) - 1]))


@contextmanager
def log_of(path: Path | None, header: Header) -> Iterator[Log]:
    """Open the log at `path`, or the plan's own log in the user cache.

    Another process that measures into the same file waits and then finds these rows.
    """
    path = path or cache_folder() / "rows" / f"{header.more['plan']}.jsonl"
    with locked(path):
        yield Log(path, header)
