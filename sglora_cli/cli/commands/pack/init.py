"""`sglora pack init`: a recipe of one's own, as a file to change."""

from __future__ import annotations

from pathlib import Path

import click

from sglora_cli.cli import completion
from sglora_cli.cli.options import PATH, App, check_ending, force_option, json_option
from sglora_cli.cli.output import print_json, print_rows, say
from sglora_cli.errors import UsageError


@click.command("init")
@click.argument("file", type=PATH, default=Path("recipe.toml"))
@click.option("--data", type=PATH, help="Write it for the photos in this folder: a folder a task, or captions.jsonl.")
@click.option(
    "--dataset",
    default="",
    help="With --data: the data set that reads the folder; recognised by default.",
    shell_complete=completion.names(completion.datasets),
)
@click.option(
    "--from",
    "source",
    default="",
    help="Copy this recipe: a name, see `sglora pack recipes`, or a .toml file.",
    shell_complete=completion.names(completion.recipes, files=True),
)
@force_option()
@json_option()
@click.pass_obj
def init(app: App, file: Path, data: Path | None, dataset: str, source: str, force: bool, as_json: bool) -> None:
    """Write a commented recipe for a folder of your photos.

    FILE is recipe.toml by default. --data reads a folder of photos as tasks, deals out their roles and says why. The
    last line is the command that builds the pack. Without --data and --from it is an example to change.

    \b
    sglora pack init my.toml --data photos
    sglora pack init my.toml --from pets
    """
    from sglora_cli.files.atomic import check_free
    from sglora_cli.pack import own_recipe

    check_ending("recipe", file, ".toml")
    if data and source:
        raise UsageError(
            "--data and --from do not go together",
            f"pass --data alone, then copy settings from the recipe that `sglora pack init other.toml --from {source}` "
            "writes",
        )
    if dataset and not data:
        raise UsageError("--dataset goes with --data", "pass --data FOLDER, the folder of its photos")
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
    say(("change it" if source else "change the names in [[source]]") + f", then: sglora pack build {file} --data DIR")
    click.echo(file)
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
        say(f"first write captions, which {data.waiting} of {data.captioned + data.waiting} photos lack:")
        say(f"  {data.caption_command}")
    if not dataset and data.dataset != own_recipe.DEFAULT_DATASET:
        say(f"read as data set {data.dataset!r}; pass --dataset to choose another")
    for reason in reasons:
        say(reason)
    say(f"written: {file}")
    rows = [[str(t["task"]), f"{t['train']} train", f"{t['test']} test", str(t["role"] or "left out")] for t in tasks]
    print_rows(("task", "train", "test", "role"), rows)
    click.echo(command)


def _write(file: Path, content: bytes, force: bool) -> None:
    from sglora_cli.files.swap import ABSENT, state_of, swapped

    if not swapped(file, state_of(file) if force else ABSENT, content):
        raise UsageError(f"{file} was written by another program just now", "choose another name")
