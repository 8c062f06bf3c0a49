"""Run the commands that a page shows, in this process, and compare their output with what the page shows.

In a ```console block, a line `$ command` is followed by its output, standard output and standard error in order. A line
`...` stands for any lines, and `...` inside a line for any text. Whole numbers must be equal and decimal ones close. In
a block after the comment `<!-- numbers vary -->`, a line is compared up to its first decimal number only.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import runpy
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from sglora_cli.cli.main import main

VARY = "<!-- numbers vary -->"
_DECIMAL = re.compile(r"([+-]?\d+\.\d+)")
_PROGRESS = re.compile(r".*: \d+ %(, .* left)?")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    lines: tuple[str, ...]
    number: int
    """Of its first line in the file."""
    vary: bool

    @property
    def text(self) -> str:
        return "".join(line + "\n" for line in self.lines)


@dataclass(frozen=True)
class Shown:
    """A command of a page, and what the page says it prints."""

    command: str
    output: tuple[str, ...]
    number: int
    vary: bool


@contextlib.contextmanager
def newcomer_in(folder: Path) -> Iterator[None]:
    """Work in a folder, offline and with a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SGLORA_HOME", str(folder / "home"))
        patch.setenv("SGLORA_OFFLINE", "1")
        yield


def blocks(page: Path) -> list[Block]:
    page_blocks, lines, vary = [], page.read_text(encoding="utf-8").splitlines(), False
    while_in: tuple[str, int] | None = None
    for number, line in enumerate(lines, 1):
        if line.startswith("```"):
            if while_in:
                language, start = while_in
                page_blocks.append(Block(language, tuple(lines[start : number - 1]), start + 1, vary))
                while_in, vary = None, False
            else:
                while_in = (line[3:], number)
        elif not while_in and line:
            vary = line == VARY
    assert while_in is None, f"{page.name} ends inside a block"
    return page_blocks


def commands_of(block: Block) -> Iterator[Shown]:
    starts = [n for n, line in enumerate(block.lines) if line.startswith("$ ")]
    for start, end in zip(starts, [*starts[1:], len(block.lines)], strict=True):
        yield Shown(block.lines[start][2:], block.lines[start + 1 : end], block.number + start, block.vary)


def run(command: str) -> tuple[int, str]:
    """Exit code and output of `sglora ...` or `python FILE`, with `< FILE` and a comment if there are."""
    words = shlex.split(command, comments=True)
    given = None
    if "<" in words:
        given = Path(words.pop(words.index("<") + 1)).read_bytes()
        words.remove("<")
    if words[0] == "python":
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            runpy.run_path(words[1], run_name="__main__")
        return 0, printed.getvalue()
    assert words[0] == "sglora", command
    result = CliRunner().invoke(main, words[1:], input=given)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def steps_of(page: Path) -> list[Shown]:
    """All commands of a page, with the output that it shows."""
    return [one for block in blocks(page) if block.language == "console" for one in commands_of(block)]


def run_steps(page: Path) -> dict[int, tuple[int, str]]:
    """Run all commands of a page in the working folder: exit code and output of each by its line number.

    A file that the page tells the reader to save is written before the first build or script that uses it.
    """
    text = page.read_text(encoding="utf-8")
    names = re.findall(r"[Ss]ave (?:this|it) as `([^`]+)`", text)
    contents = [block.text for block in blocks(page) if block.language in ("python", "toml")]
    waiting, outcomes = dict(zip(names, contents, strict=True)), {}
    for one in steps_of(page):
        if one.command.startswith(("sglora pack build", "python")):
            for name in [name for name in waiting if name in one.command]:
                Path(name).write_text(waiting.pop(name), encoding="utf-8")
        outcomes[one.number] = run(one.command)
    assert not waiting, f"no command of the page uses {', '.join(waiting)}"
    return outcomes


def run_examples(page: Path) -> str:
    """Run all Python blocks of a page, one after the other and with the same names, and return what they print."""
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for block in blocks(page):
            if block.language == "python":
                exec(compile("\n" * (block.number - 1) + block.text, page.name, "exec"), names)
    return printed.getvalue().replace("WindowsPath", "PosixPath")


def without_progress(output: str) -> list[str]:
    """The lines of an output, without lines of progress and blanks at their ends."""
    return [line.rstrip() for line in output.splitlines() if not _PROGRESS.fullmatch(line)]


def difference(one: Shown, output: str) -> str:
    """Why an output is not what the page shows; "" if it is."""
    printed = [line for line in without_progress(output) if line]
    wanted = [line.rstrip() for line in one.output if line.strip()]
    pattern_of = _start_pattern if one.vary else _line_pattern
    pattern = "".join(r"(?:.*\n)*?" if line == "..." else pattern_of(line) + "\n" for line in wanted)
    match = re.fullmatch(pattern, "".join(line + "\n" for line in printed))
    if not match:
        return "the page shows\n" + "\n".join(wanted) + "\n\nand it prints\n" + "\n".join(printed)
    numbers = [] if one.vary else [number for line in wanted for number in _DECIMAL.findall(line)]
    far = [
        f"{number} on the page, {got} printed"
        for number, got in zip(numbers, match.groups(), strict=True)
        if not math.isclose(float(number), float(got), rel_tol=0.05, abs_tol=0.06)
    ]
    return "; ".join(far)


def alike(wanted: str, printed: str, vary: bool) -> bool:
    """Whether a printed line is the one that the page shows, whatever its decimal numbers are."""
    return bool(re.fullmatch((_start_pattern if vary else _line_pattern)(wanted), printed))


def _start_pattern(line: str) -> str:
    start, *more = _DECIMAL.split(line, maxsplit=1)
    return _line_pattern(start.rstrip()) + (".*" if more else "")


def _line_pattern(line: str) -> str:
    parts = []
    for n, part in enumerate(_DECIMAL.split(line)):
        if n % 2:
            parts.append(r"([+-]?\d+\.\d+)")
        else:
            words = [r"\s+".join(map(re.escape, re.split(r"\s+", text))) for text in part.split("...")]
            parts.append(".*".join(words))
    return "".join(parts)
