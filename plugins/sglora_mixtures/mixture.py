"""What a mixture is: coefficients -> an adapter, exact or compressed; and a network that is asked for coefficients.

See the package's docstring for letters and sources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from sglora_cli.api import BadFile, Experts, Layout, Mismatch, Prior, compress_all, text_of, text_tensor


@dataclass(frozen=True)
class Asked:
    """What is known of T sentences. K experts each, the most similar first."""

    embedding_TD: Tensor
    rows_TK: Tensor
    alpha_TK: Tensor
    similarity_TK: Tensor

    @classmethod
    def of(cls, priors: Iterable[Prior]) -> Asked:
        """Priors are let go of, one by one: a thousand with their P numbers would not fit into memory."""
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
    """A network that mixes. Its tensors say all that its shape depends on."""

    def forward(self, asked: Asked) -> tuple[Tensor, Tensor]:
        """Which experts (T, n), and their coefficients (T, S, n)."""
        raise NotImplementedError

    def penalty(self, asked: Asked) -> Tensor:
        """What training adds to the loss."""
        raise NotImplementedError


def exact_layout(layout: Layout, count: int) -> Layout:
    """Of mixtures of so many experts, as they are: updates are scaled as the experts' are."""
    rank = count * layout.rank
    return Layout(layout.sites, rank, layout.scaling * rank)


def exact(layout: Layout, means_EP: Tensor, rows_Tn: Tensor, coefficient_TSn: Tensor) -> Tensor:
    """The factors of (1): (T, Q) in `exact_layout`. Differentiable with respect to the coefficients."""
    parts = {}
    for s, (name, (b_EOR, a_ERI)) in enumerate(layout.split(means_EP).items()):
        b_TnOR = coefficient_TSn[:, s, :, None, None] * b_EOR[rows_Tn]
        parts[name] = b_TnOR.movedim(1, 2).flatten(-2), a_ERI[rows_Tn].flatten(1, 2)
    return exact_layout(layout, rows_Tn.shape[1]).join(parts)


def folded_layout(layout: Layout, count: int, rank: int) -> Layout:
    """Of mixtures of so many experts that are compressed to a rank, at most; 0: not."""
    widest = max(min(site.out_features, site.in_features) for site in layout.sites)
    rank = min(rank or count * layout.rank, count * layout.rank, widest)
    return Layout(layout.sites, rank, layout.scaling * rank)


def fold(of: Layout, flat_TQ: Tensor, folded: Layout) -> tuple[Tensor, float]:
    """Adapters of the layout `of` in the layout `folded`, of the same sites: the nearest of its rank. Also the largest
    relative error of a whole update."""
    parts, error = compress_all(of.split(flat_TQ), folded.rank)
    return folded.join(parts), error


@dataclass(frozen=True)
class FittedMixture:
    """Ready to be asked. The experts it mixes are read then."""

    experts: Experts
    network: Mixer
    own_layout: Layout

    @torch.no_grad()
    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        """(S, Q), all alike."""
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
    """From `tensors()`. empty: a network of their shapes, for so many experts and sites. Raises BadFile.

    Raises Mismatch for a pack whose experts are not those that it learned to mix.
    """
    layout = experts.layout
    state = {key: value.float() for key, value in tensors.items() if key not in ("rank", "experts")}
    try:
        rank = int(tensors["rank"])
        if text_of(tensors["experts"]).split("\n") != list(experts.names):
            raise Mismatch(
                f"{name!r} mixes the experts that it was trained with, and the pack's have changed since",
                "take another generator, or build the pack again",
            )
        with torch.device("meta"):
            network = empty(state, len(experts.names), len(layout.sites))
        network.load_state_dict(state, assign=True)
    except (KeyError, IndexError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise BadFile(f"these are not the tensors of {name!r} for this pack: {error}", "build it again") from None
    widest = max(min(site.out_features, site.in_features) for site in layout.sites)
    if not 1 <= rank <= widest or not all(bool(torch.isfinite(value).all()) for value in state.values()):
        raise BadFile(f"{name!r} has rank {rank}, or numbers that are not finite", "build the pack again")
    folded = Layout(layout.sites, rank, layout.scaling * rank)
    return FittedMixture(experts, network.requires_grad_(False).eval(), folded)
