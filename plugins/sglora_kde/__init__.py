"""Kernel density estimation over adapters: a draw is one of the training tasks' states, and noise.

Schürholt et al. 2022, "Hyper-representations as generative models" (arXiv 2209.14733), draw networks so. Coordinates
of all trained networks, or of the best 30 %, are smoothed by Gaussian kernels, each coordinate apart from the others,
and a new network has coordinates drawn from these densities. An adapter's coordinates are R numbers in the span of the
experts and of the training tasks' states.

`kde` is that, and knows no sentence. `kde-sentence` (ours) gives the states of training task t the weight

    w_t = softmax_t cos(d*, d_t) / tau,

as Eq. 6 of SG-LoRA does for experts, and draws all coordinates from one state (`together`): those of different tasks
do not mix. At temperature 0 it is the weighted mean: kernel regression (Nadaraya and Watson 1964).

| what | source | here | why |
|---|---|---|---|
| coordinates | of an autoencoder, in [-1, 1] | linear, at most 128 | exact on the span; few states |
| bandwidth | 0.002 | Scott's rule (1992) in one coordinate | 0.002 belongs to the source's coordinates |
| variance | grows by the kernels' | that of the states (Silverman and Young 1987) | Scott's kernels are wide |
| states | all, or the best 30 % | all, or the `best` share of each task's | the best of all are of easy tasks |

Shapes: T training tasks, M states of a task, N = T M states, R coordinates, P numbers of an adapter, S samples.
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
    """Coordinates and kernels."""

    projection: int = knob(128, "R, coordinates in the adapters' span at most.", least=1, most=65536)
    energy: float = knob(1.0, "Fewer coordinates if they hold this share of squared norm.", least=1e-6, most=1)
    bandwidth: float = knob(1.0, "Width of a kernel, in that of Scott's rule; 0: states themselves.", least=0, most=100)
    best: float = knob(1.0, "Share of each task's states that is used, those of best recall.", least=0.0, most=1)
    held_out: int = held_out_knob()


@dataclass(frozen=True)
class KdeSentenceConfig(KdeConfig):
    """The same, and how near a task must be."""

    tau: float = knob(0.05, "Temperature of the tasks' weights.", least=1e-6, most=1e6)


@dataclass(frozen=True)
class Kde:
    """A named form of it."""

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
        # How wide an embedding is the layout does not say: the encoder's width stands for it.
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
    every = "draws from a kernel density of the training tasks' adapters; ignores the sentence"
    near = "the same, with tasks weighted by how near their sentences are"
    return [Kde("kde", "KDE", every, KdeConfig), Kde("kde-sentence", "KDE (sentence)", near, KdeSentenceConfig)]
