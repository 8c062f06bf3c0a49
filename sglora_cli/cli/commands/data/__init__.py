"""`sglora data`: which data sets there are, and how to get them."""

from __future__ import annotations

from pathlib import Path

import click

from sglora_cli.cli.commands.data.caption import caption
from sglora_cli.cli.commands.data.check import check
from sglora_cli.cli.group import Group
from sglora_cli.cli.options import App, data_option, dataset_argument, json_option
from sglora_cli.cli.output import print_json, print_rows, say
from sglora_cli.errors import Unavailable
from sglora_cli.plugin.contracts import Fetches
from sglora_cli.system import settings


@click.group("data", cls=Group)
def command() -> None:
    """Data sets: where tasks come from.

    \b
    sglora data list
    sglora data check folder --path photos
    """


@click.command("list")
@json_option()
@click.pass_obj
def list_(app: App, as_json: bool) -> None:
    """List the data sets that recipes can name.

    Where one can be downloaded, the command is printed.

    \b
    sglora data list
    """
    datasets = app.host.datasets
    rows = [
        {"name": name, "summary": datasets[name].summary, "fetch": isinstance(datasets[name], Fetches)}
        for name in sorted(datasets)
    ]
    if as_json:
        print_json({"datasets": rows})
    else:
        cells = [
            [str(r["name"]), str(r["summary"]), f"sglora data fetch {r['name']}" if r["fetch"] else ""] for r in rows
        ]
        print_rows(("data set", "summary", "how to get it"), cells, words=("summary",))


@click.command("fetch")
@dataset_argument()
@data_option()
@json_option()
@click.pass_obj
def fetch(app: App, dataset: str, data: Path | None, as_json: bool) -> None:
    """Download a data set into the data folder.

    If its owner does not allow that, the command says what to put where.

    \b
    sglora data fetch pets --data data
    """
    from sglora_cli.system.paths import data_folder

    plugin = app.host.datasets[dataset]
    if not isinstance(plugin, Fetches):
        raise Unavailable(
            f"there is nothing to download for data set {dataset!r}", f"it is {plugin.summary}: bring your own"
        )
    folder = plugin.fetch(data_folder(data, settings.load().data), (lambda text: None) if as_json else say)
    print_json({"dataset": dataset, "folder": str(folder)}) if as_json else click.echo(folder)


for subcommand in (caption, check, fetch, list_):
    command.add_command(subcommand)
