"""CIFAR-100 as its authors publish it: images and labels, from the Python version or the binary version.

The Python version (`cifar-100-python/{meta,train,test}`, which torchvision downloads) is made of pickles, and a pickle
can name any function to be called. Here it cannot: the few names that an array is stored under become `_Kept`,
which keeps what the pickle says of the array; any other name is refused. Nothing of a pickle is executed, numpy's own
unpickling included, and the pixels are read from the bytes that were kept.
The binary version (`cifar-100-binary/{train,test}.bin` and two lists of names) is plain bytes: an image is its coarse
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
_LIMIT = 2 * 10**9  # bytes; the real file has 155 million
_ARRAY = {("multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
_AGAIN = "fetch it again: `sglora data fetch cifar100`"


@dataclass(frozen=True)
class Side:
    """One split: pixels, and the number of each image's class and superclass."""

    path: Path
    pixels_NHWC: np.ndarray
    fine: Sequence[int]
    coarse: Sequence[int]


@dataclass(frozen=True)
class Cifar:
    """The data set: names of classes and superclasses by number, and the splits."""

    names: Path
    fine: tuple[str, ...]
    coarse: tuple[str, ...]
    sides: dict[str, Side]


def files(root: Path) -> list[Path]:
    """The files of the version that is in a folder; the binary one, if both are. Raises Unavailable for neither."""
    binary = [root / f"{split}.bin" for split in SPLITS]
    if any(path.is_file() for path in binary):
        return [*binary, *(root / f"{name}.txt" for name in NAMES)]
    if not any((root / name).is_file() for name in (*SPLITS, "meta")):
        hint = "`sglora data fetch cifar100` downloads it into the data folder as cifar-100-python"
        raise Unavailable(f"{root} has no CIFAR-100: neither {SPLITS[0]} nor {binary[0].name}", hint)
    return [*(root / split for split in SPLITS), root / "meta"]


def read_cifar(root: Path) -> Cifar:
    """Everything of a folder. Raises Unavailable, or BadFile with the path for a file that is not as published."""
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
                    raise BadFile(f"{side.path}: image {n} has {kind} {one}, there are names for {len(names)}", _AGAIN)
    return Cifar(paths[2], fine, coarse, sides)


def _names(path: Path, names: Any) -> tuple[str, ...]:
    """Names with spaces. Raises BadFile if they cannot be told apart or printed."""
    if not isinstance(names, list) or not all(isinstance(name, str) and name.isprintable() for name in names):
        raise BadFile(f"{path}: the names of classes are not a list of texts", _AGAIN)
    clean = tuple(" ".join(name.replace("_", " ").split()) for name in names)
    if not all(clean) or len(set(clean)) < len(clean):
        raise BadFile(f"{path}: a class has no name, or two have one", _AGAIN)
    return clean


def _binary_side(path: Path) -> Side:
    import numpy as np

    with _opened(path) as file:
        data = np.frombuffer(file.read(), dtype=np.uint8)
    if not len(data) or len(data) % (PIXELS + 2):
        raise BadFile(f"{path} has {len(data)} bytes, which is no whole number of images of {PIXELS + 2}", _AGAIN)
    rows = data.reshape(-1, PIXELS + 2)
    return Side(path, _upright(rows[:, 2:]), rows[:, 1].tolist(), rows[:, 0].tolist())


def _python_side(path: Path) -> Side:
    import numpy as np

    data, fine, coarse = _table(path, ("data", "fine_labels", "coarse_labels"))
    shape, content = _array(path, data)
    count = shape[0] if len(shape) == 2 and shape[1] == PIXELS else 0
    if not count or len(content) != count * PIXELS:
        raise BadFile(f"{path}: its data are {len(content)} bytes of shape {shape}, not N x {PIXELS}", _AGAIN)
    for name, labels in (("fine_labels", fine), ("coarse_labels", coarse)):
        if not isinstance(labels, list) or len(labels) != count or not all(type(n) is int for n in labels):
            raise BadFile(f"{path}: {name} is not a list of {count} numbers, one an image", _AGAIN)
    return Side(path, _upright(np.frombuffer(content, dtype=np.uint8).reshape(count, PIXELS)), fine, coarse)


def _upright(pixels_NP: np.ndarray) -> np.ndarray:
    """Three planes an image -> three numbers a pixel."""
    upright: np.ndarray = pixels_NP.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return upright


def _opened(path: Path) -> BinaryIO:
    """Raises BadFile for a file that cannot be read, or is far too large."""
    try:
        if path.stat().st_size > _LIMIT:
            raise BadFile(f"{path} has more than {_LIMIT} bytes", "is it the right file?")
        return path.open("rb")
    except OSError as error:
        raise BadFile(f"cannot read {path}: {error.strerror}") from None


class _Kept:
    """What a pickle says of an array: the arguments and the state of a name that is never looked up."""

    args: tuple[Any, ...] = ()
    state: Any = ()

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Inert(pickle.Unpickler):
    """Makes numbers, texts, lists, tables and _Kept, and nothing else."""

    def find_class(self, module: str, name: str) -> type[_Kept]:
        if (module.rpartition(".")[2] if module.startswith("numpy") else module, name) not in _ARRAY:
            raise pickle.UnpicklingError(f"it names {module}.{name}, and could run any program")
        return type(name, (_Kept,), {})  # one of its own: whatever the pickle does to it ends with it


def _table(path: Path, keys: Sequence[str]) -> list[Any]:
    """The values of a pickled table, texts of Python 2 as latin-1. Raises BadFile."""
    try:
        with _opened(path) as file:
            _check_memo(path, file)
            file.seek(0)
            table = _Inert(file, encoding="latin1").load()
    except BadFile:
        raise
    except Exception as error:  # a broken byte may lead anywhere
        raise BadFile(f"{path} is not loaded: {error or type(error).__name__}", _AGAIN) from None
    if not isinstance(table, dict):
        raise BadFile(f"{path} holds no table", _AGAIN)
    for key in keys:
        if key not in table:
            raise BadFile(f"{path} has no {key!r}", _AGAIN)
    return [table[key] for key in keys]


def _check_memo(path: Path, file: BinaryIO) -> None:
    """Raises BadFile if a value is to be remembered under a number far beyond those before it: pickle would allocate
    a table that large. Pickles that programs write count from 0 or 1."""
    for seen, (code, number, _) in enumerate(pickletools.genops(file)):
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(number or 0) > seen + 1:
            raise BadFile(f"{path} remembers a value under the number {number}, which no pickle needs", _AGAIN)


def _array(path: Path, value: Any) -> tuple[tuple[int, ...], bytes]:
    """Shape and bytes of a pickled array of bytes, as numpy writes its state: (version, shape, type, Fortran, data)."""
    state = value.state if isinstance(value, _Kept) else ()
    if isinstance(state, tuple) and len(state) == 5:
        _, shape, kind, fortran, content = state
        if isinstance(content, _Kept):  # protocol 2 of Python 3 has no bytes: encode(text, "latin1")
            content = content.args[0] if content.args else None
        whole = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
        if whole and isinstance(kind, _Kept) and kind.args[:1] == ("u1",) and not fortran:
            if isinstance(content, str):
                return shape, content.encode("latin1", errors="ignore")  # what is left out is missing then
            if isinstance(content, bytes):
                return shape, content
    raise BadFile(f"{path}: its data are no array of bytes", _AGAIN)
