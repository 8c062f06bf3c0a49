"""Every number and every closed list of names that a user can set, defined once.

Options, TOML keys, help and completion are derived from them.
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
"""Upper limit for counts of epochs, photos and tasks. A larger number, such as 10**12, is a typo."""


ADAPTER_FORMATS = {
    "safetensors": "sglora's own single-file format: a PEFT state with its provenance",
    "peft": "folder for PEFT on CLIPModel and CLIPVisionModelWithProjection",
    "peft-flat": "folder for PEFT on CLIPVisionModel of transformers 5",
    "open_clip": "checkpoint of the backbone with the update merged in",
    "clip-lora": "CLIP-LoRA file",
}
TASK_TABLES = {
    "all": "all tasks",
    "in": "tasks of the data sets that the experts come from",
    "cross": "tasks of other data sets",
    "flickr": "tasks of Flickr30K",
    "retrieval": "retrieval tasks",
    "classification": "classification tasks",
}
"""Names for `bench --table` and the tasks that each selects."""
ABLATIONS = {
    "ablation-k": "the number of experts in the prior",
    "ablation-tau": "the temperature of the experts' weights",
    "ablation-space": "the space in which the sentence is compared with the experts'",
    "ablation-samples": "one draw, the most likely of n, or the mean of n",
    "ablation-description": "the template, or sentences from a file",
    "ablation-expert": "the nearest expert of each task left out",
    "ablation-condition": "the task's sentence, or the embedding of its own training photos",
}
"""More names for `bench --table` and what each varies. They use all tasks."""
SPACES = {
    "embedding": "the image-text embedding f(T) of Eq. 6",
    "centred": "that embedding minus the experts' mean",
    "meaning": "the backbone's own sentence encoder, or f(T) if it has none",
}
"""Spaces in which a sentence is compared with those of the experts."""
SPACES_HELP = ", ".join(f"{name} ({what})" for name, what in SPACES.items())
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
DEVICES = ("auto", "cpu", "cuda", "mps")
"""Devices that shell completion offers. The list is not closed. For example, cuda:1 is also a device."""


class OneOf(click.Choice[str]):
    """Option type: one name from a closed list, or "" for none.

    Unlike click.Choice, it raises UnknownName, whose hint is the closest name.
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
    """Define a dataclass field with its default and help.

    least, most: range of a number, both ends included.  choices: closed list of strings.
    offered: strings that shell completion suggests, out of many valid ones.
    """
    metadata = {"help": help, "least": least, "most": most, "choices": choices, "offered": offered}
    return field(default=default, metadata=metadata)


def held_out_knob() -> Any:
    """Define `held_out`, the key in a learned generator's table for its score on held-out tasks."""
    return knob(0, "Folds of training tasks to score it on, refitted without them; 0 disables it.", least=0, most=1000)


@dataclass(frozen=True)
class LoraConfig:
    """Shape of every adapter in a pack."""

    rank: int = knob(2, "Rank r of each update B A.", least=1, most=4096)
    alpha: float = knob(2.0, "LoRA alpha. The update is scaled by alpha / rank.", least=1e-6, most=1e6)


@dataclass(frozen=True)
class TrainConfig:
    """How tasks' adapters are trained. The same values apply to all tasks (see `sglora docs method`, section 1)."""

    epochs: int = knob(120, "Passes over a task's photos.", least=1, most=MANY)
    states: int = knob(40, "M, number of last epochs whose adapters are stored.", least=1, most=MANY)
    batch: int = knob(32, "Photos of one task per step.", least=2, most=MANY)
    learning_rate: float = knob(1e-3, "Learning rate of Adam.", least=0, most=1e3)
    weight_decay: float = knob(0.0, "Decoupled weight decay.", least=0, most=1e3)
    warmup_epochs: int = knob(
        0,
        "Passes over all experts' photos together before each task starts from the result; 0 disables the warm-up.",
        least=0,
        most=MANY,
    )
    joint_epochs: int = knob(30, "Passes over the photos of all seen tasks for the joint adapter.", least=1, most=MANY)
    joint_learning_rate: float = knob(
        1e-3,
        "Learning rate of Adam when tasks train one adapter together, for the warm-up and the joint adapter.",
        least=0,
        most=1e3,
    )
    tasks_at_once: int = knob(
        16,
        "Tasks per batched step. For the tasks' own adapters it affects speed and memory, not results.",
        least=1,
        most=MANY,
    )
    seed: int = knob(0, "Seed of the shared initialisation and of each task's batches.", least=-(2**63), most=2**63 - 1)
    mirror: float = knob(
        0.0,
        "Share of photos to mirror in each step, with left and right swapped in their captions.",
        least=0,
        most=1,
    )
    hide: float = knob(
        0.0,
        "Share of each photo's tokens to hide, redrawn in every training step to reduce overfitting.",
        least=0,
        most=0.9,
    )


@dataclass(frozen=True)
class PriorConfig:
    """How a sentence becomes a prior over adapters (Eq. 6-8)."""

    k: int = knob(4, "K, number of experts in the prior.", least=1, most=MANY)
    tau: float = knob(0.05, "Temperature of the softmax over the experts' similarities.", least=1e-6, most=1e6)
    space: str = knob(
        "embedding",
        f"Space in which the sentence is compared with the experts' sentences: {SPACES_HELP}.",
        choices=tuple(SPACES),
    )


@dataclass(frozen=True)
class PhraseConfig:
    """Which phrases in captions also become seen tasks. The table's `from_captions` is a list of sources."""

    least_photos: int = knob(12, "Minimum number of photos per phrase.", least=4, most=MANY)
    largest_share: float = knob(
        0.15, "Maximum share of all photos; a more common phrase says too little.", least=0, most=1
    )
    most: int = knob(1000, "Maximum number of phrases; those with the most photos are used.", least=1, most=MANY)


@dataclass(frozen=True)
class GenerateConfig:
    """How adapters are drawn from a generator."""

    samples: int = knob(1, "Number of adapters to draw.", least=1, most=1000)
    seed: int = knob(0, "Seed of the draw. The same seed produces identical files.", least=0, most=2**63 - 1)
    temperature: float = knob(1.0, "Spread of the draw; 0 makes all samples equal.", least=0, most=10)
    best: int = knob(0, "Keep only this many samples, the most likely ones under the prior; 0 keeps all.", least=0)


@dataclass(frozen=True)
class BenchConfig:
    """How methods are measured."""

    samples: int = knob(
        5, "Adapters to draw per task from a generator that samples; recall is averaged over them.", least=1
    )
    seed: int = knob(0, "Seed of the draws and of the bootstrap.", least=0)
    seeds: int = knob(1, "Number of seeds for the draws, starting at --seed.", least=1)
    temperature: float = knob(1.0, "Spread of the draws.", least=0)
    wrong_sentences: int = knob(
        5,
        "Also measure each method with this many sentences of other tasks, to see if the sentence matters. 0 for none.",
        least=0,
    )
    resamples: int = knob(2000, "Bootstrap resamples over tasks, queries, seeds and samples.", least=100)


@dataclass(frozen=True)
class SearchConfig:
    """How a query is assembled (see `sglora_cli/search/query.py`)."""

    strength: float = knob(
        0.5, "Share of the --within direction to remove from the query; 1 removes all of it.", least=0, most=1
    )


@dataclass(frozen=True)
class CheckConfig:
    """What `data check` reports about a data set."""

    distance: int = knob(
        4,
        "Maximum number of differing bits (of 64) in the perceptual hashes of near-identical images.",
        least=0,
        most=8,
    )
    pixels: int = knob(32, "Report images whose shorter side has fewer pixels.", least=1)
    words: int = knob(60, "Report captions with more words if tokens cannot be counted.", least=1)
    k: int = knob(10, "Report tasks with at most this many test images. Recall at K needs more than K.", least=1)


@dataclass(frozen=True)
class CaptionConfig:
    """How a captioner is prompted and which of its captions are accepted."""

    captions: int = knob(4, "Captions per image.", least=1, most=100)
    retries: int = knob(3, "Retries per image for rejected captions, each with another seed.", least=0)
    fewest_words: int = knob(3, "Reject captions with fewer words.", least=1)
    words: int = knob(60, "Warn about captions with more words, because text encoders truncate long ones.", least=1)
    seed: int = knob(0, "Seed of the samples. Each image's own seed does not depend on the images before it.", least=0)


@dataclass(frozen=True)
class RuntimeConfig:
    """Where and how a backbone computes. It affects speed, memory and the last digits, not the method."""

    device: str = knob(
        "",
        "Device: auto, cpu, cuda, cuda:1 or mps. Default: the setting `device`, else a CUDA GPU, else the CPU.",
        offered=DEVICES,
    )
    precision: str = knob(
        "auto", "Number format of the frozen backbone; auto is bf16 on CUDA, else fp32.", choices=PRECISIONS
    )
    weights: str = knob(
        "", "File or folder with the backbone's weights. Default: the setting `weights`, else the backbone's own."
    )
    compile: bool = knob(False, "Compile the backbone with torch.compile. Startup is slower, long runs are faster.")
    checkpointing: bool = knob(
        False,
        "Recompute activations in the backward pass to save memory. Takes 1.4 to more than 2 times as long.",
    )


@dataclass(frozen=True)
class StepConfig:
    """Resources of one step of a build or measurement. They affect speed and the last digits, not the method."""

    cpus_per_step: int = knob(
        0,
        "CPU cores and threads per step; 0 is all cores in this process and one core on other executors. "
        "Results are identical only with the same number of threads.",
        least=0,
        most=4096,
    )
    gpus_per_step: float = knob(
        0.0,
        "GPUs per step on other executors, such as 0.25 for four steps per GPU; 0 is one if the device is a GPU.",
        least=0,
        most=64,
    )
    memory_per_step: float = knob(
        0.0, "GB of memory to reserve per step on other executors; 0 reserves none.", least=0, most=MANY
    )

    def over(self, other: StepConfig) -> StepConfig:
        """Return these values, and where they are 0 those of `other`."""
        names = [spec.name for spec in dataclasses.fields(self)]
        return StepConfig(**{name: getattr(self, name) or getattr(other, name) for name in names})


def checked(config: C) -> C:
    """Return the config. Raises UsageError unless every value has its type and every number is finite and in range."""
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
    return {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}.get(kind, kind.__name__)


def from_mapping(kind: type[C], values: Mapping[str, Any], where: str) -> C:
    """Create a config from a TOML table. `where` names the table in errors."""
    names = [spec.name for spec in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            raise UnknownName.of(f"key in {where}", key, names)
    try:
        return checked(kind(**values))
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", error.hint) from None


def with_settings(config: C, text: str, where: str, example: str) -> C:
    """Return the config with the settings in a member's name, such as `ties:density=0.5/elect=total`.

    text: the part after ":".  where: name of the family, for errors.  example: settings for the hint.
    Raises UsageError, UnknownName and whatever the config itself raises.
    """
    kinds = typing.get_type_hints(type(config))
    values = {spec.name: getattr(config, spec.name) for spec in dataclasses.fields(config)}  # type: ignore[arg-type]
    said: set[str] = set()
    for part in text.split("/"):
        key, _, value = part.partition("=")
        if not key or not value or key in said:
            raise UsageError(f"{where}: {part!r} is not a setting", f"try {where}:{example}")
        if key not in values:
            raise UnknownName.of(f"setting of {where}", key, values)
        said.add(key)
        try:
            values[key] = kinds[key](value)
        except ValueError:
            raise UsageError(f"{where}: {key} must be a number, got {value!r}") from None
    return from_mapping(type(config), values, where)


def check_no_table(settings: Mapping[str, Any], where: str) -> None:
    """Raise Mismatch if a recipe has settings for a generator whose settings are part of its name."""
    if settings:
        key, value = next(iter(sorted(settings.items())))
        raise Mismatch(
            f"generator {where!r} has no settings in a recipe, got {key!r}",
            f"write them into its name, as in default_generator = '{where}:{key}={value}'",
        )


def options_of(
    kind: type, into: str = "config", without: Collection[str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a command with one option per knob. The values arrive as one config in the argument `into`.

    without: knobs that do not apply to the command and keep their defaults.
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
            # "[default: ]" in the help would tell the reader nothing
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
