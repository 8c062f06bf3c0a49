"""Generators combined: `joint+all-but-the-task` makes an adapter with the updates of both, at their different sites."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sglora_cli.errors import Mismatch, UsageError
from sglora_cli.plugin.contracts import Fitted, Generator, IgnoresExperts, UsesDevice, adapter_layout
from sglora_cli.plugin.values import Experts, Material

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sglora_cli.lora.layout import Layout
    from sglora_cli.lora.prior import Prior

_PLUS = re.compile(r"\+(?=[a-z])")  # not that of a number: `strength=1e+0`


def parts_of(name: str) -> list[str]:
    """The names of the generators that a name combines; the name alone for one generator.

    >>> parts_of("joint+all-but-the-task:strength=1e+0")
    ['joint', 'all-but-the-task:strength=1e+0']
    """
    return _PLUS.split(name)


@dataclass(frozen=True)
class Combined:
    """A Generator (see contracts) of several. It is not trained itself; its parts may have been."""

    parts: Sequence[Generator]
    learns: bool = False
    needs: str = ""
    config: Any = None

    def __post_init__(self) -> None:
        for part in self.parts:
            if part.needs:
                raise UsageError(
                    f"{part.name!r} looks at the unseen task's data and cannot be combined", "leave it out of the sum"
                )

    @property
    def name(self) -> str:
        return "+".join(part.name for part in self.parts)

    @property
    def label(self) -> str:
        return " + ".join(part.label for part in self.parts)

    @property
    def summary(self) -> str:
        return "; and ".join(part.summary for part in self.parts)

    @property
    def draws(self) -> bool:
        return any(part.draws for part in self.parts)

    def fit(self, material: Material, settings: Mapping[str, Any]) -> tuple[Fitted, dict[str, Any]]:
        raise Mismatch(f"{self.name!r} is a sum of generators and is not trained", "name its parts in the recipe")

    def restore(self, experts: Experts, tensors: Mapping[str, Tensor]) -> FittedCombined:
        """Of parts that learn nothing. `Pack.fitted` restores each part with what the pack keeps of it."""
        return FittedCombined([part.restore(experts, tensors) for part in self.parts], experts.layout)


def single(generator: Generator) -> Sequence[Generator]:
    """The generators that a sum is of; of any other generator itself."""
    return generator.parts if isinstance(generator, Combined) else [generator]


@dataclass(frozen=True)
class FittedCombined:
    """Its parts, ready to be asked."""

    parts: Sequence[Fitted]
    experts: Layout
    """Of the pack's experts, and of parts that do not choose their sites."""

    @cached_property
    def own_layout(self) -> Layout:
        """Raises Mismatch if two parts update one site."""
        import torch

        layouts = [adapter_layout(part, self.experts) for part in self.parts]
        return self._joined([torch.zeros(layout.size) for layout in layouts])[0]

    @property
    def ignores_experts(self) -> bool:
        """Where all parts do."""
        return all(isinstance(part, IgnoresExperts) and part.ignores_experts for part in self.parts)

    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        """(S, P): sample s is that of every part."""
        return self._joined([part.generate(prior, samples, seed, temperature) for part in self.parts])[1]

    def on_device(self, device: torch.device) -> FittedCombined:
        """With each part there that can compute there."""
        moved = [part.on_device(device) if isinstance(part, UsesDevice) else part for part in self.parts]
        return FittedCombined(moved, self.experts)

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def _joined(self, flat: Sequence[Tensor]) -> tuple[Layout, Tensor]:
        from sglora_cli.lora.algebra import joined

        layout, flat_SP = adapter_layout(self.parts[0], self.experts), flat[0]
        for part, more_SP in zip(self.parts[1:], flat[1:], strict=True):
            try:
                layout, flat_SP = joined(layout, flat_SP, adapter_layout(part, self.experts), more_SP)
            except Mismatch as error:
                raise Mismatch(error.message, "only generators of different sites can be combined") from None
        return layout, flat_SP
