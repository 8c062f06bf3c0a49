"""Many sentences, an adapter each: a wrong line is answered with its error, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from sglora_cli.config import GenerateConfig, PriorConfig
from sglora_cli.errors import SgloraError, UsageError
from sglora_cli.generate.generated import Generated
from sglora_cli.generate.session import Session

AT_ONCE = 64


@dataclass(frozen=True)
class Answer:
    """What became of a line: an adapter and its files, or an error."""

    line: int
    """From 1."""
    made: Generated | None = None
    paths: tuple[Path, ...] = ()
    error: SgloraError | None = None


def answers(
    session: Session,
    lines: Iterable[bytes],
    save: Callable[[int, Generated], list[Path]],
    config: GenerateConfig,
    prior_config: PriorConfig,
) -> Iterator[Answer]:
    """An answer for each line that is not empty, in order; sentences are encoded some at once.

    `save` gets the number of the line and what was made for it.
    """
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    while chunk := list(islice(numbered, AT_ONCE)):
        found: dict[int, Answer] = {}
        good = {}
        for number, line in chunk:
            try:
                good[number] = session.described(_text(line))
            except SgloraError as error:
                found[number] = Answer(number, error=error)
        for number, made in zip(good, session.generate_all(list(good.values()), config, prior_config), strict=True):
            try:
                found[number] = Answer(number, made, tuple(save(number, made)))
            except SgloraError as error:
                found[number] = Answer(number, error=error)
        yield from (found[number] for number, _ in chunk)


def _text(line: bytes) -> str:
    try:
        return line.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise UsageError("the line is not UTF-8 text", "save it as UTF-8") from None


def failed(bad: list[Answer], count: int) -> SgloraError:
    """What to raise at the end: of the kind of the first error, so that its exit code is the program's."""
    first = bad[0].error or UsageError("")
    return type(first)(f"{len(bad)} of {count} lines made no adapter, line {bad[0].line} first", "mend these lines")
