"""Merging rules that use data of the unseen task. The label of their table row names this data.

lorahub      Huang et al. 2023, LoraHub: CMA-ES searches weights w of the experts without gradients that fit a few
             *training* pairs of the task; loss + 0.05 sum |w|, w in +-1.5, five shots. Factors are mixed
             separately, as in the source: (sum w B)(sum w A), so w and -w give the same adapter. All experts take
             part (the source samples 20 modules of 200), and a step is a full generation of CMA-ES.
semla        SemLA: weights by similarity of the *test image* to the experts' training photos, softmax with
             tau .05 over the nearest 5; each image has its own merge. It adapts at test time and sees no captions.
semla-task   the same with one merge for the mean of the task's test images

SemLA fuses updates. Here factors are mixed, as in every rule of the paper's table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sglora_cli.api import Experts, Material, RuntimeConfig, Unavailable, check_no_table, with_settings

from .rule import HubRule, SemlaRule

if TYPE_CHECKING:
    from torch import Tensor

    from .lorahub import FewShots
    from .semla import ByImages


@dataclass(frozen=True)
class LoraHub:
    """LoraHub, which derives weights of the experts from a few training pairs of the task."""

    name: str = "lorahub"
    rule: HubRule = field(default_factory=HubRule)
    learns: bool = False
    draws: bool = True
    needs: str = "shots"
    config: None = None

    @property
    def label(self) -> str:
        return f"LoraHub ({self.rule.shots} shots)"

    @property
    def summary(self) -> str:
        return f"weights searched without gradients on {self.rule.shots} training pairs of the unseen task"

    def member(self, settings: str) -> LoraHub:
        """Return a variant with other settings, such as `lorahub:shots=16`."""
        rule = with_settings(self.rule, settings, self.name, "shots=16")
        return LoraHub(f"{self.name}:{settings}", rule)

    def absent(self, runtime: RuntimeConfig) -> str:
        """Return the command that installs the package cma if it is missing."""
        return "" if find_spec("cma") else 'the package cma is not installed: pip install "sglora[lorahub]"'

    def fit(self, material: Material, settings: Mapping[str, Any]) -> tuple[FewShots, dict[str, Any]]:
        check_no_table(settings, self.name)
        return self.restore(material.experts, {}), {}

    def restore(self, experts: Experts, tensors: Mapping[str, Tensor]) -> FewShots:
        """Raises Unavailable if the package cma is missing."""
        from .lorahub import FewShots

        if find_spec("cma") is None:
            raise Unavailable(
                "'lorahub' needs the package cma, which is not installed", 'pip install "sglora[lorahub]"'
            )
        return FewShots(self.rule, experts)


@dataclass(frozen=True)
class Semla:
    """SemLA, which derives weights of the experts from the test images."""

    name: str = "semla"
    rule: SemlaRule = field(default_factory=SemlaRule)
    learns: bool = False
    draws: bool = False
    needs: str = "images"
    config: None = None

    @property
    def label(self) -> str:
        return "SemLA (each test image)" if self.rule.per == "image" else "SemLA (mean test image)"

    @property
    def summary(self) -> str:
        own = {"image": "each test image, with one merge per image", "task": "the mean test image"}
        return f"top {self.rule.k} by similarity of the experts' photos to {own[self.rule.per]}"

    def member(self, settings: str) -> Semla:
        """Return a variant with other settings, such as `semla:tau=0.1/k=3`."""
        return Semla(f"{self.name}:{settings}", with_settings(self.rule, settings, self.name, "tau=0.1/k=3"))

    def fit(self, material: Material, settings: Mapping[str, Any]) -> tuple[ByImages, dict[str, Any]]:
        check_no_table(settings, self.name)
        return self.restore(material.experts, {}), {}

    def restore(self, experts: Experts, tensors: Mapping[str, Tensor]) -> ByImages:
        from .semla import ByImages

        return ByImages(self.rule, experts)
