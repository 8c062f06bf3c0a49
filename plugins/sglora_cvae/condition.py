"""The conditions of the networks, and the statistics common to all training tasks.

A condition has blocks. `mean` is mu* and `deviation` is the square root of sigma*^2, both in the networks' numbers, and
`sentence` is d*. The mean of a block over the training tasks may be subtracted. The remainder is not rescaled, because
a block that hardly varies between training tasks would otherwise become large for a sentence unlike them.

Shapes: T training tasks, V variants of a prior, C numbers of a condition, N numbers of a block, P parameters of an
adapter, R numbers that the networks see, B rows read at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sglora_cli.api import AnyScaling, BadFile, Material, Prior, Scaling, prior_without, state_blocks

NAMES = ("mean", "deviation", "sentence")
BLOCKS: Mapping[str, tuple[str, ...]] = {"prior": ("mean", "deviation"), "embedding": ("sentence",)}
"""Kind of a generator's condition -> its blocks."""
VARIANTS = 4
"""Most variants of a training task's prior. Each lacks another one of the most similar experts."""


@dataclass(frozen=True)
class Condition:
    """Maps a prior to the condition (C,) of the networks."""

    scaling: AnyScaling
    blocks: Sequence[str]
    centres: Mapping[str, Tensor] = field(default_factory=dict)
    """The means (N,) to subtract from blocks. Other blocks are unchanged."""

    def __call__(self, prior: Prior) -> Tensor:
        """Return the condition (C,). Raises BadFile for an embedding of another width."""
        raw = self._raw(prior)
        return torch.cat([self._centred(name, raw[name]) for name in self.blocks])

    def centred(self, priors: Sequence[Prior], names: Sequence[str]) -> Condition:
        """Return the same condition with the training tasks' mean subtracted from these blocks."""
        raws = [self._raw(prior) for prior in priors]
        return replace(self, centres={name: torch.stack([raw[name] for raw in raws]).mean(dim=0) for name in names})

    def tensors(self) -> dict[str, Tensor]:
        return {f"condition.{name}": centre_N for name, centre_N in self.centres.items()}

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor], scaling: AnyScaling, kind: str) -> Condition:
        """Recreate a condition from `tensors()`. Raises BadFile if they do not match the scaling."""
        names = [name for name in NAMES if f"condition.{name}" in tensors]
        centres = {name: tensors[f"condition.{name}"].float() for name in names}
        for name, centre_N in centres.items():
            if centre_N.dim() != 1 or (name != "sentence" and len(centre_N) != scaling.size):
                raise BadFile(
                    f"the centre of the CVAE's {name!r} has shape {list(centre_N.shape)}, expected [{scaling.size}]",
                    "build the pack again",
                )
        if ("mean" in names) != ("deviation" in names):
            raise BadFile(
                f"the CVAE has only one of the centres of mu* and sigma*^2: {names[0]!r}", "build the pack again"
            )
        own = BLOCKS[kind]
        return cls(scaling, (*own, "sentence") if "sentence" in names and "sentence" not in own else own, centres)

    @property
    def width(self) -> int:
        """The size C, or 0 if an uncentred embedding leaves it unknown."""
        if "sentence" in self.blocks and "sentence" not in self.centres:
            return 0
        return sum(len(self.centres["sentence"]) if name == "sentence" else self.scaling.size for name in self.blocks)

    def _raw(self, prior: Prior) -> dict[str, Tensor]:
        raw: dict[str, Tensor] = {}
        if "mean" in self.blocks:
            raw["mean"], raw["deviation"] = self.scaling.condition(prior).chunk(2)
        if "sentence" in self.blocks:
            # Scaled to unit mean square, because the numbers of a unit vector are too small for the first layer.
            raw["sentence"] = prior.embedding_D * len(prior.embedding_D) ** 0.5
        return raw

    def _centred(self, name: str, raw_N: Tensor) -> Tensor:
        if name not in self.centres:
            return raw_N
        centre_N = self.centres[name]
        if raw_N.shape != centre_N.shape:
            raise BadFile(
                f"the CVAE needs embeddings of {len(centre_N)} numbers, got {len(raw_N)}",
                "build the pack again",
            )
        left_N = raw_N - centre_N
        if name == "sentence":  # the template dominates an embedding, so the remainder is short
            left_N = torch.nn.functional.normalize(left_N, dim=0) * len(left_N) ** 0.5
        return left_N


def variants(material: Material, prior: Prior) -> Iterator[Prior]:
    """Yield a training task's prior without each of its most similar experts in turn. None if there is only one."""
    if len(material.experts.names) > 1:
        for row in prior.rows[:VARIANTS]:
            yield prior_without(prior, material.experts, row)


def of_tasks(material: Material) -> Scaling:
    """Return the scaling by the training tasks' states: their mean, and root mean square deviations of B and of A.

    Reads every state once.
    """
    layout, count = material.experts.layout, len(material.tasks) * material.states_of_task
    total_P = torch.zeros(layout.size, dtype=torch.float64)
    square_P = torch.zeros_like(total_P)
    for rows_BP in state_blocks(material, Scaling(torch.zeros(layout.size), torch.ones(layout.size))):
        rows_BP = rows_BP.double()
        total_P, square_P = total_P + rows_BP.sum(dim=0), square_P + rows_BP.square().sum(dim=0)
    centre_P, in_b_P = total_P / count, layout.b_mask()
    variance_P = (square_P / count - centre_P**2).clamp_min(0)
    unit_P = torch.empty(layout.size)
    for part_P in (in_b_P, ~in_b_P):
        unit_P[part_P] = variance_P[part_P].mean().sqrt().clamp_min(1e-8).float()
    return Scaling(centre_P.float(), unit_P)
