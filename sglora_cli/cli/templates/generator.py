"""The generator `example`, the mean of the two experts with the closest sentences.

Shapes: E experts, S samples, P parameters of an adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sglora_cli.api import Experts, Material, Mismatch, hookimpl

if TYPE_CHECKING:  # torch takes seconds to load, so not while listing plugins
    from sglora_cli.api import Prior
    from torch import Tensor

SGLORA_API = "1.0"
"""Version of the plugin API this is written for. sglora reports an incompatible version."""


class NearestTwo:
    """The generator with the experts of a pack."""

    def __init__(self, experts: Experts) -> None:
        self.experts = experts

    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        """Return (S, P). All samples are equal, because nothing is drawn. `prior.similarity_E` compares the experts."""
        rows: list[int] = prior.similarity_E.topk(min(2, len(prior.similarity_E))).indices.tolist()
        return self.experts.means(rows).mean(dim=0).expand(samples, -1).clone()

    def tensors(self) -> dict[str, Tensor]:
        """Return what it has learned, to store in the pack. This generator learns nothing."""
        return {}


class Example:
    """The generator that `sglora plugins list` shows.

    A generator that learns sets `learns = True` and returns what it learned from `tensors`. If samples differ, `draws`
    is True. A generator that needs data of the unseen task sets `needs` to "shots" or "images". One with settings in a
    recipe sets `config` to their dataclass.
    """

    name = "example"
    summary = "the mean of the two nearest experts"
    label = "Example"
    learns = False
    draws = False
    needs = ""
    config = None

    def fit(self, material: Material, settings: Mapping[str, Any]) -> tuple[NearestTwo, dict[str, Any]]:
        """Fit to the training tasks. `material.states(t)` are the adapters (M, P) of task t.

        settings: the generator's table in a recipe.  Also returns measurements for the pack's manifest.
        """
        if settings:
            raise Mismatch(f"generator {self.name!r} has no settings, got {min(settings)!r}")
        return self.restore(material.experts, {}), {}

    def restore(self, experts: Experts, tensors: Mapping[str, Tensor]) -> NearestTwo:
        """Restore what `fit` returned."""
        return NearestTwo(experts)


@hookimpl
def sglora_generators() -> list[Example]:
    return [Example()]
