"""What tells one merging rule from another: every rule is these settings of one algorithm.

select experts -> weigh -> prune each -> elect signs -> combine -> interpolate -> scale, in one of three spaces.
Each setting is a knob of `NAME:setting=value/setting=value`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sglora_cli.api import Mismatch, UnknownName, knob

CHOICES = {
    "experts": ("all", "top", "nearest", "joint", "none"),
    "weights": ("mean", "sum", "alpha"),
    "space": ("factors", "updates", "aligned"),
    "prune": ("none", "magnitude", "random"),
    "elect": ("none", "total", "frequency"),
    "convention": ("peft", "mergekit"),
    "ratio": ("one", "angle"),
}


@dataclass(frozen=True)
class Rule:
    """A merging rule."""

    experts: str = knob("all", "Which adapters: all experts, the top K, the nearest, the joint adapter, none.")
    weights: str = knob("mean", "mean: 1/n each; sum: 1 each; alpha: by similarity (Eq. 6), for the top K.")
    space: str = knob("factors", "What is merged: factors A and B apart, updates B A, or aligned parts (KnOTS).")
    prune: str = knob("none", "What is dropped of each adapter: none, all but the largest (magnitude), or random.")
    density: float = knob(1.0, "Part of the numbers that stays; 1 drops nothing.", least=0, most=1)
    elect: str = knob("none", "Majority sign of each number: none, by total of the values, by frequency of the signs.")
    convention: str = knob("peft", "Arithmetic where packages disagree: peft or mergekit.")
    ratio: str = knob("one", "How far from no update to the merge: one, or by the angle of the updates (Model Stock).")
    scale: float = knob(1.0, "lambda, the factor on the merged update.")

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise UnknownName.of(f"{name} of a merging rule", str(getattr(self, name)), known)
        if self.weights == "alpha" and self.experts != "top":
            raise Mismatch(f"weights=alpha belong to experts=top, not to {self.experts!r}")
        if self.ratio == "angle" and self.space != "updates":
            raise Mismatch(f"ratio=angle is of updates, not of {self.space!r}", "add space=updates")

    @property
    def linear(self) -> bool:
        """Whether the merge is a weighted sum."""
        return self.elect == "none" and (self.prune == "none" or self.density >= 1)

    @property
    def draws(self) -> bool:
        """Whether samples differ: by what is dropped."""
        return self.prune == "random" and self.density < 1

    def mean(self) -> Rule:
        """The rule that drops nothing: what dropping and rescaling is on average, before signs are elected."""
        return replace(self, prune="none") if self.draws else self


@dataclass(frozen=True)
class LegoRule:
    """How LoRA-LEGO clusters units."""

    experts: str = knob("all", "Whose units are clustered: all experts, or the top K.", choices=("all", "top"))
    clusters: int = knob(0, "k, units of the merge at each site, compressed to the rank; 0: the rank.", least=0)
    norm: str = knob(
        "unit",
        "What gets the mean norm of its cluster: a centroid as a unit, its factors apart, or none.",
        choices=("unit", "factors", "none"),
    )

    @property
    def draws(self) -> bool:
        """Samples are all alike."""
        return False


@dataclass(frozen=True)
class HubRule:
    """How LoraHub's weights are searched."""

    shots: int = knob(5, "Pairs of the training split that are looked at; all, where a task has fewer.", least=2)
    steps: int = knob(40, "Generations of CMA-ES.", least=1)
    l1: float = knob(0.05, "Factor on the sum of the weights' sizes, which is added to the loss.", least=0)
    bound: float = knob(1.5, "No weight is larger than this.", least=1e-3)
    spread: float = knob(0.5, "Standard deviation of the first generation around no adapter at all.", least=1e-6)
    seed: int = knob(0, "Added to the seed of the draw, which chooses shots and steps.", least=0)


@dataclass(frozen=True)
class SemlaRule:
    """How SemLA weighs experts."""

    k: int = knob(5, "Experts that are mixed; all, where a pack has fewer.", least=1)
    tau: float = knob(0.05, "Temperature of the softmax over their similarities.", least=1e-6)
    per: str = knob("image", "One merge for each image, or one for the mean of a task's images: image or task.")

    def __post_init__(self) -> None:
        if self.per not in ("image", "task"):
            raise UnknownName.of("per of semla", self.per, ("image", "task"))
