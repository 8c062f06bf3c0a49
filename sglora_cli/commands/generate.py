"""`sglora generate`: adapters for a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sglora_cli import settings
from sglora_cli.cli import App, say
from sglora_cli.configs import GenerateConfig, RuntimeConfig, options_of
from sglora_cli.errors import UsageError

if TYPE_CHECKING:
    from sglora_cli.generating import Generated, Session


@click.command("generate")
@click.argument("text", nargs=-1, required=True)
@click.option("-o", "--out", help="File to write; a name ending in / is a PEFT folder; without it, the user cache.")
@click.option(
    "--format", "name", default="", help="safetensors, peft, peft-flat, open_clip or clip-lora; else by the ending."
)
@click.option("--pack", default="", help="Pack to use; see `sglora pack list`.")
@click.option("--backbone", default="", help="Take the newest pack of this backbone; see `sglora plugins list`.")
@click.option("--generator", default="", help="Generator to use; the pack's own choice by default.")
@click.option("--k", type=int, help="K, how many experts to lean on; the pack's own choice by default.")
@click.option("--tau", type=float, help="Temperature of the experts' weights; the pack's own choice by default.")
@options_of(GenerateConfig)
@options_of(RuntimeConfig, "runtime")
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def command(
    app: App,
    text: tuple[str, ...],
    out: str | None,
    name: str,
    pack: str,
    backbone: str,
    generator: str,
    k: int | None,
    tau: float | None,
    force: bool,
    as_json: bool,
    config: GenerateConfig,
    runtime: RuntimeConfig,
) -> None:
    """Make an adapter for the task that TEXT describes.

    \b
    sglora generate "a photo of a pug" -o pug.safetensors
    sglora generate a photo of a tiger lily --samples 5
    sglora generate "a photo of a pug" -o pug-peft/
    """
    from dataclasses import replace

    from sglora_cli.formats import check_target, format_of
    from sglora_cli.generating import Session

    if name and not out:
        raise UsageError("--format needs a place to write to", "pass -o")
    format = format_of(out or "x.safetensors", name)
    target = Path(out) if out else None
    if target:
        check_target(target, format, force)
    exact = settings.exact(runtime) if format.name != "safetensors" else runtime
    session = Session.open(pack, generator, app.host, exact, backbone)
    prior_config = session.pack.prior_config
    prior_config = replace(
        prior_config, k=prior_config.k if k is None else k, tau=prior_config.tau if tau is None else tau
    )
    generated = session.generate(" ".join(text), config, prior_config)
    for path in generated.paths(target) if target else []:
        check_target(path, format, force)
    paths = generated.save(target, format.name, session.model)
    if as_json:
        click.echo(json.dumps(_facts(session, generated, paths), indent=1))
    else:
        _print(session, generated, paths)


def _facts(session: Session, generated: Generated, paths: list[Path]) -> dict[str, object]:
    return {
        "files": [str(path) for path in paths],
        "pack": session.pack.name,
        "pack_because": session.reason,
        "generator": session.generator.name,
        "experts": [
            {
                "task": session.pack.experts.names[row],
                "weight": round(float(a), 6),
                "similarity": round(float(generated.prior.similarity_E[row]), 6),
            }
            for row, a in zip(generated.prior.rows, generated.prior.alpha_K, strict=True)
        ],
        "warnings": list(generated.warnings),
        "about": generated.about,
    }


def _print(session: Session, generated: Generated, paths: list[Path]) -> None:
    say(f"pack       {session.pack.name} ({session.reason})")
    say(f"generator  {session.generator.name}: {session.generator.summary}")
    say("experts    weight  similarity")
    for row, alpha in zip(generated.prior.rows, generated.prior.alpha_K, strict=True):
        say(f"           {alpha:6.1%}  {generated.prior.similarity_E[row]:10.3f}  {session.pack.experts.names[row]}")
    for warning in generated.warnings:
        say(f"warning: {warning}")
    for path in paths:
        click.echo(path)
