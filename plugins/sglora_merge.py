"""Merging rules as generators: one class, one table. They learn nothing from the training tasks.

Zero-shot, Model Soups, AdapterSoup and top-K are the paper's baselines (SG-LoRA, arXiv
2509.10535); all mix factors, as the paper does. `joint` is this project's: what one adapter
trained on all seen tasks together is worth.

Shapes: E experts, K selected, P numbers of an adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sglora_cli.api import Experts, Material, Mismatch, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from sglora_cli.api import Prior

    Rule = Callable[[Experts, Prior, Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True)
class Merge:
    """A rule (experts, prior, extra tensors of the pack) -> one adapter (P,)."""

    name: str
    label: str
    summary: str
    rule: Rule
    learns: bool = False

    def fit(self, material: Material, settings: Mapping[str, Any]) -> tuple[Merged, dict[str, Any]]:
        if settings:
            raise Mismatch(f"generator {self.name!r} has no settings, got {sorted(settings)[0]!r}")
        return self.restore(material.experts, {"joint": material.joint_P}), {}

    def restore(self, experts: Experts, tensors: Mapping[str, Tensor]) -> Merged:
        return Merged(self, experts, tensors)


@dataclass(frozen=True)
class Merged:
    """A rule over one pack's experts. Deterministic: every sample is the same."""

    merge: Merge
    experts: Experts
    extra: Mapping[str, Tensor]

    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        return self.merge.rule(self.experts, prior, self.extra).expand(samples, -1).clone()

    def tensors(self) -> dict[str, Tensor]:
        return {}


def zero_shot(experts: Experts, prior: Prior, extra: Mapping[str, Tensor]) -> Tensor:
    import torch

    return torch.zeros_like(prior.mean_P)


def model_soups(experts: Experts, prior: Prior, extra: Mapping[str, Tensor]) -> Tensor:
    return experts.means().mean(dim=0)


def adapter_soup(experts: Experts, prior: Prior, extra: Mapping[str, Tensor]) -> Tensor:
    return experts.means(prior.rows).mean(dim=0)


def top_k(experts: Experts, prior: Prior, extra: Mapping[str, Tensor]) -> Tensor:
    return prior.mean_P


def joint(experts: Experts, prior: Prior, extra: Mapping[str, Tensor]) -> Tensor:
    if "joint" not in extra:
        raise Mismatch("this pack has no joint adapter", "build it again")
    return extra["joint"]


@hookimpl
def sglora_generators() -> list[Merge]:
    return [
        Merge("zero-shot", "Zero-shot", "no update at all: the backbone as it is", zero_shot),
        Merge("joint", "Joint", "one adapter trained on all seen tasks together", joint),
        Merge("model-soups", "Model Soups", "uniform mean of all experts", model_soups),
        Merge("adapter-soup", "AdapterSoup", "uniform mean of the top K", adapter_soup),
        Merge("top-k", "Top-K weighted", "mean of the top K by similarity: mu* of Eq. 7", top_k),
    ]
