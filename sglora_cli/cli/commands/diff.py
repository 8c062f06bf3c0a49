"""`sglora diff`: compares two adapters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sglora_cli.cli.options import ADAPTER, App, backbone_option, check_present, json_option, visual_only_option
from sglora_cli.cli.output import echo, paragraph, print_json, print_rows, say, shortened
from sglora_cli.config import RuntimeConfig, options_of
from sglora_cli.files.escape import printable

if TYPE_CHECKING:
    from sglora_cli.adapter.compare import Comparison


@click.command("diff")
@click.argument("a", type=ADAPTER)
@click.argument("b", type=ADAPTER)
@backbone_option("Backbone of the adapters, needed for merged checkpoints. Default: the one that a file records.")
@visual_only_option()
@options_of(RuntimeConfig, "runtime")
@json_option()
@click.pass_obj
def command(
    app: App, a: Path, b: Path, backbone: str, visual_only: bool, runtime: RuntimeConfig, as_json: bool
) -> None:
    """Compare the updates and origins of two adapters.

    A and B are adapters in any format that `sglora import` reads. Their ranks may differ, because the command compares
    the update of each weight. A cosine of 1 means the same direction, 0 means orthogonal, and -1 means the opposite
    direction.

    \b
    sglora diff pug.safetensors chihuahua.safetensors
    sglora diff pug.safetensors pug-peft/
    sglora diff pug.safetensors merged.safetensors --backbone clip-vit-b-16
    """
    check_present(a, b)
    from sglora_cli.adapter.compare import compare_adapters

    comparison = compare_adapters(app.host, a, b, runtime, backbone=backbone, visual_only=visual_only)
    if as_json:
        print_json(comparison.to_json())
    else:
        _print_origins(comparison)
        _print_updates(comparison)


def _print_origins(comparison: Comparison) -> None:
    echo(f"A          {printable(str(comparison.a.path))}")
    echo(f"B          {printable(str(comparison.b.path))}")
    for note in comparison.notes:
        say(f"note       {note}")
    cells = {name: [_cell(fact) for fact in pair] for name, pair in comparison.facts.items()}
    cells |= {name: [_share(weight) for weight in pair] for name, pair in comparison.experts.items()}
    if differs := comparison.differs:
        print_rows(("differs", "A", "B"), [[name.ljust(9), *cells[name]] for name in differs], words=("A", "B"))
    else:
        echo("differs    no recorded fact")
    if equal := [f"{name} {one}" for name, (one, _) in cells.items() if name not in differs]:
        echo(paragraph(printable(", ".join(equal)), "equal      "))


def _print_updates(comparison: Comparison) -> None:
    from sglora_cli.adapter.compare import summary

    total, relative = comparison.total, comparison.relative
    cosine = "undefined" if total.cosine is None else _cosine(total.cosine).strip()
    of_a = "" if relative is None else f", {relative:.1%} of the norm of A"
    echo(paragraph(f"{cosine}: {summary(total)}", "cosine     "))
    echo(f"norm       {_number(total.norm_x)} of A, {_number(total.norm_y)} of B")
    echo(f"difference {_number(total.difference)}{of_a}")
    sites = comparison.sites.items()
    rows = [(name, _cosine(one.cosine), _number(one.norm_x), _number(one.norm_y)) for name, one in sites]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [[name, *(cell.rjust(w) for cell, w in zip(cells, widths[1:], strict=True))] for name, *cells in rows]
    header = ("site", "cosine", "norm of A", "norm of B")
    print_rows(header, aligned)


def _cell(fact: str | int | float | bool | None) -> str:
    if isinstance(fact, float):
        return f"{fact:g}"
    return "-" if fact is None else shortened(str(fact))


def _share(weight: float) -> str:
    return f"{weight:.2%}" if weight else "-"


def _cosine(cosine: float | None) -> str:
    from sglora_cli.adapter.compare import DECIMALS

    return "-" if cosine is None else f"{cosine:.{DECIMALS}f}"


def _number(norm: float) -> str:
    return f"{norm:.3f}" if norm >= 0.01 or norm == 0 else f"{norm:.2e}"
