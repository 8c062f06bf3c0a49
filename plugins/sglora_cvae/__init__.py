"""SG-LoRA's generator: a conditional variational autoencoder with a learned prior.

SG-LoRA (arXiv 2509.10535), Eq. 9. Encoder q(z | X, c) and prior p(z | c) are two-layer MLPs, the
decoder (z, c) -> X is a three-layer MLP, all ReLU; loss = ||X - X^||^2 + lambda KL(q || p).

What the paper leaves open is chosen here, on training tasks only:
* numbers: B and A of an adapter are centred on the experts' mean and divided by their own root mean square,
  so that neither factor drowns the other in the squared error;
* condition: mu* in the same numbers, and the square root of sigma*^2 in the same unit.

With `projection` the networks see R coordinates of those numbers, in the span of the experts and the training tasks'
states; the squared error stays that of the P numbers, but for what lies outside of the span.

What is common to all tasks is most of an adapter, and tasks are few: the networks learn the common part first, and then
the few conditions by heart. Against both there are three settings, together `cvae-own`:
* common = "training": the mean of the training tasks' states is subtracted before the networks see an adapter, and
  added again; numbers are in units of what is left. Their conditions' mean is subtracted from conditions, too;
* sentence: the condition is {mu*, sigma*^2, d*};
* leave_out: states are also shown with priors that lack one of the nearest experts, as if it did not exist.

ICM-LoRA as a baseline is the same with another condition: it reproduces adapters of the tasks it learned, told which
by a task vector of their data, and nothing of the experts. An unseen task has no such vector; its sentence's embedding
d* takes the place, for which the method was not made.

Shapes: P numbers of an adapter, R coordinates, Z latent, B batch, S samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from sglora_cli.api import Experts, Material, UsageError, from_mapping, held_out_knob, hookimpl, knob

if TYPE_CHECKING:
    from torch import Tensor

    from sglora_cli.api import Layout

SGLORA_API = "1.0"


@dataclass(frozen=True)
class CvaeConfig:
    """Sizes and training of the CVAE."""

    hidden: int = knob(128, "Width of every hidden layer.", least=1, most=65536)
    latent: int = knob(32, "Z, width of the latent.", least=1, most=65536)
    epochs: int = knob(60, "Passes over the training tasks' states.", least=1, most=10**6)
    batch: int = knob(64, "States in a step.", least=1, most=10**6)
    learning_rate: float = knob(1e-3, "Peak learning rate of AdamW.", least=0)
    weight_decay: float = knob(1e-2, "Weight decay of AdamW.", least=0)
    kl_weight: float = knob(1.0, "lambda of Eq. 9.", least=0)
    projection: int = knob(
        0, "R, coordinates in the adapters' span that the networks see; 0: all numbers.", least=0, most=65536
    )
    held_out: int = held_out_knob()
    energy: float = knob(1.0, "Fewer coordinates if they hold this share of squared norm.", least=1e-6, most=1)
    common: str = knob(
        "experts",
        "Whose mean is subtracted from an adapter before the networks see it: experts, or training for the training "
        "tasks, whose mean condition is then subtracted, too.",
        choices=("experts", "training"),
    )
    sentence: bool = knob(False, "Whether the condition is {mu*, sigma*^2, d*}, or without d*.")
    leave_out: float = knob(
        0.0, "Share of the states shown with a prior that lacks one of its nearest experts.", least=0, most=1
    )


def _other(name: str, default: Any) -> Any:
    """The knob of that name with another default."""
    (known,) = (spec for spec in fields(CvaeConfig) if spec.name == name)
    return field(default=default, metadata=known.metadata)


@dataclass(frozen=True)
class OwnConfig(CvaeConfig):
    """The same, with other defaults: what is common to all tasks is kept apart."""

    projection: int = _other("projection", 64)
    common: str = _other("common", "training")
    sentence: bool = _other("sentence", True)
    leave_out: float = _other("leave_out", 0.5)


@dataclass(frozen=True)
class Cvae:
    """Trained and asked with the condition it is named for, all else alike."""

    name: str
    label: str
    summary: str
    condition: str
    """"prior": {mu*, sigma*^2}. "embedding": d*."""
    learns: bool = True
    draws: bool = True
    needs: str = ""
    config: type = CvaeConfig

    def fit(self, material: Material, settings: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        from .training import fit

        return fit(material, self._config(settings), self.condition)

    def cost(
        self, layout: Layout, tasks: int, states: int, settings: Mapping[str, Any], device: str = "cpu"
    ) -> dict[str, Any]:
        from .cost import cost

        config, told = self._config(settings), self.condition == "prior"
        # How wide an embedding is the layout does not say: the encoder's width stands for it.
        width = max(site.in_features for site in layout.sites) if config.sentence or not told else 0
        return cost(layout.size, tasks, states, config, width, told, device)

    def restore(self, experts: Experts, tensors: Mapping[str, Tensor]) -> Any:
        from .network import restore

        return restore(experts, tensors, self.condition)

    def _config(self, settings: Mapping[str, Any]) -> CvaeConfig:
        config: CvaeConfig = from_mapping(self.config, settings, f"generators.{self.name}")
        if self.condition == "embedding" and (config.sentence or config.leave_out):
            raise UsageError(
                f"generators.{self.name}: sentence and leave_out are of a condition that has the experts' prior",
                "remove them, or use [generators.cvae]",
            )
        return config


@hookimpl
def sglora_generators() -> list[Cvae]:
    sample = "SG-LoRA: a sample of the conditional variational autoencoder (Eq. 9)"
    closed = "CVAE asked by the task's embedding, made for the tasks it learned and asked by a sentence here"
    own = "SG-LoRA whose networks see what tasks do not have in common, and the sentence itself"
    return [
        Cvae("cvae", "SG-LoRA", sample, "prior"),
        Cvae("cvae-own", "SG-LoRA (own part)", own, "prior", config=OwnConfig),
        Cvae("icm-lora", "ICM-LoRA", closed, "embedding"),
    ]
