"""`sglora pack recipes`: lists recipes."""

from __future__ import annotations

import click

from sglora_cli.cli.options import App, json_option
from sglora_cli.cli.output import print_json, print_rows
from sglora_cli.files.escape import printable


@click.command("recipes")
@json_option()
@click.pass_obj
def recipes(app: App, as_json: bool) -> None:
    """List the recipes that `pack build` accepts by name.

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
