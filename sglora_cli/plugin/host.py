"""Load plugins and fill the registries. A broken plugin never stops the others."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import pluggy

from sglora_cli import network
from sglora_cli.errors import PluginError, SgloraError, UnknownName, UsageError
from sglora_cli.plugin import hookspecs
from sglora_cli.plugin.combined import Combined, parts_of
from sglora_cli.plugin.contracts import Backbone, Captioner, Dataset, Executor, Generator, HasMembers, Reporter
from sglora_cli.plugin.executors import LOCAL, InProcess
from sglora_cli.plugin.guard import (
    GuardedBackbone,
    GuardedCaptioner,
    GuardedDataset,
    GuardedExecutor,
    GuardedGenerator,
    GuardedReporter,
)
from sglora_cli.plugin.validation import (
    OURS,
    check_hooks,
    check_value,
    check_version,
    checked_list,
    declared_version,
    misspelt,
)

V = TypeVar("V")
PLUGIN_KINDS = ("backbone", "dataset", "captioner", "generator", "reporter", "executor")
UPDATE = "uninstall or update it"


@dataclass(frozen=True)
class PluginProblem:
    """A problem with a plugin, and the plugin's name."""

    plugin: str
    reason: str
    hint: str = UPDATE


class Registry(Mapping[str, V], Generic[V]):
    """Named values of one kind, each with the name of the plugin that provides it."""

    def __init__(self, kind: str, guard: Callable[[V, str], V]) -> None:
        self.kind, self._guard = kind, guard
        self._items: dict[str, V] = {}
        self._owners: dict[str, str] = {}
        self._disputed: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Registry({self.kind}: {', '.join(map(repr, self)) or 'none'})"

    def add(self, owner: str, name: str, value: V) -> None:
        """Register a value. Raises PluginError naming both owners if the name is taken. Neither then keeps the name."""
        if name in self._owners:
            first = self._owners[name]
            self._disputed[name] = f"{self.kind} {name!r} is provided by both {first!r} and {owner!r}"
            self._items.pop(name, None)
            raise PluginError(self._disputed[name], f"uninstall one of {first!r} and {owner!r}")
        self._items[name] = self._guard(value, f"{self.kind} {name!r} of plugin {owner!r}")
        self._owners[name] = owner

    def owner(self, name: str) -> str:
        return self._owners[name]

    def __getitem__(self, name: str) -> V:
        if name in self._items:
            return self._items[name]
        if name in self._disputed:
            raise PluginError(self._disputed[name], "uninstall one of the two plugins")
        family, colon, member = name.partition(":")
        value: object = self._items.get(family)
        if colon and isinstance(value, HasMembers):
            return cast(V, value.member(member))
        raise UnknownName.of(self.kind, name, self._items, "sglora plugins list")

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


class GeneratorRegistry(Registry[Generator]):
    """Generators and their sums, such as `joint+all-but-the-task`."""

    def __getitem__(self, name: str) -> Generator:
        names = parts_of(name)
        return super().__getitem__(name) if len(names) == 1 else cast(Generator, Combined([self[n] for n in names]))


@dataclass
class Host:
    """All plugins installed on this machine. Their hooks are called once."""

    backbones: Registry[Backbone] = field(default_factory=lambda: Registry("backbone", GuardedBackbone))
    datasets: Registry[Dataset] = field(default_factory=lambda: Registry("dataset", GuardedDataset))
    captioners: Registry[Captioner] = field(default_factory=lambda: Registry("captioner", GuardedCaptioner))
    generators: GeneratorRegistry = field(default_factory=lambda: GeneratorRegistry("generator", GuardedGenerator))
    reporters: Registry[Reporter] = field(default_factory=lambda: Registry("reporter", GuardedReporter))
    executors: Registry[Executor] = field(default_factory=lambda: Registry("executor", GuardedExecutor))
    recipe_folders: list[Path] = field(default_factory=list)
    plugins: dict[str, str] = field(default_factory=dict)
    """Plugin name -> the distribution that installed it."""
    problems: list[PluginProblem] = field(default_factory=list)
    remarks: list[PluginProblem] = field(default_factory=list)
    """Harmless findings for a plugin's author."""

    @property
    def registries(self) -> tuple[Registry[Any], ...]:
        return self.backbones, self.datasets, self.captioners, self.generators, self.reporters, self.executors

    def registry_of(self, name: str, kind: str | None = None) -> Registry[Any]:
        """Find the registry that has a name. Raises UnknownName, or UsageError if several kinds have it."""
        asked = [r for r in self.registries if kind in (None, r.kind)]
        having = [r for r in asked if name in r or (":" in name and name.partition(":")[0] in r)]
        if len(having) > 1:
            kinds = " or ".join(r.kind for r in having)
            raise UsageError(f"{name!r} is the name of several plugins: {kinds}", f"pass --kind {having[0].kind}")
        if not having:
            known = [one for r in asked for one in r]
            raise UnknownName.of(kind or "plugin", name, known, "sglora plugins list")
        return having[0]

    @classmethod
    def load(cls, entry_points: Iterable[metadata.EntryPoint] | None = None) -> Host:
        """Import every plugin and call its hooks. Each failure becomes a PluginProblem."""
        network.enforce()
        # tqdm warns in notebooks without ipywidgets when a model library is imported. Its bars are not shown anyway.
        warnings.filterwarnings("ignore", message="IProgress not found")
        host = cls()
        host.executors.add("sglora", LOCAL, InProcess())
        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs)
        entries = metadata.entry_points(group=hookspecs.GROUP) if entry_points is None else entry_points
        for entry in sorted(entries, key=lambda e: (not e.value.startswith("sglora_"), e.name, e.value)):
            host._load(manager, entry)
        return host

    def _load(self, manager: pluggy.PluginManager, entry: metadata.EntryPoint) -> None:
        name = entry.name
        distribution, version = _said(entry.dist) if entry.dist else (name, "")
        try:
            if name in self.plugins:
                raise PluginError(f"two plugins are named {name!r}. {entry.value!r} is ignored")
            with self._heard(name):
                plugin = entry.load()
            declared = getattr(plugin, "SGLORA_API", None)
            if declared is None:
                self.remarks.append(PluginProblem(name, "it does not declare its plugin API version", _SAY))
            else:
                check_version(declared, distribution)
            check_hooks(plugin, self._questions())
            manager.register(plugin, name=name)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # plugin code may raise anything, and a Rust panic is not an Exception
            self.problems.append(_problem(name, _of_version(entry, distribution) or error))
            return
        self.plugins[name] = f"{distribution} {version}" if entry.dist else entry.value
        for hook, take in self._questions().items():
            function = getattr(plugin, hook, None)
            if function is not None:
                self._ask(name, hook, function, take)

    @contextmanager
    def _heard(self, plugin: str) -> Iterator[None]:
        """Record a plugin's warnings and its output to stdout, which is reserved for results, as remarks."""
        out = io.StringIO()
        with redirect_stdout(out), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("default")
            yield
        if text := out.getvalue().strip():
            self.remarks.append(PluginProblem(plugin, f"it prints to standard output: {text!r:.100}", "drop the print"))
        for one in warned:
            reason = f"it warns: {f'{one.category.__name__}: {one.message}'!r:.200}"
            self.remarks.append(PluginProblem(plugin, reason, "import heavy packages only when needed"))

    def _questions(self) -> dict[str, Callable[[str, Any], None]]:
        return {
            "sglora_backbones": lambda owner, value: self._register(self.backbones, Backbone, owner, value),
            "sglora_datasets": lambda owner, value: self._register(self.datasets, Dataset, owner, value),
            "sglora_captioners": lambda owner, value: self._register(self.captioners, Captioner, owner, value),
            "sglora_generators": lambda owner, value: self._register(self.generators, Generator, owner, value),
            "sglora_reporters": lambda owner, value: self._register(self.reporters, Reporter, owner, value),
            "sglora_executors": lambda owner, value: self._register(self.executors, Executor, owner, value),
            "sglora_recipes": lambda owner, value: self.recipe_folders.append(_folder(value)),
        }

    def _ask(self, owner: str, hook: str, function: Callable[[], Any], take: Callable[[str, Any], None]) -> None:
        try:
            with self._heard(owner):
                values = checked_list(function())
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # as above
            self.problems.append(_problem(owner, error, f"{hook}: "))
            return
        for value in values:
            try:
                take(owner, value)
            except Exception as error:  # as above, but the other values may still be used
                self.problems.append(_problem(owner, error, f"{hook}: "))

    def _register(self, registry: Registry[V], contract: type, owner: str, value: V) -> None:
        check_value(registry.kind, contract, value)
        registry.add(owner, value.name, value)  # type: ignore[attr-defined]
        self.remarks += [PluginProblem(owner, text, "rename it") for text in misspelt(registry.kind, contract, value)]


@cache
def _said(distribution: metadata.Distribution) -> tuple[str, str]:
    """Return name and version. Cached, because each access to a distribution's metadata parses it again."""
    said = distribution.metadata
    return said["Name"], said["Version"]


_SAY = f'add SGLORA_API = "{OURS}" in its module'


def _problem(plugin: str, error: BaseException, where: str = "") -> PluginProblem:
    if isinstance(error, SgloraError):
        return PluginProblem(plugin, where + error.message, error.hint or UPDATE)
    if isinstance(error, SystemExit):
        return PluginProblem(plugin, f"{where}it calls sys.exit {'in this hook' if where else 'on import'}")
    return PluginProblem(plugin, f"{where}{type(error).__name__}: {error}")


def _of_version(entry: metadata.EntryPoint, distribution: str) -> PluginError | None:
    """Return an error if a module that cannot be imported declares another API version."""
    try:
        if (declared := declared_version(entry)) is not None:
            check_version(declared, distribution)
    except PluginError as error:
        return error
    return None


def _folder(value: Any) -> Path:
    path = Path(value)
    if not path.is_dir():
        raise PluginError(f"{path} is not a folder of recipes")
    return path
