"""Hypernetworks: from a sentence's embedding d* to an adapter, learned over the seen tasks.

    theta(d) = start(d) + common + own(d)

start(d) is the closed form of `all-but-the-task` at the last projection, where adapters have one. common is one adapter
for all sentences. own(d) is a function of the sentence that is 0 before training: linear, or with a hidden layer. What
is common is explicit, so own(d) has only what is particular to a sentence to learn.

`hypernet` is trained end to end by retrieval: a step makes the adapters of several seen tasks' sentences and lowers
the contrastive loss of each on photos of its own task. Text-to-LoRA (Charakorn et al. 2025, arXiv 2506.06105) trains a
hypernetwork so on sentences that describe tasks of a language model. A wrong guess about a task costs loss, and
nothing depends on the accident of where one task's own training ended.

`hypernet-reconstruction` is trained on the training tasks' saved adapters instead, by their squared error, in the
experts' sites: the alternative of that paper. Its start(d) is 0, and common begins as the experts' mean.

Shapes: T tasks, D embedding, P numbers of an adapter, S samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sglora_cli.api import Experts, Material, from_mapping, held_out_knob, hookimpl, knob

if TYPE_CHECKING:
    from sglora_cli.api import Layout

    from .network import FittedHypernet

SGLORA_API = "1.0"

PROJECTION, EXPERTS, BOTH = SITES = ("projection", "experts", "both")


@dataclass(frozen=True)
class HyperConfig:
    """Sites, size and training of a hypernetwork."""

    sites: str = knob(PROJECTION, "What it updates: the last projection, the experts' sites, or both.", choices=SITES)
    rank: int = knob(4, "Rank of what is learned, besides the closed form.", least=1, most=4096)
    closed_form: bool = knob(True, "Start from all-but-the-task, where the projection is updated.")
    hidden: int = knob(0, "Width of own(d)'s hidden layer; 0: it is linear.", least=0, most=65536)
    steps: int = knob(600, "Training steps.", least=1, most=10**6)
    tasks: int = knob(16, "Tasks in a step.", least=1, most=10**4)
    photos: int = knob(16, "Photos of each in a step.", least=2, most=10**4)
    phrases: float = knob(0.8, "Share of phrases of captions in the tasks of a step.", least=0, most=1)
    learning_rate: float = knob(3e-4, "Peak learning rate of AdamW, one cycle.", least=0, most=1e3)
    weight_decay: float = knob(0.1, "Weight decay of AdamW.", least=0, most=1e3)
    held_out: int = held_out_knob()


@dataclass(frozen=True)
class ReconstructionConfig:
    """Size and training of a hypernetwork that reproduces adapters."""

    hidden: int = knob(0, "Width of own(d)'s hidden layer; 0: it is linear.", least=0, most=65536)
    steps: int = knob(600, "Training steps.", least=1, most=10**6)
    batch: int = knob(64, "Adapters in a step.", least=1, most=10**6)
    learning_rate: float = knob(1e-3, "Peak learning rate of AdamW, one cycle.", least=0, most=1e3)
    weight_decay: float = knob(0.1, "Weight decay of AdamW.", least=0, most=1e3)
    held_out: int = held_out_knob()


@dataclass(frozen=True)
class Hypernet:
    """Trained by retrieval, or by reconstruction."""

    name: str
    label: str
    summary: str
    config: type[Any]
    learns: bool = True
    draws: bool = False
    needs: str = ""

    def fit(self, material: Material, settings: Mapping[str, Any]) -> tuple[FittedHypernet, dict[str, Any]]:
        from .training import by_reconstruction, by_retrieval

        config = from_mapping(self.config, settings, f"generators.{self.name}")
        return (
            by_retrieval(material, config) if isinstance(config, HyperConfig) else by_reconstruction(material, config)
        )

    def cost(
        self, layout: Layout, tasks: int, states: int, settings: Mapping[str, Any], device: str = "cpu"
    ) -> dict[str, Any]:
        from .cost import cost

        return cost(layout, from_mapping(self.config, settings, f"generators.{self.name}"))

    def restore(self, experts: Experts, tensors: Mapping[str, Any]) -> FittedHypernet:
        """Raises BadFile if the tensors do not fit the pack's backbone."""
        from .network import restore

        return restore(experts, tensors)


@hookimpl
def sglora_generators() -> list[Hypernet]:
    return [
        Hypernet("hypernet", "Hypernetwork", "learned end to end by retrieval over the seen tasks", HyperConfig),
        Hypernet(
            "hypernet-reconstruction",
            "Hypernetwork (reconstruction)",
            "learned from the training tasks' adapters, by their squared error",
            ReconstructionConfig,
        ),
    ]
