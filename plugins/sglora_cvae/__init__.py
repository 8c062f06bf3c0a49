"""SG-LoRA's generator: a conditional variational autoencoder with a learned prior.

SG-LoRA (arXiv 2509.10535), Eq. 9. Encoder q(z | X, c) and prior p(z | c) are two-layer MLPs, the
decoder (z, c) -> X is a three-layer MLP, all ReLU; loss = ||X - X^||^2 + lambda KL(q || p).

What the paper leaves open is chosen here, on training tasks only:
* numbers: B and A of an adapter are centred on the experts' mean and divided by their own root mean square,
  so that neither factor drowns the other in the squared error;
* condition: mu* in the same numbers, and the square root of sigma*^2 in the same unit.

With `projection` the networks see R coordinates of those numbers, in the span of the experts and the training tasks'
states; the squared error stays that of the P numbers, but for what lies outside of the span.

ICM-LoRA as a baseline is the same with another condition: it reproduces adapters of the tasks it learned, told which
by a task vector of their data, and nothing of the experts. An unseen task has no such vector; its sentence's embedding
d* takes the place, for which the method was not made.

Shapes: P numbers of an adapter, R coordinates, Z latent, B batch, S samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sglora_cli.api import Experts, Material, from_mapping, hookimpl, knob

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
    held_out: int = knob(
        0, "Folds of training tasks on which it is scored, fitted without them; 0: not.", least=0, most=1000
    )
    energy: float = knob(1.0, "Fewer coordinates if they hold this share of squared norm.", least=1e-6, most=1)


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
        from .network import fit

        return fit(material, self._config(settings), self.condition)

    def cost(
        self, layout: Layout, tasks: int, states: int, settings: Mapping[str, Any], device: str = "cpu"
    ) -> dict[str, Any]:
        from .cost import cost

        # How wide an embedding is the layout does not say: the encoder's width stands for it.
        width = max(site.in_features for site in layout.sites) if self.condition == "embedding" else 0
        return cost(layout.size, tasks, states, self._config(settings), width, device)

    def restore(self, experts: Experts, tensors: Mapping[str, Tensor]) -> Any:
        from .network import restore

        return restore(experts, tensors, self.condition)

    def _config(self, settings: Mapping[str, Any]) -> CvaeConfig:
        return from_mapping(CvaeConfig, settings, f"generators.{self.name}")


@hookimpl
def sglora_generators() -> list[Cvae]:
    sample = "SG-LoRA: a sample of the conditional variational autoencoder (Eq. 9)"
    closed = "CVAE asked by the task's embedding, made for the tasks it learned and asked by a sentence here"
    return [Cvae("cvae", "SG-LoRA", sample, "prior"), Cvae("icm-lora", "ICM-LoRA", closed, "embedding")]
