"""All-but-the-task: remove from image embeddings what all candidates of a task share, because it does not rank them.

The mathematics is in `sglora_cli/lora/removal.py`. The direction u of the task's captions is removed, and the mean
embedding of its photos is subtracted. Both are predicted from the sentence. The direction has two sources. Ridge
regression gives a safe prediction near the mean of all tasks. The sentence, as d* minus the mean of the sentences,
contains what is specific to the task. Both are normalised and summed with the weights `captions` and `sentence`, and
the sum is normalised to u. `all-but-the-sentence` takes u from the sentence alone and needs the seen tasks only for
the mean.

Needs no training and no photo of the task. This method is the project's own. Removing directions that all vectors
share is known for word vectors (Mu and Viswanath 2018, "All-but-the-Top"). Here it is done per task.

Shapes: T seen tasks, D embedding, S samples, P parameters of an adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sglora_cli.api import (
    Experts,
    Material,
    Unavailable,
    UsageError,
    check_no_table,
    hookimpl,
    knob,
    with_settings,
)

if TYPE_CHECKING:
    from torch import Tensor

    from sglora_cli.api import Layout, Moments, Prior

SGLORA_API = "1.0"


@dataclass(frozen=True)
class AllButConfig:
    """Settings, as in `all-but-the-task:strength=0.5`."""

    strength: float = knob(0.8, "Share of the task's direction that is removed.", least=0, most=2)
    common: float = knob(0.8, "Share of the task's mean photo embedding that is subtracted.", least=0, most=2)
    captions: float = knob(1.0, "Weight of the predicted mean caption in the task's direction.", least=0, most=100)
    sentence: float = knob(1.0, "Weight of the sentence in the task's direction.", least=0, most=100)
    ridge: float = knob(0.3, "Ridge penalty of the regression on sentences.", least=1e-6, most=1e6)


@dataclass(frozen=True)
class FittedAllBut:
    """A fitted all-but-the-task generator."""

    moments: Moments = field(repr=False)
    config: AllButConfig
    own_layout: Layout
    ignores_experts: bool = True

    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        """Generate (S, P). All samples are equal."""
        from sglora_cli.api import removal

        b_1DR, a_1RI = removal(self.moments, prior.embedding_D[None], **asdict(self.config))
        return self.own_layout.join({self.own_layout.sites[0].name: (b_1DR, a_1RI)}).float().repeat(samples, 1)

    def tensors(self) -> dict[str, Tensor]:
        return {}


@dataclass(frozen=True)
class AllBut:
    """A named variant of the method."""

    name: str
    label: str
    summary: str
    settings: AllButConfig = AllButConfig()
    learns: bool = False
    draws: bool = False
    needs: str = ""
    config: None = None

    def member(self, settings: str) -> AllBut:
        """Return the variant with settings such as `strength=0.5/common=0.8`. Raises UsageError, UnknownName."""
        config = with_settings(self.settings, settings, self.name, "strength=0.5")
        label = f"{self.label} ({settings.replace('/', ', ')})"
        if not (config.captions or config.sentence):
            raise UsageError(
                f"captions and sentence of {self.name} are both 0, so the task has no direction",
                f"try {self.name}:sentence=1",
            )
        return replace(self, name=f"{self.name}:{settings}", label=label, settings=config)

    def fit(self, material: Material, settings: Mapping[str, Any]) -> tuple[FittedAllBut, dict[str, Any]]:
        """Return the generator, which learns nothing. Raises Mismatch for settings, which belong in its name."""
        check_no_table(settings, self.name)
        return self.restore(material.experts, {}), {}

    def restore(self, experts: Experts, tensors: Mapping[str, Tensor]) -> FittedAllBut:
        """Raises Unavailable for a pack without moments, or if its backbone does not end in a linear map."""
        from sglora_cli.api import Layout

        if experts.moments is None:
            raise Unavailable(
                "the pack has no mean embeddings of its tasks' photos and captions",
                "add them with `sglora pack update PACK --data DIR`, or build the pack again",
            )
        if experts.moments.projection is None:
            raise Unavailable(
                f"{self.name!r} updates the linear map at the end of the image encoder, but this backbone has none",
                "choose another generator from `sglora plugins list`",
            )
        rank = 2 if self.settings.common else 1
        layout = Layout((experts.moments.projection,), rank, float(rank))
        return FittedAllBut(experts.moments, self.settings, layout)


@hookimpl
def sglora_generators() -> list[AllBut]:
    return [
        AllBut(
            "all-but-the-task",
            "All-but-the-task",
            "removes from image embeddings what the task's photos and captions share, predicted from its sentence",
        ),
        AllBut(
            "all-but-the-sentence",
            "All-but-the-sentence",
            "removes the sentence's direction from image embeddings",
            settings=AllButConfig(strength=0.25, common=0.0, captions=0.0),
        ),
    ]
