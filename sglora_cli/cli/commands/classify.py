"""`sglora classify`: sorts a user's photos by names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sglora_cli.cli.options import (
    PATH,
    App,
    adapter_option,
    check_adapter,
    check_present,
    json_option,
    photos_argument,
    photos_backbone_option,
    report_option,
)
from sglora_cli.cli.output import print_json, print_rows, say
from sglora_cli.cli.photo_output import say_encoder, say_photos, say_written, written_json
from sglora_cli.config import RuntimeConfig, options_of
from sglora_cli.errors import UsageError
from sglora_cli.files.images import printable_name
from sglora_cli.system.display import counted

if TYPE_CHECKING:
    from sglora_cli.search.classes import Classes


@click.command("classify")
@photos_argument()
@click.option("--name", "names", multiple=True, help="Name to sort by. Pass it at least twice.")
@click.option("--names", "file", type=PATH, help="File with more names, one per line.")
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    help='Prompt with {class} in place of the name; repeatable. [default: "a photo of a {class}"]',
)
@adapter_option("Adapter for the photos' category; see `sglora list`. Default: none.")
@click.option(
    "--copy", type=PATH, metavar="DIR", help="Also copy the photos to a new folder with one subfolder per name."
)
@report_option()
@photos_backbone_option()
@options_of(RuntimeConfig, "runtime", without=("compile", "checkpointing"))
@json_option()
@click.pass_obj
def command(
    app: App,
    photos: Path,
    names: tuple[str, ...],
    file: Path | None,
    prompts: tuple[str, ...],
    adapter: Path | None,
    copy: Path | None,
    report: Path | None,
    backbone: str,
    as_json: bool,
    runtime: RuntimeConfig,
) -> None:
    """Sort your photos by names.

    PHOTOS is a folder, a single photo, or a text file with one photo path per line (`-` reads the paths from standard
    input). Each photo gets the most probable of the names, with its probability among them.

    \b
    sglora classify photos --name pug --name beagle
    sglora classify photos --names breeds.txt --adapter dogs.safetensors --copy sorted
    sglora classify dog.jpg --name "a pug puppy" --name "a grown pug" --prompt "{class}"
    """
    from sglora_cli.pack.recipe import PROMPTS
    from sglora_cli.pack.recipe_parser import checked_prompts
    from sglora_cli.search.copies import check_new, copy_photos
    from sglora_cli.search.photos import photo_list

    if adapter:
        check_adapter(adapter)
    check_present(*filter(None, [file]))
    if copy:
        check_new(copy, photos)
    for prompt in prompts:
        if "{class}" not in prompt:
            raise UsageError(
                f"the prompt {prompt!r} has no {{class}}",
                'put {class} in place of the name, as in "a photo of a {class}"',
            )
    templates = checked_prompts(list(prompts)) if prompts else PROMPTS
    listed = photo_list(photos)
    from sglora_cli.search.classes import class_names, classified
    from sglora_cli.search.encoder import Encoder

    wanted = class_names(names, file)
    result = classified(Encoder.of(app.host, adapter, backbone, runtime), listed.paths, wanted, templates)
    if copy:
        copy_photos(copy, result.copies())
    if report:
        from sglora_cli.files.atomic import write_bytes
        from sglora_cli.report.photo_pages import classes_page

        write_bytes(report, classes_page(result))
    if as_json:
        print_json(result.to_json() | written_json(listed, copy, report))
        return
    say_photos(listed, result.skipped)
    _print_classes(result)
    say_written(copy, report)


def _print_classes(result: Classes) -> None:
    encoder = result.encoder
    say_encoder(encoder)
    rows = []
    for n, photo in enumerate(result.photos):
        name, before = (result.names[int(side_N[n])] for side_N in (result.chosen_N, result.without_N))
        without = [before if before != name else ""] * bool(encoder.adapter)
        rows.append([name, f"{float(result.probability_N[n]):.2f}", *without, printable_name(result.paths[photo])])
    header = ("name", "probability", *["without adapter"] * bool(encoder.adapter), "photo")
    print_rows(header, rows)
    say("photos     " + ", ".join(f"{count} {name}" for name, count in result.counts.items() if count))
    if result.agreement:
        known, right, right_before = result.agreement
        beside = f", {right_before} without the adapter" if encoder.adapter else ""
        say(f"folders    of {counted(known, 'photo')} in folders with one of the names, {right} got that name{beside}")
    if empty := result.empty:
        first = ", ".join(map(repr, empty[:3])) + (f" and {len(empty) - 3} more names" if len(empty) > 3 else "")
        say(f"warning: no photo got the name {first}; leave out names without photos, or use other words")
