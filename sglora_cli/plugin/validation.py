"""Check plugin values against their contracts. Messages tell plugin authors what is wrong and how to fix it.

A fault rejects a value. A remark is only shown by `sglora plugins doctor`.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sglora_cli.errors import PluginError
from sglora_cli.plugin.contracts import API_VERSION, NEEDS, POWERS
from sglora_cli.plugin.values import SPLITS, Download, FetchPlan, Photo, Task

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_DECLARED = re.compile(r"^SGLORA_API\s*(?::\s*\w+\s*)?=\s*[\"']([^\"'\n]*)[\"']", re.MULTILINE)
_VERSION = re.compile(r"(\d{1,9})(?:\.(\d{1,9}))?")
OURS = ".".join(map(str, API_VERSION))
"""The plugin API version of this sglora, in the format of a plugin's `SGLORA_API`."""


def check_version(declared: Any, distribution: str) -> None:
    """Raise PluginError for a plugin made for another API version. The hint is the command that fixes it.

    A plugin with the same major version and no newer minor version is compatible. "1" means "1.0".
    """
    match = _VERSION.fullmatch(declared) if isinstance(declared, str) else None
    if match is None:
        raise PluginError(f"SGLORA_API must be a string like {OURS!r}, got {declared!r:.100}", f'SGLORA_API = "{OURS}"')
    major, minor = int(match[1]), int(match[2] or 0)
    if major != API_VERSION[0] or minor > API_VERSION[1]:
        update = "sglora" if (major, minor) > API_VERSION else distribution
        raise PluginError(
            f"it needs version {declared} of the plugin API, but this sglora has {OURS}",
            f"pip install --upgrade {update}",
        )


def declared_version(entry: metadata.EntryPoint) -> str | None:
    """Read SGLORA_API from the source of a module that cannot be imported. None if it is not declared."""
    try:
        spec = find_spec(entry.module)
        text = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
    except Exception:  # what broke the import may also break this
        return None
    match = _DECLARED.search(text)
    return match[1] if match else None


def check_hooks(plugin: Any, hooks: Collection[str]) -> None:
    """Raise PluginError for an unknown hook, or for a hook that is not a function without arguments."""
    for name in sorted(n for n in dir(plugin) if n.startswith("sglora_")):
        function = getattr(plugin, name)
        close = difflib.get_close_matches(name, hooks, n=1, cutoff=0.8)
        if name not in hooks:
            if hasattr(function, "sglora_impl") or (inspect.isfunction(function) and close):
                known = f"did you mean {close[0]!r}?" if close else f"known hooks: {', '.join(sorted(hooks))}"
                raise PluginError(f"there is no hook {name!r}", known)
        elif not callable(function) or not _takes(function, ()):
            raise PluginError(f"the hook {name} must be a function without arguments", f"def {name}(): return [...]")


def checked_list(values: Any) -> list[Any]:
    """Return a hook's result as a list. Raises PluginError for anything but a list."""
    if not isinstance(values, list | tuple):
        what = "nothing" if values is None else f"{type(values).__name__}"
        raise PluginError(f"it must return a list, got {what}", "return [...], even for a single value")
    return list(values)


def check_value(kind: str, contract: type, value: Any) -> None:
    """Raise PluginError listing all faults of a value that does not fulfil its contract."""
    called = type(value).__name__
    if isinstance(value, type):
        raise PluginError(f"{value.__name__} is a class, not a {kind}", f"return {value.__name__}()")
    if names := lacking(contract, value):
        hint = "; ".join(filter(None, (_instead(value, name, contract) for name in names)))
        raise PluginError(f"{called} lacks {', '.join(names)}, so it is not a {kind}", hint)
    faults = [fault for name in _fields(contract) if (fault := _wrong_field(contract, value, name))]
    if isinstance(value.name, str) and not NAME.fullmatch(value.name):
        faults.append(
            f"the name {value.name!r:.100} must start with a letter or digit and contain only letters, digits and .+-_"
        )
    faults += [fault for name in _methods(contract) if (fault := _wrong_method(name, _method(contract, name), value))]
    optional = {name: takes for name, takes in _optional(contract).items() if getattr(value, name, None) is not None}
    faults += [fault for name, takes in optional.items() if (fault := _wrong_method(name, takes, value))]
    if faults:
        raise PluginError(f"{called} is not a valid {kind}: {'; '.join(faults)}")


def misspelt(kind: str, contract: type, value: Any) -> list[str]:
    """Return remarks about public members whose names resemble an optional member of the contract."""
    optional = _optional(contract)
    known = {*members(contract), *optional}
    remarks = []
    for name in _own(value):
        close = difflib.get_close_matches(name, optional, n=1, cutoff=0.8)
        if name not in known and close and not hasattr(value, close[0]):
            remarks.append(f"{kind} {value.name!r} has {name!r}, which is never used. Did you mean {close[0]!r}?")
    return remarks


def lacking(contract: type, value: object) -> list[str]:
    """Return the contract members that a value lacks. Properties are not evaluated: a fingerprint takes time."""
    static = inspect.getattr_static
    return [name for name in members(contract) if static(value, name, None) is None and not hasattr(value, name)]


@cache
def members(contract: type) -> Sequence[str]:
    return sorted({*_fields(contract), *_methods(contract)})


def _fields(contract: type) -> Iterable[str]:
    return contract.__annotations__


@cache
def _methods(contract: type) -> Sequence[str]:
    return sorted(n for n, value in vars(contract).items() if callable(value) and not n.startswith("_"))


@cache
def _method(contract: type, name: str) -> tuple[str, ...]:
    """Return the argument names that the host passes."""
    return tuple(inspect.signature(getattr(contract, name)).parameters)[1:]


@cache
def _optional(contract: type) -> Mapping[str, tuple[str, ...]]:
    """Return methods of the optional protocols, with the argument names that the host passes."""
    return {name: _method(power, name) for power in POWERS[contract] for name in _methods(power)}


def _own(value: Any) -> list[str]:
    return [name for name in dir(value) if not name.startswith("_")]


def _instead(value: Any, name: str, contract: type) -> str:
    others = [n for n in _own(value) if n not in members(contract)]
    close = difflib.get_close_matches(name, others, n=1, cutoff=0.7)
    return f"{name}: is {close[0]!r} meant to be this?" if close else _SAY.get(name, "")


_SAY = {
    "learns": "set learns = True if `fit` must run when a pack is built, else False",
    "draws": "set draws = True if samples differ, else False",
    "needs": 'set needs = "" unless it must see data of the unseen task',
    "config": "set config = None unless a recipe has settings for it",
}
"""Member -> what to write if it is missing."""


def _wrong_field(contract: type, value: Any, name: str) -> str:
    kinds = {"str": str, "bool": bool}
    kind, member = kinds.get(str(contract.__annotations__[name])), getattr(value, name)
    if name == "needs":
        return "" if member in NEEDS else f"needs must be one of {', '.join(map(repr, NEEDS))}, got {member!r:.100}"
    if name == "config":
        good = member is None or (isinstance(member, type) and is_dataclass(member))
        return "" if good else f"config must be a dataclass or None, got {member!r:.100}"
    if kind is not None and not isinstance(member, kind):
        return f"{name} must be {'a string' if kind is str else 'True or False'}, got {member!r:.100}"
    if kind is str and (not member.strip() or not member.isprintable()):
        return f"{name} must be one line of text, got {member!r:.100}"
    return ""


def _wrong_method(name: str, takes: tuple[str, ...], value: Any) -> str:
    function = getattr(value, name)
    if not callable(function):
        return f"{name} must be a method, got {function!r:.100}"
    if not _takes(function, takes):
        return f"{name}{_signature(function)} cannot be called as {name}({', '.join(takes)})"
    return ""


def _takes(function: Any, arguments: tuple[str, ...]) -> bool:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # functions written in C may have no signature
        return True
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def _signature(function: Any) -> str:
    return f"({', '.join(inspect.signature(function).parameters)})"


# Faults in a return value, as a phrase to follow the method's name. "" if there are none.


def wrong_value(value: object, contract: type) -> str:
    names = lacking(contract, value)
    return f"must return a {contract.__name__}, and {type(value).__name__} lacks {', '.join(names)}" if names else ""


def wrong_vectors(vectors: Any, count: int, plain: bool) -> str:
    """Check unit vectors. Without an adapter (plain) they must also be finite."""
    if not hasattr(vectors, "isfinite"):
        return f"must return a tensor, got {type(vectors).__name__}"
    if vectors.ndim != (2 if plain else 3) or len(vectors) != count:
        wanted = f"({count}, D)" if plain else f"({count}, N, D)"
        return f"must return a tensor of shape {wanted}, got {tuple(vectors.shape)}"
    if str(vectors.dtype) != "torch.float32":
        return f"must return float32, got {vectors.dtype}"
    if plain and not bool(vectors.isfinite().all()):  # with adapters, their numbers may be the cause
        return "returns numbers that are not finite"
    return ""


def wrong_matrix(matrix: Any, wanted: tuple[int, int]) -> str:
    if not hasattr(matrix, "isfinite") or tuple(matrix.shape) != wanted:
        return f"must return a tensor of shape {wanted}, got {tuple(getattr(matrix, 'shape', ())) or type(matrix)}"
    if str(matrix.dtype) != "torch.float32":
        return f"must return float32, got {matrix.dtype}"
    return "" if bool(matrix.isfinite().all()) else "returns numbers that are not finite"


def wrong_site(site: Any) -> str:
    good = all(hasattr(site, name) for name in ("name", "out_features", "in_features"))
    return "" if good else f"must be a Site, got {site!r:.100}"


def wrong_stem(stem_N: Any, count: int) -> str:
    if not hasattr(stem_N, "isfinite") or len(stem_N) != count:
        return f"must return a tensor with an entry for each of {count} images"
    return "" if bool(stem_N.isfinite().all()) else "returns numbers that are not finite"


def wrong_adapters(adapters_SP: Any, wanted: tuple[int, ...]) -> str:
    if not hasattr(adapters_SP, "isfinite") or tuple(adapters_SP.shape) != wanted:
        shape = tuple(getattr(adapters_SP, "shape", ())) or type(adapters_SP)
        return f"must return a tensor of shape {wanted}, got {shape}"
    return "" if str(adapters_SP.dtype) == "torch.float32" else f"must return float32, got {adapters_SP.dtype}"


def wrong_tasks(tasks: Any) -> str:
    if not isinstance(tasks, list | tuple):
        return f"must return a list, got {type(tasks).__name__}"
    names: set[str] = set()
    for task in tasks:
        if not isinstance(task, Task) or not all(isinstance(x, str) and x for x in (task.name, task.description)):
            return f"must return Tasks with a name and a description, got {task!r:.100}"
        if task.name in names:
            return f"returns two tasks named {task.name!r}"
        names.add(task.name)
        for split, photos in task.photos.items():
            if split not in SPLITS:
                return f"returns task {task.name!r} with a split {split!r}, but splits are {' and '.join(SPLITS)}"
            for photo in photos:
                if not isinstance(photo, Photo) or isinstance(photo.captions, str):  # `data check` reports empty ones
                    return f"returns task {task.name!r} with an invalid photo or captions: {photo!r:.100}"
    return ""


def wrong_pair(pair: Any) -> str:
    """Check an entry of `passed_over`."""
    good = isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(text, str) and text for text in pair)
    return "" if good else f"must return pairs of a name and a reason, got {pair!r:.100}"


def wrong_plan(plan: Any) -> str:
    """Check the plan of a download."""
    if not isinstance(plan, FetchPlan) or not isinstance(plan.folder, Path):
        return f"must return a FetchPlan with a folder, got {plan!r:.100}"
    for one in plan.downloads:
        if not isinstance(one, Download) or not isinstance(one.path, Path) or not isinstance(one.url, str):
            return f"must return Downloads with a url and a path, got {one!r:.100}"
        if wrong := wrong_counts([one.here, *([] if one.bytes is None else [one.bytes])], 1 + (one.bytes is not None)):
            return f"{wrong} (bytes)"
    return ""


def wrong_image_counts(counts: Any) -> str:
    """Check the counts of present and listed images."""
    if not isinstance(counts, tuple) or (wrong := wrong_counts(counts, 2)):
        return wrong if isinstance(counts, tuple) else f"must return two whole numbers, got {counts!r:.100}"
    return "" if counts[0] <= counts[1] else f"reports {counts[0]} of {counts[1]} images as present"


def wrong_earlier(answer: Any) -> str:
    """Check the description of earlier weights."""
    good = isinstance(answer, str) and answer
    return "" if good else f"must return None or a non-empty string, got {answer!r:.100}"


def wrong_counts(counts: Any, wanted: int, least: int = 0) -> str:
    """Check token counts."""
    good = isinstance(counts, list | tuple) and len(counts) == wanted
    good = good and all(isinstance(n, int) and not isinstance(n, bool) and n >= least for n in counts)
    return "" if good else f"must return {wanted} whole number(s) of at least {least}, got {counts!r:.100}"
