"""Recipes: instructions for building a pack, as values. recipe_parser.py reads them from TOML.

In the sentences of a recipe, {name} is a task's name, {classes} lists the classes of a classification task, and {class}
is one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sglora_cli.config import LoraConfig, PhraseConfig, PriorConfig, StepConfig, TrainConfig
from sglora_cli.errors import BadFile, Mismatch, UnknownName
from sglora_cli.files.toml import Address
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import SPLITS, UNSEEN, Task

PROMPTS = ("a photo of a {class}",)


def described(task: Task, text: str) -> str:
    """Return a task's description. Raises BadFile if the text has {classes} and the task has no classes.

    >>> described(Task("d", "fish", "", {}, ("ray", "trout")), "{name}: {classes}")
    'fish: ray, trout'
    """
    if "{classes}" in text and not task.classes:
        raise BadFile(f"{task.dataset}/{task.name} is not a classification task, so it has no {{classes}} for {text!r}")
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
    """The most photos per task and split; 0 for all."""
    whole: bool = False
    """Whether experts and training tasks are trained on all their photos. Nothing is tested on them."""

    def tasks(self, host: Host, data: Path, template: str) -> dict[str, list[Task]]:
        """Read the tasks of each role, with their descriptions. Raises UnknownName for a task the data set lacks."""
        return self.by_role({task.name: task for task in host.datasets[self.dataset].tasks(data / self.path)}, template)

    def by_role(self, available: Mapping[str, Task], template: str) -> dict[str, list[Task]]:
        """Return the same as `tasks`, given the data set's tasks by name."""
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
        """Raise UnknownName unless the data set has a task of that name."""
        if name not in available:
            raise UnknownName.of(f"task in {self.name}", name, available)


@dataclass(frozen=True)
class Recipe:
    """Instructions for building a pack. `raw` is the file's content, which the pack's manifest stores."""

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
    """Names of sources. Phrases of their seen tasks' captions are additional seen tasks for generators that use them.
    """
    phrases: PhraseConfig
    generators: Mapping[str, Mapping[str, Any]]
    resources: StepConfig
    raw: Mapping[str, Any]
    path: Path | None = None
    lines: Mapping[Address, int] = field(default_factory=dict)
    """The line number of each key in the file."""


TEMPLATE = "a photo of a {name}"


def source_of(recipe: Recipe, dataset: str, root: Path) -> Source:
    """Return the source of a recipe that reads this data set. If several do, the folder's name decides.

    Raises Mismatch if there is none.
    """
    sources = [source for source in recipe.sources if source.dataset == dataset]
    matching = [source for source in sources if Path(source.path).name == root.resolve().name]
    if len(matching) == 1 or (not matching and len(sources) == 1):
        return (matching or sources)[0]
    paths = ", ".join(f"{source.path} ({source.dataset})" for source in recipe.sources)
    raise Mismatch(
        f"recipe {recipe.name!r} does not define exactly one source for {root}", f"use one of its sources: {paths}"
    )


def path_of(recipe: Recipe, dataset: str) -> str:
    """Return where in the data folder a recipe expects a data set.

    This is the path of its source, or the data set's name if the recipe does not have exactly one source of it.
    """
    paths = [source.path for source in recipe.sources if source.dataset == dataset]
    return paths[0] if len(paths) == 1 else dataset
