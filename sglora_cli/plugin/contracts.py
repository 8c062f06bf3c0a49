"""The contracts of plugins, each followed by its optional protocols. Importing this module does not load torch.

Shapes: E experts, P parameters of an adapter, D embedding width, T tasks or adapters, N images, C captions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from sglora_cli.plugin.values import (
    CaptionerCost,
    Experts,
    FetchPlan,
    Listed,
    Material,
    Report,
    Resources,
    Step,
    Task,
    Terms,
)

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

    from sglora_cli.config import RuntimeConfig
    from sglora_cli.lora.layout import Layout, Site
    from sglora_cli.lora.prior import Prior
    from sglora_cli.plugin.values import TaskTensors


API_VERSION = (1, 0)
"""The version of this module, the hooks and `sglora_cli.api`. A plugin declares the version it was written for as
`SGLORA_API = "1.0"`. From the first release on, additions increase the second number; removing or changing something
that plugins rely on increases the first."""

SHOTS, IMAGES = "shots", "images"
NEEDS = ("", SHOTS, IMAGES)
"""What a generator may see of an unseen task besides its sentence."""

V_co = TypeVar("V_co", covariant=True)


class Model(Protocol):
    """A loaded backbone."""

    fingerprint: str
    """Identifies weights, activation and preprocessing. An adapter only works with the model it was made for."""
    sites: Sequence[Site]
    """The layers that adapters update, in layer order. The q, k and v of one attention follow each other. A site is
    named by its PEFT module name."""
    scale: float
    """The factor on cosine similarities in the contrastive loss."""
    loss_scale: float
    """The loss scale for gradients: 1.0, or larger in fp16, where small gradients underflow."""
    hub_name: str
    """The name of these weights on the Hugging Face Hub, for PEFT's configuration, or "" if there is none."""
    device: torch.device
    """The device that encode_image computes on and returns its result on. Inputs may be on any device."""

    def stem(self, images: Sequence[Image]) -> Tensor:
        """Run the frozen part before the first site: (N, ...) on the CPU. The host caches the result as float16."""

    def encode_image(self, stem: Tensor, layout: Layout | None = None, adapters_TP: Tensor | None = None) -> Tensor:
        """Encode images as float32 unit vectors: (N, D), or (T, N, D) with T adapters at once.

        With adapters, stem is (N, ...) if all adapters see the same images, or
        (T, N, ...) if each has its own. Differentiable with respect to adapters_TP.
        """

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Encode texts as float32 unit vectors (C, D) on the CPU. Adapters do not affect them. Long texts are cut."""


@runtime_checkable
class EncodesMeaning(Protocol):
    """A model with a general sentence encoder (optional). Without it, the host uses `encode_text`."""

    def encode_meaning(self, texts: Sequence[str]) -> Tensor:
        """Encode texts as float32 unit vectors (C, any width).

        The host uses them to measure how far a sentence is from everything a pack has seen, and in the space
        `meaning` to find similar experts. d* always comes from `encode_text`.
        """


@runtime_checkable
class ChecksText(Protocol):
    """A model that can tell which texts are too long for it (optional)."""

    def check_text(self, text: str) -> None:
        """Raise Mismatch if `encode_text` would cut the text."""


@runtime_checkable
class PreparesPhotos(Protocol):
    """A model that prepares photos one by one (optional).

    While the device computes, the host decodes and prepares the next photos in threads.
    """

    def prepare(self, image: Image) -> Tensor:
        """Prepare a photo for `stem_of`: a CPU tensor, no larger than needed. Called from several threads at once."""

    def stem_of(self, prepared: Sequence[Tensor]) -> Tensor:
        """Return what `stem` returns for the original photos."""


@runtime_checkable
class HidesTokens(Protocol):
    """A model whose stem is a sequence of tokens (optional). Recipes that set `hide` need it for training."""

    def hide(self, stem: Tensor, share: float, rng: torch.Generator) -> Tensor:
        """Drop a random share of the tokens from the stem (N, ...), different tokens for each photo.

        `encode_image` accepts the result, whose shape depends on `share` only.
        """


@runtime_checkable
class MergesCheckpoints(Protocol):
    """A model with its own checkpoint format (optional). Adapters can be exported and imported as full checkpoints."""

    def merged(self, layout: Layout, flat_P: Tensor) -> dict[str, Tensor]:
        """Return the backbone's own checkpoint {name: tensor} with the update added."""

    def unmerged(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return {site name: (out, in) difference} between such a checkpoint and this model.

        Raises Mismatch if anything else differs.
        """


@runtime_checkable
class HasProjection(Protocol):
    """A model whose image encoder ends in a linear map without bias (optional). Adapters may update it, too."""

    projection: Site
    """The map (D, I), named by its PEFT module name. `encode_image` accepts layouts with `sites`, with `sites` and the
    projection, or with the projection only."""

    def projection_weight(self) -> Tensor:
        """Return W (D, I), float32, on the CPU."""

    def unprojected(self, stem: Tensor) -> Tensor:
        """Return the input of the map: (N, I), float32, on `device`. encode_image returns W times it, normalised."""


@runtime_checkable
class SaysNames(Protocol):
    """A model that is known by other names elsewhere (optional), to compare with the base named in adapter files."""

    def base_names(self) -> Sequence[str]:
        """Return the names, the best known first, such as "openai/clip-vit-base-patch16".

        For weights loaded from a file, return the names of the model that the user gave, because the file does not
        say which model it holds.
        """


@runtime_checkable
class KnowsEarlier(Protocol):
    """A model that recognises earlier weights of its backbone (optional). Error messages then name the change."""

    def earlier(self, fingerprint: str) -> str | None:
        """Return what had these weights, such as "tiny 1, the backbone of sglora-tiny up to 1.4".

        None for unknown weights and for the model's current weights.
        """


@runtime_checkable
class Backbone(Protocol):
    """A frozen image-text model that can be loaded."""

    name: str
    summary: str

    def load(self, runtime: RuntimeConfig) -> Model:
        """Load the model on a device, in a precision. Raises Unavailable if weights or the device are missing."""


@runtime_checkable
class SaysAbsent(Protocol):
    """A backbone or generator that can report missing requirements (optional). `sglora doctor` calls it for backbones,
    and `sglora pack build` also for the generators of a recipe."""

    def absent(self, runtime: RuntimeConfig) -> str:
        """Return what is missing to load the backbone offline, or to use the generator: weights or a package.

        "" if nothing is missing. It must not load or download anything.
        """


@runtime_checkable
class SaysDownload(Protocol):
    """A backbone that says how much `load` would download, optional. `sglora reproduce` prints it."""

    def download_bytes(self, runtime: RuntimeConfig) -> int | None:
        """Bytes of weights that are not on this machine yet; 0 if they are, None where the backbone does not know.

        It only looks, and loads and fetches nothing.
        """


@runtime_checkable
class CountsTokens(Protocol):
    """A backbone that counts tokens without loading its weights (optional). The host then lists captions that are cut.

    Both methods raise Unavailable if the tokenizer is not on this machine. They never download it.
    """

    def token_limit(self) -> int:
        """Return how many tokens of a text `encode_text` reads."""

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Return the number of tokens of each text before truncation, including start and end tokens."""


@runtime_checkable
class Dataset(Protocol):
    """A source of tasks."""

    name: str
    summary: str

    def tasks(self, root: Path) -> Sequence[Task]:
        """Return all tasks found in a folder, sorted by name."""


@runtime_checkable
class Fetches(Protocol):
    """A data set that can be downloaded (optional). `sglora data fetch` calls it."""

    def fetch(self, data: Path, note: Callable[[str], None]) -> Path:
        """Download the data set into a folder below `data`, verify it, and return that folder.

        note(text) reports progress. Raises Unavailable if the download fails or is not permitted. In the latter case
        the hint says which files to put where.
        """


@runtime_checkable
class PlansFetch(Protocol):
    """A data set that can describe its download in advance (optional), for `data fetch --dry-run` and `pack build`."""

    def fetch_plan(self, data: Path) -> FetchPlan:
        """Return what `fetch` would download into a folder below `data`, without using the network or writing files.

        Raises Unavailable, as `fetch` does, if the data set may not be downloaded.
        """


@runtime_checkable
class CountsImages(Protocol):
    """A data set whose lists may name missing images (optional). Its tasks leave these out, and `data check` and
    `pack build` report how many images are present."""

    def image_counts(self, root: Path) -> tuple[int, int]:
        """Return how many of the images named in the lists exist under a folder, and how many are named."""


@runtime_checkable
class ListsImages(Protocol):
    """A data set that can list images without captions (optional), for `sglora data caption`."""

    def images(self, root: Path) -> Sequence[Listed]:
        """Return every image of the data set once, captioned or not, always in the same order."""


@runtime_checkable
class SaysPassedOver(Protocol):
    """A data set that reports what it ignores (optional). `data check`, `data caption` and `pack build` count it."""

    def passed_over(self, root: Path) -> Iterable[tuple[str, str]]:
        """Yield (name, reason) for everything in a folder, or named there, that belongs to no task.

        The name is a path relative to the folder, as in captions.jsonl, or another unique name. The reason is a
        category such as "images without captions", because the host counts entries by reason. `other_images` in the
        API finds the images of a folder that are in no list. Missing images that a list names belong to CountsImages
        instead.
        """


class CaptionModel(Protocol):
    """A loaded captioner."""

    def write(self, image: Image, prompt: str, count: int, seed: int) -> Sequence[str]:
        """Sample `count` texts about an image (RGB, any size). The host removes what is not a caption.

        The same arguments return the same texts, independent of earlier calls, so that an interrupted run resumes with
        identical captions. For the same reason the host passes one image at a time and requests all its captions.
        """


@runtime_checkable
class Captioner(Protocol):
    """A model that writes captions of images, such as a vision-language model."""

    name: str
    summary: str

    def load(self, runtime: RuntimeConfig) -> CaptionModel:
        """Load the model. Uses only `device`, `precision` and `weights` of `runtime`; "" means its own weights."""


@runtime_checkable
class SaysCaptionCost(Protocol):
    """A captioner that can estimate its cost (optional). `data caption` prints the estimate and, without a GPU, asks
    before a large download."""

    def caption_cost(self, runtime: RuntimeConfig, pixels: int, captions: int) -> CaptionerCost:
        """Return the cost of `load` and `write` for photos of this many pixels and this many captions per photo.

        It must not load or download anything.
        """


@runtime_checkable
class Fitted(Protocol):
    """A generator that is ready to generate."""

    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        """Generate adapters for one prior: (samples, P), float32."""

    def tensors(self) -> dict[str, Tensor]:
        """Return everything `restore` needs besides the pack, or {} for a rule that learns nothing."""


@runtime_checkable
class UsesEvidence(Protocol):
    """A fitted generator that must see more of an unseen task than its sentence.

    Its `generate` raises Unavailable. The generator's `restore` raises Unavailable if a package is missing.
    """

    def generate_with(self, prior: Prior, evidence: Evidence, samples: int, seed: int, temperature: float) -> Tensor:
        """Generate float32 adapters: (samples, P), or (samples, N, P) with one adapter per image.

        The host calls it instead of `generate`.
        """


@runtime_checkable
class ChoosesSites(Protocol):
    """A fitted generator whose adapters have other sites than the experts of its pack (optional)."""

    own_layout: Layout
    """The layout of its adapters, so P is its size. Without this protocol, the experts' layout applies."""


@runtime_checkable
class IgnoresExperts(Protocol):
    """A fitted generator whose adapters depend on d* only, or on nothing (optional). Commands then do not list the
    prior's experts as the source of an adapter."""

    ignores_experts: bool


@runtime_checkable
class UsesDevice(Protocol):
    """A fitted generator that can compute on the backbone's device (optional). Otherwise it stays on the CPU."""

    def on_device(self, device: torch.device) -> Fitted:
        """Return the same generator, computing on that device if it can, otherwise on the CPU.

        Generated adapters are always in CPU memory. They depend on the seed and not on the device, except for
        rounding.
        """


def adapter_layout(fitted: Fitted, experts: Layout) -> Layout:
    """Return the layout of a generator's adapters, given the layout of the pack's experts."""
    return fitted.own_layout if isinstance(fitted, ChoosesSites) else experts


@runtime_checkable
class Generator(Protocol):
    """Maps (pack, prior) to adapters. Merge rules are generators that learn nothing."""

    name: str
    summary: str
    label: str
    """The name in the paper's table, or a similarly short one."""
    learns: bool
    """Whether `fit` must run when a pack is built."""
    draws: bool
    """Whether samples differ. A benchmark then requests several samples with several seeds."""
    needs: str
    """What it must see of an unseen task besides the sentence: "" for nothing, "shots" for pairs of the training
    split, "images" for the query images themselves. Its fitted generators then implement UsesEvidence."""
    config: Any
    """The dataclass of settings for its table in a recipe, or None for a generator without settings. The host checks
    the table before training anything, and errors name its lines."""

    def fit(self, material: Material, settings: Mapping[str, Any]) -> tuple[Fitted, dict[str, Any]]:
        """Learn from the training tasks' adapters. Also returns measurements for the manifest."""

    def restore(self, experts: Experts, tensors: Mapping[str, Tensor]) -> Fitted:
        """Recreate the fitted generator from the pack's tensors. Raises BadFile if they do not match the experts."""


@runtime_checkable
class SaysCost(Protocol):
    """A generator that estimates its training cost (optional). `sglora pack build` prints the estimate."""

    def cost(
        self, layout: Layout, tasks: int, states: int, settings: Mapping[str, Any], device: str
    ) -> Mapping[str, Any]:
        """Estimate what `fit` needs for this many training tasks and states per task, without seeing any of them.

        {"parameters": int, "bytes": int, "seconds": float}, and optionally:
        "stored_bytes", the size of its file if it is not two bytes per parameter;
        "device_bytes", the memory needed on the device, not included in "bytes";
        "passes", how often a photo passes through the backbone, forward and backward. The host knows the time per
        pass and adds it to the seconds.
        """


@dataclass(frozen=True)
class Evidence:
    """What a generator sees of an unseen task. It gets only the kind it needs; the other one is None."""

    model: Model
    shots: TaskTensors | None = field(default=None, repr=False)
    """For "shots": all pairs of the task's training split, never of its test split."""
    images_ND: Tensor | None = field(default=None, repr=False)
    """For "images": unit embeddings of its test images without an adapter. Captions are not included."""
    visual_ED: Tensor | None = field(default=None, repr=False)
    """For "images": for each expert, the mean of the same embeddings of its training photos."""


@runtime_checkable
class Reporter(Protocol):
    """A way to print measured rows."""

    name: str
    summary: str

    def render(self, report: Report) -> str:
        """Return the complete output, ending with a line break."""


class Job(Protocol):
    """Work that is divided into steps. It can be pickled, and knows how to do each step in any process."""

    def perform(self, step: Step, advance: Callable[[float, str], None], journal: Callable[..., None]) -> None:
        """Make the step's file, resuming an interrupted attempt. Does nothing if the file exists and is intact.

        advance: called with finished units and what is being done.  journal: called with an event and its values.
        Raises an sglora error for everything that a user can fix. All other methods of a job belong to the host.
        """


@runtime_checkable
class Executor(Protocol):
    """A way to run the steps of a job: in this process, or on other machines."""

    name: str
    summary: str

    def check(self, resources: Resources) -> None:
        """Raise Unavailable if no step with these resources can run, for example without a cluster.

        The host calls it before a job starts.
        """

    def run(
        self,
        job: Job,
        steps: Sequence[Step],
        advance: Callable[[float, str], None],
        journal: Callable[..., None],
    ) -> Mapping[str, int]:
        """Perform all steps, each after the steps that it names. Returns the number of steps that ran on each machine.

        steps: in an order in which they can run one after the other.  advance, journal: see Job.perform. They are
        called in this process only. Raises the error of the step that fails first.
        """


@runtime_checkable
class HasMembers(Protocol[V_co]):
    """A value that stands for a family (optional for all of the above): `NAME:anything` is a value of its kind, too."""

    def member(self, name: str, /) -> V_co:
        """Return the value for the part after the colon: `val2017` of `coco:val2017`, or settings of a generator.

        Raises an sglora error such as UnknownName if there is no such member.
        """


@runtime_checkable
class SaysTerms(Protocol):
    """A backbone, data set or captioner that states the terms of what it downloads, optional. `sglora reproduce` prints
    them before it asks."""

    def terms(self) -> Sequence[Terms]:
        """The terms of each part. It only states facts, and uses no network."""


POWERS: Mapping[type, tuple[type, ...]] = {
    Backbone: (HasMembers, SaysAbsent, SaysDownload, SaysTerms, CountsTokens),
    Model: (
        EncodesMeaning,
        ChecksText,
        PreparesPhotos,
        HidesTokens,
        MergesCheckpoints,
        HasProjection,
        SaysNames,
        KnowsEarlier,
    ),
    Dataset: (HasMembers, Fetches, PlansFetch, ListsImages, CountsImages, SaysPassedOver, SaysTerms),
    Captioner: (HasMembers, SaysCaptionCost, SaysTerms),
    CaptionModel: (),
    Generator: (HasMembers, SaysCost, SaysAbsent),
    Fitted: (UsesEvidence, ChoosesSites, IgnoresExperts, UsesDevice),
    Reporter: (HasMembers,),
    Executor: (HasMembers,),
}
"""Contract -> the optional protocols that its values may also implement."""
