"""`sglora cache`: shows and cleans the user cache."""

from __future__ import annotations

from typing import Any

import click

from sglora_cli.cli.group import Group
from sglora_cli.cli.options import dry_run_option, json_option, yes_option
from sglora_cli.cli.output import confirm, echo, print_json, print_rows, say
from sglora_cli.config import OneOf
from sglora_cli.system import cache, paths
from sglora_cli.system.display import counted
from sglora_cli.system.progress import duration, size


@click.group("cache", cls=Group)
def command() -> None:
    """Show and clean up the user cache.

    \b
    sglora cache info
    sglora cache clean --older-than 30d --dry-run
    """


@command.command("info")
@json_option()
def info(as_json: bool) -> None:
    """Show the size of the cache by kind.

    `sglora cache clean` removes kinds marked "recreated", which are computed again when they are needed. It keeps the
    other kinds unless you name them.

    \b
    sglora cache info
    """
    rows: list[dict[str, Any]] = []
    for kind in cache.CACHE_KINDS.values():
        items = cache.items(kind.name)
        total = sum(item.bytes for item in items)
        rows.append({"kind": kind.name, "items": len(items), "bytes": total, "derived": kind.derived})
    folder, total = str(paths.cache_folder()), sum(row["bytes"] for row in rows)
    if as_json:
        print_json({"folder": folder, "bytes": total, "kinds": rows})
        return
    echo(f"{folder}: {size(total)}")
    cells = [
        [
            kind.name,
            str(row["items"]),
            size(row["bytes"]),
            "recreated" if kind.derived else "kept unless named",
            kind.summary,
        ]
        for kind, row in zip(cache.CACHE_KINDS.values(), rows, strict=True)
    ]
    print_rows(("kind", "items", "size", "when cleaned", "description"), cells, words=("description",))


@command.command("clean")
@click.argument("kinds", metavar="[KIND]...", nargs=-1, type=OneOf("kind of cache", cache.CACHE_KINDS))
@click.option(
    "--older-than",
    default="0s",
    help="Only remove items unchanged for this long, such as 30d, 12h, 45m or 10s. Default: any age.",
)
@dry_run_option("Only list the items that would be removed.")
@yes_option()
@json_option()
def clean(kinds: tuple[str, ...], older_than: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove KINDs from the cache.

    Without KIND it removes all kinds that are recreated when they are needed. Adapters, rows and packs are only removed
    if you name them. The command fails while another sglora process uses the cache.

    \b
    sglora cache clean --dry-run
    sglora cache clean features measured --older-than 30d
    sglora cache clean adapters --yes
    """
    items = cache.to_clean(kinds, cache.age(older_than))
    total = sum(item.bytes for item in items)
    if not dry_run and items:
        confirm(
            f"{counted(len(items), 'item')}, {size(total)}, from {paths.cache_folder()}",
            yes,
            "pass --yes, or --dry-run to list the items",
        )
    cleaned = cache.Cleaned(items, []) if dry_run else cache.clean(items)
    if as_json:
        removed = [{"kind": i.kind, "path": str(i.path), "bytes": i.bytes} for i in cleaned.removed]
        kept = [{"path": str(item.path), "reason": reason} for item, reason in cleaned.kept]
        print_json({"dry_run": dry_run, "bytes": cleaned.bytes, "removed": removed, "kept": kept})
        return
    if dry_run:
        print_rows(
            ("kind", "size", "age", "path"),
            [[i.kind, size(i.bytes), duration(i.age_seconds), str(i.path)] for i in items],
        )
    for item, reason in cleaned.kept:
        say(f"warning: {item.path} was not removed: {reason}")
    what = "would be removed" if dry_run else "removed"
    echo(f"{counted(len(cleaned.removed), 'item')}, {size(cleaned.bytes)} {what}")
