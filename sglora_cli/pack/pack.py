"""Pack folders: experts, their index, generators, what an evaluation needs.

<pack>/pack.json                     manifest; see `Pack.manifest`
       experts/<task>.safetensors    mu, var: (P,) float32, with the task's description in the header
       index.safetensors             embeddings of the experts' descriptions: index (E, D), meaning (E, W); and, where a
                                     pack has it, of their photos: visual (E, D)
       joint.safetensors             (P,) one adapter trained on all seen tasks together
       generators/<name>.safetensors what a learned generator needs besides the experts
       evaluation/<task>.safetensors stems, captions (or class heads) and Oracle adapter of an unseen task
       moments.safetensors           where photos and captions of the seen tasks lie; older packs have none
       learned.safetensors           hashes of the photos it learned from; older packs have none
       README.md                     model card
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglora_cli.config import PriorConfig, from_mapping
from sglora_cli.errors import BadFile, Mismatch, Unavailable, UnknownName
from sglora_cli.files.hashes import file_hash
from sglora_cli.files.names import file_stem
from sglora_cli.files.tensors import load_tensors, tensor_names
from sglora_cli.files.text import read_json
from sglora_cli.files.untrusted import inside
from sglora_cli.lora.layout import Layout, checked_flat
from sglora_cli.lora.prior import Index, Prior, Query, cosines, prior
from sglora_cli.pack.learned import LEARNED, load_learned
from sglora_cli.pack.manifest import MANIFEST, checked_manifest
from sglora_cli.pack.moments import MOMENTS, load_moments
from sglora_cli.plugin.combined import Combined, FittedCombined
from sglora_cli.plugin.contracts import Fitted, Generator, Model, adapter_layout
from sglora_cli.plugin.values import EXPERT, UNSEEN, Moments, TaskTensors


def file_name(key: str) -> str:
    """The file of a task, of no other task on any system: `flowers--king-protea.safetensors`."""
    dataset, _, name = key.partition("/")
    return f"{file_stem(dataset)}--{file_stem(name)}.safetensors"


def _old_file_name(key: str) -> str:
    """The file of a task in a pack that was built when two tasks could still share one."""
    return re.sub(r"[^a-z0-9_.]+", "-", key.lower().replace("/", "--")).strip("-.") + ".safetensors"


def _numbers(flat_P: Tensor, path: Path, layout: Layout) -> Tensor:
    """(P,) float32 of a file. Raises BadFile for another shape, Mismatch for numbers that are not finite."""
    if flat_P.shape != (layout.size,):
        message = f"{path} holds {tuple(flat_P.shape)} numbers, the pack's adapters have {layout.size}"
        raise BadFile(message, "build or fetch the pack again")
    return checked_flat(flat_P.float(), str(path))


class ExpertFiles:
    """The expert repository (Eq. 5). Each expert is read when it is first needed, then kept in memory."""

    def __init__(self, folder: Path, files: Mapping[str, str], layout: Layout) -> None:
        """folder: the pack's.  files: the file of every expert in it, by the expert's key."""
        self._folder, self._files, self.layout = folder, files, layout
        self.names: Sequence[str] = tuple(files)
        self._read = lru_cache(maxsize=None)(self._load)

    def _load(self, row: int) -> tuple[Tensor, Tensor]:
        path = inside(self._folder, self._files[self.names[row]])
        tensors, _ = load_tensors(path, ("mu", "var"))
        mean, variance = (_numbers(tensors[name], path, self.layout) for name in ("mu", "var"))
        if bool((variance < 0).any()):
            raise BadFile(f"{path} has a negative variance")
        return mean, variance

    @cached_property
    def moments(self) -> Moments | None:
        """Raises BadFile, Mismatch for a file that is not what it should be."""
        return load_moments(self._folder) if (self._folder / MOMENTS).exists() else None

    def _rows(self, rows: Sequence[int] | None) -> Iterable[int]:
        return range(len(self.names)) if rows is None else rows

    def means(self, rows: Sequence[int] | None = None) -> Tensor:
        """(E, P)."""
        return torch.stack([self._read(row)[0] for row in self._rows(rows)])

    def variances(self, rows: Sequence[int] | None = None) -> Tensor:
        """(E, P)."""
        return torch.stack([self._read(row)[1] for row in self._rows(rows)])


@dataclass(frozen=True)
class UnseenTask:
    """What an evaluation of one unseen task needs. captions: () for a classification task. oracle_P: None if absent."""

    dataset: str
    name: str
    description: str
    tensors: TaskTensors = field(repr=False)
    captions: tuple[str, ...] = field(repr=False)
    oracle_P: Tensor | None = field(repr=False)
    training: Callable[[], TaskTensors] | None = field(default=None, repr=False)
    """Reads its training split, if the photos are on this machine. A pack contains no training photos."""
    hashes: tuple[str, ...] = field(default=(), repr=False)
    """SHA-256 of its test photos in hexadecimal; () where nobody kept them."""

    @property
    def key(self) -> str:
        """`pets/pug`, as `Task.key`."""
        return f"{self.dataset}/{self.name}"


class Pack:
    """One pack on disk. Opening reads the manifest only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = checked_manifest(read_json(folder / MANIFEST), folder / MANIFEST)
        self.name: str = self.manifest["name"]
        self.backbone: str = self.manifest["backbone"]
        self.fingerprint: str = self.manifest["fingerprint"]
        try:
            self.layout = Layout.restore(self.manifest["layout"])
        except Mismatch as error:
            raise BadFile(f"{folder / MANIFEST}: {error}") from None
        names = [task["key"] for task in self.manifest["tasks"] if task["role"] == EXPERT]
        if not names:
            raise BadFile(f"{folder / MANIFEST} names no expert", "build the pack again")
        files = {name: self.file_of("experts", name) for name in names}
        unseen = [task["key"] for task in self.manifest["tasks"] if task["role"] == UNSEEN]
        _check_apart(folder / MANIFEST, files)
        _check_apart(folder / MANIFEST, {key: self.file_of("evaluation", key) for key in unseen})
        self.experts = ExpertFiles(folder, files, self.layout)
        self.prior_config = from_mapping(PriorConfig, self.manifest["prior"], f"{MANIFEST}, prior")

    def __repr__(self) -> str:
        return f"Pack({self.name!r}: {len(self.experts.names)} experts of backbone {self.backbone!r})"

    def file_of(self, folder: str, key: str) -> str:
        """Where the pack keeps a task's file: `folder` is "experts" or "evaluation"."""
        listed, name, old = self.manifest["files"], f"{folder}/{file_name(key)}", f"{folder}/{_old_file_name(key)}"
        return old if old in listed and name not in listed else name

    @cached_property
    def index_ED(self) -> Tensor:
        return self._index("index")

    @cached_property
    def meaning_EW(self) -> Tensor:
        """The experts' descriptions in the backbone's own sentence encoder: see `plugin.sentences`."""
        return self._index("meaning")

    @property
    def has_visual(self) -> bool:
        return "visual" in tensor_names(self.folder / "index.safetensors")[0]

    @cached_property
    def visual_ED(self) -> Tensor:
        """Mean visual embeddings of the experts' photos, normalised. Raises Unavailable in a pack without them."""
        if not self.has_visual:
            raise Unavailable(
                f"pack {self.name!r} does not know what its experts look like", "describe the task in words"
            )
        return self._index("visual")

    def _index(self, name: str) -> Tensor:
        path = self.folder / "index.safetensors"
        index = load_tensors(path, (name,))[0][name].float()
        if index.ndim != 2 or len(index) != len(self.experts.names):
            raise BadFile(f"{path} does not hold one row for each of {len(self.experts.names)} experts")
        return checked_flat(index, str(path))

    @property
    def has_joint(self) -> bool:
        return (self.folder / "joint.safetensors").exists()

    @cached_property
    def joint_P(self) -> Tensor:
        path = self.folder / "joint.safetensors"
        return _numbers(load_tensors(path, ("joint",))[0]["joint"], path, self.layout)

    @cached_property
    def learned(self) -> Mapping[str, frozenset[str]] | None:
        """Role -> the photos that tasks of this role learned from, see learned.py; None if nobody kept them."""
        return load_learned(self.folder) if LEARNED in self.manifest["files"] else None

    def check_model(self, model: Model) -> None:
        """Raises Mismatch unless the pack was built for exactly this model."""
        if model.fingerprint != self.fingerprint:
            raise Mismatch(
                f"pack {self.name!r} was built for backbone {self.backbone!r} with fingerprint {self.fingerprint}, "
                f"this one has {model.fingerprint}",
                "build the pack again with this backbone",
            )

    def prior(self, query: Query, config: PriorConfig | None = None, without_nearest: bool = False) -> Prior:
        """The prior of a description. without_nearest: as if the expert most similar to it did not exist."""
        config = config or self.prior_config
        self.check_width(self.index_ED, query.embedding_D)
        similarity_E = self._expert_index.similarity(query, config.space)
        nearest = [int(similarity_E.argmax())] if without_nearest else []
        return prior(query.embedding_D, similarity_E, self.experts, config.k, config.tau, nearest)

    def visual_prior(self, embedding_D: Tensor, config: PriorConfig | None = None) -> Prior:
        """The prior of photos with a mean visual embedding, by which the experts are compared, whatever the space."""
        config = config or self.prior_config
        self.check_width(self.visual_ED, embedding_D)
        similarity_E = cosines(embedding_D, self.visual_ED)
        return prior(embedding_D, similarity_E, self.experts, config.k, config.tau)

    @cached_property
    def _expert_index(self) -> Index:
        return Index(self.index_ED, self.meaning_EW)

    def expert_query(self, row: int) -> Query:
        """An expert's own description."""
        return Query(self.index_ED[row], self.meaning_EW[row])

    def check_width(self, index_EW: Tensor, embedding_W: Tensor) -> None:
        """Raises BadFile unless the experts' embeddings have the width of the backbone's."""
        if index_EW.shape[1:] != embedding_W.shape:
            raise BadFile(
                f"the index of pack {self.name!r} has embeddings of width {index_EW.shape[1]}, "
                f"backbone {self.backbone!r} gives {embedding_W.shape[0]}",
                "build or fetch the pack again",
            )

    def fitted(self, generator: Generator) -> Fitted:
        """A generator, fitted to this pack. Raises UnknownName if it must be trained and is not in this pack."""
        if isinstance(generator, Combined):
            return FittedCombined([self.fitted(part) for part in generator.parts], self.layout)
        if not generator.learns:
            joint = {"joint": self.joint_P} if self.has_joint else {}
            return generator.restore(self.experts, joint)
        path = self.folder / "generators" / f"{generator.name}.safetensors"
        if not path.exists():
            error = UnknownName.of("trained generator", generator.name, self.manifest["generators"])
            raise UnknownName(f"pack {self.name!r} has {error.message}", error.hint)
        return generator.restore(self.experts, load_tensors(path)[0])

    def layout_of(self, fitted: Fitted) -> Layout:
        """The layout of what a generator makes: that of the experts, unless it chooses its sites itself."""
        return adapter_layout(fitted, self.layout)

    def unseen(self) -> Iterator[UnseenTask]:
        """The tasks this pack can be evaluated on without photos."""
        for task in self.manifest["tasks"]:
            path = self.folder / self.file_of("evaluation", task["key"])
            if task["role"] == UNSEEN and path.exists():
                tensors, metadata = load_tensors(path)
                captions, owner, labels, photos = (
                    _listed(path, metadata, key) for key in ("captions", "image_of", "label_of", "photos")
                )
                _check_evaluation(path, tensors, self.layout.size, captions, owner, labels)
                content = TaskTensors(task["key"], tensors["stem"], tensors["text"].float(), owner, labels)
                oracle = tensors["oracle"].float() if "oracle" in tensors else None
                yield UnseenTask(
                    task["dataset"], task["name"], task["description"], content, captions, oracle, hashes=photos
                )

    def read_experts(self) -> None:
        """Read what every command reads. Raises BadFile if the experts and their index do not agree."""
        self.experts.means()
        self.experts.variances()
        _ = self.index_ED, self.meaning_EW

    def verify(self) -> list[str]:
        """Faults of the files, in sentences; [] for a healthy pack."""
        with self.unchanged():
            return self._faults()

    def _faults(self) -> list[str]:
        listed: Mapping[str, str] = self.manifest["files"]
        present = {
            path.relative_to(self.folder).as_posix(): path
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path != self.folder / MANIFEST
        }
        faults = [f"{name} is a link, not a file" for name, path in present.items() if path.is_symlink()]
        faults += [f"{name} is missing" for name in sorted(set(listed) - set(present))]
        faults += [f"{name} is not listed in {MANIFEST}" for name in sorted(set(present) - set(listed))]
        faults += [
            f"{name} has changed since the pack was built"
            for name in sorted(set(present) & set(listed))
            if file_hash(present[name]) != listed[name]
        ]
        return faults

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Checks that the block reads the pack that was opened, and no newer one.

        Raises Unavailable if another process replaced or removed the pack meanwhile. That also takes the place of an
        error from inside the block, which the change may have caused.
        """
        try:
            yield
        except (BadFile, UnknownName, Unavailable):
            self.check_there()
            raise
        self.check_there()

    def check_there(self) -> None:
        """Raises Unavailable if the pack was replaced or removed since it was opened."""
        if not (self.folder / MANIFEST).is_file():
            raise Unavailable(f"pack {self.name!r} was removed while it was read", "see `sglora pack list`")
        if read_json(self.folder / MANIFEST) != self.manifest:
            raise Unavailable(f"pack {self.name!r} was changed while it was read", "run it again")

    def check_whole(self) -> None:
        """Raises BadFile, naming every damaged file, unless all files are as they were built."""
        if faults := self.verify():
            raise BadFile(f"pack {self.name!r} is damaged: " + "; ".join(faults), "build or fetch it again")


def _check_apart(manifest: Path, files: Mapping[str, str]) -> None:
    """Raises BadFile if two tasks have one file: one of them overwrote the other when the pack was built."""
    owner: dict[str, str] = {}
    for key, file in files.items():
        if (other := owner.setdefault(file, key)) != key:
            raise BadFile(
                f"{manifest}: tasks {other!r} and {key!r} have one file, {file}: one overwrote the other",
                "build the pack again: every task has a file of its own now",
            )


def _listed(path: Path, metadata: Mapping[str, Any], key: str) -> tuple[Any, ...]:
    """A list of strings or numbers from the metadata of an evaluation; () if the key is absent. Raises BadFile."""
    values, kind = metadata.get(key, []), str if key in ("captions", "photos") else int
    if isinstance(values, list) and all(type(value) is kind for value in values):
        return tuple(values)
    raise BadFile(f"{path}: {key} is not a list of {'texts' if kind is str else 'whole numbers'}")


def _check_evaluation(
    path: Path,
    tensors: Mapping[str, Tensor],
    size: int,
    captions: Sequence[str],
    owner: Sequence[int],
    labels: Sequence[int],
) -> None:
    """Raises BadFile unless the numbers of texts, photos, owners and labels fit each other."""
    stem_N, text_CD = tensors.get("stem"), tensors.get("text")
    if stem_N is None or text_CD is None or stem_N.ndim < 2 or text_CD.ndim != 2 or not len(stem_N) or not len(text_CD):
        raise BadFile(f"{path} has no photos 'stem' or no texts 'text'", "build the pack again")
    fits = len(captions) == len(text_CD) and all(0 <= n < len(stem_N) for n in owner)
    fits &= all(0 <= n < len(text_CD) for n in labels)
    if not fits or (len(owner), len(labels)) not in ((len(text_CD), 0), (0, len(stem_N))):
        raise BadFile(f"{path}: its captions, photos and classes do not fit each other", "build the pack again")
    if "oracle" in tensors and tensors["oracle"].shape != (size,):
        raise BadFile(f"{path}: its oracle has the shape {list(tensors['oracle'].shape)}, not {[size]}")
