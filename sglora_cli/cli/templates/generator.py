"""The generator `example`: the mean of the two experts whose sentences are closest.

Shapes: E experts, S samples, P numbers of an adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sglora_cli.api import Experts, Material, Mismatch, hookimpl

if TYPE_CHECKING:  # torch takes seconds to load: not while plugins are only listed
    from sglora_cli.api import Prior
    from torch import Tensor

SGLORA_API = "1.0"
"""The plugin API this is written for; sglora says so where it does not fit."""


class NearestTwo:
    """The generator, ready to be asked: with the experts of a pack."""

    def __init__(self, experts: Experts) -> None:
        self.experts = experts

    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        """(S, P): all samples alike, for nothing is drawn. `prior.similarity_E` says how close the experts are."""
        rows: list[int] = prior.similarity_E.topk(min(2, len(prior.similarity_E))).indices.tolist()
        return self.experts.means(rows).mean(dim=0).expand(samples, -1).clone()

    def tensors(self) -> dict[str, Tensor]:
        """What it has learned, to be kept in the pack: nothing."""
        return {}


class Example:
    """What sglora lists.

    One that learns says `learns = True` and gives what it learned in `tensors`. If samples differ, `draws` is True. A
    generator that must see data of the unseen task says `needs = "shots"` or "images", and one that has settings in a
    recipe names their dataclass in `config`.
    """

    name = "example"
    summary = "the mean of the two nearest experts"
    label = "Example"
    learns = False
    draws = False
    needs = ""
    config = None

    def fit(self, material: Material, settings: Mapping[str, Any]) -> tuple[NearestTwo, dict[str, Any]]:
        """Where it would learn from the training tasks: `material.states(t)` are the adapters (M, P) of task t.

        `settings` is its table in a recipe. Also returns measurements, for the pack's manifest.
        """
        if settings:
            raise Mismatch(f"generator {self.name!r} has no settings, got {min(settings)!r}")
        return self.restore(material.experts, {}), {}

    def restore(self, experts: Experts, tensors: Mapping[str, Tensor]) -> NearestTwo:
        """As `fit` left it."""
        return NearestTwo(experts)


@hookimpl
def sglora_generators() -> list[Example]:
    return [Example()]
