"""The command group, and the one place where errors become exit codes. Imports neither torch nor a plugin."""

from __future__ import annotations

import sys
import warnings
from functools import cached_property
from importlib import import_module
from keyword import iskeyword
from pathlib import Path

import click

from sglora_cli import __version__
from sglora_cli.errors import BadRecipe, SgloraError, UnknownName, UsageError
from sglora_cli.printing import printable

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
    "docs": "Show the documentation: tutorial, how-to pages, reference, method.",
}


class App:
    """What commands share: the host, loaded when it is first needed."""

    @cached_property
    def host(self):  # type: ignore[no-untyped-def]
        from sglora_cli.host import Host

        host = Host.load()
        for problem in host.problems:
            say(f"warning: plugin {problem.plugin!r} is broken: {problem.reason} (see `sglora plugins doctor`)")
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
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(self, ctx: click.Context, args: list[str]):  # type: ignore[no-untyped-def]
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise UnknownName.of("command", args[0], COMMANDS)
        return super().resolve_command(ctx, args)

    def main(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        """As click's, with exit codes of errors.py; 130 after an interruption."""
        try:
            return super().main(*args, **{**kwargs, "standalone_mode": False})
        except SgloraError as error:
            for line in _lines(error):
                say(line)
            if error.hint:
                say(f"hint: {error.hint}")
            sys.exit(error.exit_code)
        except click.exceptions.Abort:
            say("interrupted; finished steps are kept")
            sys.exit(130)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except BrokenPipeError:
            sys.stderr.close()
            sys.exit(0)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sglora")
@click.pass_context
def main(ctx: click.Context) -> None:
    """A LoRA adapter for a vision-language model from one sentence: no data, no training.

    \b
    sglora generate "a photo of a pug" -o pug.safetensors
    sglora bench --baselines all
    """
    warnings.filterwarnings("ignore", module=r"(timm|torch)\.")  # theirs to mend, not the user's
    warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
    ctx.obj = App()


if __name__ == "__main__":
    main()
