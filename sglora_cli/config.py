"""Every number and every closed list of names that a user can choose from, written once.

Options, TOML keys, help and completion follow from them.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import click

from sglora_cli.errors import Mismatch, UnknownName, UsageError

C = TypeVar("C")
MANY = 1_000_000
"""A limit for counts of epochs, photos and tasks. A larger number, such as 10**12, is a typing error."""


ADAPTER_FORMATS = {
    "safetensors": "one file, sglora's own: a PEFT state with its provenance",
    "peft": "folder for PEFT on CLIPModel and CLIPVisionModelWithProjection",
    "peft-flat": "folder for PEFT on CLIPVisionModel of transformers 5",
    "open_clip": "the backbone's checkpoint with the update merged in",
    "clip-lora": "file of CLIP-LoRA",
}
TASK_TABLES = {
    "all": "every task",
    "in": "tasks of the data sets that the experts come from",
    "cross": "tasks of other data sets",
    "flickr": "tasks of Flickr30K",
    "retrieval": "retrieval tasks",
    "classification": "classification tasks",
}
"""Names of `bench --table`, and which tasks each keeps."""
ABLATIONS = {
    "ablation-k": "how many experts a sentence leans on",
    "ablation-tau": "the temperature of their weights",
    "ablation-space": "the space in which it is compared with them",
    "ablation-samples": "one draw, the most likely of n, or the mean of n",
    "ablation-description": "the template, or the sentences of a file",
    "ablation-expert": "the nearest expert of each task left out",
    "ablation-condition": "the task's sentence, or what its own training photos look like",
}
"""More names of `bench --table`, and what each changes; they keep all tasks."""
SPACES = {
    "embedding": "the image-text embedding f(T) of Eq. 6",
    "centred": "that embedding without the mean of the experts'",
    "meaning": "the backbone's own sentence encoder, or f(T) where it has none",
}
"""Spaces in which a sentence is compared with those of the experts."""
SPACES_HELP = "; ".join(f"{name}, {what}" for name, what in SPACES.items())
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
DEVICES = ("auto", "cpu", "cuda", "mps")
"""Devices that a shell offers. The list is not closed: cuda:1 is a device, too."""


class OneOf(click.Choice[str]):
    """An option's type: one name of a closed list, or "" for none.

    Unlike click's own, a name that is not in the list is an UnknownName, which has the closest name as its hint.
    """

    def __init__(self, noun: str, names: Iterable[str]) -> None:
        super().__init__(list(names))
        self.noun = noun

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value and value not in self.choices:
            raise UnknownName.of(self.noun, value, self.choices)
        return value


def knob(
    default: Any,
    help: str,
    *,
    least: float | None = None,
    most: float | None = None,
    choices: Sequence[str] = (),
    offered: Sequence[str] = (),
) -> Any:
    """A field with its default and the sentence that explains it.

    A number has a range (both ends allowed), a text may be one of `choices`; `offered` are some of many possible texts.
    """
    metadata = {"help": help, "least": least, "most": most, "choices": choices, "offered": offered}
    return field(default=default, metadata=metadata)


def held_out_knob() -> Any:
    """The key of a learned generator's table that the build reads: scores on tasks left out."""
    return knob(0, "Folds of training tasks on which it is scored, fitted without them; 0: not.", least=0, most=1000)


@dataclass(frozen=True)
class LoraConfig:
    """The shape of every adapter of a pack."""

    rank: int = knob(2, "Rank r of every update B A.", least=1, most=4096)
    alpha: float = knob(2.0, "LoRA alpha; the update is scaled by alpha / rank.", least=1e-6, most=1e6)


@dataclass(frozen=True)
class TrainConfig:
    """How the adapters of tasks are trained: all alike (see `sglora docs method`, section 1)."""

    epochs: int = knob(120, "Passes over a task's photos.", least=1, most=MANY)
    states: int = knob(40, "M, how many of the last epochs' adapters are kept.", least=1, most=MANY)
    batch: int = knob(32, "Photos of one task in a step.", least=2, most=MANY)
    learning_rate: float = knob(1e-3, "Learning rate of Adam.", least=0, most=1e3)
    weight_decay: float = knob(0.0, "Decoupled weight decay.", least=0, most=1e3)
    warmup_epochs: int = knob(
        0,
        "Passes over the experts' photos together, before every task starts from the result; 0: no warm-up.",
        least=0,
        most=MANY,
    )
    joint_epochs: int = knob(30, "Passes over the seen tasks' photos for the joint adapter.", least=1, most=MANY)
    joint_learning_rate: float = knob(
        1e-3,
        "Learning rate of Adam where tasks train one adapter together: the warm-up, the joint adapter.",
        least=0,
        most=1e3,
    )
    tasks_at_once: int = knob(
        16,
        "Tasks in one batched step; for tasks' own adapters it changes speed and memory, not results.",
        least=1,
        most=MANY,
    )
    seed: int = knob(
        0, "Seed of the shared initialisation and of every task's batches.", least=-(2**63), most=2**63 - 1
    )
    mirror: float = knob(
        0.0,
        "Share of the photos shown mirrored in a step, left and right exchanged in their captions.",
        least=0,
        most=1,
    )
    hide: float = knob(
        0.0,
        "Share of every photo's tokens hidden in a training step, others each time; against overfitting.",
        least=0,
        most=0.9,
    )


@dataclass(frozen=True)
class PriorConfig:
    """How a sentence becomes a prior over adapters (Eq. 6-8)."""

    k: int = knob(4, "K, how many experts a sentence leans on.", least=1, most=MANY)
    tau: float = knob(0.05, "Temperature of the softmax over their similarities.", least=1e-6, most=1e6)
    space: str = knob(
        "embedding",
        f"What a sentence is compared with the experts' by: {SPACES_HELP}.",
        choices=tuple(SPACES),
    )


@dataclass(frozen=True)
class PhraseConfig:
    """Which phrases of captions are seen tasks, too. `from_captions` beside these keys is a list of sources."""

    least_photos: int = knob(12, "Photos that a phrase needs.", least=4, most=MANY)
    largest_share: float = knob(0.15, "Share of all photos above which a phrase says too little.", least=0, most=1)
    most: int = knob(1000, "Phrases at most, those with most photos.", least=1, most=MANY)


@dataclass(frozen=True)
class GenerateConfig:
    """How adapters are drawn from a generator."""

    samples: int = knob(1, "Adapters to draw.", least=1, most=1000)
    seed: int = knob(0, "Seed of the draw; the same seed gives the same bytes.", least=0, most=2**63 - 1)
    temperature: float = knob(1.0, "Spread of the draw; 0 takes the prior's mean.", least=0, most=10)
    best: int = knob(0, "Keep this many of the samples: those most likely under mu*, sigma*^2; 0 keeps all.", least=0)


@dataclass(frozen=True)
class BenchConfig:
    """How methods are measured."""

    samples: int = knob(5, "Adapters drawn a task from a generator that samples; their recalls are averaged.", least=1)
    seed: int = knob(0, "Seed of the draws and of the bootstrap.", least=0)
    seeds: int = knob(1, "So many seeds of the draws, from --seed on.", least=1)
    temperature: float = knob(1.0, "Spread of the draws.", least=0)
    wrong_sentences: int = knob(
        5,
        "Sentences of other tasks that each method is measured with, too: does the sentence matter? 0 is none.",
        least=0,
    )
    resamples: int = knob(2000, "Bootstrap resamples over tasks, queries, seeds and samples.", least=100)


@dataclass(frozen=True)
class SearchConfig:
    """How a query is put together (see `sglora_cli/search/query.py`)."""

    strength: float = knob(0.5, "How much of the direction of --within is taken out; 1 is all of it.", least=0, most=1)


@dataclass(frozen=True)
class CheckConfig:
    """What `data check` reports about a data set."""

    distance: int = knob(
        4, "Bits of 64 in which the perceptual hashes of near-identical images may differ.", least=0, most=8
    )
    pixels: int = knob(32, "Images with a shorter side below this are small.", least=1)
    words: int = knob(60, "Captions with more words than this are long, where tokens cannot be counted.", least=1)
    k: int = knob(10, "Recall@k is to mean something: a task needs more test images than this.", least=1)


@dataclass(frozen=True)
class CaptionConfig:
    """How a captioner is asked, and which of its texts are kept."""

    captions: int = knob(4, "Captions an image.", least=1, most=100)
    retries: int = knob(3, "Times an image is asked again, with another seed, for texts that were refused.", least=0)
    fewest_words: int = knob(3, "A caption with fewer words is refused.", least=1)
    words: int = knob(
        60, "Captions with more words are kept with a warning: text encoders cut what is too long.", least=1
    )
    seed: int = knob(0, "Seed of the samples; each image has its own, whatever came before it.", least=0)


@dataclass(frozen=True)
class RuntimeConfig:
    """Where and how a backbone computes. It changes speed, memory and the last digits, not the method."""

    device: str = knob(
        "", "Device: auto, cpu, cuda, cuda:1, mps; else the settings', else a CUDA GPU or the CPU.", offered=DEVICES
    )
    precision: str = knob(
        "auto", "Numbers of the frozen backbone; auto is bf16 on CUDA, else fp32.", choices=PRECISIONS
    )
    weights: str = knob("", "File or folder with the backbone's weights; else the settings', else the backbone's own.")
    compile: bool = knob(False, "Compile the backbone with torch.compile: slow to start, faster in long runs.")
    checkpointing: bool = knob(
        False, "Recompute activations in the backward pass: less memory, about a third more time."
    )


def checked(config: C) -> C:
    """The config itself. Raises UsageError unless every number has its type, is finite and in its range."""
    for spec in dataclasses.fields(config):  # type: ignore[arg-type]
        value, kind = getattr(config, spec.name), typing.get_type_hints(type(config))[spec.name]
        numeric = (int, float) if kind is float else kind
        if not isinstance(value, numeric) or (isinstance(value, bool) and kind is not bool):
            raise UsageError(f"{spec.name} must be {_article(kind)}, got {value!r}")
        least, most = spec.metadata.get("least"), spec.metadata.get("most")
        if isinstance(value, float) and not abs(value) < float("inf"):
            raise UsageError(f"{spec.name} must be finite, got {value}")
        if least is not None and value < least:
            raise UsageError(f"{spec.name} must be at least {least}, got {value}")
        if most is not None and value > most:
            raise UsageError(f"{spec.name} must be at most {most}, got {value}")
        if (choices := spec.metadata.get("choices")) and value not in choices:
            raise UsageError(f"{spec.name} must be one of {', '.join(choices)}, got {value!r}")
        if isinstance(value, int | float) and not -(2**63) <= value <= 2**63:
            raise UsageError(f"{spec.name} has more than 64 bits, got {str(value)[:30]}")
    return config


def _article(kind: type) -> str:
    return {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}.get(kind, kind.__name__)


def from_mapping(kind: type[C], values: Mapping[str, Any], where: str) -> C:
    """A config from a TOML table; `where` names the table in errors."""
    names = [spec.name for spec in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            raise UnknownName.of(f"key in {where}", key, names)
    try:
        return checked(kind(**values))
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", error.hint) from None


def with_settings(config: C, text: str, where: str, example: str) -> C:
    """A config with what a member's name says, as `density=0.5/elect=total` of `ties:density=0.5/elect=total`.

    where: the family's name, for errors.  example: settings for their hint.  Raises UsageError, UnknownName, and what
    the config itself raises.
    """
    kinds = typing.get_type_hints(type(config))
    values = {spec.name: getattr(config, spec.name) for spec in dataclasses.fields(config)}  # type: ignore[arg-type]
    said: set[str] = set()
    for part in text.split("/"):
        key, _, value = part.partition("=")
        if not key or not value or key in said:
            raise UsageError(f"{where}: {part!r} is no setting", f"try {where}:{example}")
        if key not in values:
            raise UnknownName.of(f"setting of {where}", key, values)
        said.add(key)
        try:
            values[key] = kinds[key](value)
        except ValueError:
            raise UsageError(f"{where}: {key} must be a number, got {value!r}") from None
    return from_mapping(type(config), values, where)


def check_no_table(settings: Mapping[str, Any], where: str) -> None:
    """Raises Mismatch if a recipe gives settings to a generator whose name has them."""
    if settings:
        key, value = next(iter(sorted(settings.items())))
        raise Mismatch(
            f"generator {where!r} has no settings in a recipe, got {key!r}",
            f"name it with them, as in default_generator = '{where}:{key}={value}'",
        )


def options_of(
    kind: type, into: str = "config", without: Collection[str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a command with one option for each knob. The values arrive as one config in the argument `into`.

    without: knobs that mean nothing to the command, which keep their defaults.
    """
    specs = [spec for spec in dataclasses.fields(kind) if spec.name not in without]
    hints = typing.get_type_hints(kind)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            values = {spec.name: kwargs.pop(spec.name) for spec in specs}
            return function(*args, **{into: checked(kind(**values))}, **kwargs)

        decorated: Callable[..., Any] = wrapper
        for spec in reversed(specs):
            option, of = "--" + spec.name.replace("_", "-"), hints[spec.name]
            # An empty string as default tells a reader of the help nothing.
            has_default = bool(spec.default) if of in (str, bool) else True
            choices, offered = spec.metadata.get("choices"), spec.metadata.get("offered") or ()
            decorated = click.option(
                option,
                spec.name,
                is_flag=of is bool,
                type=None if of is bool else OneOf(spec.name, choices) if choices else of,
                default=spec.default,
                show_default=has_default,
                help=spec.metadata["help"],
                shell_complete=_beginning(offered) if offered else None,
            )(decorated)
        return decorated

    return decorate


def _beginning(names: Sequence[str]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    return lambda context, parameter, incomplete: [name for name in names if name.startswith(incomplete)]
