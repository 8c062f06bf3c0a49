"""Parse recipes: TOML files that describe how to build a pack.

backbone = "starter"
template = "a photo of a {name}"         # may contain {classes} for classification tasks
prompts = ["a photo of a {class}"]       # prompts for the classes of classification tasks; several are averaged

[lora]                      # LoraConfig        [train]   # TrainConfig
[prior]                     # PriorConfig       [generators.cvae]   # one table per trained generator

[tasks]                     # optional; PhraseConfig, and
from_captions = ["pets"]    # sources; phrases of their captions are seen tasks for generators that learn by retrieval

[resources]                 # optional; StepConfig, the resources of each step of the build

[[source]]
name = "pets"               # prefix of its tasks: pets/pug
dataset = "folder"          # a data set plugin
path = "oxford-iiit-pet"    # relative to the data folder
expert = ["birman"]         # roles: the experts,
training = ["beagle"]       # the tasks that generators are trained on,
unseen = ["pug"]            # and the tasks that the pack is evaluated on
photos = 200                # optional: the most photos per task and split, the first ones of the data set
whole = true                # optional: train experts and training tasks on all their photos, not only the train split
description = "a dog"       # optional: replaces the template; may contain {name} and {classes} like the template
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sglora_cli.config import LoraConfig, PhraseConfig, PriorConfig, StepConfig, TrainConfig, from_mapping
from sglora_cli.errors import BadFile, SgloraError, Unavailable, UnknownName
from sglora_cli.files.text import decoded
from sglora_cli.files.toml import Address, toml_lines, toml_table
from sglora_cli.files.untrusted import TOML_LIMIT, read_bytes
from sglora_cli.pack.content.manifest import check_printable
from sglora_cli.pack.recipe import PROMPTS, TEMPLATE, Recipe, Source
from sglora_cli.plugin.values import EXPERT, ROLES, TRAINING

C = TypeVar("C")


def read(path: Path) -> Recipe:
    """Read a recipe file.

    Raises BadFile with path and reason, and UnknownName for an unknown key. Several errors are raised as one BadFile
    with a line for each.
    """
    try:
        text = decoded(read_bytes(path, TOML_LIMIT), str(path))
        raw = toml_table(text)
    except BadFile as error:
        raise BadFile(f"recipe {error.message}", error.hint) from None
    except ValueError as error:
        raise BadFile(f"recipe {path}: {error}") from None
    return parse(path.stem, raw, path, toml_lines(text))


def summary(path: Path) -> dict[str, str]:
    """Return the backbone and the summary of a recipe for a list. If it is unreadable, the summary is the error."""
    try:
        raw = read(path).raw
    except SgloraError as error:
        return {"backbone": "unreadable", "summary": error.message.split("\n")[0]}
    return {key: str(raw.get(key, "")) for key in ("backbone", "summary")}


_TEXTS = ("summary", "backbone", "template", "prompts", "default_generator")
_KEYS = (*_TEXTS, "source", "lora", "train", "prior", "tasks", "generators", "resources")
_FROM = "from_captions"


def parse(
    name: str, raw: Mapping[str, Any], path: Path | None = None, lines: Mapping[Address, int] | None = None
) -> Recipe:
    """Parse the content of a TOML file. Raises all errors at once; `path` and `lines` are used in their messages."""
    faults = Faults(path, lines or {})
    for key in raw:
        with faults.at(key):
            if key not in _KEYS:
                raise UnknownName.of("key", key, _KEYS)
    generators, tasks = _table(faults, raw, "generators"), _table(faults, raw, "tasks")
    sources = _sources(faults, raw.get("source", []))
    recipe = Recipe(
        name=name,
        backbone=_text(faults, raw, "backbone"),
        template=_template(faults, raw),
        prompts=_prompts(faults, raw),
        default_generator=_text(faults, raw, "default_generator", "cvae"),
        sources=sources,
        lora=table_config(faults, LoraConfig, _table(faults, raw, "lora"), "lora"),
        train=table_config(faults, TrainConfig, _table(faults, raw, "train"), "train"),
        prior=table_config(faults, PriorConfig, _table(faults, raw, "prior"), "prior"),
        from_captions=_from_captions(faults, tasks, [source.name for source in sources]),
        phrases=table_config(
            faults, PhraseConfig, {key: value for key, value in tasks.items() if key != _FROM}, "tasks"
        ),
        generators={key: _table(faults, generators, key, "generators") for key in generators},
        resources=table_config(faults, StepConfig, _table(faults, raw, "resources"), "resources"),
        raw=raw,
        path=path,
        lines=faults.lines,
    )
    _check_roles(faults, recipe)
    faults.refuse()
    # The pack's manifest stores the complete recipe and may not have such a character either.
    check_printable(dict(raw), f"recipe {path or name}", "remove the character")
    return recipe


def _check_roles(faults: Faults, recipe: Recipe) -> None:
    role_of: dict[str, str] = {}
    spelt: dict[str, str] = {}
    for n, source in enumerate(recipe.sources):
        for role, names in source.roles.items():
            for name in names:
                key = f"{source.name}/{name}"
                with faults.at("source", n, role, name):
                    if key in role_of:
                        hint = "give each task one role, otherwise its result is a leak"
                        raise BadFile(f"{key} is listed as {role_of[key]} and as {role}", hint)
                    other = spelt.setdefault(unicodedata.normalize("NFC", " ".join(key.split())), key)
                    if other != key:
                        raise BadFile(
                            f"{other!a} and {key!a} look the same; they differ only in spaces or in accent encoding",
                            "rename one of the tasks in its data set",
                        )
                role_of[key] = role
    if any(address[0] in ("source", "prior") for address, _ in faults.errors):
        return  # the counts below would not be what the user meant
    counts = {role: list(role_of.values()).count(role) for role in ROLES}
    with faults.at("prior", "k"):
        if counts[EXPERT] < recipe.prior.k:
            raise BadFile(
                f"{counts['expert']} experts are fewer than K = {recipe.prior.k}", "list more, or lower k in [prior]"
            )
    with faults.at("generators"):
        if recipe.generators and not counts[TRAINING]:
            raise BadFile("a trained generator needs training tasks, but there are none")


def _from_captions(faults: Faults, tasks: Mapping[str, Any], sources: Sequence[str]) -> tuple[str, ...]:
    """Parse the names of sources, which must exist. A [tasks] table without any is an error."""
    with faults.at("tasks", _FROM):
        names = tasks.get(_FROM, [])
        if not isinstance(names, list) or not all(isinstance(one, str) for one in names) or (tasks and not names):
            raise BadFile(
                f"{_FROM} must be a list of source names, got {names!r}",
                f'try {_FROM} = ["{", ".join(sources[:1])}"]',
            )
        for name in names:
            if name not in sources:
                raise UnknownName.of("source", name, sources)
        return tuple(names)
    return ()


def _sources(faults: Faults, raw: Any) -> list[Source]:
    with faults.at("source"):
        if not isinstance(raw, list) or not raw or not all(isinstance(s, dict) for s in raw):
            raise BadFile("[[source]] is missing", "add at least one data set")
        return [_source(faults, n, source) for n, source in enumerate(raw)]
    return []


_SOURCE_KEYS = ("name", "dataset", "path", "description", "photos", "whole", *ROLES)


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
    with faults.at(*at, "whole"):
        if not isinstance(whole := raw.get("whole", False), bool):
            raise BadFile(f"whole must be true or false, got {whole!r}")
    return Source(name, dataset, path, roles, description, photos, whole)


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
            raise BadFile(f"{key} must be a string, got {value!r}")
        return value
    return ""


def _table(faults: Faults, raw: Mapping[str, Any], key: str, *at: str | int) -> Mapping[str, Any]:
    value = raw.get(key, {})
    with faults.at(*at, key):
        if not isinstance(value, dict):
            raise BadFile(f"[{key}] must be a table, got {value!r}")
        return value
    return {}


def table_config(faults: Faults, kind: type[C], values: Mapping[str, Any], *at: str) -> C:
    """Parse a table into a config, key by key, so that every wrong key is reported."""
    where = f"[{'.'.join(at)}]"
    good = {}
    for key, value in values.items():
        with faults.at(*at, key):
            from_mapping(kind, {key: value}, where)
            good[key] = value
    with faults.at(*at):
        return from_mapping(kind, good, where)
    return kind()


@dataclass
class Faults:
    """Errors and the recipe keys that they belong to. `path` is None for a recipe without a file."""

    path: Path | None = None
    lines: Mapping[Address, int] = field(default_factory=dict)
    errors: list[tuple[Address, SgloraError]] = field(default_factory=list)

    @contextmanager
    def at(self, *address: str | int) -> Iterator[None]:
        """Collect an error raised inside the block for the key at `address`, and continue after the block."""
        try:
            yield
        except SgloraError as error:
            self.errors.append((address, error))

    def collect(self, errors: Iterable[SgloraError]) -> None:
        """Add errors that belong to no key, such as missing or invalid data. Duplicates are dropped."""
        known = {(error.message, error.hint) for _, error in self.errors}
        self.errors += [((), error) for error in errors if (error.message, error.hint) not in known]

    def refuse(self) -> None:
        """Raise the collected errors, if there are any."""
        if error := self.error():
            raise error

    def error(self) -> SgloraError | None:
        """Return the errors as one error, or None.

        Several errors become one with a line for each: an Unavailable if all are Unavailable, or else a BadFile.
        """
        if not self.errors:
            return None
        place = f"recipe {self.path}" if self.path else "the recipe"
        if len(self.errors) == 1:
            address, error = self.errors[0]
            if not (self.path and address):
                return error
            return type(error)(", ".join([place, *self._line(address)]) + ": " + error.message, error.hint)
        ordered = sorted(self.errors, key=lambda fault: self._number(fault[0]) or 0)
        parts = [type(error)(": ".join([*self._line(at), error.message]), error.hint) for at, error in ordered]
        if all(isinstance(part, Unavailable) for part in parts):
            return Unavailable.several(f"{len(parts)} requirements are missing to build {place}", parts)
        owner = place if any(address for address, _ in self.errors) else "the data"
        return BadFile.several(f"{owner} has {len(parts)} errors", parts)

    def _line(self, address: Address) -> list[str]:
        number = self._number(address)
        return [f"line {number}"] if number else []

    def _number(self, address: Address) -> int | None:
        """Return the line of the key, or of its table, as a missing key has no line of its own."""
        whole = (self.lines.get(address[:length]) for length in range(len(address), 0, -1))
        return next((number for number in whole if number), None)


def check_template(text: str) -> None:
    """Raise BadFile unless the template has {name} and no other braces than {name} and {classes}."""
    if "{name}" not in text or _braces(text, "{name}", "{classes}"):
        raise BadFile(f"template must contain {{name}} and no other braces than {{classes}}, got {text!r}")


def check_description(text: Any) -> None:
    """Raise BadFile unless `text` is a string whose only braces are {name} and {classes}."""
    if not isinstance(text, str) or _braces(text, "{name}", "{classes}"):
        raise BadFile(f"description must be a string with no other braces than {{name}} and {{classes}}, got {text!r}")


def checked_prompts(texts: Any) -> tuple[str, ...]:
    """Return the prompts as a tuple. Raises BadFile unless each has {class} and no other braces."""
    if not isinstance(texts, list) or not texts:
        raise BadFile(f"prompts must be a list of strings, got {texts!r}")
    for text in texts:
        if not isinstance(text, str) or "{class}" not in text or _braces(text, "{class}"):
            raise BadFile(f"a prompt must be a string with {{class}} and no other braces, got {text!r}")
    return tuple(texts)


def _braces(text: str, *allowed: str) -> bool:
    """Whether a string has braces other than the allowed ones."""
    for name in allowed:
        text = text.replace(name, "")
    return "{" in text or "}" in text


def with_backbone(recipe: Recipe, backbone: str) -> Recipe:
    """Return the recipe with another backbone."""
    return parse(recipe.name, {**recipe.raw, "backbone": backbone}, recipe.path, recipe.lines)


def limited(recipe: Recipe, tasks: int) -> Recipe:
    """Return the recipe with at most `tasks` tasks per role and source, another name, and K at most the experts."""
    sources = [{**raw, **{role: raw[role][:tasks] for role in ROLES if role in raw}} for raw in recipe.raw["source"]]
    experts = sum(len(source.get(EXPERT, ())) for source in sources)
    prior = {**recipe.raw.get("prior", {}), "k": max(1, min(recipe.prior.k, experts))}
    raw = {**recipe.raw, "source": sources, "prior": prior}
    return parse(f"{recipe.name}-limit-{tasks}", raw, recipe.path, recipe.lines)
