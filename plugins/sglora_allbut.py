"""All but the task: what all candidates of a task share tells none of them apart, so image embeddings shall lack it.

A task's photos all show what its sentence names, and its captions all name it. In an image embedding v, the direction
u of a task's captions is nearly the same for every photo: it adds the same to every score of a caption, and where it
differs it tells how much a photo is of the task, not which photo it is. So it is taken out:

    v' = v - strength * u (u . v)                                                         (1)

The task's captions, which nobody has seen, are known in two ways. Their mean embedding is predicted from the sentence
d* over the tasks t that the pack has seen, by ridge regression of their mean caption embeddings Q_t on their sentences:

    q(d*) = mean Q + sum_t w_t (Q_t - mean Q),   w = K (K + ridge)^-1 at d*,   K the products of centred sentences  (2)

That is a safe guess, near the mean of all tasks. What is particular to the task, the sentence itself says best: d*
minus the mean of the sentences. Both, normalised, add up to u with the weights `captions` and `sentence`, and u is
normalised again. `all-but-the-sentence` takes u from the sentence alone and needs no seen task but for that mean.

With `common`, the predicted mean embedding c(d*) of the task's photos is subtracted as well, as mean-centring does:

    v' = (I - strength * u u^T) (v - common * c(d*))                                       (3)

The last map of the image encoder is linear, v ~ W p, so (1) is an update of rank 1 of W, exactly, and (3) one of rank
2, up to how well the length ||W p|| is a linear function r . p:

    B A = -strength * u (u^T W) - common * (I - strength * u u^T) c(d*) r^T                 (4)

No training, no photo of the task. It is this project's; no paper on adapters has it. Removing directions that all
vectors share is known from word vectors (Mu and Viswanath 2018, "All-but-the-Top"), here for one task at a time.

Shapes: T seen tasks, D embedding, I what W is applied to, S samples, P numbers of an adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sglora_cli.api import (
    Experts,
    Material,
    Mismatch,
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

    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        """(S, P), all alike."""
        import torch

        of, config = self.moments, self.config
        sentence_D, projection_DI = prior.embedding_D.double(), of.projection_DI.double()  # type: ignore[union-attr]
        weight_T = weights(of.sentences_TD, sentence_D, config.ridge)
        direction_D = torch.zeros_like(sentence_D)
        if config.captions:
            direction_D += config.captions * _unit(predicted(weight_T, of.captions_TD))
        if config.sentence:
            direction_D += config.sentence * _unit(sentence_D - of.sentences_TD.double().mean(dim=0))
        if not float(direction_D.norm()):
            raise Mismatch("the sentence is the mean of all sentences: it has no direction", "describe another task")
        u_D = _unit(direction_D)
        b_columns, a_rows = [-config.strength * u_D], [u_D @ projection_DI]
        if config.common:
            common_D = predicted(weight_T, of.images_TD)
            b_columns.append(-config.common * (common_D - config.strength * u_D * (u_D @ common_D)))
            a_rows.append(of.length_I.double())  # type: ignore[union-attr]
        factors = {self.own_layout.sites[0].name: (torch.stack(b_columns, dim=1), torch.stack(a_rows))}
        return self.own_layout.join(factors).float().repeat(samples, 1)

    def tensors(self) -> dict[str, Tensor]:
        return {}


def _unit(direction_D: Tensor) -> Tensor:
    """Normalised; 0 stays 0."""
    return direction_D / direction_D.norm().clamp_min(1e-12)


def weights(sentences_TD: Tensor, sentence_D: Tensor, ridge: float) -> Tensor:
    """(T,): how much each seen task's deviation from the mean counts, of (2). 0 for the mean sentence.

    >>> import torch
    >>> weights(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([1.0, 0.0]), 1e-6).round(decimals=3).tolist()
    [0.5, -0.5]
    """
    import torch

    sentences_TD = sentences_TD.double()
    mean_D = sentences_TD.mean(dim=0)
    centred_TD = sentences_TD - mean_D
    products_TT = centred_TD @ centred_TD.T + ridge * torch.eye(len(centred_TD), dtype=torch.float64)
    weight_T: Tensor = torch.linalg.solve(products_TT, centred_TD @ (sentence_D.double() - mean_D))
    return weight_T


def predicted(weight_T: Tensor, moment_TD: Tensor) -> Tensor:
    """(D,): a moment of a task that nobody has seen, of (2)."""
    moment_TD = moment_TD.double()
    mean_D: Tensor = moment_TD.mean(dim=0)
    return mean_D + weight_T @ (moment_TD - mean_D)


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
