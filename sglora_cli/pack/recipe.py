"""Recipes: how a pack is built, as values. recipe_parser.py reads them from TOML.

In the sentences of a recipe {name} is a task's name, {classes} the names of a classification task's classes, {class}
one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sglora_cli.config import LoraConfig, PhraseConfig, PriorConfig, TrainConfig
from sglora_cli.errors import BadFile, Mismatch, UnknownName
from sglora_cli.files.toml import Address
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import SPLITS, UNSEEN, Task

PROMPTS = ("a photo of a {class}",)


def described(task: Task, text: str) -> str:
    """A task's description. Raises BadFile if it asks for the classes of a task that has none.

    >>> described(Task("d", "fish", "", {}, ("ray", "trout")), "{name}: {classes}")
    'fish: ray, trout'
    """
    if "{classes}" in text and not task.classes:
        raise BadFile(f"{task.dataset}/{task.name} is no classification task: it has no {{classes}} for {text!r}")
    return text.format(name=task.name, classes=", ".join(task.classes))


@dataclass(frozen=True)
class Source:
    """One data set of a recipe, and the roles of its tasks."""

    name: str
    dataset: str
    path: str
    roles: Mapping[str, tuple[str, ...]]
    description: str = ""
    photos: int = 0
    """Most photos of a task and split; 0 takes all."""
    whole: bool = False
    """Whether experts and training tasks learn from all their photos. Nothing is measured on them."""

    def tasks(self, host: Host, data: Path, template: str) -> dict[str, list[Task]]:
        """Role -> tasks with their descriptions. Raises UnknownName for a task that the data set lacks."""
        return self.by_role({task.name: task for task in host.datasets[self.dataset].tasks(data / self.path)}, template)

    def by_role(self, available: Mapping[str, Task], template: str) -> dict[str, list[Task]]:
        """Does the same as `tasks` with tasks that were read before, by name."""
        return {
            role: [self._task(available, name, template, role) for name in names] for role, names in self.roles.items()
        }

    def _task(self, available: Mapping[str, Task], name: str, template: str, role: str) -> Task:
        self.check(available, name)
        own = available[name].photos
        photos = {split: list(own.get(split, ())[: self.photos or None]) for split in SPLITS}
        if self.whole and role != UNSEEN:
            photos = {"train": [photo for some in photos.values() for photo in some], "test": []}
        task = replace(available[name], dataset=self.name, photos=photos)
        return replace(task, description=described(task, self.description or template))

    def check(self, available: Mapping[str, Task], name: str) -> None:
        """Raises UnknownName unless the data set has a task of that name."""
        if name not in available:
            raise UnknownName.of(f"task in {self.name}", name, available)


@dataclass(frozen=True)
class Recipe:
    """How to build a pack; `raw` is the file's content, kept in the pack's manifest."""

    name: str
    backbone: str
    template: str
    prompts: tuple[str, ...]
    default_generator: str
    sources: Sequence[Source]
    lora: LoraConfig
    train: TrainConfig
    prior: PriorConfig
    from_captions: tuple[str, ...]
    """Names of sources; phrases of their seen tasks' captions are seen tasks, too, for generators that learn so."""
    phrases: PhraseConfig
    generators: Mapping[str, Mapping[str, Any]]
    raw: Mapping[str, Any]
    path: Path | None = None
    lines: Mapping[Address, int] = field(default_factory=dict)
    """The line of the file that each key is on."""


TEMPLATE = "a photo of a {name}"


def source_of(recipe: Recipe, dataset: str, root: Path) -> Source:
    """The source of a recipe that reads this data set, from a folder of this name if several sources do.

    Raises Mismatch if there is none.
    """
    sources = [source for source in recipe.sources if source.dataset == dataset]
    matching = [source for source in sources if Path(source.path).name == root.resolve().name]
    if len(matching) == 1 or (not matching and len(sources) == 1):
        return (matching or sources)[0]
    paths = ", ".join(f"{source.path} ({source.dataset})" for source in recipe.sources)
    raise Mismatch(f"recipe {recipe.name!r} does not say which tasks it takes from {root}", f"it has sources: {paths}")


def path_of(recipe: Recipe, dataset: str) -> str:
    """Where in the data folder a recipe expects a data set: its source's path, or the data set's name if it has not
    one source of it."""
    paths = [source.path for source in recipe.sources if source.dataset == dataset]
    return paths[0] if len(paths) == 1 else dataset
