"""The program's command group, and the only place where errors and signals become exit codes.

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
from sglora_cli.cli.output import Declined, fail, say
from sglora_cli.cli.usage import usage_error
from sglora_cli.errors import GO_ON, SgloraError, Unavailable, error_facts, failure_of
from sglora_cli.files.escape import printable
from sglora_cli.system import progress

COMMANDS = {
    "generate": "Make an adapter from a sentence.",
    "list": "List your adapters with their sentences.",
    "search": "Rank your photos for a sentence.",
    "classify": "Sort your photos by names.",
    "try": "Compare how photos rank without and with an adapter.",
    "inspect": "Describe an adapter, pack or recipe and check its health.",
    "diff": "Compare the updates and origins of two adapters.",
    "export": "Write an adapter for PEFT, open_clip or CLIP-LoRA.",
    "import": "Convert an adapter of another program to sglora's format.",
    "bench": "Measure methods on unseen tasks.",
    "report": "Show measured rows as a page, figures or text.",
    "reproduce": "Reproduce a table of the paper and compare the results.",
    "pack": "Build, inspect, change and share packs.",
    "data": "List, fetch, caption and check data sets.",
    "plugins": "List, create and check plugins, and find broken ones.",
    "settings": "Show and change settings.",
    "cache": "Show and clean up the user cache.",
    "doctor": "Check what works on this machine and how to fix the rest.",
    "docs": "Show the documentation offline.",
    "completion": "Print the completion script for your shell.",
    "schema": "Print the JSON Schema of a command's --json output.",
}


_INTERRUPTED = 130
"""128 plus the number of SIGINT. Declining a question has the same code as interrupting it."""

_PIPE_CLOSED = 141
"""128 plus the number of SIGPIPE, the signal that ends other programs in this case."""


class Program(Group):
    """The top-level group. It imports a command when it is called and turns errors into exit codes."""

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
        """Run click's main with the exit codes of errors.py, or 128 plus the number of a signal.

        With --json, the last line of standard error is an error as a JSON object; see `sglora schema error`.
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
                sys.stdout.flush()  # at exit, Python would report a closed pipe
        except (BrokenPipeError, ReaderLeft):  # discard unwritten output silently
            drop_output()
            sys.exit(_PIPE_CLOSED)

    def _run(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        try:
            with stoppable():
                return super().main(*args, **{**kwargs, "standalone_mode": False})
        except SgloraError as error:
            self._leave(error)
        except Declined as no:
            self._stopped("declined", str(no), _INTERRUPTED)
        except click.exceptions.Abort:
            self._stopped("interrupted", f"interrupted; {GO_ON}", _INTERRUPTED)
        except Terminated as stop:
            self._stopped("terminated", f"terminated; {GO_ON}", stop.exit_code)
        except click.ClickException as error:
            if isinstance(error, click.exceptions.NoArgsIsHelpError) and not self.as_json:
                error.show()  # prints the full help
                sys.exit(error.exit_code)
            self._leave(usage_error(error, self, self.words))
        except (OSError, RuntimeError, MemoryError, UnicodeEncodeError) as error:
            if known := failure_of(error):
                self._leave(known)
            raise

    def _leave(self, error: SgloraError) -> NoReturn:
        text = f"error: {error.message}"  # a line break in a single error is from an untrusted file: escape it
        lines = text.split("\n") if error.parts else [text]
        self._end(error.to_json(), [*lines, *([f"hint: {error.hint}"] if error.hint else [])])

    def _stopped(self, how: str, text: str, code: int) -> NoReturn:
        self._end(error_facts(how.capitalize(), text, "", code), [text])

    def _end(self, facts: dict[str, Any], lines: list[str]) -> NoReturn:
        if self.as_json:
            click.echo(json.dumps(facts), err=True)  # on one line, also in a terminal
        else:
            for line in lines:
                fail(line)
        sys.exit(facts["error"]["exit_code"])


class ReaderLeft(BaseException):
    """The reader of a pipe has closed it. Click would turn a BrokenPipeError into exit code 1."""


@contextmanager
def pipes() -> Iterator[None]:
    """Raise ReaderLeft for a BrokenPipeError in this block."""
    try:
        yield
    except BrokenPipeError:
        raise ReaderLeft from None


def open_streams() -> None:
    """Connect standard streams that were closed before the start (`sglora ... >&-`) to the null device.

    Nothing that is written to standard error fails.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
    if sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        stream = io.BufferedWriter(Unheard(sys.stderr.fileno(), "w", closefd=False))
        sys.stderr = io.TextIOWrapper(stream, sys.stderr.encoding, sys.stderr.errors, line_buffering=True)


class Unheard(io.FileIO):
    """Standard error. If it is a closed pipe or a full disk, the text is lost, but the exit code stays."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return len(data)


def drop_output() -> None:
    """Redirect both output streams to the null device, including their unwritten buffers."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a stream without a file descriptor, such as in tests
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
    help="Print the installed versions and exit.",
)
@click.pass_context
def main(ctx: click.Context) -> None:
    """Make a LoRA adapter from one sentence, without data or training.

    The adapters are for vision-language models such as CLIP.

    \b
    sglora generate "a photo of a pug" -o pug.safetensors
    sglora bench                 # measure such adapters on unseen tasks
    sglora doctor                # check what works on this machine

    Commands print results on standard output (JSON with --json) and everything else on standard error. With -q, which
    every command accepts, only warnings and errors go to standard error.

    Exit codes: 0 done, 1 a bug, 2 usage, 3 unknown name, 4 bad file, 5 mismatch, 6 unavailable, 7 plugin,
    130 interrupted or declined, 141 closed pipe, 143 terminated.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a character must not stop the program
    warnings.filterwarnings("ignore", module=r"(timm|torch|PIL)\.")  # the user cannot fix these
    warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
    check_working_folder()
    ctx.obj = App()


completed(main)

_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Terminated(BaseException):
    """A signal requests the program to end. Raising it lets `with` blocks remove drafts, unlike the default action.

    It is neither KeyboardInterrupt nor SystemExit, because click and the plugin loader handle these themselves.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


@contextmanager
def stoppable() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise Terminated in this block, with 128 plus their number as exit code."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    ours = [number for number in _SIGNALS if before[number] is signal.SIG_DFL]  # keep SIGHUP ignored under nohup
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
    """Raise Unavailable if the working folder was removed, because no relative path works then."""
    try:
        os.getcwd()
    except OSError:
        raise Unavailable("the working folder no longer exists", "change to an existing folder with cd") from None


if __name__ == "__main__":
    main()
