"""Recipes: the TOML that says how to build a pack.

backbone = "starter"
template = "a photo of a {name}"         # may contain {classes}, of classification tasks
prompts = ["a photo of a {class}"]       # what classes of classification tasks are embedded as; of several, the mean

[lora]                      # LoraConfig        [train]   # TrainConfig
[prior]                     # PriorConfig       [generators.cvae]   # one table a learned generator

[[source]]
name = "pets"               # what its tasks are called: pets/pug
dataset = "folder"          # a data set plugin
path = "oxford-iiit-pet"    # below the data folder
expert = ["birman"]         # the roles: which tasks are experts,
training = ["beagle"]       # teach the generator,
unseen = ["pug"]            # and measure it
photos = 200                # optional: at most so many a task and split, the data set's first
description = "a dog"       # optional: instead of the template; may contain {name}, and {classes} as the template
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import tomli

from sglora_cli.configs import LoraConfig, PriorConfig, TrainConfig, from_mapping
from sglora_cli.contracts import ROLES, Task
from sglora_cli.errors import BadFile, SgloraError, Unavailable, UnknownName
from sglora_cli.faults import Faults
from sglora_cli.host import Host
from sglora_cli.toml_lines import Address, toml_lines
from sglora_cli.wording import PROMPTS, check_description, check_template, checked_prompts, described

C = TypeVar("C")


@dataclass(frozen=True)
class Source:
    """One data set of a recipe, and the roles of its tasks."""

    name: str
    dataset: str
    path: str
    roles: Mapping[str, tuple[str, ...]]
    description: str = ""
    photos: int = 0
    """At most so many a task and split; 0 takes all."""

    def found(self, host: Host, data: Path) -> dict[str, Task]:
        """All tasks the data set has, by name."""
        return {task.name: task for task in host.datasets[self.dataset].tasks(data / self.path)}

    def tasks(self, host: Host, data: Path, template: str) -> dict[str, list[Task]]:
        """Role -> tasks with their descriptions. Raises UnknownName for a task the data set lacks."""
        return self.chosen(self.found(host, data), template)

    def chosen(self, found: Mapping[str, Task], template: str) -> dict[str, list[Task]]:
        """As `tasks`, of those that were found."""
        return {role: [self._task(found, name, template) for name in names] for role, names in self.roles.items()}

    def _task(self, found: Mapping[str, Task], name: str, template: str) -> Task:
        self.check(found, name)
        photos = {split: some[: self.photos or None] for split, some in found[name].photos.items()}
        task = replace(found[name], dataset=self.name, photos=photos)
        return replace(task, description=described(task, self.description or template))

    def check(self, found: Mapping[str, Task], name: str) -> None:
        if name not in found:
            raise UnknownName.of(f"task in {self.name}", name, found)


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
    generators: Mapping[str, Mapping[str, Any]]
    raw: Mapping[str, Any]
    path: Path | None = None
    lines: Mapping[Address, int] = field(default_factory=dict)
    """Where in the file everything stands."""


def read(path: Path) -> Recipe:
    """A recipe file. Raises BadFile with path and reason, UnknownName for a key that does not exist; BadRecipe with
    a line for each if several things are wrong."""
    try:
        text = path.read_text(encoding="utf-8")
        raw = tomli.loads(text)
    except FileNotFoundError:
        raise BadFile.missing(path, "recipe ") from None
    except (tomli.TOMLDecodeError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise BadFile(f"recipe {path}: {error}") from None
    return parse(path.stem, raw, path, toml_lines(text))


def summary(path: Path) -> dict[str, str]:
    """What a recipe says of itself, for a list of them: a broken one does not stop the others."""
    try:
        raw = read(path).raw
    except SgloraError as error:
        return {"backbone": "unreadable", "summary": error.message.split("\n")[0]}
    return {key: str(raw.get(key, "")) for key in ("backbone", "summary")}


def planned(host: Host, recipe: Recipe, data: Path) -> list[dict[str, list[Task]]]:
    """Tasks by role of every source. Raises, for all at once, what the recipe names and nobody has."""
    faults = Faults(recipe.path, recipe.lines)
    with faults.at("backbone"):
        host.backbones[recipe.backbone]
    with faults.at("default_generator"):
        host.generators[recipe.default_generator]
    for name, table in recipe.generators.items():
        with faults.at("generators", name):
            kind = getattr(host.generators[name], "config", None)
            if kind is not None:
                _config(faults, kind, table, "generators", name)
    for n, source in enumerate(recipe.sources):
        with faults.at("source", n, "dataset"):
            host.datasets[source.dataset]
    faults.refuse()  # before the data is read: that takes its time
    found = [source.found(host, data) for source in recipe.sources]
    for n, (source, tasks) in enumerate(zip(recipe.sources, found, strict=True)):
        for role, names in source.roles.items():
            for name in names:
                with faults.at("source", n, role, name):
                    source.check(tasks, name)
    faults.refuse()
    plan = []
    for n, (source, tasks) in enumerate(zip(recipe.sources, found, strict=True)):
        with faults.at(*(("source", n, "description") if source.description else ("template",))):
            plan.append(source.chosen(tasks, recipe.template))
    faults.refuse()
    return plan


TEMPLATE = "a photo of a {name}"
_TEXTS = ("summary", "backbone", "template", "prompts", "default_generator")
_KEYS = (*_TEXTS, "source", "lora", "train", "prior", "generators")


def parse(
    name: str, raw: Mapping[str, Any], path: Path | None = None, lines: Mapping[Address, int] | None = None
) -> Recipe:
    """A recipe of a TOML's content; path and lines are for errors, which are raised all at once."""
    faults = Faults(path, lines or {})
    for key in raw:
        with faults.at(key):
            if key not in _KEYS:
                raise UnknownName.of("key", key, _KEYS)
    generators = _table(faults, raw, "generators")
    recipe = Recipe(
        name=name,
        backbone=_text(faults, raw, "backbone"),
        template=_template(faults, raw),
        prompts=_prompts(faults, raw),
        default_generator=_text(faults, raw, "default_generator", "cvae"),
        sources=_sources(faults, raw.get("source", [])),
        lora=_config(faults, LoraConfig, _table(faults, raw, "lora"), "lora"),
        train=_config(faults, TrainConfig, _table(faults, raw, "train"), "train"),
        prior=_config(faults, PriorConfig, _table(faults, raw, "prior"), "prior"),
        generators={key: _table(faults, generators, key, "generators") for key in generators},
        raw=raw,
        path=path,
        lines=faults.lines,
    )
    _check_roles(faults, recipe)
    faults.refuse()
    return recipe


def _check_roles(faults: Faults, recipe: Recipe) -> None:
    role_of: dict[str, str] = {}
    for n, source in enumerate(recipe.sources):
        for role, names in source.roles.items():
            for name in names:
                key = f"{source.name}/{name}"
                with faults.at("source", n, role, name):
                    if key in role_of:
                        hint = "a task has one role, or its result is a leak"
                        raise BadFile(f"{key} is {role_of[key]} and {role}", hint)
                role_of[key] = role
    if any(address[0] in ("source", "prior") for address, _ in faults.found):
        return  # what is counted below is not what the user meant
    counts = {role: list(role_of.values()).count(role) for role in ROLES}
    with faults.at("prior", "k"):
        if counts["expert"] < recipe.prior.k:
            raise BadFile(
                f"{counts['expert']} experts are fewer than K = {recipe.prior.k}", "name more, or lower k in [prior]"
            )
    with faults.at("generators"):
        if recipe.generators and not counts["training"]:
            raise BadFile("a learned generator needs training tasks, there are none")


def _sources(faults: Faults, raw: Any) -> list[Source]:
    with faults.at("source"):
        if not isinstance(raw, list) or not raw or not all(isinstance(s, dict) for s in raw):
            raise BadFile("there is no [[source]]", "a recipe names at least one data set")
        return [_source(faults, n, source) for n, source in enumerate(raw)]
    return []


_SOURCE_KEYS = ("name", "dataset", "path", "description", "photos", *ROLES)


def _source(faults: Faults, n: int, raw: Mapping[str, Any]) -> Source:
    at = ("source", n)
    for key in raw:
        with faults.at(*at, key):
            if key not in _SOURCE_KEYS:
                raise UnknownName.of("key in [[source]]", key, _SOURCE_KEYS)
    roles: dict[str, tuple[str, ...]] = {}
    for role in ROLES:
        names = raw.get(role, [])
        with faults.at(*at, role):
            if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
                raise BadFile(f"{role} must be a list of task names, got {names!r}")
            roles[role] = tuple(names)
    description, photos = raw.get("description", ""), raw.get("photos", 0)
    with faults.at(*at, "description"):
        check_description(description)
    with faults.at(*at, "photos"):
        if type(photos) is not int or photos < ("photos" in raw):
            raise BadFile(f"photos must be a whole number of at least 1, got {photos!r}")
    name = _text(faults, raw, "name", None, *at)
    dataset, path = _text(faults, raw, "dataset", "folder", *at), _text(faults, raw, "path", name or "?", *at)
    return Source(name, dataset, path, roles, description, photos)


def _template(faults: Faults, raw: Mapping[str, Any]) -> str:
    template = _text(faults, raw, "template", TEMPLATE)
    with faults.at("template"):
        if template:
            check_template(template)
    return template


def _prompts(faults: Faults, raw: Mapping[str, Any]) -> tuple[str, ...]:
    with faults.at("prompts"):
        return checked_prompts(raw["prompts"]) if "prompts" in raw else PROMPTS
    return ()


def _text(faults: Faults, raw: Mapping[str, Any], key: str, default: str | None = None, *at: str | int) -> str:
    value = raw.get(key, default)
    with faults.at(*at, key):
        if not isinstance(value, str) or not value:
            raise BadFile(f"{key} must be a text, got {value!r}")
        return value
    return ""


def _table(faults: Faults, raw: Mapping[str, Any], key: str, *at: str | int) -> Mapping[str, Any]:
    value = raw.get(key, {})
    with faults.at(*at, key):
        if not isinstance(value, dict):
            raise BadFile(f"[{key}] must be a table, got {value!r}")
        return value
    return {}


def _config(faults: Faults, kind: type[C], values: Mapping[str, Any], *at: str) -> C:
    """A config of a table: each key for itself, so that every wrong one is named."""
    where = f"[{'.'.join(at)}]"
    good = {}
    for key, value in values.items():
        with faults.at(*at, key):
            from_mapping(kind, {key: value}, where)
            good[key] = value
    with faults.at(*at):
        return from_mapping(kind, good, where)
    return kind()


def data_root(option: str | Path | None, setting: str, flag: str = "--data") -> Path:
    """The folder that holds the data sets: option (`flag`) > environment > settings. Raises Unavailable."""
    value = str(option or setting)
    if not value:
        raise Unavailable(
            "no folder with data is known",
            f'pass {flag} DIR, or set SGLORA_DATA, or write data = "DIR" into the settings',
        )
    path = Path(value).expanduser()
    if not path.is_dir():
        raise Unavailable(f"the data folder {path} does not exist", f"pass {flag} DIR")
    return path
