"""What plugins fulfil. No torch at import time.

Shapes: E experts, P numbers of an adapter, D embedding width, T tasks or adapters, N images, C captions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sglora_cli.plugin.values import Experts, Material, Report, Task

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

    from sglora_cli.config import RuntimeConfig
    from sglora_cli.lora.layout import Layout, Site
    from sglora_cli.lora.prior import Prior
    from sglora_cli.plugin.values import TaskTensors


API_VERSION = (1, 0)
"""Of this module, the hooks and `sglora_cli.api`. A plugin says `SGLORA_API = "1.0"`, the version it was written for.
The second number grows with what is added, the first when something a plugin relies on goes or changes."""

OPTIONAL: Mapping[str, Mapping[str, tuple[str, ...] | None]] = {
    "backbone": {"member": ("name",), "absent": ("runtime",)},
    "dataset": {"fetch": ("data", "note"), "images": ("root",)},
    "captioner": {},
    "generator": {
        "config": None,
        "cost": ("layout", "tasks", "states", "settings", "device"),
        "draws": None,
        "member": ("settings",),
        "needs": None,
    },
    "reporter": {},
}
"""Kind -> members a plugin's value may have besides those of its contract: a method's arguments, None for a value.
What they mean is said below, after "Optional:"."""


class Model(Protocol):
    """A loaded backbone."""

    fingerprint: str
    """Of weights, activation and preprocessing: an adapter meets only the model it was made for."""
    sites: Sequence[Site]
    """In layer order; q, k, v of one attention follow each other. A site's name is its PEFT module name."""
    scale: float
    """What cosine similarities are multiplied with in the contrastive loss."""
    device: torch.device
    """Where encode_image computes and leaves its result. It takes inputs from anywhere."""

    def stem(self, images: Sequence[Image]) -> Tensor:
        """The frozen part before the first site: (N, ...) on the CPU. It is cached as float16."""

    def encode_image(self, stem: Tensor, layout: Layout | None = None, adapters_TP: Tensor | None = None) -> Tensor:
        """Unit vectors, float32: (N, D), or (T, N, D) with T adapters at once.

        With adapters, stem is (N, ...) and every adapter sees the same images, or
        (T, N, ...) and each has its own. Differentiable with respect to adapters_TP.
        """

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (C, D), float32, on the CPU. Adapters do not touch them. An over-long text is cut."""

    # Optional, each looked for with getattr:
    # encode_meaning(texts) -> unit vectors (C, any width) of a general sentence encoder. It only
    #   decides whether a sentence is far from every expert; without it encode_text does.
    # check_text(text): raises Mismatch if encode_text would cut something off.
    # loss_scale: float that keeps fp16 gradients out of underflow; the loss is multiplied with it.
    # hide(stem_N, share, dice) -> stem of the same photos without that share of their tokens, each without others;
    #   for training with `hide`. encode_image takes it. Shapes follow from `share` alone.
    # hub_name: name of these weights on the Hugging Face hub, for PEFT's configuration.
    # merged(layout, flat_P) -> the backbone's own checkpoint {name: tensor} with the update added.
    # unmerged(tensors) -> {site name: (out, in) difference} of such a checkpoint to this model;
    #   raises Mismatch if anything else differs.


@runtime_checkable
class Backbone(Protocol):
    """A frozen image-text model that can be loaded."""

    name: str
    summary: str

    def load(self, runtime: RuntimeConfig) -> Model: ...

    # Optional: member(name) -> Backbone. Then `NAME:anything` is a backbone too, and the value
    # with this name stands for the family.
    # Optional: absent(runtime) -> str. What this machine lacks to load it without a network, "" if nothing; it looks,
    # and neither loads nor fetches. `sglora doctor` asks it.


@runtime_checkable
class Dataset(Protocol):
    """Where tasks come from."""

    name: str
    summary: str

    def tasks(self, root: Path) -> Sequence[Task]:
        """All tasks found under a folder, sorted by name."""

    # Optional: fetch(data, note) -> Path. Downloads the data set into a folder below `data`, checked, and returns
    #   that folder; note(text) says how it goes. Raises Unavailable if it cannot, or if the data set may not be
    #   downloaded: then the hint says what to put where.
    # Optional: images(root) -> Sequence[Listed]. Every image of the data set once, captioned or not, always in
    #   the same order: what `sglora data caption` writes captions for, in that order.


class CaptionModel(Protocol):
    """A loaded captioner."""

    def write(self, image: Image, prompt: str, count: int, seed: int) -> Sequence[str]:
        """`count` texts about an image (RGB, any size), sampled; the host takes off what is no caption.

        The same arguments give the same texts, whatever was asked before: an interrupted run goes on as
        if nothing had happened. That is why images come one at a time, and their captions together.
        """


@runtime_checkable
class Captioner(Protocol):
    """Something that writes captions of images: a vision-language model."""

    name: str
    summary: str

    def load(self, runtime: RuntimeConfig) -> CaptionModel:
        """Of `runtime` device, precision and weights are meant; weights "" are the captioner's own."""


@runtime_checkable
class Fitted(Protocol):
    """A generator that is ready to be asked."""

    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        """Adapters for one prior: (samples, P) float32."""

    def tensors(self) -> dict[str, Tensor]:
        """Everything `restore` needs besides the pack; {} for a rule that learns nothing."""


@runtime_checkable
class Generator(Protocol):
    """(pack, prior) -> adapters. Merge rules are generators that learn nothing."""

    name: str
    summary: str
    label: str
    """The name in the paper's table, or a short one of that kind."""
    learns: bool
    """Whether `fit` must run when a pack is built."""

    def fit(self, material: Material, settings: Mapping[str, Any]) -> tuple[Fitted, dict[str, Any]]:
        """Learn from the training tasks' adapters; also returns measurements for the manifest."""

    def restore(self, experts: Experts, tensors: Mapping[str, Tensor]) -> Fitted: ...

    # Optional: config, the dataclass of knobs its table in a recipe fills. Then the table is checked before
    # anything is trained, and errors have their lines.
    # Optional: cost(layout, tasks, states, settings, device) -> {"parameters": int, "bytes": int, "seconds": float}:
    # what `fit` will need for so many training tasks of so many states, without their photos or adapters; and
    # "stored_bytes", the size of its file where that is not two bytes a parameter. "device_bytes": what of it the
    # device's own memory must hold, not counted in "bytes".
    # Optional: draws, whether samples differ; without it, those of a generator that learns do.
    # Optional: member(settings) -> Generator. Then `NAME:anything` is a generator too.
    # Optional: needs, what it must see of an unseen task besides the sentence: "shots", training pairs, or "images",
    # the very images that are asked about. What it restores then has generate_with(prior, evidence, samples, seed,
    # temperature), which is called in place of `generate`: adapters (samples, P), or (samples, N, P), one for each
    # image. Its `generate` raises Unavailable, and so does its `restore` where a package it needs is missing.


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
    """Rows -> text."""

    name: str
    summary: str

    def render(self, report: Report) -> str: ...
