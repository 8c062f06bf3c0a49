"""Kernel density estimation over adapters: a sample is a training task's state plus noise.

Schürholt et al. 2022, "Hyper-representations as generative models" (arXiv 2209.14733), generate networks this way.
Gaussian kernels smooth each coordinate of all trained networks, or of the best 30 %, separately, and the coordinates of
a new network are sampled from these densities. Here an adapter's coordinates are R values in the span of the experts
and of the training tasks' states.

`kde` implements this and ignores the sentence. `kde-sentence` (this project's) gives the states of training task t the
weight

    w_t = softmax_t cos(d*, d_t) / tau,

as Eq. 6 of SG-LoRA does for experts. It samples all coordinates from the same state (`together`), so that different
tasks are not mixed. At temperature 0 it is the weighted mean, which is kernel regression (Nadaraya and Watson 1964).

| what | source | here | reason |
|---|---|---|---|
| coordinates | of an autoencoder, in [-1, 1] | linear, at most 128 | exact on the span; few states |
| bandwidth | 0.002 | Scott's rule (1992) in one dimension | 0.002 depends on the source's coordinates |
| variance | increased by the kernels | that of the states (Silverman and Young 1987) | Scott's kernels are wide |
| states | all, or the best 30 % | all, or each task's `best` share | the overall best are from easy tasks |

Shapes: T training tasks, M states of a task, N = T M states, R coordinates, P parameters of an adapter, S samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sglora_cli.api import Experts, Material, from_mapping, held_out_knob, hookimpl, knob

if TYPE_CHECKING:
    from torch import Tensor

    from sglora_cli.api import Layout

SGLORA_API = "1.0"


@dataclass(frozen=True)
class KdeConfig:
    """Settings of `kde` in a recipe."""

    projection: int = knob(128, "Largest number R of coordinates in the adapters' span.", least=1, most=65536)
    energy: float = knob(1.0, "Share of squared norm at which fewer coordinates suffice.", least=1e-6, most=1)
    bandwidth: float = knob(1.0, "Kernel width relative to Scott's rule. 0 means no noise.", least=0, most=100)
    best: float = knob(1.0, "Share of each task's states to use, those of best recall.", least=0.0, most=1)
    held_out: int = held_out_knob()


@dataclass(frozen=True)
class KdeSentenceConfig(KdeConfig):
    """Settings of `kde-sentence` in a recipe."""

    tau: float = knob(0.05, "Temperature of the tasks' weights.", least=1e-6, most=1e6)


@dataclass(frozen=True)
class Kde:
    """A named variant of the method."""

    name: str
    label: str
    summary: str
    config: type[KdeConfig]
    learns: bool = True
    draws: bool = True
    needs: str = ""

    def fit(self, material: Material, settings: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        from .density import fit

        return fit(material, self._config(settings))

    def cost(
        self, layout: Layout, tasks: int, states: int, settings: Mapping[str, Any], device: str = "cpu"
    ) -> dict[str, Any]:
        from sglora_cli.api import projection_cost, reading_seconds

        rank, count = min(self._config(settings).projection, layout.size), tasks * states
        numbers, seconds, stored = projection_cost(layout.size, rank, count)
        # The width of an embedding is unknown here. The encoder's width is used instead.
        own = count * rank + tasks * max(site.in_features for site in layout.sites)
        seconds += reading_seconds(layout.size, count)
        stored += 8 * layout.size + 4 * own
        return {"parameters": own, "bytes": 4 * (numbers + own), "seconds": seconds, "stored_bytes": stored}

    def restore(self, experts: Experts, tensors: Mapping[str, Tensor]) -> Any:
        from .density import restore

        return restore(experts, tensors)

    def _config(self, settings: Mapping[str, Any]) -> KdeConfig:
        return from_mapping(self.config, settings, f"generators.{self.name}")


@hookimpl
def sglora_generators() -> list[Kde]:
    every = "samples a kernel density of the training tasks' adapters, ignoring the sentence"
    near = "samples a kernel density weighted by the similarity of sentences"
    return [Kde("kde", "KDE", every, KdeConfig), Kde("kde-sentence", "KDE (sentence)", near, KdeSentenceConfig)]
