"""All but the task: what all candidates of a task share tells none of them apart, so image embeddings shall lack it.

The mathematics is that of `sglora_cli/lora/removal.py`: the direction u of the task's captions is taken out, and the
mean embedding of its photos is subtracted, both predicted from the sentence. The direction is known in two ways. What
ridge regression predicts is a safe guess, near the mean of all tasks. What is particular to the task, the sentence
itself says best: d* minus the mean of the sentences. Both, normalised, add up to u with the weights `captions` and
`sentence`, and u is normalised again. `all-but-the-sentence` takes u from the sentence alone and needs no seen task but
for that mean.

No training, no photo of the task. It is this project's; no paper on adapters has it. Removing directions that all
vectors share is known from word vectors (Mu and Viswanath 2018, "All-but-the-Top"), here for one task at a time.

Shapes: T seen tasks, D embedding, S samples, P numbers of an adapter.
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

    strength: float = knob(0.8, "How much of the task's direction is taken out; 1 is all of it.", least=0, most=2)
    common: float = knob(0.8, "How much of the mean embedding of the task's photos is subtracted.", least=0, most=2)
    captions: float = knob(1.0, "Weight of the predicted mean caption in the task's direction.", least=0, most=100)
    sentence: float = knob(1.0, "Weight of the sentence itself in it.", least=0, most=100)
    ridge: float = knob(0.3, "Ridge of the regression on sentences.", least=1e-6, most=1e6)


@dataclass(frozen=True)
class FittedAllBut:
    """Ready to be asked."""

    moments: Moments = field(repr=False)
    config: AllButConfig
    own_layout: Layout
    ignores_experts: bool = True

    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        """(S, P), all alike."""
        from sglora_cli.api import removal

        b_1DR, a_1RI = removal(self.moments, prior.embedding_D[None], **asdict(self.config))
        return self.own_layout.join({self.own_layout.sites[0].name: (b_1DR, a_1RI)}).float().repeat(samples, 1)

    def tensors(self) -> dict[str, Tensor]:
        return {}


@dataclass(frozen=True)
class AllBut:
    """A named form of it."""

    name: str
    label: str
    summary: str
    settings: AllButConfig = AllButConfig()
    learns: bool = False
    draws: bool = False
    needs: str = ""
    config: None = None

    def member(self, settings: str) -> AllBut:
        """`all-but-the-task:strength=0.5/common=0.8` is it with others. Raises UsageError, UnknownName."""
        config = with_settings(self.settings, settings, self.name, "strength=0.5")
        label = f"{self.label} ({settings.replace('/', ', ')})"
        if not (config.captions or config.sentence):
            raise UsageError(
                f"{self.name}: captions and sentence are both 0: the task has no direction",
                f"try {self.name}:sentence=1",
            )
        return replace(self, name=f"{self.name}:{settings}", label=label, settings=config)

    def fit(self, material: Material, settings: Mapping[str, Any]) -> tuple[FittedAllBut, dict[str, Any]]:
        """It learns nothing, so this is asked of no pack. Raises Mismatch for settings: they are part of its name."""
        check_no_table(settings, self.name)
        return self.restore(material.experts, {}), {}

    def restore(self, experts: Experts, tensors: Mapping[str, Tensor]) -> FittedAllBut:
        """Raises Unavailable for a pack without moments, or one whose backbone ends in no linear map."""
        from sglora_cli.api import Layout

        if experts.moments is None:
            raise Unavailable(
                "the pack does not know where the photos and captions of its tasks lie",
                "build it again, or add that: sglora pack update PACK --data DIR",
            )
        if experts.moments.projection is None:
            raise Unavailable(
                f"{self.name!r} updates a linear map at the image encoder's end, and this backbone has none",
                "take another generator: sglora plugins list",
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
            "takes out of image embeddings what all photos and captions of the task share, predicted from its sentence",
        ),
        AllBut(
            "all-but-the-sentence",
            "All-but-the-sentence",
            "takes the sentence's own direction out of image embeddings",
            settings=AllButConfig(strength=0.25, common=0.0, captions=0.0),
        ),
    ]
