"""The settings of the merging algorithm. Every merging rule is one choice of them.

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
    """Settings of a merging rule."""

    experts: str = knob("all", "Adapters to merge: all, top (K), nearest, joint or none.")
    weights: str = knob("mean", "mean (1/n each), sum (1 each) or alpha (by similarity, Eq. 6, for the top K).")
    space: str = knob("factors", "What is merged: factors (A and B separately), updates (B A) or aligned (KnOTS).")
    prune: str = knob("none", "Numbers dropped from each adapter: none, magnitude (keep the largest) or random.")
    density: float = knob(1.0, "Share of values to keep.", least=0, most=1)
    elect: str = knob("none", "Majority sign of each value: none, total (of values) or frequency (of signs).")
    convention: str = knob("peft", "Package to follow where they differ: peft or mergekit.")
    ratio: str = knob("one", "Interpolation from no update to the merge: one or angle (Model Stock).")
    scale: float = knob(1.0, "Factor on the merged update (lambda).")

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise UnknownName.of(f"{name} of a merging rule", str(getattr(self, name)), known)
        if self.weights == "alpha" and self.experts != "top":
            raise Mismatch(f"weights=alpha requires experts=top, got {self.experts!r}")
        if self.ratio == "angle" and self.space != "updates":
            raise Mismatch(f"ratio=angle requires space=updates, got {self.space!r}", "add space=updates")

    @property
    def linear(self) -> bool:
        """Whether the merge is a weighted sum of adapters."""
        return self.elect == "none" and (self.prune == "none" or self.density >= 1)

    @property
    def draws(self) -> bool:
        """Whether samples differ, because of random drops."""
        return self.prune == "random" and self.density < 1

    def mean(self) -> Rule:
        """Return the rule without drops, the expectation of dropping and rescaling before signs are elected."""
        return replace(self, prune="none") if self.draws else self


@dataclass(frozen=True)
class LegoRule:
    """Settings for clustering the units in LoRA-LEGO."""

    experts: str = knob("all", "Experts whose units are clustered: all or top (K).", choices=("all", "top"))
    clusters: int = knob(0, "Number of clusters k per site, later compressed to the rank. 0 means the rank.", least=0)
    norm: str = knob(
        "unit",
        "What gets its cluster's mean norm: unit (centroids), factors (a and b separately) or none.",
        choices=("unit", "factors", "none"),
    )

    @property
    def draws(self) -> bool:
        """Always false: all samples are equal."""
        return False


@dataclass(frozen=True)
class HubRule:
    """Settings for LoraHub's search of weights."""

    shots: int = knob(5, "Training pairs to use, or all if a task has fewer.", least=2)
    steps: int = knob(40, "Generations of CMA-ES.", least=1)
    l1: float = knob(0.05, "Factor on the sum of absolute weights, added to the loss.", least=0)
    bound: float = knob(1.5, "Largest absolute weight.", least=1e-3)
    spread: float = knob(0.5, "Standard deviation of the first generation around zero.", least=1e-6)
    seed: int = knob(0, "Added to the sample's seed, which selects shots and search steps.", least=0)


@dataclass(frozen=True)
class SemlaRule:
    """Settings for SemLA's weights of experts."""

    k: int = knob(5, "Experts to mix, or all if a pack has fewer.", least=1)
    tau: float = knob(0.05, "Temperature of the softmax over their similarities.", least=1e-6)
    per: str = knob("image", "image for one merge per image, task for one merge with the mean of a task's images.")

    def __post_init__(self) -> None:
        if self.per not in ("image", "task"):
            raise UnknownName.of("per of semla", self.per, ("image", "task"))
