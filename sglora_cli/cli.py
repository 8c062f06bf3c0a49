"""The command group, and the one place where errors become exit codes. Imports neither torch nor a plugin."""

from __future__ import annotations

import io
import json
import os
import sys
import warnings
from functools import cached_property
from importlib import import_module
from keyword import iskeyword
from pathlib import Path
from typing import Any, NoReturn

import click

from sglora_cli.errors import BadRecipe, SgloraError, UnknownName, UsageError, error_facts
from sglora_cli.printing import printable
from sglora_cli.stopping import GO_ON, Terminated, check_working_folder, failure_of, stoppable

COMMANDS = {
    "generate": "Make an adapter from a sentence.",
    "try": "Rank images or sentences with and without an adapter.",
    "inspect": "Say what an adapter, a pack or a recipe is, and whether it is healthy.",
    "export": "Write an adapter for PEFT, open_clip or CLIP-LoRA.",
    "import": "Read an adapter of PEFT or CLIP-LoRA, or a merged checkpoint.",
    "bench": "Measure methods on unseen tasks.",
    "report": "Show measured rows as a page, figures or text.",
    "pack": "Build, list, show, verify, change, export and import packs.",
    "data": "List, fetch, caption and check data sets.",
    "plugins": "List plugins and find broken ones.",
    "settings": "Show and change what is set once.",
    "cache": "Say what lies in the user cache, and make room.",
    "doctor": "Say what works here, and how to mend what does not.",
    "docs": "Show the documentation: tutorial, how-to pages, reference, method.",
    "completion": "Print the script that completes commands in your shell.",
    "schema": "Say what --json prints, as JSON Schema.",
}


class App:
    """What commands share: the host, loaded when it is first needed."""

    @cached_property
    def host(self):  # type: ignore[no-untyped-def]
        from sglora_cli.host import Host

        host = Host.load()
        for problem in host.problems:
            say(f"warning: plugin {problem.plugin!r} is broken: {problem.reason} ({problem.hint})")
        return host


def say(text: str) -> None:
    """One line to the user beside the results."""
    click.echo(printable(text), err=True)


def check_page_name(report: Path | None) -> None:
    """Raises UsageError for a page that is not called .html."""
    if report and report.suffix != ".html":
        raise UsageError(f"a report is written as .html, got {report}", f"try --report {report.with_suffix('.html')}")


def _lines(error: SgloraError) -> list[str]:
    text = f"error: {error.message}"  # a line break in another error came from a stranger's file: it stays escaped
    return text.split("\n") if isinstance(error, BadRecipe) else [text]


class Group(click.Group):
    """Commands are imported when they are called; errors end here."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = f"{name}_" if iskeyword(name) else name
        command: click.Command = import_module(f"sglora_cli.commands.{module}").command
        if ctx.resilient_parsing:  # a shell asks
            from sglora_cli.completing import attach

            attach(command, name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(self, ctx: click.Context, args: list[str]):  # type: ignore[no-untyped-def]
        if args and args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise UnknownName.of("command", args[0], COMMANDS)
        return super().resolve_command(ctx, args)

    def main(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        """As click's, with exit codes of errors.py; 128 and a signal's number after an interruption.

        With --json, an error is the last line of standard error, an object: see `sglora schema error`.
        """
        self.as_json = "--json" in (kwargs.get("args") or sys.argv[1:])
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
            if not self.as_json:
                error.show()
            self._end(error_facts("UsageError", error.format_message(), _see_help(error), error.exit_code), [])
        except BrokenPipeError:  # who reads has read enough; what is left unwritten goes nowhere, quietly
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        except (OSError, RuntimeError, MemoryError) as error:
            if known := failure_of(error):
                self._leave(known)
            raise

    def _leave(self, error: SgloraError) -> NoReturn:
        self._end(error.facts(), [*_lines(error), *([f"hint: {error.hint}"] if error.hint else [])])

    def _stopped(self, how: str, code: int) -> NoReturn:
        told = f"{how}; {GO_ON}"
        self._end(error_facts(how.capitalize(), told, "", code), [told])

    def _end(self, facts: dict[str, Any], lines: list[str]) -> NoReturn:
        for line in [json.dumps(facts)] if self.as_json else lines:
            say(line)
        sys.exit(facts["error"]["exit_code"])


def _see_help(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"see {context.command_path} --help" if context else ""


def _version(ctx: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        from sglora_cli.packages import about

        click.echo("\n".join(map(printable, about())))
        ctx.exit()


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Say what is installed.",
)
@click.pass_context
def main(ctx: click.Context) -> None:
    """A LoRA adapter for a vision-language model from one sentence: no data, no training.

    \b
    sglora generate "a photo of a pug" -o pug.safetensors
    sglora bench --baselines all
    sglora doctor                # what works on this machine

    \b
    Results are on standard output (--json for programs), the rest on standard error.
    Exit codes: 0 done, 1 a bug, 2 usage, 3 unknown name, 4 bad file, 5 mismatch,
    6 unavailable, 7 plugin, 130 interrupted, 143 terminated.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a letter is no reason to stop
    warnings.filterwarnings("ignore", module=r"(timm|torch|PIL)\.")  # theirs to mend, not the user's
    warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
    check_working_folder()
    ctx.obj = App()


if __name__ == "__main__":
    main()
