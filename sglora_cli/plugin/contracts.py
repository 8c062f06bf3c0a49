"""The contracts that plugins fulfil, each followed by its optional protocols. No torch at import time.

Shapes: E experts, P numbers of an adapter, D embedding width, T tasks or adapters, N images, C captions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from sglora_cli.plugin.values import CaptionerCost, Experts, FetchPlan, Listed, Material, Report, Task, Terms

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

    from sglora_cli.config import RuntimeConfig
    from sglora_cli.lora.layout import Layout, Site
    from sglora_cli.lora.prior import Prior
    from sglora_cli.plugin.values import TaskTensors


API_VERSION = (1, 0)
"""The version of this module, the hooks and `sglora_cli.api`. A plugin says `SGLORA_API = "1.0"`, the version it was
written for. From the first release on, the second number grows with what is added, the first when something that a
plugin relies on goes or changes."""

SHOTS, IMAGES = "shots", "images"
NEEDS = ("", SHOTS, IMAGES)
"""What a generator may see of an unseen task."""

V_co = TypeVar("V_co", covariant=True)


class Model(Protocol):
    """A loaded backbone."""

    fingerprint: str
    """Identifies weights, activation and preprocessing: an adapter is used only with the model it was made for."""
    sites: Sequence[Site]
    """The layers that adapters update, in layer order; q, k, v of one attention follow each other. A site's name is
    its PEFT module name."""
    scale: float
    """The factor on cosine similarities in the contrastive loss."""
    loss_scale: float
    """The factor on the loss while its gradient is computed: 1.0, or more in fp16, where small gradients underflow."""
    hub_name: str
    """The name of these weights on the Hugging Face hub, for PEFT's configuration; "" if they have none."""
    device: torch.device
    """The device on which encode_image computes and leaves its result. Its inputs may be on any device."""

    def stem(self, images: Sequence[Image]) -> Tensor:
        """The frozen part before the first site: (N, ...) on the CPU. It is cached as float16."""

    def encode_image(self, stem: Tensor, layout: Layout | None = None, adapters_TP: Tensor | None = None) -> Tensor:
        """Unit vectors, float32: (N, D), or (T, N, D) with T adapters at once.

        With adapters, stem is (N, ...) and every adapter sees the same images, or
        (T, N, ...) and each has its own. Differentiable with respect to adapters_TP.
        """

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (C, D), float32, on the CPU. Adapters do not change them. A text that is too long is cut."""


@runtime_checkable
class EncodesMeaning(Protocol):
    """A model with a general sentence encoder, optional. Without it `encode_text` is asked instead."""

    def encode_meaning(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (C, any width), float32. They say how far a sentence is from what a pack has seen, and in the
        space `meaning` which experts are like it; d* stays that of `encode_text`."""


@runtime_checkable
class ChecksText(Protocol):
    """A model that says which texts are too long for it, optional."""

    def check_text(self, text: str) -> None:
        """Raises Mismatch if `encode_text` would cut something off."""


@runtime_checkable
class PreparesPhotos(Protocol):
    """A model that prepares photos one by one, optional: while the device computes, the photos that come next are
    decoded and prepared in threads."""

    def prepare(self, image: Image) -> Tensor:
        """A photo as `stem_of` takes it, on the CPU and no larger than it needs. Called from several threads at
        once."""

    def stem_of(self, prepared: Sequence[Tensor]) -> Tensor:
        """What `stem` gives for the photos that these were made of."""


@runtime_checkable
class HidesTokens(Protocol):
    """A model whose stem is a sequence of tokens, optional. Recipes with `hide` train on it only."""

    def hide(self, stem: Tensor, share: float, rng: torch.Generator) -> Tensor:
        """The stem (N, ...) of the same photos with that share of their tokens dropped, other tokens of each photo.

        `encode_image` accepts it. Its shape depends on `share` alone.
        """


@runtime_checkable
class MergesCheckpoints(Protocol):
    """A model with a checkpoint format of its own, optional: adapters leave and enter as whole checkpoints."""

    def merged(self, layout: Layout, flat_P: Tensor) -> dict[str, Tensor]:
        """The backbone's own checkpoint {name: tensor} with the update added."""

    def unmerged(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """{site name: (out, in) difference} of such a checkpoint to this model.

        Raises Mismatch if anything else differs.
        """


@runtime_checkable
class HasProjection(Protocol):
    """A model whose image encoder ends in a linear map without bias, optional: adapters may update it, too."""

    projection: Site
    """The map, (D, I), by its PEFT module name. `encode_image` takes layouts of `sites`, of `sites` and it, or of it
    alone."""

    def projection_weight(self) -> Tensor:
        """W (D, I), float32, on the CPU."""

    def unprojected(self, stem: Tensor) -> Tensor:
        """What the map is applied to: (N, I) float32, on `device`. encode_image is W times it, normalised."""


@runtime_checkable
class SaysNames(Protocol):
    """A model that has names elsewhere, optional. What an adapter file says of its base is compared with them."""

    def base_names(self) -> Sequence[str]:
        """The names, the best known first: "openai/clip-vit-base-patch16". Where the weights come from a file, those
        of the model that the user named: nobody knows whose a file's weights are."""


@runtime_checkable
class KnowsEarlier(Protocol):
    """A model that knows the weights its backbone had in earlier versions, optional. Errors then say what changed."""

    def earlier(self, fingerprint: str) -> str | None:
        """What had the weights with this fingerprint, as "tiny 1, the backbone of sglora-tiny up to 1.4". None for
        weights that it does not know, and for its own."""


@runtime_checkable
class Backbone(Protocol):
    """A frozen image-text model that can be loaded."""

    name: str
    summary: str

    def load(self, runtime: RuntimeConfig) -> Model:
        """The model on a device, in a precision. Raises Unavailable if weights or the device are missing."""


@runtime_checkable
class SaysAbsent(Protocol):
    """A backbone or a generator that knows what it needs of a machine, optional. `sglora doctor` asks backbones, and
    `sglora pack build` also the generators of a recipe."""

    def absent(self, runtime: RuntimeConfig) -> str:
        """What this machine lacks to load the backbone without a network, or to use the generator: weights, a package.

        "" if nothing. It only looks, and loads and fetches nothing.
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
    """A backbone that counts tokens without loading its weights, optional. Captions that are cut are then listed.

    Both raise Unavailable if the tokenizer is not on this machine: they fetch nothing.
    """

    def token_limit(self) -> int:
        """How many tokens of a text `encode_text` reads."""

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """The tokens of each text before anything is cut, with those that frame it."""


@runtime_checkable
class Dataset(Protocol):
    """A source of tasks."""

    name: str
    summary: str

    def tasks(self, root: Path) -> Sequence[Task]:
        """All tasks found under a folder, sorted by name."""


@runtime_checkable
class Fetches(Protocol):
    """A data set that can be downloaded, optional. `sglora data fetch` asks it."""

    def fetch(self, data: Path, note: Callable[[str], None]) -> Path:
        """Download the data set into a folder below `data`, check it, and return that folder.

        note(text) reports progress. Raises Unavailable if the download fails, or if the data set may not be
        downloaded: then the hint says what to put where.
        """


@runtime_checkable
class PlansFetch(Protocol):
    """A data set that says what `fetch` would download, optional. `data fetch --dry-run` and `pack build` ask it."""

    def fetch_plan(self, data: Path) -> FetchPlan:
        """What `fetch` would download into a folder below `data`. It only looks: it uses no network, writes nothing.

        Raises Unavailable as `fetch` does if the data set may not be downloaded.
        """


@runtime_checkable
class CountsImages(Protocol):
    """A data set whose lists may name images that are not there, optional. Its tasks leave these out, and
    `data check` and `pack build` say how many are there."""

    def image_counts(self, root: Path) -> tuple[int, int]:
        """How many of the images that its lists name are under a folder, and how many they name."""


@runtime_checkable
class ListsImages(Protocol):
    """A data set that lists images without captions, optional. `sglora data caption` writes captions for them."""

    def images(self, root: Path) -> Sequence[Listed]:
        """Every image of the data set once, captioned or not, always in the same order."""


@runtime_checkable
class SaysPassedOver(Protocol):
    """A data set that says what it does not read, optional. `data check`, `data caption` and `pack build` count it."""

    def passed_over(self, root: Path) -> Iterable[tuple[str, str]]:
        """(name, reason) of whatever lies under a folder, or is named there, and is in no task of it.

        The name is a path below the folder as captions.jsonl would have it, or what else tells it apart. The reason
        says what it is, as "images without captions": things of one reason are counted together. `other_images` of
        the api finds the images of a folder that are in no list. What a list names and is not there is not meant:
        that is CountsImages.
        """


class CaptionModel(Protocol):
    """A loaded captioner."""

    def write(self, image: Image, prompt: str, count: int, seed: int) -> Sequence[str]:
        """`count` sampled texts about an image (RGB, any size). The host removes what is not a caption.

        The same arguments give the same texts, whatever was asked before, so that an interrupted run resumes with
        identical captions. That is why images come one at a time, and their captions together.
        """


@runtime_checkable
class Captioner(Protocol):
    """Something that writes captions of images: a vision-language model."""

    name: str
    summary: str

    def load(self, runtime: RuntimeConfig) -> CaptionModel:
        """Uses only `device`, `precision` and `weights` of `runtime`; weights "" are the captioner's own."""


@runtime_checkable
class SaysCaptionCost(Protocol):
    """A captioner that says what it needs, optional. `data caption` prints it, and asks before a large download where
    there is no GPU."""

    def caption_cost(self, runtime: RuntimeConfig, pixels: int, captions: int) -> CaptionerCost:
        """What `load` and `write` need for photos of so many pixels, of each of which so many captions are asked for.

        It only looks, and loads and fetches nothing.
        """


@runtime_checkable
class Fitted(Protocol):
    """A generator that is ready to be asked."""

    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        """Adapters for one prior: (samples, P) float32."""

    def tensors(self) -> dict[str, Tensor]:
        """Everything `restore` needs besides the pack; {} for a rule that learns nothing."""


@runtime_checkable
class UsesEvidence(Protocol):
    """What a generator restores that must see more of an unseen task than its sentence.

    Its `generate` raises Unavailable, and so does the generator's `restore` where a package is missing.
    """

    def generate_with(self, prior: Prior, evidence: Evidence, samples: int, seed: int, temperature: float) -> Tensor:
        """Adapters (samples, P), or (samples, N, P) with one for each image, float32. The host calls this in
        place of `generate`."""


@runtime_checkable
class ChoosesSites(Protocol):
    """What a generator restores whose adapters have other sites than the experts of its pack, optional."""

    own_layout: Layout
    """Of what it generates, so P is its size. Without this power it is the layout of the experts."""


@runtime_checkable
class IgnoresExperts(Protocol):
    """A fitted generator, optional: its adapters depend on d* alone or on nothing. Commands then do not list the
    prior's experts as what an adapter is made of."""

    ignores_experts: bool


@runtime_checkable
class UsesDevice(Protocol):
    """What a generator restores that can compute on the backbone's device, optional. Without it, it is left on the
    CPU."""

    def on_device(self, device: torch.device) -> Fitted:
        """The same generator, which computes on that device from now on, or on the CPU if it cannot there.

        What it generates is in the CPU's memory all the same, and follows from the seed, whatever the device, but for
        rounding.
        """


def adapter_layout(fitted: Fitted, experts: Layout) -> Layout:
    """The layout of what a generator makes. experts: that of its pack's experts."""
    return fitted.own_layout if isinstance(fitted, ChoosesSites) else experts


@runtime_checkable
class Generator(Protocol):
    """(pack, prior) -> adapters. Merge rules are generators that learn nothing."""

    name: str
    summary: str
    label: str
    """The name in the paper's table, or a short one of that kind."""
    learns: bool
    """Whether `fit` must run when a pack is built."""
    draws: bool
    """Whether samples differ: then a benchmark asks for several, of several seeds."""
    needs: str
    """What it must see of an unseen task besides the sentence: "" nothing, "shots" pairs of the training split,
    "images" the very images that are asked about. What it restores then fulfils UsesEvidence."""
    config: Any
    """The dataclass of knobs that its table in a recipe fills, so that the table is checked before anything is
    trained, and errors name their lines; None for a generator without settings."""

    def fit(self, material: Material, settings: Mapping[str, Any]) -> tuple[Fitted, dict[str, Any]]:
        """Learn from the training tasks' adapters; also returns measurements for the manifest."""

    def restore(self, experts: Experts, tensors: Mapping[str, Tensor]) -> Fitted:
        """As `fit` left it, from the tensors that a pack keeps. Raises BadFile if they do not fit the experts."""


@runtime_checkable
class SaysCost(Protocol):
    """A generator that estimates its training, optional. `sglora pack build` prints the estimate."""

    def cost(
        self, layout: Layout, tasks: int, states: int, settings: Mapping[str, Any], device: str
    ) -> Mapping[str, Any]:
        """What `fit` will need for so many training tasks of so many states, without their photos or adapters.

        {"parameters": int, "bytes": int, "seconds": float}, and optionally "stored_bytes", the size of its file
        where that is not two bytes a parameter, "device_bytes", the part that the device's own memory must hold,
        which is not counted in "bytes", and "passes", how many times a photo goes through the backbone, forward and
        back: the host knows how long that takes, and adds it to the seconds.
        """


@dataclass(frozen=True)
class Evidence:
    """What a generator sees of an unseen task, and no more than it needs: the other kind is None."""

    model: Model
    shots: TaskTensors | None = field(default=None, repr=False)
    """For "shots": all pairs of the task's training split, never one of its test split."""
    images_ND: Tensor | None = field(default=None, repr=False)
    """For "images": unit embeddings of its test images, without an adapter. No caption comes with them."""
    visual_ED: Tensor | None = field(default=None, repr=False)
    """For "images": the same of the experts, each the mean of its training photos."""


@runtime_checkable
class Reporter(Protocol):
    """A way to print measured rows."""

    name: str
    summary: str

    def render(self, report: Report) -> str:
        """The whole text, which ends with a line break."""


@runtime_checkable
class HasMembers(Protocol[V_co]):
    """A value that stands for a family, optional for all of the above: `NAME:anything` is a value of its kind, too."""

    def member(self, name: str, /) -> V_co:
        """The value for what stands after the colon: `val2017` of `coco:val2017`, settings of a generator.

        Raises an error of sglora, as UnknownName, if there is no such member.
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
}
"""Contract -> the optional protocols that a value of it may fulfil as well."""
