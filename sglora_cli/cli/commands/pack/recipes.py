"""`sglora pack recipes` and `init`: which recipes there are, and a first one of one's own."""

from __future__ import annotations

from pathlib import Path

import click

from sglora_cli.cli.options import PATH, App, check_ending, force_option, json_option
from sglora_cli.cli.output import print_json, print_rows, printable, say
from sglora_cli.errors import UsageError

EXAMPLE = """\
# sglora pack build FILE --data DIR   builds a pack from this recipe. Names in [[source]] are examples: change them.
backbone = "starter"                  # `sglora plugins list` has others; clip-vit-b-16 is the paper's
template = "a photo of a {name}"      # the sentence that stands for a task
[train]
epochs = 70                           # `sglora inspect FILE` shows all such numbers
states = 30
[generators.cvae]                     # the generator to train; without this table there are merging rules only
[[source]]                            # a data set; there may be several
name = "toys"                         # its tasks are called toys/ball, toys/box, ...
dataset = "folder"                    # `sglora data list` has others
path = "toys"                         # here DIR/toys, with captions.jsonl and the images it names
expert = ["ball", "box", "cup", "hat"]   # tasks whose adapters the pack holds, at least K = 4
training = ["jar", "kite", "lamp"]       # tasks that teach the generator
unseen = ["mug", "nest"]                 # tasks that measure it; no task has two roles
"""


@click.command("recipes")
@json_option()
@click.pass_obj
def recipes(app: App, as_json: bool) -> None:
    """List the recipes that `pack build` knows by name.

    \b
    sglora pack recipes
    """
    from sglora_cli.pack.recipe_parser import summary

    rows = [{"name": name, "file": str(path), **summary(path)} for name, path in sorted(app.library.recipes().items())]
    if as_json:
        print_json({"recipes": rows})
    else:
        print_rows(
            ("recipe", "backbone", "summary"),
            [[printable(r[k]) for k in ("name", "backbone", "summary")] for r in rows],
            words=("summary",),
        )


@click.command("init")
@click.argument("file", type=PATH, default=Path("recipe.toml"))
@force_option()
@json_option()
def init(file: Path, force: bool, as_json: bool) -> None:
    """Write a commented recipe for a folder of your photos.

    FILE is recipe.toml by default.

    \b
    sglora pack init toys.toml
    """
    from sglora_cli.files.atomic import check_free
    from sglora_cli.files.swap import ABSENT, state_of, swapped

    check_ending("recipe", file, ".toml", f"try {file.with_suffix('.toml')}")
    check_free(file, force)
    if not swapped(file, state_of(file) if force else ABSENT, EXAMPLE.encode()):
        raise UsageError(f"{file} was written by another program just now", "choose another name")
    if as_json:
        print_json({"file": str(file)})
        return
    say("change the names in [[source]], then: sglora pack build " + f"{file} --data DIR")
    click.echo(file)
