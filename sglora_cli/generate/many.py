"""Generates one adapter per sentence. An invalid line gets an error and does not stop the others."""

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
    """The result of a line: an adapter and its files, or an error."""

    line: int
    """From 1."""
    generated: Generated | None = None
    paths: tuple[Path, ...] = ()
    error: SgloraError | None = None


def answers(
    session: Session,
    lines: Iterable[bytes],
    save: Callable[[int, Generated], list[Path]],
    config: GenerateConfig,
    prior_config: PriorConfig,
) -> Iterator[Answer]:
    """Yield an answer for each non-empty line, in order. Sentences are encoded in batches.

    `save` is called with the line number and the generated adapters.
    """
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    while chunk := list(islice(numbered, AT_ONCE)):
        answer_of: dict[int, Answer] = {}
        good = {}
        for number, line in chunk:
            try:
                good[number] = session.described(_text(line))
            except SgloraError as error:
                answer_of[number] = Answer(number, error=error)
        results = session.generate_all(list(good.values()), config, prior_config)
        for number, generated in zip(good, results, strict=True):
            try:
                answer_of[number] = Answer(number, generated, tuple(save(number, generated)))
            except SgloraError as error:
                answer_of[number] = Answer(number, error=error)
        yield from (answer_of[number] for number, _ in chunk)


def _text(line: bytes) -> str:
    try:
        return line.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise UsageError("the line is not UTF-8 text", "save it as UTF-8") from None


def failed(bad: list[Answer], count: int) -> SgloraError:
    """Return the error to raise at the end. It has the class of the first error, and so its exit code."""
    first = bad[0].error or UsageError("")
    return type(first)(f"{len(bad)} of {count} lines failed, starting with line {bad[0].line}", "fix these lines")
