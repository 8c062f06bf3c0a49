"""Text description of a recipe: facts, sources, and settings with their defaults. Does not import torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

from sglora_cli.config import LoraConfig, PhraseConfig, PriorConfig, TrainConfig
from sglora_cli.pack.recipe import Recipe
from sglora_cli.plugin.values import ROLES

SOURCES = ("source", "data set", "path", *ROLES)
NUMBERS = ("setting", "value", "default", "description")


@dataclass(frozen=True)
class Number:
    """A numeric key of a recipe, such as `train.epochs`, with its value."""

    name: str
    value: Any
    default: Any
    help: str

    @property
    def is_changed(self) -> bool:
        return bool(self.value != self.default)

    @property
    def cells(self) -> list[str]:
        return [self.name, str(self.value), str(self.default), self.help]


def recipe_facts(recipe: Recipe) -> list[str]:
    """Return lines about everything except settings and sources."""
    lines = [
        f"recipe {recipe.name}: {recipe.raw.get('summary', '')}".rstrip(": "),
        f"backbone   {recipe.backbone}",
        f"template   {recipe.template!r}",
        f"default    {recipe.default_generator}",
    ]
    lines += [f"generator  {name}: {_keys(table)}".rstrip(": ") for name, table in recipe.generators.items()]
    if not recipe.generators:
        lines.append("generator  none trained, merging rules only")
    if recipe.from_captions:
        lines.append(f"phrases    from captions of {', '.join(recipe.from_captions)}")
    return lines


def _keys(table: Any) -> str:
    return ", ".join(f"{key} = {value}" for key, value in table.items())


def source_cells(recipe: Recipe) -> list[list[str]]:
    """Return a row with columns SOURCES for each source, with the number of tasks per role."""
    return [
        [source.name, source.dataset, source.path, *(str(len(source.roles.get(role, ()))) for role in ROLES)]
        for source in recipe.sources
    ]


def numbers(recipe: Recipe) -> list[Number]:
    """Return all settings of the recipe, starting with those that differ from the default."""
    return sorted(_numbers(recipe), key=lambda number: not number.is_changed)


def _numbers(recipe: Recipe) -> Iterator[Number]:
    for table, config in _tables(recipe).items():
        for spec in fields(config):
            yield Number(f"{table}.{spec.name}", getattr(config, spec.name), spec.default, spec.metadata["help"])


def _tables(recipe: Recipe) -> dict[str, LoraConfig | TrainConfig | PriorConfig | PhraseConfig]:
    tables: dict[str, LoraConfig | TrainConfig | PriorConfig | PhraseConfig]
    tables = {"lora": recipe.lora, "train": recipe.train, "prior": recipe.prior}
    return tables | {"tasks": recipe.phrases} if recipe.from_captions else tables


def recipe_json(recipe: Recipe) -> dict[str, Any]:
    """Return the file's content and, as `in_force`, all settings including defaults."""
    return {**recipe.raw, "in_force": {table: asdict(config) for table, config in _tables(recipe).items()}}
