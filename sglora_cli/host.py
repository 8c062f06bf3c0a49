"""Loading plugins, and the registries they fill. One broken plugin never stops the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, TypeVar

import pluggy

from sglora_cli import hookspecs, offline
from sglora_cli.contracts import Backbone, Captioner, Dataset, Generator, Reporter
from sglora_cli.errors import PluginError, UnknownName

V = TypeVar("V")


@dataclass(frozen=True)
class Problem:
    """What is wrong with a plugin, and whose plugin it is."""

    plugin: str
    reason: str


class Registry(Mapping[str, V], Generic[V]):
    """Named values of one kind, each with the plugin that owns it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, V] = {}
        self._owners: dict[str, str] = {}
        self._disputed: dict[str, str] = {}

    def add(self, owner: str, name: str, value: V) -> None:
        """Raises PluginError, naming both owners, when the name is taken: then nobody has it."""
        if name in self._owners:
            first = self._owners[name]
            self._disputed[name] = f"{self.kind} {name!r} is given by both {first!r} and {owner!r}"
            self._items.pop(name, None)
            raise PluginError(self._disputed[name], f"uninstall one of {first!r} and {owner!r}")
        self._items[name], self._owners[name] = value, owner

    def owner(self, name: str) -> str:
        return self._owners[name]

    def __getitem__(self, name: str) -> V:
        if name in self._items:
            return self._items[name]
        if name in self._disputed:
            raise PluginError(self._disputed[name], "uninstall one of the two")
        family, colon, member = name.partition(":")
        if colon and hasattr(self._items.get(family), "member"):
            found: V = self._items[family].member(member)  # type: ignore[attr-defined]
            return found
        raise UnknownName.of(self.kind, name, self._items)

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


@dataclass
class Host:
    """All plugins of this machine, asked once."""

    backbones: Registry[Backbone] = field(default_factory=lambda: Registry("backbone"))
    datasets: Registry[Dataset] = field(default_factory=lambda: Registry("dataset"))
    captioners: Registry[Captioner] = field(default_factory=lambda: Registry("captioner"))
    generators: Registry[Generator] = field(default_factory=lambda: Registry("generator"))
    reporters: Registry[Reporter] = field(default_factory=lambda: Registry("reporter"))
    recipe_folders: list[Path] = field(default_factory=list)
    plugins: dict[str, str] = field(default_factory=dict)
    """Plugin name to the distribution it came with."""
    problems: list[Problem] = field(default_factory=list)

    @classmethod
    def load(cls, entry_points: Iterable[metadata.EntryPoint] | None = None) -> Host:
        """Import every plugin and ask its hooks; what fails becomes a Problem."""
        offline.enforce()
        host = cls()
        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs)
        found = metadata.entry_points(group=hookspecs.GROUP) if entry_points is None else entry_points
        for entry in sorted(found, key=lambda e: (not e.value.startswith("sglora_"), e.name, e.value)):
            host._load(manager, entry)
        return host

    def _load(self, manager: pluggy.PluginManager, entry: metadata.EntryPoint) -> None:
        name = entry.name
        try:
            if name in self.plugins:
                raise PluginError(f"two plugins are named {name!r}: {entry.value!r} is left out")
            plugin = entry.load()
            manager.register(plugin, name=name)
            manager.check_pending()
            self.plugins[name] = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
        except (KeyboardInterrupt, SystemExit) as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            self.problems.append(Problem(name, "it calls sys.exit when it is imported"))
            return
        except Exception as error:  # a stranger's module may raise anything
            self.problems.append(Problem(name, f"{type(error).__name__}: {error}"))
            return
        for hook, take in self._questions().items():
            function = getattr(plugin, hook, None)
            if function is not None:
                self._ask(name, hook, function, take)

    def _questions(self) -> dict[str, Callable[[str, Any], None]]:
        return {
            "sglora_backbones": lambda owner, value: _register(self.backbones, Backbone, owner, value),
            "sglora_datasets": lambda owner, value: _register(self.datasets, Dataset, owner, value),
            "sglora_captioners": lambda owner, value: _register(self.captioners, Captioner, owner, value),
            "sglora_generators": lambda owner, value: _register(self.generators, Generator, owner, value),
            "sglora_reporters": lambda owner, value: _register(self.reporters, Reporter, owner, value),
            "sglora_recipes": lambda owner, value: self.recipe_folders.append(Path(value)),
        }

    def _ask(self, owner: str, hook: str, function: Callable[[], Any], take: Callable[[str, Any], None]) -> None:
        try:
            values = list(function())
        except Exception as error:  # as above
            self.problems.append(Problem(owner, f"{hook}: {type(error).__name__}: {error}"))
            return
        for value in values:
            try:
                take(owner, value)
            except Exception as error:  # as above; the other values are still good
                self.problems.append(Problem(owner, f"{hook}: {error}"))


def _register(registry: Registry[V], contract: type, owner: str, value: V) -> None:
    missing = [name for name in _members(contract) if not hasattr(value, name)]
    if missing:
        raise PluginError(f"{type(value).__name__} lacks {', '.join(missing)}, so it is no {registry.kind}")
    name = value.name  # type: ignore[attr-defined]
    if not isinstance(name, str) or not name:
        raise PluginError(f"{type(value).__name__} has the name {name!r}; a name is a text")
    registry.add(owner, name, value)


def _members(contract: type) -> list[str]:
    own = {n for n, value in vars(contract).items() if callable(value) and not n.startswith("_")}
    return sorted(own | set(contract.__annotations__))
