"""Sums of generators: `joint+all-but-the-task` makes an adapter with the updates of both, at their different sites."""

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

_PLUS = re.compile(r"\+(?=[a-z])")  # not the plus sign of a number, as in `strength=1e+0`


def parts_of(name: str) -> list[str]:
    """Split the name of a sum into the names of its generators. Other names are returned as the only element.

    >>> parts_of("joint+all-but-the-task:strength=1e+0")
    ['joint', 'all-but-the-task:strength=1e+0']
    """
    return _PLUS.split(name)


@dataclass(frozen=True)
class Combined:
    """A Generator (see contracts) made of several. It is not trained itself, but its parts may be."""

    parts: Sequence[Generator]
    learns: bool = False
    needs: str = ""
    config: Any = None

    def __post_init__(self) -> None:
        for part in self.parts:
            if part.needs:
                raise UsageError(
                    f"{part.name!r} uses the unseen task's data and cannot be combined", "remove it from the sum"
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
        raise Mismatch(f"{self.name!r} is a sum of generators and cannot be trained", "list its parts in the recipe")

    def restore(self, experts: Experts, tensors: Mapping[str, Tensor]) -> FittedCombined:
        """Restore parts that learn nothing. `Pack.fitted` restores each part with its own tensors from the pack."""
        return FittedCombined([part.restore(experts, tensors) for part in self.parts], experts.layout)


def single(generator: Generator) -> Sequence[Generator]:
    """Return the generators of a sum, or a list with the generator itself."""
    return generator.parts if isinstance(generator, Combined) else [generator]


@dataclass(frozen=True)
class FittedCombined:
    """A sum of fitted generators."""

    parts: Sequence[Fitted]
    experts: Layout
    """The layout of the pack's experts, and of parts that do not choose their sites."""

    @cached_property
    def own_layout(self) -> Layout:
        """The joint layout. Raises Mismatch if two parts update the same site."""
        import torch

        layouts = [adapter_layout(part, self.experts) for part in self.parts]
        return self._joined([torch.zeros(layout.size) for layout in layouts])[0]

    @property
    def ignores_experts(self) -> bool:
        """Whether all parts ignore the experts."""
        return all(isinstance(part, IgnoresExperts) and part.ignores_experts for part in self.parts)

    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        """Generate (S, P). Sample s combines sample s of every part."""
        return self._joined([part.generate(prior, samples, seed, temperature) for part in self.parts])[1]

    def on_device(self, device: torch.device) -> FittedCombined:
        """Move each part that supports it to a device."""
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
                raise Mismatch(error.message, "combine only generators with different sites") from None
        return layout, flat_SP
