"""SG-LoRA's generator: a conditional variational autoencoder with a learned prior.

SG-LoRA (arXiv 2509.10535), Eq. 9. Encoder q(z | X, c) and prior p(z | c) are two-layer MLPs, the
decoder (z, c) -> X is a three-layer MLP, all ReLU; loss = ||X - X^||^2 + lambda KL(q || p).

The paper leaves the following open. It was chosen using training tasks only:
* numbers: B and A of an adapter are centred on the experts' mean and divided by their own root mean square,
  so that neither factor dominates the squared error;
* condition: mu* in the same scaled numbers, and the square root of sigma*^2 in the same unit.

With `projection`, the networks see R coordinates of these numbers in the span of the experts and the training tasks'
states. The squared error is still that of the P parameters, except for the part outside the span.

Most of an adapter is common to all tasks, and there are few tasks. The networks first learn the common part and then
memorise the few conditions. Three settings counter this, together in `cvae-own`:
* common = "training": the mean of the training tasks' states is subtracted before the networks see an adapter and
  added back afterwards, and numbers are in units of the remainder. The mean condition is subtracted from conditions;
* sentence: the condition is {mu*, sigma*^2, d*};
* leave_out: some states are shown with priors that lack one of the nearest experts, as if it did not exist.

The baseline ICM-LoRA is the same with another condition. It reproduces adapters of the tasks it was trained on,
identified by a task vector of their data, and uses no experts. An unseen task has no such vector, so the embedding d*
of its sentence replaces it. The method was not designed for this.

Shapes: P parameters of an adapter, R coordinates, Z latent, B batch, S samples.
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
    """Settings of `cvae` in a recipe."""

    hidden: int = knob(128, "Width of every hidden layer.", least=1, most=65536)
    latent: int = knob(32, "Width Z of the latent.", least=1, most=65536)
    epochs: int = knob(60, "Passes over the training tasks' states.", least=1, most=10**6)
    batch: int = knob(64, "States per step.", least=1, most=10**6)
    learning_rate: float = knob(1e-3, "Peak learning rate of AdamW.", least=0)
    weight_decay: float = knob(1e-2, "Weight decay of AdamW.", least=0)
    kl_weight: float = knob(1.0, "Weight of the KL term (lambda of Eq. 9).", least=0)
    projection: int = knob(
        0, "Number R of coordinates that the networks see. 0 means all parameters.", least=0, most=65536
    )
    held_out: int = held_out_knob()
    energy: float = knob(1.0, "Share of squared norm at which fewer coordinates suffice.", least=1e-6, most=1)
    common: str = knob(
        "experts",
        "Mean to subtract from an adapter before the networks see it: experts or training (tasks). With training, the "
        "mean condition is subtracted, too.",
        choices=("experts", "training"),
    )
    sentence: bool = knob(False, "Include d* in the condition {mu*, sigma*^2}.")
    leave_out: float = knob(
        0.0, "Share of states shown with a prior that lacks one of its nearest experts.", least=0, most=1
    )


def _other(name: str, default: Any) -> Any:
    """Return the setting of that name with another default."""
    (known,) = (spec for spec in fields(CvaeConfig) if spec.name == name)
    return field(default=default, metadata=known.metadata)


@dataclass(frozen=True)
class OwnConfig(CvaeConfig):
    """Settings of `cvae-own`, with defaults that separate what is common to all tasks."""

    projection: int = _other("projection", 64)
    common: str = _other("common", "training")
    sentence: bool = _other("sentence", True)
    leave_out: float = _other("leave_out", 0.5)


@dataclass(frozen=True)
class Cvae:
    """A CVAE trained and used with one kind of condition."""

    name: str
    label: str
    summary: str
    condition: str
    """"prior" for {mu*, sigma*^2}, "embedding" for d*."""
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
        # The width of an embedding is unknown here. The encoder's width is used instead.
        width = max(site.in_features for site in layout.sites) if config.sentence or not told else 0
        return cost(layout.size, tasks, states, config, width, told, device)

    def restore(self, experts: Experts, tensors: Mapping[str, Tensor]) -> Any:
        from .network import restore

        return restore(experts, tensors, self.condition)

    def _config(self, settings: Mapping[str, Any]) -> CvaeConfig:
        config: CvaeConfig = from_mapping(self.config, settings, f"generators.{self.name}")
        if self.condition == "embedding" and (config.sentence or config.leave_out):
            raise UsageError(
                f"generators.{self.name}: sentence and leave_out need a condition with the experts' prior",
                "remove them, or use [generators.cvae]",
            )
        return config


@hookimpl
def sglora_generators() -> list[Cvae]:
    sample = "SG-LoRA: samples a conditional variational autoencoder (Eq. 9)"
    closed = "CVAE conditioned on the sentence's embedding instead of a task vector"
    own = "SG-LoRA on the task-specific part of adapters, also conditioned on the sentence"
    return [
        Cvae("cvae", "SG-LoRA", sample, "prior"),
        Cvae("cvae-own", "SG-LoRA (own part)", own, "prior", config=OwnConfig),
        Cvae("icm-lora", "ICM-LoRA", closed, "embedding"),
    ]
