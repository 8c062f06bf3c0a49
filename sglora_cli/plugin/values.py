"""The values passed between host and plugins, and the names of the reference methods. No torch import.

Shapes, here and everywhere: E experts, K selected experts, M states of a task, P parameters of
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
"""The role of a seen task made from a phrase in captions. It has no adapter of its own."""


@dataclass(frozen=True)
class Photo:
    """An image file and the captions that describe it (at least one)."""

    path: Path
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """One semantic category of a data set, with its image-caption pairs and a sentence that describes it."""

    dataset: str
    name: str
    description: str
    photos: Mapping[str, Sequence[Photo]] = field(repr=False)
    """Split ("train" or "test") -> photos."""
    classes: Sequence[str] = ()
    """For a classification task, the class names. The only caption of a photo is then its class."""

    @property
    def key(self) -> str:
        """The key, such as `flowers/rose`. It is unique in a pack and names the task's files there."""
        return f"{self.dataset}/{self.name}"


@dataclass(frozen=True)
class Listed:
    """An image of a data set that may have no captions yet."""

    image: str
    """Its path relative to the data set's folder, as in captions.jsonl."""
    path: Path
    tasks: tuple[str, ...]
    """The tasks it belongs to, sorted. At least one."""
    split: str

    @property
    def shows(self) -> str:
        """The subject of the image for the prompt of a captioner ("a photo of ...")."""
        return " and ".join(self.tasks)


@dataclass(frozen=True)
class CaptionerCost:
    """What a captioner needs, estimated without loading anything."""

    model: str = ""
    """The name of its weights, or "" for a captioner without a model, which has no cost."""
    parameters: int = 0
    download_bytes: int = 0
    """The size of what is missing on this machine and would be downloaded."""
    photo_operations: float = 0.0
    """Floating-point operations to read one photo and its prompt, for all requested captions."""
    caption_tokens: tuple[int, int] = (0, 0)
    """The fewest and the most tokens of a caption. Every token reads all parameters once."""
    lacks: str = ""
    """Why it cannot be used here, such as a missing package or a disabled network. "" if it can be used."""


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
    """One file that is downloaded to fetch a data set."""

    url: str
    path: Path
    """Where the file is saved. Archives are unpacked and then deleted."""
    bytes: int | None
    """Its size, or None if it is unknown before the server reports it."""
    here: int = 0
    """Bytes already present from an earlier download, in `path` or in a partial file beside it."""
    done: bool = False
    """Whether its contents are already present, so that no download is needed."""

    @property
    def left(self) -> int | None:
        """Bytes left to download, or None if unknown."""
        if self.done:
            return 0
        return None if self.bytes is None else max(0, self.bytes - self.here)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object printed by `sglora data fetch --dry-run --json`."""
        return {**vars(self), "path": str(self.path), "left": self.left}


@dataclass(frozen=True)
class FetchPlan:
    """What fetching a data set would download."""

    folder: Path
    """The data set's folder."""
    downloads: Sequence[Download]
    captions: bool = True
    """Whether the downloaded data set has captions or classes. If not, `sglora data caption` writes captions."""
    images: int | None = None
    """Number of photos of the downloaded data set, or None if that is unknown."""

    @property
    def waiting(self) -> list[Download]:
        """The downloads that are not done."""
        return [one for one in self.downloads if not one.done]

    @property
    def left(self) -> int | None:
        """Bytes left to download, or None if unknown."""
        known = [one.left for one in self.waiting if one.left is not None]
        return sum(known) if len(known) == len(self.waiting) else None

    @property
    def disk(self) -> int | None:
        """The most disk space that the remaining downloads need, or None if unknown.

        The largest archive counts twice, because photos hardly compress and the archive stays until it is unpacked.
        """
        if self.left is None:
            return None
        return self.left + max((one.bytes or 0 for one in self.waiting), default=0)


@dataclass(frozen=True)
class Moments:
    """Mean embeddings of photos and captions for every task that a pack has seen, and the linear map that ends the
    backbone's image encoder, if there is one (HasProjection)."""

    tasks: Sequence[str]
    """T keys of experts and training tasks."""
    sentences_TD: Tensor = field(repr=False)
    """Unit embeddings of the task descriptions."""
    images_TD: Tensor = field(repr=False)
    """The mean unit embedding of the training photos, without an adapter."""
    captions_TD: Tensor = field(repr=False)
    """The mean unit embedding of the captions of these photos. For a classification task, the mean of its class heads
    weighted by their numbers of photos."""
    projection: Site | None = None
    projection_DI: Tensor | None = field(default=None, repr=False)
    """W of h = W p."""
    length_I: Tensor | None = field(default=None, repr=False)
    """r, chosen by least squares over the training photos so that r . p approximates ||W p||."""


class Experts(Protocol):
    """The expert repository of a pack (Eq. 5), read on demand."""

    names: Sequence[str]
    layout: Layout

    @property
    def moments(self) -> Moments | None:
        """Moments of the tasks that the pack has seen. None in older packs, and while a pack is built, where they
        would reveal the tasks that a fold leaves out."""

    def means(self, rows: Sequence[int] | None = None) -> Tensor:
        """Return mu of all or some experts: (E, P) float32."""

    def variances(self, rows: Sequence[int] | None = None) -> Tensor:
        """Return the element-wise sigma^2: (E, P) float32."""


class TaskPool(Protocol):
    """The seen tasks with their photos and captions, for a fit that learns by retrieval.

    They are experts, training tasks, and phrases that a recipe takes from captions. No unseen task is included.
    """

    @property
    def names(self) -> Sequence[str]:
        """T task keys. For a phrase, the phrase itself."""

    @property
    def roles(self) -> Sequence[str]:
        """The role of each task: "expert", "training" or "phrase"."""

    @property
    def sentences_TD(self) -> Tensor:
        """Unit embeddings of the task descriptions."""

    @property
    def sites(self) -> Sequence[Site]:
        """The layers of the backbone that adapters update, without the projection."""

    @property
    def moments(self) -> Moments:
        """Mean embeddings of photos and captions of each task. Every photo is encoded once."""

    def mean_images(self, layout: Layout, flat_P: Tensor) -> Tensor:
        """Return (T, D) like `images_TD` of the moments, with an adapter. Every photo is encoded once."""

    def prior(self, task: int) -> Prior:
        """Return the prior of a task as if it were unseen. An expert is not among its own experts."""

    def without(self, names: Collection[str]) -> TaskPool:
        """Return the pool as if these tasks were unseen.

        It excludes their photos, phrases that contain one of their words, and tasks left with too few photos.
        """

    def losses(
        self, layout: Layout, adapters_TP: Tensor, tasks: Sequence[int], photos: int, rng: torch.Generator
    ) -> Tensor:
        """Return (T,) the contrastive loss of each task with its own adapter, on at most `photos` of its photos.

        `rng` draws the photos. They are mirrored and hidden as set in the recipe's [train]. Differentiable with
        respect to adapters_TP.

        layout: the experts' sites, the projection, or both. A layout with the projection alone is fast, because the
        input of the projection is computed once. In that case no tokens are hidden.
        """


@dataclass(frozen=True)
class Material:
    """What a generator may learn from: experts and training tasks, but no unseen task."""

    experts: Experts
    tasks: Sequence[str]
    states: Callable[[int], Tensor]
    """Returns all saved adapters of training task t, in memory: (M, P)."""
    rows: Callable[[int, Sequence[int]], Tensor]
    """Returns some of them, read from disk: (number of rows, P)."""
    states_of_task: int
    """M."""
    priors: Sequence[Prior]
    """The prior of each training task's description."""
    joint_P: Tensor
    """One adapter trained on all seen tasks together. NaN in a fold, where some of these tasks count as unseen."""
    start_P: Tensor | None
    """The warm-up adapter, trained on the experts together, so it has seen no training task. None without a warm-up."""
    recall: Callable[[int, Tensor], Tensor]
    """For training task t and adapters (S, P), returns the mean recall (S,) in percent on the photos of the task, or
    the accuracy if it has classes. No unseen data is used. A fit that relies on it should pass adapters that have not
    seen task t."""
    pool: TaskPool
    """All seen tasks with their photos. In a fold, the left-out tasks and their photos are excluded."""
    seed: int
    note: Callable[[str], None]
    """Reports progress."""
    checkpoint: Checkpoint | None = None
    """Where a long fit may save its progress. After an interruption, `fit` gets the same checkpoint again."""
    device: str = "cpu"
    """The device of the backbone, which a fit may also use. All tensors here are in CPU memory."""


@dataclass(frozen=True)
class Resources:
    """The resources of one step of a job."""

    cpus: int = 0
    """CPU cores, and the number of threads. Another number of threads rounds differently. 0: any number."""
    gpus: float = 0.0
    """GPUs. Several steps may share one: 0.25 lets four of them run on it at once."""
    memory: int = 0
    """Bytes; 0 if unknown."""


@dataclass(frozen=True)
class Step:
    """One step of a job. Its result is a file that is named by the hash of all its inputs.

    A step can therefore run twice without harm, and a step whose file exists is finished.
    """

    key: str
    """Identifies the step within its job."""
    kind: str
    """What it does, such as "features" or "states"."""
    name: str
    """What it does it for, such as the key of a task, for messages."""
    path: str
    """Its file, relative to the user cache."""
    after: tuple[str, ...] = ()
    """Keys of the steps whose files it reads."""
    units: float = 1.0
    """Amount of work, in the units of the progress of its job."""
    resources: Resources = Resources()


@dataclass(frozen=True)
class Row:
    """One measurement."""

    method: str
    dataset: str
    task: str
    sample: int
    direction: str
    """"I2T" or "T2I" for recall at k, "ACC" for the top-1 accuracy of a classification task (k = 1)."""
    k: int
    value: float
    """In percent."""
    seed: int = 0
    """The seed for a generator that samples."""
    hits: str = field(default="", repr=False)
    """Which queries were answered correctly, packed as described in bench/rows_file.py, or "" if not stored."""
    sentence: str = ""
    """The sentence that made the adapter: the key of another task, "unrelated", or "" for the task's own sentence."""


@dataclass(frozen=True)
class Report:
    """Everything a reporter may print."""

    pack: str
    rows: Sequence[Row]
    labels: Mapping[str, str]
    """Method name -> label, in table order."""
    differences: Mapping[tuple[str, str, int], tuple[float, float, float]]
    """(method, direction, k) -> mean difference from `against` and its 95 % confidence interval, in points."""
    against: str
    notes: Sequence[str] = ()
    paper: bool = False
    """Whether to show the paper's numbers beside the measured ones if the protocol matches the paper's."""
    protocol: Mapping[str, Any] = field(default_factory=dict)
    """Measurement conditions: backbone, rank, k, and the data sets of the experts."""
    builds: Sequence[str] = ()
    """The builds, if the rows come from several builds of one recipe. The seed of a row is then an index into this
    list, and its sample counts the draws of that build."""
    role: str = UNSEEN
    """The role of the measured tasks in the pack, one of ROLES."""
    controls: Sequence[Row] = field(default=(), repr=False)
    """Rows measured with adapters made from the sentences of other tasks. `rows` does not include them."""
    sentence_gains: Mapping[tuple[str, str, str, int], tuple[float, float, float]] = field(default_factory=dict)
    """(source of other sentences, method, direction, k) -> recall with the task's own sentence minus recall with other
    sentences, and its 95 % confidence interval, in points. The source is "same" data set, "across" data sets, or
    "unrelated"."""

    def tasks(self, dataset: str = "", direction: str = "") -> str:
        """Return how many tasks were measured, optionally of one data set or direction, as in `2 unseen tasks`."""
        rows = (row for row in self.rows if dataset in ("", row.dataset) and direction in ("", row.direction))
        count = len({(row.dataset, row.task) for row in rows})
        return f"{count} {self.role} task{'s' * (count != 1)}"


@dataclass(frozen=True)
class TaskTensors:
    """The encoded photos and captions of a task: stems (N, ...) float16, texts (C, D), caption -> photo.

    For a classification task, text_CD holds the heads of its classes, label_of maps photo -> class, and image_of is
    empty.
    """

    name: str
    stem_N: Tensor = field(repr=False)
    text_CD: Tensor = field(repr=False)
    image_of: tuple[int, ...] = field(repr=False)
    label_of: tuple[int, ...] = field(default=(), repr=False)
    mirror: TaskTensors | None = field(default=None, repr=False)
    """The same photos and captions, mirrored."""

    def only(self, photos: Sequence[int]) -> TaskTensors:
        """Return the same task with only some photos and their captions. All classes stay."""
        rows = list(photos)
        place = {photo: n for n, photo in enumerate(rows)}
        texts = [c for c, photo in enumerate(self.image_of) if photo in place]
        mirror = self.mirror.only(rows) if self.mirror else None
        text_CD = self.text_CD[texts] if self.image_of else self.text_CD
        image_of = tuple(place[self.image_of[c]] for c in texts)
        label_of = tuple(self.label_of[n] for n in rows) if self.label_of else ()
        return TaskTensors(self.name, self.stem_N[rows], text_CD, image_of, label_of, mirror)

    def to(self, device: torch.device) -> TaskTensors:
        """Return the same task with its tensors on a device, so that training steps there need no copy."""
        mirror = self.mirror.to(device) if self.mirror else None
        return replace(self, stem_N=self.stem_N.to(device), text_CD=self.text_CD.to(device), mirror=mirror)


ORACLE = "oracle"
CHANCE = "chance"
ZERO = "zero-shot"
AGAINST = "top-k"
