"""`sglora inspect`: describes an adapter, pack or recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sglora_cli.adapter.library import found
from sglora_cli.cli import completion
from sglora_cli.cli.options import App, check_present, json_option
from sglora_cli.cli.output import echo, paragraph, print_json, print_lines, print_rows
from sglora_cli.errors import UnknownName, UsageError
from sglora_cli.files.escape import shell_word
from sglora_cli.pack.content import manifest
from sglora_cli.system.display import counted

if TYPE_CHECKING:
    from sglora_cli.pack.recipe import Recipe


@click.command("inspect")
@click.argument("thing", shell_complete=completion.names(completion.packs_and_recipes, files=True))
@click.option("--all", "every", is_flag=True, help="Also list a recipe's settings that have their default values.")
@json_option()
@click.pass_obj
def command(app: App, thing: str, every: bool, as_json: bool) -> None:
    """Describe an adapter, pack or recipe and check its health.

    THING is an adapter in any format that `sglora import` reads, a pack, or a recipe.

    \b
    sglora inspect pug.safetensors
    sglora inspect pug-peft/
    sglora inspect starter
    sglora inspect recipe.toml --all
    """
    from sglora_cli.cli import describe
    from sglora_cli.pack.archive import SUFFIX

    if thing.startswith("hf:"):
        thing = app.library.find(thing)[0].name
    packs = {location.name for location in app.library.packs()}
    recipes = app.library.recipes()
    path = Path(thing) if thing in packs or thing in recipes else found(Path(thing))
    if path.suffix in (".safetensors", ".pt") or (path / "adapter_config.json").is_file():
        content, lines = _adapter(path)
    elif path.suffix == ".toml" or (thing in recipes and thing not in packs):
        from sglora_cli.pack.recipe_parser import read

        _show_recipe(read(path if path.suffix == ".toml" else recipes[thing]), every, as_json)
        return
    elif thing in packs or (path / manifest.MANIFEST).is_file():
        from sglora_cli.pack import dependence, health
        from sglora_cli.pack.loaded import LoadedPack

        loaded = LoadedPack.open(app.host, thing)
        condition, depends = health.report(app.host, loaded.pack), dependence.report(loaded)
        content = {**loaded.pack.manifest, "tasks": list(loaded.pack.tasks)}
        content |= {"health": condition, "dependence": dependence.to_json(depends)}
        measured = [*health.to_lines(condition), *dependence.to_lines(depends)]
        lines = [*describe.pack_facts(loaded.pack, measured), *describe.pack_health(loaded.pack)]
    elif path.name.endswith(SUFFIX) and path.is_file():
        raise UsageError(f"{path} is an exported pack", f"sglora pack import {shell_word(path)}")
    elif path.exists():
        content, lines = _adapter(path)
    else:
        raise UnknownName.of("adapter file, pack or recipe", thing, {*packs, *recipes})
    if as_json:
        print_json(content)
    else:
        print_lines(lines)


def _show_recipe(recipe: Recipe, every: bool, as_json: bool) -> None:
    from sglora_cli.cli import describe_recipe

    if as_json:
        print_json(describe_recipe.recipe_json(recipe))
        return
    print_lines(describe_recipe.recipe_facts(recipe))
    echo()
    print_rows(describe_recipe.SOURCES, describe_recipe.source_cells(recipe))
    echo()
    numbers = describe_recipe.numbers(recipe)
    shown = [number for number in numbers if every or number.is_changed]
    print_rows(describe_recipe.NUMBERS, [number.cells for number in shown], words=describe_recipe.NUMBERS[-1:])
    if rest := len(numbers) - len(shown):
        echo(paragraph(f"{counted(rest, 'other setting')} at the default (list them with --all)"))


def _adapter(path: Path) -> tuple[dict[str, Any], list[str]]:
    check_present(path)
    from sglora_cli.cli.describe_adapter import any_adapter

    return any_adapter(path)
