"""Match names of modules with the patterns of an untrusted file, as PEFT does, within limits.

PEFT's patterns are regular expressions. A short one may take hours to match, or need all memory to compile. Therefore
each is checked before it is compiled, and all patterns of a file share one budget of time. Plain names, which most
files have, are compared without compiling.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import regex

from sglora_cli.errors import BadFile

ENDS = r"(.*\.)?({})"
"""A pattern that matches the end of a name after a dot."""
WHOLE = "{}"
PATTERN_SECONDS, ALL_PATTERNS_SECONDS = 0.25, 2.0
"""Time limits of one pattern on one name, and of all patterns of a file on all names."""
EXPANDED_LIMIT = 100_000
"""The most characters of a pattern after its repetitions, as in (ab){100}, are written out. The compiler does so."""
_PLAIN = re.compile(r"[\w.-]+")
_COUNTS = re.compile(r"\{\s*(\d*)\s*(?:,\s*(\d*)\s*)?\}")
_VERBOSE = re.compile(r"\(\?\w*x")
"""The flag that allows blanks and comments, even between the digits of a count."""

T = TypeVar("T")


class Patterns:
    """The patterns of one file, with one budget of time.

    where: the file, for errors.
    """

    def __init__(self, where: str) -> None:
        self._where, self._left = where, ALL_PATTERNS_SECONDS
        self._compiled: dict[tuple[str, str], regex.Pattern[str]] = {}

    def check(self, pattern: str, key: str) -> None:
        """Raise BadFile for a pattern that is invalid or too large. key: its table in the file, for errors."""
        if not _PLAIN.fullmatch(pattern):
            self._timed(pattern, lambda: self._compile(pattern, ENDS, key))

    def matches(self, pattern: str, name: str, key: str, form: str = ENDS) -> bool:
        """Whether a pattern matches a complete name. Raises BadFile as `match` does."""
        if _PLAIN.fullmatch(pattern):
            return self._timed(pattern, lambda: _is_same(pattern, name, form))
        return self.match(pattern, name, key, form) is not None

    def match(self, pattern: str, name: str, key: str, form: str) -> Any:
        """Match a complete name. Raises BadFile for invalid patterns, and those that take too long, as (a+)+$ can."""

        def found() -> Any:
            compiled = self._compile(pattern, form, key)
            return compiled.fullmatch(name, timeout=min(PATTERN_SECONDS, max(self._left, 1e-3)))

        return self._timed(pattern, found)

    def _timed(self, pattern: str, work: Callable[[], T]) -> T:
        start = time.perf_counter()
        try:
            if self._left <= 0:
                raise TimeoutError
            return work()
        except TimeoutError:
            raise BadFile(
                f"{self._where} has a pattern that takes too long: {pattern[:100]!r}", "use a list of module names"
            ) from None
        finally:
            self._left -= time.perf_counter() - start

    def _compile(self, pattern: str, form: str, key: str) -> regex.Pattern[str]:
        if (form, pattern) not in self._compiled:
            if _VERBOSE.search(pattern) or _expanded(pattern) > EXPANDED_LIMIT:
                raise BadFile(
                    f"{self._where}: {key} has a pattern that is too large: {pattern[:100]!r}",
                    "use a list of module names",
                )
            try:
                self._compiled[form, pattern] = regex.compile(form.replace("{}", pattern), cache_pattern=False)
            except (regex.error, OverflowError, RecursionError, ValueError) as error:
                raise BadFile(f"{self._where}: {key} has the invalid pattern {pattern[:100]!r}: {error}") from None
        return self._compiled[form, pattern]


def _expanded(pattern: str) -> float:
    """The most characters of a pattern when its repetitions are written out. It takes all of them as nested."""
    size = float(len(pattern))
    for count in (count for pair in _COUNTS.findall(pattern) for count in pair if count):
        size *= max(1.0, float(count))
    return size


def _is_same(plain: str, name: str, form: str) -> bool:
    """Whether a plain name matches. Its dots match any character, as in PEFT."""
    start = len(name) - len(plain)
    if start < 0 or (start and (form == WHOLE or name[start - 1] != ".")):
        return False
    end = name[start:]
    return end == plain or all(c == d or (c == "." and d != "\n") for c, d in zip(plain, end, strict=True))


def ends(name: str) -> Iterator[str]:
    """Yield a name, and its ends after each dot.

    >>> list(ends("blocks.0.q"))
    ['blocks.0.q', '0.q', 'q']
    """
    parts = name.split(".")
    return (".".join(parts[n:]) for n in range(len(parts)))
