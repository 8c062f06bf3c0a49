"""Hypernetworks map a sentence's embedding d* to an adapter. They are trained on the seen tasks.

    theta(d) = start(d) + common + own(d)

start(d) is the closed form of `all-but-the-task` at the last projection, if that is updated. common is one adapter for
all sentences. own(d) is a function of the sentence, linear or with one hidden layer, and 0 before training. Because the
common part is explicit, own(d) only has to learn what is specific to the task.

`hypernet` is trained end to end by retrieval. A step makes the adapters of several seen tasks' sentences and reduces
the contrastive loss of each on photos of its own task. Text-to-LoRA (Charakorn et al. 2025, arXiv 2506.06105) trains a
hypernetwork this way on task descriptions for a language model. The loss measures the error on the task itself and
does not depend on where the training of a task's own adapter happened to end.

`hypernet-reconstruction` is trained on the squared error to the training tasks' saved adapters, at the experts' sites,
which is that paper's alternative. Its start(d) is 0, and common is initialised with the experts' mean.

Shapes: T tasks, D embedding, P parameters of an adapter, S samples.
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
    """Settings of `hypernet` in a recipe."""

    sites: str = knob(
        PROJECTION, "Sites to update: projection (the last), experts (their sites) or both.", choices=SITES
    )
    rank: int = knob(4, "Rank of the learned part, in addition to the closed form.", least=1, most=4096)
    closed_form: bool = knob(True, "Start from all-but-the-task if the projection is updated.")
    hidden: int = knob(0, "Width of own(d)'s hidden layer. 0 makes it linear.", least=0, most=65536)
    steps: int = knob(600, "Training steps.", least=1, most=10**6)
    tasks: int = knob(16, "Tasks per step.", least=1, most=10**4)
    photos: int = knob(16, "Photos per task and step.", least=2, most=10**4)
    phrases: float = knob(0.8, "Share of caption phrases among the tasks of a step.", least=0, most=1)
    learning_rate: float = knob(3e-4, "Peak learning rate of AdamW, one cycle.", least=0, most=1e3)
    weight_decay: float = knob(0.1, "Weight decay of AdamW.", least=0, most=1e3)
    held_out: int = held_out_knob()


@dataclass(frozen=True)
class ReconstructionConfig:
    """Settings of `hypernet-reconstruction` in a recipe."""

    hidden: int = knob(0, "Width of own(d)'s hidden layer. 0 makes it linear.", least=0, most=65536)
    steps: int = knob(600, "Training steps.", least=1, most=10**6)
    batch: int = knob(64, "Adapters per step.", least=1, most=10**6)
    learning_rate: float = knob(1e-3, "Peak learning rate of AdamW, one cycle.", least=0, most=1e3)
    weight_decay: float = knob(0.1, "Weight decay of AdamW.", least=0, most=1e3)
    held_out: int = held_out_knob()


@dataclass(frozen=True)
class Hypernet:
    """A hypernetwork, trained by retrieval or by reconstruction."""

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
        """Raises BadFile if the tensors do not match the pack's backbone."""
        from .network import restore

        return restore(experts, tensors)


@hookimpl
def sglora_generators() -> list[Hypernet]:
    return [
        Hypernet("hypernet", "Hypernetwork", "network from sentence to adapter, trained by retrieval", HyperConfig),
        Hypernet(
            "hypernet-reconstruction",
            "Hypernetwork (reconstruction)",
            "network from sentence to adapter, trained on the training tasks' adapters",
            ReconstructionConfig,
        ),
    ]
