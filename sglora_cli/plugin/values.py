"""The values that travel between host and plugins, and the names of the reference methods. No torch at import time.

Shapes, here and everywhere: E experts, K selected experts, M states of a task, P numbers of
an adapter, D embedding width, T tasks or adapters, N images, C captions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sglora_cli.files.tensors import Checkpoint
    from sglora_cli.lora.layout import Layout, Site
    from sglora_cli.lora.prior import Prior


EXPERT, TRAINING, UNSEEN = ROLES = ("expert", "training", "unseen")
TRAIN, TEST = SPLITS = ("train", "test")
PHRASE = "phrase"
"""The role of a seen task that captions make. It has no adapter of its own."""


@dataclass(frozen=True)
class Photo:
    """An image file and the captions that describe it (at least one)."""

    path: Path
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """One semantic category of a data set: its pairs, and the sentence that describes it."""

    dataset: str
    name: str
    description: str
    photos: Mapping[str, Sequence[Photo]] = field(repr=False)
    """Split ("train", "test") to photos."""
    classes: Sequence[str] = ()
    """Of a classification task: the names its photos are sorted into; a photo's one caption is then its class."""

    @property
    def key(self) -> str:
        """`flowers/rose`: unique in a pack, and the name of its files there."""
        return f"{self.dataset}/{self.name}"


@dataclass(frozen=True)
class Listed:
    """An image of a data set that may have no captions yet."""

    image: str
    """Its path below the data set's folder, as captions.jsonl names it."""
    path: Path
    tasks: tuple[str, ...]
    """Tasks it belongs to, sorted; at least one."""
    split: str

    @property
    def shows(self) -> str:
        """What the prompt of a captioner says the image is a photo of."""
        return " and ".join(self.tasks)


@dataclass(frozen=True)
class CaptionerCost:
    """What a captioner needs before it writes, as it knows it without loading anything."""

    model: str = ""
    """The name of its weights; "" for a captioner without a model, which needs nothing of what follows."""
    parameters: int = 0
    download_bytes: int = 0
    """What is not on this machine yet, and would be downloaded."""
    photo_operations: float = 0.0
    """Floating-point operations to read one photo with its prompt, for all captions that are asked for."""
    caption_tokens: tuple[int, int] = (0, 0)
    """Fewest and most tokens of a caption. For each the captioner reads all its parameters."""
    lacks: str = ""
    """Why it cannot be used here, if it cannot: a missing package, a network that is switched off."""


@dataclass(frozen=True)
class Terms:
    """The terms under which something that is downloaded may be used, as its publisher states them."""

    what: str
    """As "photos", "annotations", "weights"."""
    licence: str
    """The name of the licence, or the terms in a few words; "" where the publisher states none."""
    url: str
    """The publisher's page."""

    def to_json(self) -> dict[str, Any]:
        """The terms as JSON values."""
        return dict(vars(self))


@dataclass(frozen=True)
class Download:
    """A file that fetching a data set downloads."""

    url: str
    path: Path
    """Where it is put. An archive is unpacked, and removed then."""
    bytes: int | None
    """How many it has; None where nobody knows before the server says it."""
    here: int = 0
    """Bytes of it that an earlier download left in `path`, or in a part beside it."""
    done: bool = False
    """Whether what it brings is here, so that it is not downloaded."""

    @property
    def left(self) -> int | None:
        """Bytes that are still to be downloaded; None where nobody knows."""
        if self.done:
            return 0
        return None if self.bytes is None else max(0, self.bytes - self.here)

    def to_json(self) -> dict[str, Any]:
        """As `sglora data fetch --dry-run --json` prints it."""
        return {**vars(self), "path": str(self.path), "left": self.left}


@dataclass(frozen=True)
class FetchPlan:
    """What fetching a data set would download."""

    folder: Path
    """The data set's folder."""
    downloads: Sequence[Download]
    captions: bool = True
    """Whether it has captions, or classes, then. If not, `sglora data caption` writes captions."""
    images: int | None = None
    """How many photos it has then; None where nobody knows before it is here."""

    @property
    def waiting(self) -> list[Download]:
        """The downloads that are not done."""
        return [one for one in self.downloads if not one.done]

    @property
    def left(self) -> int | None:
        """Bytes that are still to be downloaded; None where nobody knows."""
        known = [one.left for one in self.waiting if one.left is not None]
        return sum(known) if len(known) == len(self.waiting) else None

    @property
    def disk(self) -> int | None:
        """Bytes of disk that it takes at most from now on; None where nobody knows.

        Photos hardly shrink in an archive. So the largest is counted twice: it is there until it is unpacked.
        """
        if self.left is None:
            return None
        return self.left + max((one.bytes or 0 for one in self.waiting), default=0)


@dataclass(frozen=True)
class Moments:
    """Where photos and captions of every task lie that a pack has seen, and the linear map that ends its backbone's
    image encoder, if there is one (HasProjection)."""

    tasks: Sequence[str]
    """T keys, of experts and training tasks."""
    sentences_TD: Tensor = field(repr=False)
    """Unit embeddings of their descriptions."""
    images_TD: Tensor = field(repr=False)
    """The mean of the unit embeddings of their training photos, without an adapter."""
    captions_TD: Tensor = field(repr=False)
    """The mean of the unit embeddings of these photos' captions; of classes their heads, by their numbers of photos."""
    projection: Site | None = None
    projection_DI: Tensor | None = field(default=None, repr=False)
    """W of h = W p."""
    length_I: Tensor | None = field(default=None, repr=False)
    """r, for which r . p is about ||W p||: least squares over the training photos."""


class Experts(Protocol):
    """The expert repository of a pack (Eq. 5), read when asked."""

    names: Sequence[str]
    layout: Layout

    @property
    def moments(self) -> Moments | None:
        """Of the tasks that the pack has seen; None in older packs, and while a pack is built: they would tell a fit
        about the tasks that are left out of it."""

    def means(self, rows: Sequence[int] | None = None) -> Tensor:
        """mu of all or some experts: (E, P) float32."""

    def variances(self, rows: Sequence[int] | None = None) -> Tensor:
        """Element-wise sigma^2: (E, P) float32."""


class TaskPool(Protocol):
    """The seen tasks with their photos and captions, for a fit that learns by retrieval: experts, training tasks, and
    the phrases that a recipe takes from captions. Nothing of an unseen task is in it."""

    @property
    def names(self) -> Sequence[str]:
        """T keys; of a phrase, the phrase."""

    @property
    def roles(self) -> Sequence[str]:
        """What each is: "expert", "training" or "phrase"."""

    @property
    def sentences_TD(self) -> Tensor:
        """Unit embeddings of their descriptions."""

    @property
    def sites(self) -> Sequence[Site]:
        """The layers of the backbone that adapters update, without the projection."""

    @property
    def moments(self) -> Moments:
        """Where the photos and captions of each lie. Every photo goes through the encoder once."""

    def mean_images(self, layout: Layout, flat_P: Tensor) -> Tensor:
        """(T, D) as `images_TD` of the moments, with one adapter. Every photo goes through the encoder once."""

    def prior(self, task: int) -> Prior:
        """The prior of a task, as if it were unseen: an expert is not among its own experts."""

    def without(self, names: Collection[str]) -> TaskPool:
        """The pool as if these tasks were unseen: without their photos, without phrases that have a word of theirs, and
        without what has too few photos left."""

    def losses(
        self, layout: Layout, adapters_TP: Tensor, tasks: Sequence[int], photos: int, rng: torch.Generator
    ) -> Tensor:
        """(T,) the contrastive loss of each of these tasks with its own adapter, on at most so many of its photos,
        drawn with `rng` and mirrored and hidden as the recipe's [train] says. Differentiable with respect to
        adapters_TP.

        layout: of the experts' sites, of the projection, or of both. Of the projection alone it is fast: what it is
        applied to is computed once, of whole photos: nothing is hidden.
        """


@dataclass(frozen=True)
class Material:
    """What a generator may learn from: experts and training tasks, nothing of an unseen one."""

    experts: Experts
    tasks: Sequence[str]
    states: Callable[[int], Tensor]
    """All saved adapters of training task t, in memory: (M, P)."""
    rows: Callable[[int, Sequence[int]], Tensor]
    """Some of them, read from disk: (number of rows, P)."""
    states_of_task: int
    """M."""
    priors: Sequence[Prior]
    """The prior of each training task's description."""
    joint_P: Tensor
    """One adapter trained on the seen tasks together; NaN in a fold, where some of them count as unseen."""
    start_P: Tensor | None
    """The warm-up's, trained on the experts together, so unseen to it are all training tasks; None without one."""
    recall: Callable[[int, Tensor], Tensor]
    """Of training task t and adapters (S, P): mean recall (S,) on its photos, in percent; accuracy if it has classes.
    Nothing unseen is in it; a fit that looks at it should ask for adapters that have not seen task t."""
    pool: TaskPool
    """All seen tasks as photos; in a fold, without the tasks that are left out, and without their photos."""
    seed: int
    note: Callable[[str], None]
    """Say how it goes."""
    checkpoint: Checkpoint | None = None
    """Where a long fit may keep how far it got. Interrupted, `fit` is called again with the same one."""
    device: str = "cpu"
    """Where the backbone computes, and a fit may, too. Every tensor here is in the CPU's memory."""


@dataclass(frozen=True)
class Row:
    """One measured number."""

    method: str
    dataset: str
    task: str
    sample: int
    direction: str
    """"I2T" or "T2I": recall at k. "ACC": top-1 accuracy of a classification task, k = 1."""
    k: int
    value: float
    """In percent."""
    seed: int = 0
    """Of the draws of a generator that samples."""
    hits: str = field(default="", repr=False)
    """Which queries were right, packed as bench/rows_file.py says; "" where nobody kept it."""
    sentence: str = ""
    """Whose sentence made the adapter: the key of another task, or "unrelated"; "" for the task's own."""


@dataclass(frozen=True)
class Report:
    """Everything a reporter may print."""

    pack: str
    rows: Sequence[Row]
    labels: Mapping[str, str]
    """Method name to its label, in the order of the table."""
    differences: Mapping[tuple[str, str, int], tuple[float, float, float]]
    """(method, direction, k) -> mean difference to `against`, and its 95 % interval, in points."""
    against: str
    notes: Sequence[str] = ()
    paper: bool = False
    """Whether the paper's numbers shall stand beside the measured ones, where the protocol is the paper's."""
    protocol: Mapping[str, Any] = field(default_factory=dict)
    """How it was measured: backbone, rank, k, and the data sets the experts come from."""
    builds: Sequence[str] = ()
    """The builds that the rows are of, where they are of several of one recipe: a row's seed is its build's place here,
    and its sample counts the build's draws."""
    role: str = UNSEEN
    """What the measured tasks are to the pack, one of ROLES."""
    controls: Sequence[Row] = field(default=(), repr=False)
    """Rows of adapters that sentences of other tasks made; `rows` has none of them."""
    sentence_gains: Mapping[tuple[str, str, str, int], tuple[float, float, float]] = field(default_factory=dict)
    """(whose other sentences, method, direction, k) -> recall with the task's own sentence minus recall with others,
    and its 95 % interval, in points. Whose: "same" data set, "across" data sets, "unrelated"."""

    def tasks(self, dataset: str = "", direction: str = "") -> str:
        """How many tasks were measured, of a data set and in a direction or of all: `2 unseen tasks`."""
        rows = (row for row in self.rows if dataset in ("", row.dataset) and direction in ("", row.direction))
        count = len({(row.dataset, row.task) for row in rows})
        return f"{count} {self.role} task{'s' * (count != 1)}"


@dataclass(frozen=True)
class TaskTensors:
    """A task's photos behind the frozen parts: stems (N, ...) float16, texts (C, D), caption -> photo.

    Of a classification task: text_CD are the heads of its classes, label_of is photo -> class, image_of is empty.
    """

    name: str
    stem_N: Tensor = field(repr=False)
    text_CD: Tensor = field(repr=False)
    image_of: tuple[int, ...] = field(repr=False)
    label_of: tuple[int, ...] = field(default=(), repr=False)
    mirror: TaskTensors | None = field(default=None, repr=False)
    """The same photos and captions left to right."""

    def only(self, photos: Sequence[int]) -> TaskTensors:
        """The same with some of its photos and their captions; all classes stay."""
        rows = list(photos)
        place = {photo: n for n, photo in enumerate(rows)}
        texts = [c for c, photo in enumerate(self.image_of) if photo in place]
        mirror = self.mirror.only(rows) if self.mirror else None
        text_CD = self.text_CD[texts] if self.image_of else self.text_CD
        image_of = tuple(place[self.image_of[c]] for c in texts)
        label_of = tuple(self.label_of[n] for n in rows) if self.label_of else ()
        return TaskTensors(self.name, self.stem_N[rows], text_CD, image_of, label_of, mirror)

    def to(self, device: torch.device) -> TaskTensors:
        """The same, with its tensors on a device: a step there then waits for no copy."""
        mirror = self.mirror.to(device) if self.mirror else None
        return replace(self, stem_N=self.stem_N.to(device), text_CD=self.text_CD.to(device), mirror=mirror)


ORACLE = "oracle"
CHANCE = "chance"
ZERO = "zero-shot"
AGAINST = "top-k"
