"""Shared by commands: the host, the library of packs, and options and arguments that several commands have.

`-o/--out` is the path of a command's result. `--report` is the path of an additional HTML page.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from sglora_cli.cli import completion
from sglora_cli.cli.output import say
from sglora_cli.config import StepConfig, options_of
from sglora_cli.errors import BadFile, UsageError
from sglora_cli.files.escape import shell_word

if TYPE_CHECKING:
    from sglora_cli.pack.library import Library
    from sglora_cli.plugin.host import Host

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class FilePath(click.Path):
    """A path. Unlike click.Path, it rejects "", which a script passes if a variable is not set."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if str(value) == "":
            raise UsageError(f"{param.opts[-1] if param else 'a path'} is empty", "pass the path of a file or folder")
        return super().convert(value, param, ctx)


PATH = FilePath(path_type=Path)


class ResultPath(FilePath):
    """The path of a result. A device or a pipe is refused before the work starts."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        from sglora_cli.files.atomic import check_not_special

        path = Path(super().convert(value, param, ctx))
        check_not_special(path)
        return path


RESULT = ResultPath(path_type=Path)


class AdapterPath(FilePath):
    """Path of an adapter's file or folder, or the name of an adapter in the user cache."""

    name = "adapter"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        from sglora_cli.adapter.library import found

        return found(Path(super().convert(value, param, ctx)))

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return completion.names(completion.adapters, files=True)(ctx, param, incomplete)


ADAPTER = AdapterPath()


class App:
    """The host and the library of packs, each loaded when it is first needed."""

    @cached_property
    def host(self) -> Host:
        from sglora_cli.plugin.host import Host

        host = Host.load()
        for problem in host.problems:
            say(f"warning: plugin {problem.plugin!r} is broken: {problem.reason} ({problem.hint})")
        return host

    @cached_property
    def library(self) -> Library:
        from sglora_cli.pack.library import Library

        return Library(self.host.recipe_folders)


# Paths of results


def out_option(help: str, *other_names: str, **settings: Any) -> Decorator:
    """Add `-o/--out` and its older names."""
    return click.option("-o", "--out", *other_names, "out", **{"type": RESULT, "help": help, **settings})


def report_option() -> Decorator:
    return click.option(
        "--report",
        type=RESULT,
        callback=page_name,
        help="Also write an HTML page with pictures to this file, replacing any existing one.",
    )


def page_name(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Return the path of a page. Raises UsageError unless it ends in .html."""
    if path:
        check_ending("report", path, ".html", parameter.opts[0])
    return path


def check_ending(noun: str, path: Path, ending: str, option: str = "", full: str = "") -> None:
    """Raise UsageError for a file without the ending of its kind.

    option: option that takes the file, for the hint.  full: full ending to suggest in the hint.
    """
    if path.suffix != ending:
        better = path.with_suffix(full or ending) if path.name else f"NAME{full or ending}"
        raise UsageError(
            f"a {noun} file must end in {ending}, got {path}",
            " ".join(filter(None, ["try", option, str(better)])),
        )


def check_present(*paths: Path) -> None:
    """Raise BadFile for the first path that does not exist, before torch is imported."""
    for path in paths:
        if not os.path.exists(path):
            raise BadFile.missing(path)


_OURS = {".safetensors", ".pt", ".bin", ".zip", ".toml", ".jsonl"}
"""Endings of adapters, packs, recipes, captions and rows, which are not tables."""


def table_name(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Return the path of a table. Raises UsageError for an ending of other files, which the table would overwrite."""
    if path and path.suffix.lower() in _OURS:
        table = path.with_suffix(".txt")
        raise UsageError(
            f"a table cannot be written to a {path.suffix} file, got {path}", f"try -o {shell_word(table)}"
        )
    return path


def json_option(note: str = "") -> Decorator:
    text = "Print one JSON object instead of text; see `sglora schema`."
    return click.option("--json", "as_json", is_flag=True, help=f"{text} {note}".rstrip())


def reporter_option(help: str) -> Decorator:
    return click.option(
        "--as", "reporter", default="", help=help, shell_complete=completion.names(completion.reporters)
    )


def executor_option() -> Decorator:
    """Add `--executor` and the resources of its steps, which the command gets as `executor` and `step`."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, executor: str, **parameters: Any) -> Any:
            from sglora_cli.plugin.executors import LOCAL
            from sglora_cli.system import settings

            app: App = click.get_current_context().obj
            chosen = app.host.executors[executor or settings.load().executor or LOCAL]
            return function(*args, executor=chosen, **parameters)

        return click.option(
            "--executor",
            default="",
            metavar="NAME[:ADDRESS]",
            help="Where the steps run, such as local or ray:ADDRESS. Default: the setting `executor`, else local.",
            shell_complete=completion.names(completion.executors),
        )(options_of(StepConfig, "step")(call))

    return decorate


# Confirmation and dry runs


def force_option(help: str = "Overwrite existing files.") -> Decorator:
    return click.option("--force", is_flag=True, help=help)


def yes_option() -> Decorator:
    return click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


def dry_run_option(help: str = "Only print what would be done.") -> Decorator:
    return click.option("--dry-run", is_flag=True, help=help)


# Packs, backbones, data


def pack_option(
    help: str = "Pack to use: a name, a folder, or hf:OWNER/NAME. `sglora pack list` marks the default.",
) -> Decorator:
    option = click.option("--pack", default="", help=help, shell_complete=completion.names(completion.packs))
    return lambda function: option(pulls("pack")(function))


def pulls(key: str) -> Decorator:
    """The command gets the name here of the pack that its parameter `key` names as hf:OWNER/NAME. A pack that is not
    here is pulled, once all parameters are parsed."""

    def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **parameters: Any) -> Any:
            if str(parameters[key]).startswith("hf:"):
                from sglora_cli.pack.hub import local_name

                app: App = click.get_current_context().obj
                parameters[key] = local_name(app.host, parameters[key])
            return function(*args, **parameters)

        return call

    return decorated


def not_empty(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Reject "", which a script passes if a variable is not set. It must not select the default or everything."""
    if value is not None and not value.strip():
        raise UsageError(f"{parameter.human_readable_name} is empty", "pass a value; --help describes it")
    return value


def pack_argument(*, required: bool = True) -> Decorator:
    return click.argument(
        "name",
        metavar="PACK" if required else "[PACK]",
        required=required,
        default=None if required else "",
        callback=not_empty if required else None,
        shell_complete=completion.names(completion.packs),
    )


def backbone_option(
    help: str = "Use the newest pack for this backbone; see `sglora plugins list`.",
) -> Decorator:
    return click.option("--backbone", default="", help=help, shell_complete=completion.names(completion.backbones))


def data_option(
    help: str = "Folder with the data sets. Default: the setting `data` or SGLORA_DATA.",
) -> Decorator:
    return click.option("--data", type=PATH, help=help)


def path_option() -> Decorator:
    return click.option("--path", type=PATH, help="Folder of the data set. Default: DATASET in the data folder.")


def dataset_folder(path: Path | None, dataset: str) -> Path:
    """Return the folder that `path_option` selects, by default `dataset` in the data folder.

    Raises Unavailable if neither a path nor a data folder is set.
    """
    from sglora_cli.system import settings
    from sglora_cli.system.paths import data_folder

    return path or data_folder(None, settings.load().data, "--path") / dataset


def dataset_argument() -> Decorator:
    return click.argument("dataset", shell_complete=completion.names(completion.datasets))


# Photos and adapters


def check_adapter(path: Path) -> None:
    """Raise BadFile for an adapter that does not exist, before torch is imported."""
    if not os.path.exists(path):
        from difflib import get_close_matches

        from sglora_cli.adapter.library import kept_folder, listed

        known = [one.call for one in listed([kept_folder(), path.parent])]
        close = get_close_matches(str(path), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "run `sglora list` to see the adapters"
        raise BadFile(f"adapter {path} does not exist", hint)


def photos_argument() -> Decorator:
    return click.argument("photos", type=PATH)


def adapter_option(help: str) -> Decorator:
    return click.option("--adapter", type=ADAPTER, help=help)


def photos_backbone_option() -> Decorator:
    return backbone_option("Backbone that embeds the photos. Default: the adapter's, or that of the default pack.")


# Adapters of other programs


def alpha_option() -> Decorator:
    return click.option("--alpha", type=float, help="lora_alpha of a PEFT state without adapter_config.json.")


def visual_only_option() -> Decorator:
    return click.option("--visual-only", is_flag=True, help="Ignore updates outside the visual encoder.")
