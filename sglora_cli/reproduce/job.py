"""The recipes, data and results folder for one table of the paper. This module does not import torch.

A family is a set of recipes for other data or another backbone. In the family `starter`, the recipe `coco` is
`starter-coco`, and the recipe `mixed` with all sources is `starter` itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sglora_cli import __version__
from sglora_cli.config import BenchConfig, RuntimeConfig
from sglora_cli.errors import SgloraError, Unavailable, UnknownName, UsageError
from sglora_cli.files.atomic import write_bytes
from sglora_cli.files.names import file_stem
from sglora_cli.files.text import read_json
from sglora_cli.pack.library import Library
from sglora_cli.pack.recipe import Recipe
from sglora_cli.pack.recipe_parser import limited, read
from sglora_cli.plugin.host import Host
from sglora_cli.reproduce.targets import Lean, Measurement, Target, find
from sglora_cli.system import settings
from sglora_cli.system.hardware import nearest_existing
from sglora_cli.system.paths import data_folder

MARKER = "reproduce.json"
"""The file that records which table a results folder belongs to."""
_FORMAT = 1
_ALL_SOURCES = "mixed"


@dataclass(frozen=True)
class Request:
    """The arguments of `sglora reproduce`."""

    target: str
    family: str = ""
    data: Path | None = None
    out: Path | None = None
    limit: int = 0
    """Use only the first tasks of each role and source, up to this number; 0 uses all."""
    captioner: str = ""
    """The captioner for data sets without captions."""


def recipe_name(family: str, name: str) -> str:
    """Return the name of a recipe in a family.

    >>> recipe_name("", "coco"), recipe_name("starter", "coco"), recipe_name("starter", "mixed")
    ('coco', 'starter-coco', 'starter')
    """
    if not family:
        return name
    return family if name == _ALL_SOURCES else f"{family}-{name}"


@dataclass(frozen=True)
class Job:
    """A target and everything that its steps need."""

    host: Host
    request: Request
    target: Target
    recipes: Mapping[str, Recipe]
    """Name of the recipe in the target -> the recipe of the family."""
    config: BenchConfig
    runtime: RuntimeConfig
    command: str
    """The command that resumes the job without asking for confirmation."""
    absent: SgloraError | None = field(default=None, compare=False)
    """The error if there is no data folder, else None."""

    @classmethod
    def of(cls, host: Host, request: Request, config: BenchConfig, runtime: RuntimeConfig, command: str) -> Job:
        """Prepare a job from a request.

        Raises UnknownName for an unknown table, family, captioner or plugin of a recipe, Unavailable for a table that
        cannot be made, UsageError for a folder with other results, and BadFile for an invalid recipe.
        """
        target, library = find(request.target), Library(host.recipe_folders)
        names = _names(target, request.family, library)
        recipes = {name: read(library.recipe_file(own)) for name, own in names.items()}
        if request.limit:
            recipes = {name: limited(recipe, request.limit) for name, recipe in recipes.items()}
        host.captioners[request.captioner]
        for recipe in recipes.values():
            host.backbones[recipe.backbone]
            for source in recipe.sources:
                host.datasets[source.dataset]
        job = cls(host, request, target, recipes, config, runtime, command, _lack(request.data))
        job.check_folder()
        return job

    @cached_property
    def folder(self) -> Path:
        """The results folder. By default it is in the working folder."""
        if self.request.out:
            return self.request.out
        parts = [self.target.name, self.request.family, f"limit-{self.request.limit}" if self.request.limit else ""]
        return Path("-".join(["reproduce", *filter(None, parts)]))

    @cached_property
    def place(self) -> Path:
        """The data folder. If it does not exist, the path to show in commands."""
        if self.absent:
            return Path(self.request.data or settings.load().data or "DIR")
        return data_folder(self.request.data, settings.load().data)

    @property
    def is_the_papers(self) -> bool:
        """Whether backbone and data match the paper's recipes."""
        return not self.request.family and not self.request.limit

    def rows_file(self, name: str) -> Path:
        return self.folder / "rows" / f"{name}.jsonl"

    def sentences_file(self, name: str) -> Path:
        """The file with the sentences of each task, for a measurement that takes them from captions."""
        return self.folder / "rows" / f"{name}-sentences.json"

    def lean_file(self, name: str) -> Path:
        return self.folder / "rows" / f"{name}.json"

    def fetching(self, name: str) -> Path:
        """The file that exists while a data set is downloaded. It remains after an interruption."""
        return self.folder / f".{file_stem(name)}.unfinished"

    def page(self, name: str) -> Path:
        return self.folder / f"report-{name}.html"

    @cached_property
    def data(self) -> Mapping[str, tuple[str, str]]:
        """Name of a data set in steps -> (plugin, path below `place`)."""
        called = {
            (source.dataset, source.path): source.name for recipe in self.recipes.values() for source in recipe.sources
        }
        called |= {one.source: one.source[0] for one in self.target.measurements if one.source[0]}
        names = list(called.values())
        return {name if names.count(name) == 1 else pair[1]: pair for pair, name in called.items()}

    def data_of(self, recipes: Iterable[str]) -> list[str]:
        """Return the names, in steps, of the data sets that some recipes of the target need."""
        wanted = {(source.dataset, source.path) for name in recipes for source in self.recipes[name].sources}
        return [name for name, pair in self.data.items() if pair in wanted]

    def root(self, name: str) -> Path:
        """Return the folder of a data set, given its name in steps."""
        return self.place / self.data[name][1]

    def measured(self, one: Measurement) -> tuple[str, ...]:
        """Return the tasks to which a measurement is restricted, or () for all unseen tasks of the recipe.

        If none of the measurement's tasks is unseen, this is the first unseen task.
        """
        recipe = self.recipes[one.on or one.recipe]
        unseen = [name for source in recipe.sources for name in source.roles["unseen"]]
        if one.tasks and not (kept := tuple(name for name in one.tasks if name in unseen)):
            return tuple(unseen[:1])
        return kept if one.tasks else ()

    def part(self, name: str) -> Measurement | Lean:
        """Return the measurement or `Lean` of that name."""
        parts: list[Measurement | Lean] = [*self.target.measurements, *self.target.leans]
        return next(one for one in parts if one.name == name)

    def check_folder(self) -> None:
        """Raise UsageError if the folder contains anything other than results of this job."""
        if not (existing := nearest_existing(self.folder)).is_dir():
            raise UsageError(f"{existing} is a file, so results cannot be written to {self.folder}", "pass -o DIR")
        if not self.folder.exists():
            return
        known: Any = None
        with suppress(SgloraError):
            known = read_json(self.folder / MARKER)
        if not isinstance(known, dict):
            if self.folder.is_dir() and not any(self.folder.iterdir()):
                return
            raise UsageError(
                f"{self.folder} contains other files than results of `sglora reproduce`", "pass another folder: -o DIR"
            )
        other = {key: value for key, value in self._facts().items() if known.get(key) != value}
        if other:
            key, value = next(iter(other.items()))
            text = f"{self.folder} contains results with {key} {known.get(key)!r}, but {value!r} was requested"
            raise UsageError(text, "pass another folder: -o DIR")

    def mark_folder(self) -> None:
        """Record in the folder which job its results belong to."""
        path = self.folder / MARKER
        if not path.exists():
            facts = {"sglora_reproduce": _FORMAT, **self._facts(), "made_by": f"sglora {__version__}"}
            write_bytes(path, (json.dumps(facts, indent=1) + "\n").encode())

    def _facts(self) -> dict[str, Any]:
        return {"target": self.target.name, "with": self.request.family, "limit": self.request.limit}

    def settings_of_rows(self) -> dict[str, Any]:
        """Return the settings that determine the rows, in addition to the pack."""
        return {key: value for key, value in asdict(self.config).items() if key != "resamples"}


def _names(target: Target, family: str, library: Library) -> dict[str, str]:
    known = library.recipes()
    if family and not any(recipe_name(family, name) in known for name in ("coco", *target.recipes)):
        families = {name.removesuffix("-coco") for name in known if name.endswith("-coco")}
        raise UnknownName.of("family of recipes", family, families)
    names = {name: recipe_name(family, name) for name in target.recipes}
    for own in names.values():
        if own not in known:
            raise Unavailable(
                f"{target.name} cannot be made with {family!r}: there is no recipe {own!r}",
                "leave --with out, or see what there is: sglora pack recipes",
            )
    return names


def _lack(data: Path | None) -> SgloraError | None:
    """Return the error if there is no data folder, else None."""
    try:
        data_folder(data, settings.load().data)
    except Unavailable as error:
        return error
    return None
