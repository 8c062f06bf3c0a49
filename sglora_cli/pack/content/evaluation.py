"""The evaluation data of an unseen task, which replaces its photos: evaluation/<task>.safetensors.

Shapes: N photos, C captions or classes, P parameters of an adapter, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglora_cli.errors import BadFile
from sglora_cli.files.tensors import load_tensors
from sglora_cli.pack.content.tasks import Task
from sglora_cli.plugin.values import TaskTensors

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class UnseenTask:
    """The evaluation data of one unseen task. captions: () for a classification task. oracle_P: None if absent."""

    dataset: str
    name: str
    description: str
    tensors: TaskTensors = field(repr=False)
    captions: tuple[str, ...] = field(repr=False)
    oracle_P: Tensor | None = field(repr=False)
    training: Callable[[], TaskTensors] | None = field(default=None, repr=False)
    """Reads the training split, if the photos are on this machine. A pack contains no training photos."""
    hashes: tuple[str, ...] = field(default=(), repr=False)
    """SHA-256 of the test photos in hexadecimal; () if they are not recorded."""

    @property
    def key(self) -> str:
        """The task's key, as `Task.key`: `pets/pug`."""
        return f"{self.dataset}/{self.name}"


def load_evaluation(path: Path, task: Task, size: int) -> UnseenTask:
    """Load an unseen task of a pack whose adapters have `size` parameters. Raises BadFile for an inconsistent file."""
    tensors, metadata = load_tensors(path)
    captions, owner, labels, photos = (
        _listed(path, metadata, key) for key in ("captions", "image_of", "label_of", "photos")
    )
    _check_evaluation(path, tensors, size, captions, owner, labels)
    content = TaskTensors(task["key"], tensors["stem"], tensors["text"].float(), owner, labels)
    oracle = tensors["oracle"].float() if "oracle" in tensors else None
    return UnseenTask(task["dataset"], task["name"], task["description"], content, captions, oracle, hashes=photos)


def _listed(path: Path, metadata: Mapping[str, Any], key: str) -> tuple[Any, ...]:
    """Return a list of strings or integers from the metadata; () if the key is missing. Raises BadFile."""
    values, kind = metadata.get(key, []), str if key in ("captions", "photos") else int
    if isinstance(values, list) and all(type(value) is kind for value in values):
        return tuple(values)
    raise BadFile(f"{path}: {key} is not a list of {'strings' if kind is str else 'whole numbers'}")


def _check_evaluation(
    path: Path,
    tensors: Mapping[str, Tensor],
    size: int,
    captions: Sequence[str],
    owner: Sequence[int],
    labels: Sequence[int],
) -> None:
    """Raise BadFile unless the numbers of texts, photos, owners and labels are consistent."""
    stem_N, text_CD = tensors.get("stem"), tensors.get("text")
    if stem_N is None or text_CD is None or stem_N.ndim < 2 or text_CD.ndim != 2 or not len(stem_N) or not len(text_CD):
        raise BadFile(f"{path} has no valid tensor 'stem' or 'text'", "build the pack again")
    fits = len(captions) == len(text_CD) and all(0 <= n < len(stem_N) for n in owner)
    fits &= all(0 <= n < len(text_CD) for n in labels)
    if not fits or (len(owner), len(labels)) not in ((len(text_CD), 0), (0, len(stem_N))):
        raise BadFile(f"{path}: captions, photos and classes are inconsistent", "build the pack again")
    if "oracle" in tensors and tensors["oracle"].shape != (size,):
        raise BadFile(f"{path}: the tensor 'oracle' has shape {list(tensors['oracle'].shape)}, expected {[size]}")
