"""Damage to bytes, texts and values: random, and with a dictionary of what programs stumble over."""

from __future__ import annotations

import csv
import io
import json
import random
import re
from collections.abc import Callable
from typing import Any

Dice = random.Random

NUMBERS = (0, -1, 1, 2, 255, 2**31, 2**32 - 1, 2**53, 2**62, 2**63, -(2**63), 2**64, 10**12, 10**30, 10**400)
FLOATS = (1e308, -1e308, 1e-320, 0.5, -0.0, float("inf"), float("-inf"), float("nan"))
TEXTS = (
    "", " ", "\0", "a\0b", "x" * 5000, "../../etc/passwd", "/etc/passwd", "C:\\x", "CON", "nul.txt", "a/../b",
    "./a", "//",
    "\ud800", "\udcff", "\x1b[2J", "\x9b2J", "\u202e", "\u2028", "\r\n", "(a+)+$", "(", "*" * 40, "{name}", "{",
    "%s", "$x$",
    "<script>", "|", "=1+1", "é" * 300, "\U0001d4b3", "nan", "1e999", "-1", "²", "٣", "9" * 5000, "train", "test",
    "images/", "~", ".", "x$(touch y)", "`y`", "; rm x", "aux.txt", "COM1", "a.", "a ", "a?b", "![x](https://y.z/t.png)",
    "[x](https://y.z)", "[2cm]", "a\n\n# b", "@x", "=x", "(((((a{100}){100}){100}){100}){100})", "(?x)a{1 0 0 0 0 0}",
    "Text" * 20_000, "a." * 2000,
    "images/", "~", ".",
    "_orig_mod.", "module.", "model.", "q_proj.lora_A.pug.weight", "q_proj.lora_down.weight", "q.base_layer.weight",
    "logit_bias", "context_length",
)  # fmt: skip
JSON_TOKENS = (
    b"-Infinity", b'"a":1,"a":2', b"\xff\xfe", b"\xfe\xff",
    b"NaN", b"Infinity", b"1e999", b"-0", b"9" * 5000, b"[" * 3000, b'{"a":' * 3000, b'"\\ud800"', b'"\\u0000"',
    b"null", b"true",
    b"{}", b"[]", b"[[]]", b'""', b"1e308", b"9223372036854775808", b"\xff", b"\xef\xbb\xbf", b"//", b",", b"}", b"]",
)  # fmt: skip
TOML_TOKENS = (
    b"nan", b"inf", b"1e999", b"9" * 5000, b"1000000000000", b"-1", b"0x" + b"f" * 300, b"[" * 3000, b"{a=" * 3000,
    b"1979-05-27",






    b'"""', b"'''", b'"\\uD800"', b"{}", b"[]", b"true", b'"x"', b"[[source]]", b"[a.b]", b"a.b.c = 1", b"\r", b"\0",
    b"#", b'["',
    b"\xef\xbb\xbf", b"\xff\xfe",
    b"07:32:00", b"1_000", b"[[a]]", b'"" = 1', b"'a' . b = 1", b"[]]", b"=", b'"\\', b"\\u0041",
)  # fmt: skip


def mutated_bytes(rng: Dice, data: bytes, tokens: tuple[bytes, ...] = ()) -> bytes:
    """One to three small changes anywhere."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice((_flip, _flip, _cut, _grow, _repeat, _number, _end, _digits, _token))(rng, data, tokens)
    return data


def _place(rng: Dice, data: bytes) -> int:
    """Anywhere, the beginning more often: there are headers."""
    return rng.randrange(min(len(data), rng.choice((16, 128, 1024, 10**9))) + 1)


def _flip(rng: Dice, data: bytes, tokens: tuple[bytes, ...]) -> bytes:
    changed, at = bytearray(data or b"x"), _place(rng, data)
    at = min(at, len(changed) - 1)
    changed[at] = changed[at] ^ (1 << rng.randrange(8)) if rng.random() < 0.5 else rng.randrange(256)
    return bytes(changed)


def _cut(rng: Dice, data: bytes, tokens: tuple[bytes, ...]) -> bytes:
    at = _place(rng, data)
    return data[:at] + data[at + rng.choice((1, 2, 8, 100)) :]


def _grow(rng: Dice, data: bytes, tokens: tuple[bytes, ...]) -> bytes:
    at = _place(rng, data)
    return data[:at] + rng.randbytes(rng.choice((1, 2, 8, 100))) + data[at:]


def _repeat(rng: Dice, data: bytes, tokens: tuple[bytes, ...]) -> bytes:
    start, at = _place(rng, data), _place(rng, data)
    return data[:at] + data[start : start + rng.choice((1, 10, 100, 1000))] * rng.choice((1, 2, 20)) + data[at:]


def _number(rng: Dice, data: bytes, tokens: tuple[bytes, ...]) -> bytes:
    size, at = rng.choice((1, 2, 4, 8)), _place(rng, data)
    value = rng.choice((*NUMBERS[:-2], rng.getrandbits(64))) % 256**size
    return data[:at] + value.to_bytes(size, rng.choice(("little", "big"))) + data[at + size :]


def _end(rng: Dice, data: bytes, tokens: tuple[bytes, ...]) -> bytes:
    return data[: _place(rng, data)] if rng.random() < 0.9 else b""


def _digits(rng: Dice, data: bytes, tokens: tuple[bytes, ...]) -> bytes:
    digits = list(re.finditer(rb"-?\d+", data[:100_000]))
    if not digits:
        return _flip(rng, data, tokens)
    match = rng.choice(digits)
    text = rng.choice((str(rng.choice(NUMBERS)), "9" * 5000, "1e999", "-1")).encode()
    return data[: match.start()] + text + data[match.end() :]


def _token(rng: Dice, data: bytes, tokens: tuple[bytes, ...]) -> bytes:
    at = _place(rng, data)
    token = rng.choice(tokens) if tokens else rng.choice(TEXTS).encode("utf-8", "surrogatepass")
    return data[:at] + token + data[at + rng.choice((0, 0, 1, len(token))) :]


def odd_value(rng: Dice, more: tuple[Callable[[], Any], ...] = ()) -> Any:
    """A value nobody expects; `more` are kinds of values that the file format adds."""
    kinds: list[Callable[[], Any]] = [
        lambda: rng.choice(NUMBERS),
        lambda: rng.choice(FLOATS),
        lambda: rng.choice(TEXTS),
        lambda: rng.choice((None, True, False, [], {}, [[]], [None], {"a": 1}, {"": ""}, [1, "a"], [["a", "b", "c"]])),
        lambda: _deep(rng.choice((5, 60, 600))),
        lambda: ["a"] * rng.choice((1, 3, 1000)),
        *more,
    ]
    return rng.choice(kinds)()


def _deep(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def mutated_value(rng: Dice, value: Any, more: tuple[Callable[[], Any], ...] = ()) -> Any:
    """A value of tables and lists with one or two places changed, removed, renamed or doubled."""
    for _ in range(rng.choice((1, 1, 2))):
        value = _changed(rng, value, more)
    return value


def _changed(rng: Dice, value: Any, more: tuple[Callable[[], Any], ...]) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.93:
        key, table = rng.choice(list(value)), dict(value)
        action = rng.random()
        if action < 0.1:
            del table[key]
        elif action < 0.2:
            table[rng.choice((*TEXTS, *value))] = table.pop(key)
        elif action < 0.25:
            table[rng.choice(TEXTS)] = odd_value(rng, more)
        else:
            table[key] = _changed(rng, table[key], more)
        return table
    if isinstance(value, list) and value and rng.random() < 0.93:
        at, items = rng.randrange(len(value)), list(value)
        action = rng.random()
        if action < 0.1:
            del items[at]
        elif action < 0.2:
            items.insert(at, items[at])
        elif action < 0.25:
            items.append(odd_value(rng, more))
        else:
            items[at] = _changed(rng, items[at], more)
        return items
    if type(value) is int and rng.random() < 0.4:
        return value + rng.choice((-1, 1, 2, 10**6))
    return odd_value(rng, more)


def mutated_json(rng: Dice, data: bytes) -> bytes:
    """As a value, or as bytes; sometimes with a key that stands twice."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return mutated_bytes(rng, data, JSON_TOKENS)
    if rng.random() < 0.3:
        return mutated_bytes(rng, data, JSON_TOKENS)
    try:
        text = json.dumps(mutated_value(rng, value))
    except (ValueError, RecursionError):  # a number of too many digits
        return mutated_bytes(rng, data, JSON_TOKENS)
    if text.startswith("{") and rng.random() < 0.05:
        text = "{" + text[1:-1] + ("," if len(text) > 2 else "") + text[1:]
    return text.encode("utf-8", "surrogatepass")


def mutated_lines(rng: Dice, data: bytes) -> bytes:
    """JSON lines: one of them changed as JSON, doubled, or moved."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    if rng.random() < 0.75 and lines[at]:
        lines[at] = mutated_json(rng, lines[at])
    elif rng.random() < 0.5:
        lines.insert(rng.randrange(len(lines)), lines[at])
    else:
        return mutated_bytes(rng, data, JSON_TOKENS)
    return rng.choice((b"\n", b"\n", b"\n", b"\r\n", b"\n\n")).join(lines)


def mutated_toml(rng: Dice, data: bytes) -> bytes:
    """A value, a key or a line exchanged, or bytes changed."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    action = rng.random()
    if action < 0.5 and b"=" in lines[at]:
        lines[at] = lines[at].partition(b"=")[0] + b"= " + rng.choice(TOML_TOKENS)
    elif action < 0.6:
        lines.insert(at, rng.choice(TOML_TOKENS) + b" = " + rng.choice(TOML_TOKENS))
    elif action < 0.7:
        lines.insert(at, lines[rng.randrange(len(lines))])
    else:
        return mutated_bytes(rng, data, TOML_TOKENS)
    return b"\n".join(lines)


def mutated_csv(rng: Dice, data: bytes) -> bytes:
    """A cell exchanged, a row made longer or shorter, or bytes changed."""
    try:
        rows = list(csv.reader(io.StringIO(data.decode())))
    except (ValueError, csv.Error):
        rows = []
    if not rows or rng.random() < 0.4:
        return mutated_bytes(rng, data, (b'"', b'""', b",", b"\r", b"\0", b"\xef\xbb\xbf", b'"' + b"x" * 200_000))
    row = rng.choice(rows)
    at = rng.randrange(len(row) + 1)
    row[at : at + rng.choice((0, 1, 1, 1, 2))] = [rng.choice(TEXTS)] * rng.choice((0, 1, 1, 1, 2))
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


TEXT_TOKENS = (b"\n", b"\t", b"#", b",", b"|", b".jpg", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe")


def mutated_text(rng: Dice, data: bytes) -> bytes:
    return mutated_bytes(rng, data, (*TEXT_TOKENS, *(text.encode("utf-8", "replace") for text in TEXTS)))
