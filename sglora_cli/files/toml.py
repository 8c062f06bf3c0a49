"""Parse TOML, and find the line of each key, table and string in a list.

The parser does not report positions, so this module determines them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import tomli

from sglora_cli.files.untrusted import (
    check_limits,
)


def toml_table(text: str) -> dict[str, Any]:
    """Parse TOML into a table. Raises ValueError."""
    try:
        table = tomli.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    check_limits(table, texts=False)  # TOML cannot contain lone surrogates
    return table


Address = tuple[str | int, ...]
"""("source", 1, "expert", "pug") is the string "pug" in the list `expert` of the second [[source]]."""

_TOKEN = re.compile(
    r'''(?P<comment>\#[^\n]*)
      | (?P<text>"""(?:\\.|[^\\])*?"{3,5} | \'\'\'.*?\'{3,5} | "(?:\\.|[^"\\\n])*" | '[^'\n]*')
      | (?P<newline>\n) | (?P<space>[^\S\n]+) | (?P<mark>[\[\]{}=]) | (?P<bare>[\w+-]+) | (?P<other>.)''',
    re.VERBOSE | re.DOTALL,
)
_OPEN = {"[": 1, "{": 1, "]": -1, "}": -1}
Token = tuple[str, str, int]
"""Kind, text and line."""


def toml_lines(text: str) -> dict[Address, int]:
    """Return the line of every table, key, and string in a list. The text must be valid TOML.

    >>> toml_lines('a = 1\\n[[s]]\\nx = ["p",\\n"q"]\\n[s.t]')
    {('a',): 1, ('s', 0): 2, ('s', 0, 'x'): 3, ('s', 0, 'x', 'p'): 3, ('s', 0, 'x', 'q'): 4, ('s', 0, 't'): 5}
    """
    line_of: dict[Address, int] = {}
    counts: dict[Address, int] = {}
    table: Address = ()
    for statement in _statements(text):
        line = statement[0][2]
        keys = _keys(statement)
        if statement[0][1] == "[":
            table = _table(keys, statement[1][1] == "[", counts)
            line_of.setdefault(table, line)
            continue
        address = (*table, *keys)
        line_of.setdefault(address, line)
        for kind, part, number in statement[len(keys) * 2 :]:  # keys, the dots between them, and "="
            if kind == "text":
                line_of.setdefault((*address, _value(part)), number)
    return line_of


def _tokens(text: str) -> Iterator[Token]:
    line = 1
    for match in _TOKEN.finditer(text):
        yield str(match.lastgroup), match.group(), line
        line += match.group().count("\n")


def _statements(text: str) -> Iterator[list[Token]]:
    """Yield table headers and `key = value` as tokens without spaces and comments. A value may span lines."""
    statement: list[Token] = []
    depth = 0
    for token in _tokens(text):
        depth += _OPEN.get(token[1], 0) if token[0] == "mark" else 0
        if token[0] == "newline" and depth == 0 and statement:
            yield statement
            statement = []
        elif token[0] not in ("newline", "space", "comment"):
            statement.append(token)
    if statement:
        yield statement


def _keys(statement: list[Token]) -> list[str]:
    """Return the parts of the dotted key at the start of a statement."""
    keys: list[str] = []
    for kind, part, _ in statement:
        if part in ("=", "]") and kind == "mark":
            break
        if kind in ("bare", "text"):
            keys.append(_value(part) if kind == "text" else part)
    return keys


def _table(keys: list[str], is_list: bool, counts: dict[Address, int]) -> Address:
    """Return the address of a header's table. Below a list of tables, it belongs to the last one."""
    address: Address = ()
    for key in keys[:-1]:
        address = (*address, key)
        if address in counts:
            address = (*address, counts[address] - 1)
    address = (*address, keys[-1])
    if is_list:
        counts[address] = counts.get(address, 0) + 1
        return (*address, counts[address] - 1)
    return address


def _value(text: str) -> str:
    return str(tomli.loads(f"x = {text}")["x"])
