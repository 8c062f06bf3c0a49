"""`sglora inspect`: what a thing is."""

from __future__ import annotations

from pathlib import Path

import click

from sglora_cli import settings, shelves
from sglora_cli.cli import App
from sglora_cli.errors import UnknownName
from sglora_cli.printing import print_json, printable


@click.command("inspect")
@click.argument("thing")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def command(app: App, thing: str, as_json: bool) -> None:
    """Say what THING is, made from what, healthy or not: an adapter in any format, a pack, or a recipe.

    \b
    sglora inspect pug.safetensors
    sglora inspect pug-peft/
    sglora inspect starter
    """
    from sglora_cli import health, inspecting
    from sglora_cli.packs import Pack
    from sglora_cli.recipes import read

    path = Path(thing)
    packs = {place.name for place in shelves.places(app.host.recipe_folders)}
    recipes = shelves.recipes(app.host.recipe_folders)
    if path.suffix in (".safetensors", ".pt") or (path / "adapter_config.json").is_file():
        content, lines = inspecting.any_adapter(path)
    elif path.suffix == ".toml" or (thing in recipes and thing not in packs):
        recipe = read(path if path.suffix == ".toml" else recipes[thing])
        content, lines = dict(recipe.raw), inspecting.recipe_facts(recipe)
    elif thing in packs or (path / shelves.MANIFEST).is_file():
        pack = Pack(shelves.find(thing, app.host.recipe_folders, settings.load())[0].folder)
        found = health.report(app.host, pack)
        content = {**pack.manifest, "health": found}
        lines = [*inspecting.pack_facts(pack, health.lines(found)), *inspecting.pack_health(pack)]
    elif path.is_file():
        content, lines = inspecting.any_adapter(path)
    else:
        raise UnknownName.of("adapter file, pack or recipe", thing, {*packs, *recipes})
    print_json(content) if as_json else click.echo("\n".join(map(printable, lines)))
