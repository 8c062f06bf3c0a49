"""Pack folders: experts, their index, generators and evaluation data.

No file is ever changed in place. A new version of a pack is a new folder, which may share files with the old one by
hard links. Packs of format 1 are still readable, see format_one.py. No torch at import time; methods import it.

<pack>/pack.json                     manifest; see `Pack.manifest`. Its size does not depend on the number of experts
       tasks/<role>-00000.jsonl      the tasks of a role, one object per line; expert files match experts/
       experts/00000.safetensors     up to 1,024 experts: mu, var (n, P), index (n, D), the embeddings of their
                                     descriptions, and meaning (n, W); float32
       gauge.safetensors             the experts' mean adapter, and its distance to the farthest expert
       coverage.safetensors          embeddings of the seen tasks' descriptions, to measure how far a sentence is
       visual.safetensors            embeddings of the experts' photos, optional: visual (E, D), nearest (E,)
       joint.safetensors             (P,) one adapter trained on all seen tasks together
       generators/<name>.safetensors tensors that a trained generator needs besides the experts
       evaluation/<task>.safetensors stems, captions (or class heads) and Oracle adapter of an unseen task
       moments.safetensors           mean embeddings of the seen tasks' photos and captions; missing in older packs
       learned.safetensors           hashes of the photos that the pack was trained on; missing in older packs
       README.md                     model card
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sglora_cli.config import PriorConfig, from_mapping
from sglora_cli.errors import BadFile, Mismatch, Unavailable, UnknownName
from sglora_cli.files.hashes import file_hash
from sglora_cli.files.tensors import load_tensors
from sglora_cli.files.text import read_json
from sglora_cli.lora.layout import Layout, checked_flat
from sglora_cli.pack.content.evaluation import UnseenTask, load_evaluation
from sglora_cli.pack.content.format_one import FormatOne
from sglora_cli.pack.content.format_two import FormatTwo, nearest_others
from sglora_cli.pack.content.learned import LEARNED, load_learned
from sglora_cli.pack.content.manifest import MANIFEST, checked_manifest
from sglora_cli.pack.content.tasks import Task
from sglora_cli.plugin.combined import Combined, FittedCombined, single
from sglora_cli.plugin.contracts import Fitted, Generator, Model, adapter_layout
from sglora_cli.plugin.fingerprint import check_fingerprint
from sglora_cli.plugin.values import ROLES, UNSEEN
from sglora_cli.system.display import counted, html_table, quoted

if TYPE_CHECKING:
    from torch import Tensor

    from sglora_cli.lora.gauge import Gauge
    from sglora_cli.lora.prior import Index, Prior, Query


class Pack:
    """One pack on disk. Opening it reads only the manifest and needs no torch."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._version = folder, _version(folder)
        self.manifest = checked_manifest(read_json(folder / MANIFEST), folder / MANIFEST)
        self.format: int = self.manifest["format"]
        self.name: str = self.manifest["name"]
        self.backbone: str = self.manifest["backbone"]
        self.fingerprint: str = self.manifest["fingerprint"]
        try:
            self.layout = Layout.restore(self.manifest["layout"])
        except Mismatch as error:
            raise BadFile(f"{folder / MANIFEST}: {error}") from None
        self.content = (FormatOne if self.format == 1 else FormatTwo)(folder, self.manifest, self.layout)
        self.tasks, self.experts = self.content.tasks, self.content.experts
        if not len(self.experts.names):
            raise BadFile(f"{folder / MANIFEST} lists no experts", "build the pack again")
        self.prior_config = from_mapping(PriorConfig, self.manifest["prior"], f"{MANIFEST}, prior")

    def __repr__(self) -> str:
        experts, size = counted(len(self.experts.names), "expert"), counted(self.layout.size, "parameter")
        return f"Pack({quoted(self.name)}: {experts} of {size} each, for backbone {quoted(self.backbone)})"

    def _repr_html_(self) -> str:
        prior = self.prior_config
        facts = {
            "summary": self.manifest["recipe"].get("summary"),
            "backbone": f"{self.backbone}, fingerprint {self.fingerprint}",
            "layout": self.layout.line,
            "prior": f"K {prior.k}, tau {prior.tau:g}, space {prior.space}",
            "generators": ", ".join(sorted(self.manifest["generators"])) or None,
            "default": self.manifest["default_generator"],
        }
        rows = [(role, len(self.tasks.of(role))) for role in ROLES]
        return html_table(f"pack {self.name}", facts, ("role", "tasks"), rows)

    @property
    def index_ED(self) -> Tensor:
        """Embeddings (E, D) of the experts' descriptions."""
        return self.content.index_ED

    @property
    def meaning_EW(self) -> Tensor:
        """Embeddings (E, W) of the experts' descriptions by the backbone's sentence encoder; see `plugin.sentences`."""
        return self.content.meaning_EW

    @property
    def has_visual(self) -> bool:
        return self.content.has_visual

    @property
    def visual_ED(self) -> Tensor:
        """Normalised mean embeddings (E, D) of the experts' photos. Raises Unavailable if the pack has none."""
        if not self.has_visual:
            raise Unavailable(
                f"pack {self.name!r} has no visual embeddings of its experts", "describe the task in words"
            )
        return self.content.visual_ED

    @cached_property
    def nearest_E(self) -> Tensor:
        """The cosine (E,) of each expert's photos to those of the nearest other expert."""
        kept = self.content.nearest_E
        return nearest_others(self.visual_ED) if kept is None else kept

    @cached_property
    def gauge(self) -> Gauge:
        """The gauge that adapters of other programs are converted to."""
        return self.content.gauge()

    @property
    def has_joint(self) -> bool:
        return (self.folder / "joint.safetensors").exists()

    @cached_property
    def joint_P(self) -> Tensor:
        path = self.folder / "joint.safetensors"
        joint_P = load_tensors(path, ("joint",))[0]["joint"].float()
        if joint_P.shape != (self.layout.size,):
            message = f"{path} has the shape {tuple(joint_P.shape)}, adapters have {self.layout.size} parameters"
            raise BadFile(message, "build or fetch the pack again")
        return checked_flat(joint_P, str(path))

    @cached_property
    def learned(self) -> Mapping[str, frozenset[str]] | None:
        """Maps each role to the photos its tasks were trained on, see learned.py. None in packs that lack this file."""
        return load_learned(self.folder) if LEARNED in self.manifest["files"] else None

    def check_model(self, model: Model) -> None:
        """Raise Mismatch unless the pack was built for exactly this model."""
        made = f"pack {self.name!r} was built for backbone {self.backbone!r}"
        check_fingerprint(model, self.fingerprint, made, "build the pack again, or import one of this backbone")

    def prior(self, query: Query, config: PriorConfig | None = None, without_nearest: bool = False) -> Prior:
        """Return the prior of a description. without_nearest: leave out the most similar expert."""
        from sglora_cli.lora.prior import prior

        config = config or self.prior_config
        self.check_width(self.index_ED, query.embedding_D)
        if config.space == "meaning":
            self.check_width(self.meaning_EW, query.meaning_W)
        similarity_E = self._expert_index.similarity(query, config.space, config.k + without_nearest)
        nearest = [int(similarity_E.argmax())] if without_nearest else []
        return prior(query.embedding_D, similarity_E, self.experts, config.k, config.tau, nearest)

    def visual_prior(self, embedding_D: Tensor, config: PriorConfig | None = None) -> Prior:
        """Return the prior of photos with a mean visual embedding. Experts are always compared by their photos."""
        from sglora_cli.lora.prior import cosines, prior

        config = config or self.prior_config
        self.check_width(self.visual_ED, embedding_D)
        similarity_E = cosines(embedding_D, self.visual_ED, config.k)
        return prior(embedding_D, similarity_E, self.experts, config.k, config.tau)

    @cached_property
    def _expert_index(self) -> Index:
        from sglora_cli.lora.prior import Index

        return Index(self.content)

    def expert_query(self, row: int) -> Query:
        """Return the query of an expert's own description."""
        from sglora_cli.lora.prior import Query

        return Query(self.index_ED[row], self.meaning_EW[row])

    def check_width(self, index_EW: Tensor, embedding_W: Tensor) -> None:
        """Raise BadFile unless the experts' embeddings have the width of the backbone's embeddings."""
        if index_EW.shape[1:] != embedding_W.shape:
            raise BadFile(
                f"the index of pack {self.name!r} has embeddings of width {index_EW.shape[1]}, "
                f"backbone {self.backbone!r} has {embedding_W.shape[0]}",
                "build or fetch the pack again",
            )

    def fitted(self, generator: Generator) -> Fitted:
        """Fit a generator to this pack. Raises UnknownName if it needs training and the pack does not contain it."""
        if isinstance(generator, Combined):
            return FittedCombined([self.fitted(part) for part in generator.parts], self.layout)
        if not generator.learns:
            joint = {"joint": self.joint_P} if self.has_joint else {}
            return generator.restore(self.experts, joint)
        self.check_has(generator)
        return generator.restore(self.experts, load_tensors(self._file_of(generator))[0])

    def check_has(self, generator: Generator) -> None:
        """Raise UnknownName if a generator, or a part of it, needs training and the pack does not contain it."""
        for part in single(generator):
            self._check_has(part)

    def files_of(self, generator: Generator) -> list[Path]:
        """Return the files that determine a generator's adapters: all except evaluations and other generators."""
        own = [name for name in self.manifest["files"] if not name.startswith(("evaluation/", "generators/"))]
        learned = [self._file_of(part) for part in single(generator) if part.learns]
        return [*(self.folder / name for name in sorted(own)), *learned]

    def _file_of(self, generator: Generator) -> Path:
        return self.folder / "generators" / f"{generator.name}.safetensors"

    def _check_has(self, generator: Generator) -> None:
        if generator.learns and not self._file_of(generator).exists():
            trained = ", ".join(sorted(self.manifest["generators"]))
            raise UnknownName(
                f"pack {self.name!r} has no trained generator named {generator.name!r}",
                f"build a pack whose recipe has [generators.{generator.name}]"
                + (f", or use a trained generator of this pack: {trained}" if trained else ""),
            )

    def layout_of(self, fitted: Fitted) -> Layout:
        """Return the layout of a generator's adapters: the experts' layout, unless it chooses its own sites."""
        return adapter_layout(fitted, self.layout)

    def evaluated(self) -> list[Task]:
        """Return the unseen tasks that this pack can be evaluated on without photos."""
        return [task for task in self.tasks.of(UNSEEN) if self._evaluation_file(task).exists()]

    def evaluation(self, task: Task) -> UnseenTask:
        """Load the evaluation data of one of these tasks. Raises BadFile."""
        return load_evaluation(self._evaluation_file(task), task, self.layout.size)

    def unseen(self) -> Iterator[UnseenTask]:
        """Load the evaluation data of all of these tasks."""
        return (self.evaluation(task) for task in self.evaluated())

    def _evaluation_file(self, task: Task) -> Path:
        return self.folder / self.content.evaluation_file(task["key"])

    def check_content(self, changed: Iterable[str] | None = None) -> None:
        """Read and check experts and tasks, all or those of changed files. Raises BadFile or Mismatch if invalid."""
        self.content.check(None if changed is None else set(changed))

    def verify(self) -> list[str]:
        """Return the faults of the files, in sentences; [] for an undamaged pack."""
        with self.unchanged():
            return self._faults(lambda name: True)

    def _faults(self, hashed: Callable[[str], bool]) -> list[str]:
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
            if hashed(name) and file_hash(present[name]) != listed[name]
        ]
        return faults

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Check that the block reads the pack that was opened, and not a newer version.

        Raises Unavailable if another process replaced or removed the pack meanwhile. This also replaces an error from
        inside the block, because the change may have caused it.
        """
        try:
            yield
        except (BadFile, UnknownName, Unavailable):
            self.check_there()
            raise
        self.check_there()

    def check_there(self) -> None:
        """Raise Unavailable if the pack was replaced or removed since it was opened."""
        if not (self.folder / MANIFEST).is_file():
            raise Unavailable(f"pack {self.name!r} was removed while it was read", "run `sglora pack list`")
        if _version(self.folder) == self._version:
            return
        if read_json(self.folder / MANIFEST) != self.manifest:
            raise Unavailable(f"pack {self.name!r} was changed while it was read", "run the same command again")

    def check_whole(self, hashed: Callable[[str], bool] = lambda name: True) -> None:
        """Raise BadFile, naming every damaged file, if a file is damaged or missing.

        hashed: selects the files whose hash is compared. The others only have to exist.
        """
        with self.unchanged():
            faults = self._faults(hashed)
        if faults:
            raise BadFile(f"pack {self.name!r} is damaged: " + "; ".join(faults), "build or fetch it again")


def _version(folder: Path) -> tuple[int, ...]:
    """Return values that identify a version of a pack's manifest. Each version is a new file. () if it is missing."""
    try:
        stat = (folder / MANIFEST).stat()
    except OSError:
        return ()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
