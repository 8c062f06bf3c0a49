"""`sglora pack init`: writes a recipe to edit."""

from __future__ import annotations

from pathlib import Path

import click

from sglora_cli.cli import completion
from sglora_cli.cli.options import PATH, App, check_ending, force_option, json_option
from sglora_cli.cli.output import echo, print_json, print_rows, say
from sglora_cli.errors import UsageError
from sglora_cli.files.escape import shell_word
from sglora_cli.system.display import counted


@click.command("init")
@click.argument("file", type=PATH, default=Path("recipe.toml"))
@click.option(
    "--data", type=PATH, help="Folder of photos to write the recipe for, with one folder per task or captions.jsonl."
)
@click.option(
    "--dataset",
    default="",
    help="Data set plugin that reads the --data folder. Default: detected.",
    shell_complete=completion.names(completion.datasets),
)
@click.option(
    "--from",
    "source",
    default="",
    help="Recipe to copy, a name listed by `sglora pack recipes` or a .toml file.",
    shell_complete=completion.names(completion.recipes, files=True),
)
@force_option()
@json_option()
@click.pass_obj
def init(app: App, file: Path, data: Path | None, dataset: str, source: str, force: bool, as_json: bool) -> None:
    """Write a commented recipe for a folder of your photos.

    FILE is recipe.toml by default. With --data, the command reads a folder of photos as tasks, assigns a role to each
    (expert, training or unseen) and explains why. Its last output line is the command that builds the pack. Without
    --data and --from it writes an example for you to edit.

    \b
    sglora pack init my.toml --data photos
    sglora pack init my.toml --from pets
    """
    from sglora_cli.files.atomic import check_free
    from sglora_cli.pack import own_recipe

    check_ending("recipe", file, ".toml")
    if data and source:
        raise UsageError(
            "--data and --from cannot be combined",
            "pass --data alone, then copy settings from the recipe that "
            f"`sglora pack init other.toml --from {shell_word(source)}` writes",
        )
    if dataset and not data:
        raise UsageError("--dataset requires --data", "pass --data FOLDER too")
    check_free(file, force)
    if data:
        return _for_data(app, file, data, dataset, force, as_json)
    if source:
        _write(file, own_recipe.copied(source, app.library.recipe_file(source)), force)
    else:
        _write(file, own_recipe.EXAMPLE.encode(), force)
    if as_json:
        print_json({"file": str(file)})
        return None
    say(
        ("edit it" if source else "edit the names in [[source]]")
        + f", then run: sglora pack build {shell_word(file)} --data DIR"
    )
    echo(file)
    return None


def _for_data(app: App, file: Path, folder: Path, dataset: str, force: bool, as_json: bool) -> None:
    from sglora_cli.pack import own_recipe

    data = own_recipe.read_data(app.host, folder, dataset)
    dealt = own_recipe.roles_of(data)
    _write(file, own_recipe.recipe_text(data, dealt, file).encode(), force)
    command, reasons = data.build_command(file), dealt.reasons()
    tasks = [
        {"task": task.name, "train": task.train, "test": task.test, "role": dealt.of(task.name) or None}
        for task in sorted(data.tasks, key=lambda task: task.name)
    ]
    if as_json:
        captions = {"captioned": data.captioned, "waiting": data.waiting, "caption_command": data.caption_command}
        print_json(
            {"file": str(file), "dataset": data.dataset, "tasks": tasks, "reasons": reasons}
            | captions
            | {"command": command}
        )
        return
    if data.waiting:
        say(f"write the missing captions of {data.waiting} of {counted(data.captioned + data.waiting, 'photo')} first:")
        say(f"  {data.caption_command}")
    if not dataset and data.dataset != own_recipe.DEFAULT_DATASET:
        say(f"reading it as data set {data.dataset!r}; pass --dataset to choose another")
    for reason in reasons:
        say(reason)
    say(f"written: {file}")
    rows = [[str(t["task"]), f"{t['train']} train", f"{t['test']} test", str(t["role"] or "left out")] for t in tasks]
    print_rows(("task", "train", "test", "role"), rows)
    echo(command)


def _write(file: Path, content: bytes, force: bool) -> None:
    from sglora_cli.files.swap import ABSENT, state_of, swapped

    if not swapped(file, state_of(file) if force else ABSENT, content):
        raise UsageError(f"another program has just written {file}", "choose another name")
