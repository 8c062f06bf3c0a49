"""What a plugin does at work: its exceptions and wrong answers become PluginErrors that name it.

Every value of a registry comes out of it guarded, and so does what its `load`, `fit`, `restore` and `member`
return. Errors of ours, interruptions and failures of the machine pass as they are. No torch at import time.

Shapes: N images, C texts, T or S adapters, D embedding, P numbers of an adapter.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping
from functools import update_wrapper
from pathlib import Path
from typing import Any

from sglora_cli.errors import PluginError, SgloraError, failure_of
from sglora_cli.plugin.values import Photo, Task


class Guarded:
    """A value of a plugin, or what one of its methods returned; everything else is as the value has it."""

    def __init__(self, value: Any, who: str, kind: str) -> None:
        self._value, self._who, self._kind = value, who, kind

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copying and pickling ask before __init__ has run
            raise AttributeError(name)
        try:
            found = getattr(self._value, name)
        except AttributeError:
            raise
        except Exception as error:
            raise self._blamed(name, error) from error
        if not inspect.isroutine(found):  # a torch module can be called, too, and is no method
            return found
        return update_wrapper(lambda *args, **kwargs: self._call(name, found, args, kwargs), found, assigned=_KEPT)

    def __repr__(self) -> str:
        return repr(self._value)

    def _call(self, name: str, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            result = method(*args, **kwargs)
        except SgloraError:
            raise
        except Exception as error:  # a stranger's code may raise anything
            if failure_of(error):  # the machine's fault, not the plugin's
                raise
            raise self._blamed(name, error) from error
        if check := CHECKS.get((self._kind, name)):
            given = inspect.signature(method).bind(*args, **kwargs).args if kwargs else args
            if wrong := check(result, given):
                raise PluginError(f"{self._who}: {name} {wrong}", "tell its author, with this line")
        return _guarded_result(result, self._who, self._kind, name)

    def _blamed(self, name: str, error: Exception) -> PluginError:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}, line {frame.lineno}"
        return PluginError(
            f"{self._who} failed in {name}: {type(error).__name__}: {error} ({where})",
            "tell its author, with this line; the other plugins work",
        )


_KEPT = ("__doc__", "__name__")
_INSIDE = {
    ("backbone", "load"): "model",
    ("captioner", "load"): "caption model",
    ("generator", "restore"): "fitted",
    **{(kind, "member"): kind for kind in ("backbone", "generator")},
}


def _guarded_result(result: Any, who: str, kind: str, name: str) -> Any:
    if (kind, name) == ("generator", "fit"):
        return Guarded(result[0], who, "fitted"), result[1]
    inside = _INSIDE.get((kind, name))
    return Guarded(result, who, inside) if inside else result


def _unit_vectors(result: Any, count: int, plain: bool) -> str:
    """What is wrong with unit vectors; of a plain model they must be finite, too."""
    if not hasattr(result, "isfinite"):
        return f"must give a tensor, got {type(result).__name__}"
    if result.ndim != (2 if plain else 3) or len(result) != count:
        wanted = f"({count}, D)" if plain else f"({count}, N, D)"
        return f"must give a tensor of shape {wanted}, got {tuple(result.shape)}"
    if str(result.dtype) != "torch.float32":
        return f"must give float32, got {result.dtype}"
    if plain and not bool(result.isfinite().all()):  # with adapters their numbers may be to blame
        return "gives numbers that are not finite"
    return ""


def _images(result: Any, args: tuple[Any, ...]) -> str:
    adapters_TP = args[2] if len(args) > 2 else None
    if adapters_TP is None:
        return _unit_vectors(result, len(args[0]), plain=True)
    return _unit_vectors(result, len(adapters_TP), plain=False)


def _texts(result: Any, args: tuple[Any, ...]) -> str:
    return _unit_vectors(result, len(args[0]), plain=True)


def _stem(result: Any, args: tuple[Any, ...]) -> str:
    if not hasattr(result, "isfinite") or len(result) != len(args[0]):
        return f"must give a tensor with an entry for each of {len(args[0])} images"
    return "" if bool(result.isfinite().all()) else "gives numbers that are not finite"


def _adapters(result: Any, args: tuple[Any, ...]) -> str:
    """Of Fitted.generate(prior, samples, ...)."""
    wanted = (args[1], *args[0].mean_P.shape)
    if not hasattr(result, "isfinite") or tuple(result.shape) != wanted:
        return f"must give a tensor of shape {wanted}, got {tuple(getattr(result, 'shape', ())) or type(result)}"
    return "" if str(result.dtype) == "torch.float32" else f"must give float32, got {result.dtype}"


def _fitted(result: Any, args: tuple[Any, ...]) -> str:
    good = isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)
    return "" if good else f"must return a fitted generator and measurements, got {type(result).__name__}"


def _tasks(result: Any, args: tuple[Any, ...]) -> str:
    if not isinstance(result, list | tuple):
        return f"must return a list, got {type(result).__name__}"
    for task in result:
        if not isinstance(task, Task) or not all(isinstance(x, str) and x for x in (task.name, task.description)):
            return f"must return Tasks with a name and a description, got {task!r:.100}"
        for split, photos in task.photos.items():
            if split not in ("train", "test"):
                return f"gives task {task.name!r} a split {split!r}; splits are train and test"
            for photo in photos:
                if not isinstance(photo, Photo) or isinstance(photo.captions, str):  # `data check` tells who has none
                    return f"gives task {task.name!r} what is no Photo with a list of captions: {photo!r:.100}"
    return ""


def _text(result: Any, args: tuple[Any, ...]) -> str:
    return "" if isinstance(result, str) else f"must return a text, got {type(result).__name__}"


Check = Callable[[Any, tuple[Any, ...]], str]
CHECKS: dict[tuple[str, str], Check] = {
    ("model", "stem"): _stem,
    ("model", "encode_image"): _images,
    ("model", "encode_text"): _texts,
    ("model", "encode_meaning"): _texts,
    ("fitted", "generate"): _adapters,
    ("generator", "fit"): _fitted,
    ("dataset", "tasks"): _tasks,
    ("reporter", "render"): _text,
}
"""(kind, method) -> what is wrong with its answer to these arguments, after the method's name; "" if nothing is."""
