"""Common and own: a learned adapter shared by all sentences, combined with the closed form of all-but-the-task.

    theta(d) = size * common  (+)  own(d)

common updates the experts' sites. It is trained by retrieval over the seen tasks and the phrases of their captions,
for a few hundred steps on photos of several tasks each. own(d) updates the last projection. It removes from image
embeddings what the candidates of a task share, predicted from its sentence (sglora_cli/lora/removal.py). common
changes the photos' embeddings and hence their means, so the means of the seen tasks' photos are measured with it. A
sum of two generators such as `joint+all-but-the-task` cannot do this, because its parts are independent.

common is trained without own(d). Training it with own(d) gained less on left-out training tasks.

This method is the project's own. Both parts have rank 2, like the paper's adapters.

Shapes: T tasks, D embedding, I inputs of the projection, P parameters of an adapter, S samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sglora_cli.api import (
    BadFile,
    Experts,
    Material,
    Unavailable,
    from_mapping,
    held_out_knob,
    hookimpl,
    knob,
)

if TYPE_CHECKING:
    from torch import Tensor

    from sglora_cli.api import Layout, Prior, SeenMeans

SGLORA_API = "1.0"

RANK = 2
"""The rank of the closed form, and hence of all sites."""


@dataclass(frozen=True)
class CommonOwnConfig:
    """Settings for training the common part, and the strength of both parts."""

    steps: int = knob(500, "Training steps of the common part.", least=1, most=10**6)
    tasks: int = knob(12, "Tasks per step.", least=1, most=10**4)
    photos: int = knob(16, "Photos per task and step.", least=2, most=10**4)
    phrases: float = knob(0.5, "Share of caption phrases among the tasks of a step.", least=0, most=1)
    learning_rate: float = knob(3e-3, "Peak learning rate of AdamW.", least=0, most=1e3)
    weight_decay: float = knob(0.0, "Weight decay of AdamW.", least=0, most=1e3)
    size: float = knob(0.5, "Factor on the trained common update.", least=0, most=10)
    strength: float = knob(0.8, "Share of the task's direction that is removed.", least=0, most=2)
    subtracted: float = knob(0.8, "Share of the task's mean photo embedding that is subtracted.", least=0, most=2)
    held_out: int = held_out_knob()


@dataclass(frozen=True)
class FittedCommonOwn:
    """A fitted common-own generator."""

    own_layout: Layout
    """The experts' sites, followed by the projection."""
    common_P: Tensor
    """The adapter for all sites but the last, with `size` applied."""
    seen: SeenMeans
    """Means of photos are measured with the common part. r . p approximates the length without it."""
    strength: float
    subtracted: float
    ignores_experts: bool = True

    def adapters(self, sentence_SD: Tensor) -> Tensor:
        """Return adapters (S, P) for sentences."""
        import torch

        from sglora_cli.api import removal

        b, a = removal(self.seen, sentence_SD, strength=self.strength, common=self.subtracted)
        missing = RANK - b.shape[-1]
        factors = torch.nn.functional.pad(b, (0, missing)), torch.nn.functional.pad(a, (0, 0, 0, missing))
        last_SQ = torch.cat([factor.flatten(1) for factor in factors], dim=1).float()
        return torch.cat([self.common_P.expand(len(last_SQ), -1), last_SQ], dim=1)

    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        """Generate (S, P). All samples are equal."""
        return self.adapters(prior.embedding_D[None]).repeat(samples, 1)

    def tensors(self) -> dict[str, Tensor]:
        import torch

        how = torch.tensor([self.strength, self.subtracted])
        return {**self.seen.tensors("seen"), "common": self.common_P, "how": how}


@dataclass(frozen=True)
class CommonOwn:
    """The generator described in the module docstring."""

    name: str = "common-own"
    label: str = "Common + own"
    summary: str = "an adapter learned by retrieval, then the closed form of all-but-the-task on its embeddings"
    learns: bool = True
    draws: bool = False
    needs: str = ""
    config: type[CommonOwnConfig] = CommonOwnConfig

    def fit(self, material: Material, settings: Mapping[str, Any]) -> tuple[FittedCommonOwn, dict[str, Any]]:
        """Train the common part. Raises Mismatch for fewer than two tasks, Unavailable without a projection."""
        import torch

        from sglora_cli.api import Layout, check_pool, learn_by_retrieval, seen_means

        config, pool = from_mapping(CommonOwnConfig, settings, f"generators.{self.name}"), material.pool
        check_pool(pool, self.name)
        if pool.moments.projection is None:
            raise Unavailable(
                f"{self.name!r} updates the linear map at the end of the image encoder, but this backbone has none",
                "choose another generator from `sglora plugins list`",
            )
        layout = Layout(tuple(pool.sites), RANK, float(RANK))
        network = torch.nn.ParameterDict({"common": layout.initial(material.seed)})

        def adapters(tasks: Sequence[int], step: int) -> tuple[Layout, Tensor]:
            return layout, network["common"].expand(len(tasks), -1)

        facts = learn_by_retrieval(material, network, config, adapters, self.name)
        common_P = network["common"].detach()
        common_P = torch.where(layout.b_mask(), config.size * common_P, common_P)
        whole = Layout((*pool.sites, pool.moments.projection), RANK, float(RANK))
        seen = seen_means(pool, pool.mean_images(layout, common_P))
        assert seen is not None  # there is a projection
        return FittedCommonOwn(whole, common_P, seen, config.strength, config.subtracted), facts

    def cost(
        self, layout: Layout, tasks: int, states: int, settings: Mapping[str, Any], device: str = "cpu"
    ) -> dict[str, Any]:
        config = from_mapping(CommonOwnConfig, settings, f"generators.{self.name}")
        size = layout.size // layout.rank * RANK
        passes = config.steps * config.tasks * config.photos
        return {"parameters": size, "bytes": 4 * (4 + config.tasks) * size, "seconds": 0.0, "passes": passes}

    def restore(self, experts: Experts, tensors: Mapping[str, Tensor]) -> FittedCommonOwn:
        """Raises BadFile if the tensors do not match the pack's layout."""
        from sglora_cli.api import Layout, SeenMeans

        try:
            seen = SeenMeans.restored(tensors, "seen")
            strength, subtracted = tensors["how"].tolist()
            layout = Layout((*experts.layout.sites, seen.projection), RANK, float(RANK))
            common_P = tensors["common"].float()
            whole = Layout(experts.layout.sites, RANK, float(RANK)).size
            if common_P.shape != (whole,):
                raise ValueError(f"got {list(common_P.shape)} numbers, but the pack's sites have {whole}")
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise BadFile(f"these are not the tensors of {self.name!r}: {error}", "build the pack again") from None
        return FittedCommonOwn(layout, common_P, seen, strength, subtracted)


@hookimpl
def sglora_generators() -> Sequence[CommonOwn]:
    return [CommonOwn()]
