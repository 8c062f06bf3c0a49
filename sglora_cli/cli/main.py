"""The command group, and the one place where errors and signals become exit codes.

It imports neither torch nor a plugin.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from keyword import iskeyword
from typing import Any, NoReturn

import click

from sglora_cli.cli.group import Group, completed
from sglora_cli.cli.options import App
from sglora_cli.cli.output import fail, printable, say
from sglora_cli.cli.usage import usage_error
from sglora_cli.errors import GO_ON, SgloraError, Unavailable, error_facts, failure_of
from sglora_cli.system import progress

COMMANDS = {
    "generate": "Make an adapter from a sentence.",
    "list": "List adapters that were made here, with their sentences.",
    "search": "Rank your photos for a sentence.",
    "classify": "Sort your photos by names.",
    "try": "Compare rankings without and with an adapter.",
    "inspect": "Describe an adapter, pack or recipe and check its health.",
    "diff": "Compare two adapters: their updates and their origins.",
    "export": "Write an adapter for PEFT, open_clip or CLIP-LoRA.",
    "import": "Read an adapter of PEFT, CLIP-LoRA or a merged checkpoint.",
    "bench": "Measure methods on unseen tasks.",
    "report": "Show measured rows as a page, figures or text.",
    "reproduce": "Make a table of the paper, beside the paper's numbers.",
    "pack": "Build, list, show, verify, change, export and import packs.",
    "data": "List, fetch, caption and check data sets.",
    "plugins": "List plugins and find broken ones.",
    "settings": "Show and change what is set once.",
    "cache": "Show what is in the user cache, and make room.",
    "doctor": "Check what works here and say how to fix what does not.",
    "docs": "Show the documentation, without a network.",
    "completion": "Print the script that completes commands in your shell.",
    "schema": "Say what --json prints, as JSON Schema.",
}


_PIPE_CLOSED = 141
"""128 and the number of SIGPIPE, which ends other programs there."""


class Program(Group):
    """Commands are imported when they are called; errors end here."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = f"{name}_" if iskeyword(name) else name
        return completed(import_module(f"sglora_cli.cli.commands.{module}").command)

    def summaries(self, ctx: click.Context) -> dict[str, str]:
        return COMMANDS

    def make_context(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        with pipes():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with pipes():
            return super().invoke(ctx)

    def main(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        """As click's, with exit codes of errors.py; 128 and a signal's number after an interruption.

        With --json, an error is the last line of standard error, an object: see `sglora schema error`.
        """
        open_streams()
        progress.be_heard()
        self.words = list(kwargs.get("args") or sys.argv[1:])
        self.as_json = "--json" in self.words
        if self.as_json:
            progress.be_quiet()
        try:
            try:
                return self._run(*args, **kwargs)
            finally:
                sys.stdout.flush()  # not at exit, where Python complains of a closed pipe
        except (BrokenPipeError, ReaderLeft):  # what is left unwritten goes nowhere, quietly
            drop_output()
            sys.exit(_PIPE_CLOSED)

    def _run(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        try:
            with stoppable():
                return super().main(*args, **{**kwargs, "standalone_mode": False})
        except SgloraError as error:
            self._leave(error)
        except click.exceptions.Abort:
            self._stopped("interrupted", 130)
        except Terminated as stop:
            self._stopped("terminated", stop.exit_code)
        except click.ClickException as error:
            if isinstance(error, click.exceptions.NoArgsIsHelpError) and not self.as_json:
                error.show()  # all of the help
                sys.exit(error.exit_code)
            self._leave(usage_error(error, self, self.words))
        except (OSError, RuntimeError, MemoryError) as error:
            if known := failure_of(error):
                self._leave(known)
            raise

    def _leave(self, error: SgloraError) -> NoReturn:
        text = f"error: {error.message}"  # a line break in a single error came from a stranger's file: it stays escaped
        lines = text.split("\n") if error.parts else [text]
        self._end(error.to_json(), [*lines, *([f"hint: {error.hint}"] if error.hint else [])])

    def _stopped(self, how: str, code: int) -> NoReturn:
        text = f"{how}; {GO_ON}"
        self._end(error_facts(how.capitalize(), text, "", code), [text])

    def _end(self, facts: dict[str, Any], lines: list[str]) -> NoReturn:
        for line in [json.dumps(facts)] if self.as_json else lines:
            fail(line)
        sys.exit(facts["error"]["exit_code"])


class ReaderLeft(BaseException):
    """Whoever reads a pipe has read enough. Click would make exit code 1 of a BrokenPipeError."""


@contextmanager
def pipes() -> Iterator[None]:
    """A BrokenPipeError of this block is ReaderLeft."""
    try:
        yield
    except BrokenPipeError:
        raise ReaderLeft from None


def open_streams() -> None:
    """Standard streams that were closed before the start lead nowhere: `sglora ... >&-`."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115


def drop_output() -> None:
    """Let both output streams lead nowhere from now on, also what they have not written yet."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a stream without a file, as of a test
            os.dup2(nowhere, stream.fileno())


def _version(ctx: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        from sglora_cli.cli.versions import installed

        click.echo("\n".join(map(printable, installed())))
        ctx.exit()


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Print what is installed.",
)
@click.pass_context
def main(ctx: click.Context) -> None:
    """A LoRA adapter for a vision-language model from one sentence: no data, no training.

    \b
    sglora generate "a photo of a pug" -o pug.safetensors
    sglora bench                 # how good such adapters are on unseen tasks
    sglora doctor                # what works on this machine

    Results are on standard output (--json for programs), the rest on standard error. With -q, which every command
    takes, only warnings and errors are on standard error.

    Exit codes: 0 done, 1 a bug, 2 usage, 3 unknown name, 4 bad file, 5 mismatch, 6 unavailable, 7 plugin,
    130 interrupted, 141 the reader of a pipe left, 143 terminated.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a letter is no reason to stop
    warnings.filterwarnings("ignore", module=r"(timm|torch|PIL)\.")  # theirs to mend, not the user's
    warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
    check_working_folder()
    ctx.obj = App()


completed(main)

_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Terminated(BaseException):
    """A signal asks the program to end: unlike the signal's own way, drafts are removed on the way out.

    Neither KeyboardInterrupt nor SystemExit: click and the loading of plugins have their own ideas of these.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM and SIGHUP raise Terminated in this block, with 128 + their number as exit code."""
    if threading.current_thread() is not threading.main_thread():  # only it may set handlers
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    ours = [number for number in _SIGNALS if before[number] is signal.SIG_DFL]  # nohup's SIGHUP stays ignored
    for number in ours:
        signal.signal(number, _terminate)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])


def _terminate(number: int, frame: Any) -> None:
    raise Terminated(128 + number)


def check_working_folder() -> None:
    """Raises Unavailable if it was removed: no relative path means anything then."""
    try:
        os.getcwd()
    except OSError:
        raise Unavailable("the working folder does not exist any more", "change into another one with cd") from None


if __name__ == "__main__":
    main()
