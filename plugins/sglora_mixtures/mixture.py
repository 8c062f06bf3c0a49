"""Make an adapter, exact or compressed, from mixture coefficients, and the interface of networks that predict them.

See the package's docstring for shape letters and sources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from sglora_cli.api import BadFile, Experts, Layout, Mismatch, Prior, compress_all, text_of, text_tensor


@dataclass(frozen=True)
class Asked:
    """The inputs for T sentences. Each has K experts, the most similar first."""

    embedding_TD: Tensor
    rows_TK: Tensor
    alpha_TK: Tensor
    similarity_TK: Tensor

    @classmethod
    def of(cls, priors: Iterable[Prior]) -> Asked:
        """Read priors one by one, because a thousand with P parameters each would not fit into memory."""
        rows, alphas, similarities, embeddings = [], [], [], []
        for prior in priors:
            rows.append(torch.tensor(prior.rows))
            alphas.append(prior.alpha_K.float())
            similarities.append(prior.similarity_E[rows[-1]].float())
            embeddings.append(prior.embedding_D.float())
        return cls(torch.stack(embeddings), torch.stack(rows), torch.stack(alphas), torch.stack(similarities))

    def only(self, tasks: Sequence[int]) -> Asked:
        return Asked(*(getattr(self, field.name)[list(tasks)] for field in fields(self)))

    def to(self, device: torch.device) -> Asked:
        return Asked(*(getattr(self, field.name).to(device) for field in fields(self)))


class Mixer(nn.Module):
    """A network that predicts coefficients. Its tensors determine its shape."""

    def forward(self, asked: Asked) -> tuple[Tensor, Tensor]:
        """Return the experts (T, n) and their coefficients (T, S, n)."""
        raise NotImplementedError

    def penalty(self, asked: Asked) -> Tensor:
        """Return the term that training adds to the loss."""
        raise NotImplementedError


def exact_layout(layout: Layout, count: int) -> Layout:
    """Return the layout of exact mixtures of `count` experts, with the same scaling as the experts."""
    rank = count * layout.rank
    return Layout(layout.sites, rank, layout.scaling * rank)


def exact(layout: Layout, means_EP: Tensor, rows_Tn: Tensor, coefficient_TSn: Tensor) -> Tensor:
    """Return the factors of (1), (T, Q) in `exact_layout`. Differentiable with respect to the coefficients."""
    parts = {}
    for s, (name, (b_EOR, a_ERI)) in enumerate(layout.split(means_EP).items()):
        b_TnOR = coefficient_TSn[:, s, :, None, None] * b_EOR[rows_Tn]
        parts[name] = b_TnOR.movedim(1, 2).flatten(-2), a_ERI[rows_Tn].flatten(1, 2)
    return exact_layout(layout, rows_Tn.shape[1]).join(parts)


def folded_layout(layout: Layout, count: int, rank: int) -> Layout:
    """Return the layout of mixtures of `count` experts, compressed to at most `rank`. Rank 0 means no compression."""
    widest = max(min(site.out_features, site.in_features) for site in layout.sites)
    rank = min(rank or count * layout.rank, count * layout.rank, widest)
    return Layout(layout.sites, rank, layout.scaling * rank)


def fold(of: Layout, flat_TQ: Tensor, folded: Layout) -> tuple[Tensor, float]:
    """Compress adapters of layout `of` to the layout `folded`, with the same sites. Also returns the largest error.

    Each update becomes its best approximation of the lower rank. The error is relative to the update.
    """
    parts, error = compress_all(of.split(flat_TQ), folded.rank)
    return folded.join(parts), error


@dataclass(frozen=True)
class FittedMixture:
    """A fitted mixture generator. It reads the experts when it generates."""

    experts: Experts
    network: Mixer
    own_layout: Layout

    @torch.no_grad()
    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        """Generate (S, Q). All samples are equal."""
        rows_1n, coefficient_1Sn = self.network(Asked.of([prior]))
        means_nP = self.experts.means(rows_1n[0].tolist())
        layout, places_1n = self.experts.layout, torch.arange(len(means_nP))[None]
        mixed_1Q = exact(layout, means_nP, places_1n, coefficient_1Sn)
        return fold(exact_layout(layout, len(means_nP)), mixed_1Q, self.own_layout)[0].repeat(samples, 1)

    def tensors(self) -> dict[str, Tensor]:
        names = text_tensor("\n".join(self.experts.names))
        return {**self.network.state_dict(), "rank": torch.tensor([self.own_layout.rank]), "experts": names}


def restored(
    name: str, experts: Experts, tensors: Mapping[str, Tensor], empty: Callable[[Mapping[str, Tensor], int, int], Mixer]
) -> FittedMixture:
    """Recreate a generator from `tensors()`. empty: makes a network for the tensors' shapes, experts and sites.

    Raises BadFile for other tensors, and Mismatch if the pack's experts differ from those it was trained with.
    """
    layout = experts.layout
    state = {key: value.float() for key, value in tensors.items() if key not in ("rank", "experts")}
    try:
        rank = int(tensors["rank"])
        if text_of(tensors["experts"]).split("\n") != list(experts.names):
            raise Mismatch(
                f"the pack's experts have changed since {name!r} was trained to mix them",
                "use another generator, or build the pack again",
            )
        with torch.device("meta"):
            network = empty(state, len(experts.names), len(layout.sites))
        network.load_state_dict(state, assign=True)
    except (KeyError, IndexError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise BadFile(f"these are not the tensors of {name!r} for this pack: {error}", "build the pack again") from None
    widest = max(min(site.out_features, site.in_features) for site in layout.sites)
    if not 1 <= rank <= widest or not all(bool(torch.isfinite(value).all()) for value in state.values()):
        raise BadFile(f"{name!r} has the invalid rank {rank} or non-finite numbers", "build the pack again")
    folded = Layout(layout.sites, rank, layout.scaling * rank)
    return FittedMixture(experts, network.requires_grad_(False).eval(), folded)
