"""Merging rules as generators. All of them are settings of one algorithm and learn nothing from the training tasks.

Zero-shot, Model Soups, AdapterSoup and top-K are the paper's baselines (SG-LoRA, arXiv
2509.10535) and mix factors, as the paper does. The others merge updates, which their papers call
task vectors. Settings are the defaults of their papers or packages and were not tuned:

task-arithmetic  Ilharco et al. 2023; lambda .4, which the TIES paper uses without validation data
ties             Yadav et al. 2023; density .2, lambda 1
dare-*           Yu et al. 2024 search drop rates from .1 to .9; the middle is used here
knots            Stoica et al. 2024 with TIES inside (KnOTS-TIES); `knots:elect=none/prune=none` is KnOTS-TA,
                 which equals task arithmetic for a weighted sum
model-stock      Jang et al. 2024; the pretrained weight is an update of zero
lego             Zhao et al. 2024 (LoRA-LEGO), clusters units of A and B with a separate algorithm, see lego.py
lorahub, semla   weights from data of the unseen task instead of its sentence, see with_data.py
joint            this project's reference for a single adapter trained on all seen tasks together

`ties:space=factors/convention=peft` equals PEFT's `add_weighted_adapter` on A and B, and
`ties:convention=mergekit` equals mergekit on merged models. See rule.py for the settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sglora_cli.api import Experts, Material, check_no_table, hookimpl, with_settings

from .rule import LegoRule, Rule, SemlaRule
from .with_data import LoraHub, Semla

if TYPE_CHECKING:
    from torch import Tensor

    from .lego import Assembled
    from .merging import Merged

SGLORA_API = "1.0"


@dataclass(frozen=True)
class Merge:
    """A named merging rule."""

    name: str
    label: str
    summary: str
    rule: Rule | LegoRule
    learns: bool = False
    needs: str = ""
    config: None = None

    @property
    def draws(self) -> bool:
        return self.rule.draws

    def member(self, settings: str) -> Merge:
        """Return a variant of the rule, such as `ties:density=0.5`."""
        example = "experts=top" if isinstance(self.rule, LegoRule) else "density=0.5/convention=mergekit"
        rule = with_settings(self.rule, settings, self.name, example)
        name, label = f"{self.name}:{settings}", f"{self.label} ({settings.replace('/', ', ')})"
        return Merge(name, label, self.summary, rule)

    def fit(self, material: Material, settings: Mapping[str, Any]) -> tuple[Merged | Assembled, dict[str, Any]]:
        check_no_table(settings, self.name)
        return self.restore(material.experts, {"joint": material.joint_P}), {}

    def restore(self, experts: Experts, tensors: Mapping[str, Tensor]) -> Merged | Assembled:
        if isinstance(self.rule, LegoRule):
            from .lego import Assembled

            return Assembled(self.rule, experts)
        from .merging import Merged

        return Merged(self.rule, experts, tensors)


TRIM: dict[str, Any] = {"weights": "sum", "prune": "magnitude", "density": 0.2, "elect": "total"}
DROP: dict[str, Any] = {"weights": "sum", "prune": "random", "density": 0.5}
TOP: dict[str, Any] = {"experts": "top", "weights": "alpha"}


@hookimpl
def sglora_generators() -> list[Merge | LoraHub | Semla]:
    return [
        Merge("zero-shot", "Zero-shot", "the unchanged backbone", Rule(experts="none")),
        Merge("joint", "Joint", "one adapter trained on all seen tasks together", Rule(experts="joint")),
        Merge("nearest", "Nearest", "the expert with the most similar sentence", Rule(experts="nearest")),
        Merge("model-soups", "Model Soups", "uniform mean of all experts", Rule()),
        Merge("adapter-soup", "AdapterSoup", "uniform mean of the top K", Rule(experts="top")),
        Merge("top-k", "Top-K weighted", "mean of the top K weighted by similarity (mu* of Eq. 7)", Rule(**TOP)),
        Merge(
            "top-k-updates",
            "Top-K of updates",
            "top-k with updates instead of factors, exact up to the rank",
            Rule(**TOP, space="updates"),
        ),
        Merge(
            "task-arithmetic",
            "Task arithmetic",
            "sum of all experts' updates, scaled by 0.4",
            Rule(weights="sum", space="updates", scale=0.4),
        ),
        Merge(
            "ties",
            "TIES",
            "trim all experts' updates, elect signs, average agreeing values",
            Rule(**TRIM, space="updates"),
        ),
        Merge(
            "dare-linear",
            "DARE",
            "drop half of each update at random, sum, scale by 0.4",
            Rule(**DROP, space="updates", scale=0.4),
        ),
        Merge(
            "dare-ties",
            "DARE-TIES",
            "drop half of each update at random, then TIES",
            Rule(**DROP, space="updates", elect="total"),
        ),
        Merge("knots", "KnOTS-TIES", "TIES on updates aligned by one SVD per site", Rule(**TRIM, space="aligned")),
        Merge(
            "model-stock",
            "Model Stock",
            "mean of all experts' updates, shortened according to their angle",
            Rule(space="updates", ratio="angle"),
        ),
        Merge("lego", "LoRA-LEGO", "clusters the rank-one units of all experts, one unit per cluster", LegoRule()),
        LoraHub(),
        Semla(),
        Semla("semla-task", SemlaRule(per="task")),
    ]
