"""Recipes: the TOML that says how to build a pack.

backbone = "starter"
template = "a photo of a {name}"

[lora]                      # LoraConfig        [train]   # TrainConfig
[prior]                     # PriorConfig       [generators.cvae]   # one table a learned generator

[[source]]
name = "pets"               # what its tasks are called: pets/pug
dataset = "folder"          # a data set plugin
path = "oxford-iiit-pet"    # below the data folder
expert = ["birman"]         # the roles: which tasks are experts,
training = ["beagle"]       # teach the generator,
unseen = ["pug"]            # and measure it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli

from sglora_cli.configs import LoraConfig, PriorConfig, TrainConfig, from_mapping
from sglora_cli.contracts import ROLES, Task
from sglora_cli.errors import BadFile, SgloraError, Unavailable, UnknownName
from sglora_cli.host import Host


@dataclass(frozen=True)
class Source:
    """One data set of a recipe, and the roles of its tasks."""

    name: str
    dataset: str
    path: str
    roles: Mapping[str, tuple[str, ...]]

    def tasks(self, host: Host, data: Path, template: str) -> dict[str, list[Task]]:
        """Role -> tasks with their descriptions. Raises UnknownName for a task the data set lacks."""
        found = {task.name: task for task in host.datasets[self.dataset].tasks(data / self.path)}
        result: dict[str, list[Task]] = {}
        for role, names in self.roles.items():
            for name in names:
                if name not in found:
                    raise UnknownName.of(f"task in {self.name}", name, found)
            result[role] = [
                replace(found[name], dataset=self.name, description=template.format(name=name)) for name in names
            ]
        return result


@dataclass(frozen=True)
class Recipe:
    """How to build a pack; `raw` is the file's content, kept in the pack's manifest."""

    name: str
    backbone: str
    template: str
    default_generator: str
    sources: Sequence[Source]
    lora: LoraConfig
    train: TrainConfig
    prior: PriorConfig
    generators: Mapping[str, Mapping[str, Any]]
    raw: Mapping[str, Any]


def read(path: Path) -> Recipe:
    """A recipe file. Raises BadFile with path and reason, UnknownName for a key that does not exist."""
    try:
        raw = tomli.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadFile(f"recipe {path} does not exist") from None
    except (tomli.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise BadFile(f"recipe {path}: {error}") from None
    try:
        return parse(path.stem, raw)
    except SgloraError as error:
        raise type(error)(f"recipe {path}: {error.message}", error.hint) from None


_KEYS = ("summary", "backbone", "template", "default_generator", "source", "lora", "train", "prior", "generators")


def parse(name: str, raw: Mapping[str, Any]) -> Recipe:
    for key in raw:
        if key not in _KEYS:
            raise UnknownName.of("key", key, _KEYS)
    template = _text(raw, "template", "a photo of a {name}")
    if "{name}" not in template or template.replace("{name}", "").count("{"):
        raise BadFile(f"template must contain {{name}} and no other braces, got {template!r}")
    sources = raw.get("source", [])
    if not isinstance(sources, list) or not sources or not all(isinstance(s, dict) for s in sources):
        raise BadFile("there is no [[source]]", "a recipe names at least one data set")
    recipe = Recipe(
        name=name,
        backbone=_text(raw, "backbone"),
        template=template,
        default_generator=_text(raw, "default_generator", "cvae"),
        sources=[_source(source) for source in sources],
        lora=from_mapping(LoraConfig, _table(raw, "lora"), "[lora]"),
        train=from_mapping(TrainConfig, _table(raw, "train"), "[train]"),
        prior=from_mapping(PriorConfig, _table(raw, "prior"), "[prior]"),
        generators={key: _table(_table(raw, "generators"), key) for key in _table(raw, "generators")},
        raw=raw,
    )
    _check_roles(recipe)
    return recipe


def _check_roles(recipe: Recipe) -> None:
    role_of: dict[str, str] = {}
    for source in recipe.sources:
        for role, names in source.roles.items():
            for name in names:
                key = f"{source.name}/{name}"
                if key in role_of:
                    raise BadFile(f"{key} is {role_of[key]} and {role}", "a task has one role, or its result is a leak")
                role_of[key] = role
    counts = {role: list(role_of.values()).count(role) for role in ROLES}
    if counts["expert"] < recipe.prior.k:
        raise BadFile(
            f"{counts['expert']} experts are fewer than K = {recipe.prior.k}", "name more, or lower k in [prior]"
        )
    if recipe.generators and not counts["training"]:
        raise BadFile("a learned generator needs training tasks, there are none")


def _source(raw: Mapping[str, Any]) -> Source:
    known = ("name", "dataset", "path", *ROLES)
    for key in raw:
        if key not in known:
            raise UnknownName.of("key in [[source]]", key, known)
    roles = {}
    for role in ROLES:
        names = raw.get(role, [])
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise BadFile(f"{role} must be a list of task names, got {names!r}")
        roles[role] = tuple(names)
    name = _text(raw, "name")
    return Source(name, _text(raw, "dataset", "folder"), _text(raw, "path", name), roles)


def _text(raw: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = raw.get(key, default)
    if not isinstance(value, str) or not value:
        raise BadFile(f"{key} must be a text, got {value!r}")
    return value


def _table(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = raw.get(key, {})
    if not isinstance(value, dict):
        raise BadFile(f"[{key}] must be a table, got {value!r}")
    return value


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
