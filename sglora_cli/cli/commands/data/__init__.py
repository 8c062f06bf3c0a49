"""`sglora data`: lists, fetches, captions and checks data sets."""

from __future__ import annotations

from pathlib import Path

import click

from sglora_cli.cli.commands.data.caption import caption
from sglora_cli.cli.commands.data.check import check
from sglora_cli.cli.group import Group
from sglora_cli.cli.options import App, data_option, dataset_argument, dry_run_option, json_option
from sglora_cli.cli.output import echo, print_json, print_rows, say
from sglora_cli.errors import Unavailable
from sglora_cli.files.escape import shell_word
from sglora_cli.plugin.contracts import Fetches, PlansFetch
from sglora_cli.plugin.values import Download
from sglora_cli.system import settings
from sglora_cli.system.hardware import free_disk
from sglora_cli.system.progress import size


@click.group("data", cls=Group)
def command() -> None:
    """List, fetch, caption and check data sets.

    \b
    sglora data list
    sglora data check folder --path photos
    """


@click.command("list")
@json_option()
@click.pass_obj
def list_(app: App, as_json: bool) -> None:
    """List the data sets that recipes can use.

    The list shows the download command of data sets that can be downloaded.

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
        print_rows(("data set", "summary", "download command"), cells, words=("summary",))


@click.command("fetch")
@dataset_argument()
@data_option()
@dry_run_option("Only print what would be downloaded and its size, without using the network.")
@json_option()
@click.pass_obj
def fetch(app: App, dataset: str, data: Path | None, dry_run: bool, as_json: bool) -> None:
    """Download a data set into the data folder.

    An interrupted download resumes, and complete files are not downloaded again. If the owner does not allow automatic
    downloads, the command says which files to put where.

    \b
    sglora data fetch pets --data data --dry-run
    sglora data fetch pets --data data
    """
    from sglora_cli.system.paths import data_folder

    plugin = app.host.datasets[dataset]
    if not isinstance(plugin, Fetches):
        raise Unavailable(f"data set {dataset!r} has nothing to download", f"use your own files: {plugin.summary}")
    root = data_folder(data, settings.load().data)
    if dry_run:
        _print_plan(dataset, plugin, root, as_json)
        return
    folder = plugin.fetch(root, (lambda text: None) if as_json else say)
    print_json({"dataset": dataset, "folder": str(folder)}) if as_json else echo(folder)


def _print_plan(dataset: str, plugin: Fetches, root: Path, as_json: bool) -> None:
    if not isinstance(plugin, PlansFetch):
        raise Unavailable(f"data set {dataset!r} does not support --dry-run", "leave out --dry-run to download it")
    plan, free = plugin.fetch_plan(root), free_disk(root)
    if as_json:
        downloads = [one.to_json() for one in plan.downloads]
        totals = {"left_bytes": plan.left, "disk_bytes": plan.disk, "free_bytes": free, "captions": plan.captions}
        print_json({"dataset": dataset, "folder": str(plan.folder), "downloads": downloads, **totals})
        return
    rows = [[_known(one.bytes), _state(one), one.url] for one in plan.downloads]
    print_rows(("size", "status", "file"), rows, words=("file",))
    if not plan.waiting:
        echo(f"{plan.folder} is complete, nothing to download")
    else:
        echo(f"to download: {_known(plan.left)} into {plan.folder}")
        needed = f"{size(plan.disk)} needed while the largest archive is unpacked, " if plan.disk else ""
        short = ", not enough" if (plan.disk or 0) > free else ""
        echo(f"disk: {needed}{size(free)} free{short}")
    if not plan.captions:
        echo(
            "captions are not included; write them with: "
            f"sglora data caption {shell_word(dataset)} --path {shell_word(plan.folder)}"
        )


def _state(one: Download) -> str:
    if one.done:
        return "downloaded"
    return f"{size(one.here)} downloaded" if one.here else "missing"


def _known(count: int | None) -> str:
    return "size unknown" if count is None else size(count)


for subcommand in (caption, check, fetch, list_):
    command.add_command(subcommand)
