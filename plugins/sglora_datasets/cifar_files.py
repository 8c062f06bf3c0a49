"""Read the published files of CIFAR-100: images and labels, from the Python version or the binary version.

The Python version (`cifar-100-python/{meta,train,test}`, which torchvision downloads) consists of pickles, and a pickle
can call arbitrary functions. This reader prevents it. The few names that an array is stored under become `_Kept`
objects, which record the pickle's arguments, and all other names are refused. Nothing from a pickle is executed, not
even numpy's unpickling code, and the pixels are read from the recorded bytes.
In the binary version (`cifar-100-binary/{train,test}.bin` and two lists of names), an image is plain bytes: its coarse
label, its fine label and 3,072 pixels.

Shapes: N images; pixels are (N, 32, 32, 3), red, green, blue.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from sglora_cli.api import SPLITS, BadFile, Unavailable, text_lines

if TYPE_CHECKING:
    import numpy as np

PIXELS = 3 * 32 * 32
NAMES = ("fine_label_names", "coarse_label_names")
_LIMIT = 2 * 10**9  # bytes; the published file has 155 million
_ARRAY = {("multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
_AGAIN = "download it again: `sglora data fetch cifar100`"


@dataclass(frozen=True)
class Side:
    """One split, with pixels and the class and superclass numbers of its images."""

    path: Path
    pixels_NHWC: np.ndarray
    fine: Sequence[int]
    coarse: Sequence[int]


@dataclass(frozen=True)
class Cifar:
    """The data set, with names of classes and superclasses by number, and the splits."""

    names: Path
    fine: tuple[str, ...]
    coarse: tuple[str, ...]
    sides: dict[str, Side]


def files(root: Path) -> list[Path]:
    """Return the files of the version in a folder, preferring the binary one. Raises Unavailable if there is none."""
    binary = [root / f"{split}.bin" for split in SPLITS]
    if any(path.is_file() for path in binary):
        return [*binary, *(root / f"{name}.txt" for name in NAMES)]
    if not any((root / name).is_file() for name in (*SPLITS, "meta")):
        hint = "`sglora data fetch cifar100` downloads it into the data folder as cifar-100-python"
        raise Unavailable(f"{root} has no CIFAR-100: neither {SPLITS[0]} nor {binary[0].name}", hint)
    return [*(root / split for split in SPLITS), root / "meta"]


def read_cifar(root: Path) -> Cifar:
    """Read all files of a folder. Raises Unavailable, or BadFile with the path for an invalid file."""
    paths = files(root)
    for path in paths:
        if not path.is_file():
            raise BadFile(f"{path} does not exist", _AGAIN)
    binary = paths[0].suffix == ".bin"
    lists = [[line for _, line in text_lines(path)] for path in paths[2:]] if binary else _table(paths[2], NAMES)
    read = _binary_side if binary else _python_side
    fine, coarse = (_names(paths[2 + n * binary], names) for n, names in enumerate(lists))
    sides = {split: read(path) for split, path in zip(SPLITS, paths[:2], strict=True)}
    for side in sides.values():
        for label, names in ((side.fine, fine), (side.coarse, coarse)):
            for n, one in enumerate(label):
                if not 0 <= one < len(names):
                    kind = "class" if names is fine else "superclass"
                    raise BadFile(
                        f"{side.path}: image {n} has {kind} {one}, but there are only {len(names)} names", _AGAIN
                    )
    return Cifar(paths[2], fine, coarse, sides)


def _names(path: Path, names: Any) -> tuple[str, ...]:
    """Return names with spaces. Raises BadFile if they are not unique or not printable."""
    if not isinstance(names, list) or not all(isinstance(name, str) and name.isprintable() for name in names):
        raise BadFile(f"{path}: the class names are not a list of strings", _AGAIN)
    clean = tuple(" ".join(name.replace("_", " ").split()) for name in names)
    if not all(clean) or len(set(clean)) < len(clean):
        raise BadFile(f"{path}: a class name is empty or not unique", _AGAIN)
    return clean


def _binary_side(path: Path) -> Side:
    import numpy as np

    with _opened(path) as file:
        data = np.frombuffer(file.read(), dtype=np.uint8)
    if not len(data) or len(data) % (PIXELS + 2):
        raise BadFile(
            f"{path} has {len(data)} bytes, which is not a multiple of {PIXELS + 2}, the size of an image", _AGAIN
        )
    rows = data.reshape(-1, PIXELS + 2)
    return Side(path, _upright(rows[:, 2:]), rows[:, 1].tolist(), rows[:, 0].tolist())


def _python_side(path: Path) -> Side:
    import numpy as np

    data, fine, coarse = _table(path, ("data", "fine_labels", "coarse_labels"))
    shape, content = _array(path, data)
    count = shape[0] if len(shape) == 2 and shape[1] == PIXELS else 0
    if not count or len(content) != count * PIXELS:
        raise BadFile(f"{path}: its data have {len(content)} bytes and shape {shape}, not N x {PIXELS}", _AGAIN)
    for name, labels in (("fine_labels", fine), ("coarse_labels", coarse)):
        if not isinstance(labels, list) or len(labels) != count or not all(type(n) is int for n in labels):
            raise BadFile(f"{path}: {name} is not a list of {count} integers, one per image", _AGAIN)
    return Side(path, _upright(np.frombuffer(content, dtype=np.uint8).reshape(count, PIXELS)), fine, coarse)


def _upright(pixels_NP: np.ndarray) -> np.ndarray:
    """Convert three colour planes per image to three numbers per pixel."""
    upright: np.ndarray = pixels_NP.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return upright


def _opened(path: Path) -> BinaryIO:
    """Open a file. Raises BadFile if it cannot be read or is far too large."""
    try:
        if path.stat().st_size > _LIMIT:
            raise BadFile(f"{path} has more than {_LIMIT} bytes", "check that it is the right file")
        return path.open("rb")
    except OSError as error:
        raise BadFile(f"cannot read {path}: {error.strerror}") from None


class _Kept:
    """A replacement for names in a pickle. It records arguments and state, and the name is never imported."""

    args: tuple[Any, ...] = ()
    state: Any = ()

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Inert(pickle.Unpickler):
    """Unpickles only numbers, strings, lists, dictionaries and _Kept."""

    def find_class(self, module: str, name: str) -> type[_Kept]:
        if (module.rpartition(".")[2] if module.startswith("numpy") else module, name) not in _ARRAY:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which could run arbitrary code")
        return type(name, (_Kept,), {})  # a new class each time, so that a pickle cannot change a shared one


def _table(path: Path, keys: Sequence[str]) -> list[Any]:
    """Return values of a pickled dictionary, with strings of Python 2 read as latin-1. Raises BadFile."""
    try:
        with _opened(path) as file:
            _check_memo(path, file)
            file.seek(0)
            table = _Inert(file, encoding="latin1").load()
    except BadFile:
        raise
    except Exception as error:  # a damaged byte may raise any exception
        raise BadFile(f"{path} cannot be loaded: {error or type(error).__name__}", _AGAIN) from None
    if not isinstance(table, dict):
        raise BadFile(f"{path} contains no dictionary", _AGAIN)
    for key in keys:
        if key not in table:
            raise BadFile(f"{path} has no {key!r}", _AGAIN)
    return [table[key] for key in keys]


def _check_memo(path: Path, file: BinaryIO) -> None:
    """Raise BadFile if a memo number is far beyond the previous ones, because pickle would allocate a table that large.

    Pickles written by programs count from 0 or 1.
    """
    for seen, (code, number, _) in enumerate(pickletools.genops(file)):
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(number or 0) > seen + 1:
            raise BadFile(f"{path} uses the memo number {number}, which is not plausible", _AGAIN)


def _array(path: Path, value: Any) -> tuple[tuple[int, ...], bytes]:
    """Return shape and bytes of a pickled uint8 array. numpy's state is (version, shape, type, Fortran, data)."""
    state = value.state if isinstance(value, _Kept) else ()
    if isinstance(state, tuple) and len(state) == 5:
        _, shape, kind, fortran, content = state
        if isinstance(content, _Kept):  # protocol 2 of Python 3 stores bytes as encode(text, "latin1")
            content = content.args[0] if content.args else None
        whole = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
        if whole and isinstance(kind, _Kept) and kind.args[:1] == ("u1",) and not fortran:
            if isinstance(content, str):
                return shape, content.encode("latin1", errors="ignore")  # ignored characters then make the length wrong
            if isinstance(content, bytes):
                return shape, content
    raise BadFile(f"{path}: its data are not an array of bytes", _AGAIN)
