"""The network of a hypernetwork and its stored form. See the package's docstring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from sglora_cli.api import BadFile, Experts, Layout, Prior, SeenMeans, Site, removal, text_of, text_tensor


class Network(nn.Module):
    """common + own(d): (S, D) -> (S, P) of a layout. Before training it returns the common part for every sentence."""

    def __init__(self, common_P: Tensor, sentences_TD: Tensor, hidden: int, rng: torch.Generator) -> None:
        super().__init__()
        width = sentences_TD.shape[1]
        mean_D = sentences_TD.mean(dim=0)
        spread = (sentences_TD - mean_D).square().sum(dim=1).mean().sqrt()
        self.common_P = nn.Parameter(common_P.clone())
        self.mean_D = nn.Buffer(mean_D)
        self.spread = nn.Buffer(spread.clamp_min(1e-6)[None])
        skip_init = nn.utils.skip_init  # does not use torch's global random generator
        self.first: nn.Linear | None = skip_init(nn.Linear, width, hidden) if hidden else None
        self.last: nn.Linear = skip_init(nn.Linear, hidden or width, len(common_P), bias=False)
        nn.init.zeros_(self.last.weight)
        if self.first:
            nn.init.normal_(self.first.weight, std=width**-0.5, generator=rng)
            nn.init.zeros_(self.first.bias)

    def own(self, sentence_SD: Tensor) -> Tensor:
        x_SD = (sentence_SD - self.mean_D) / self.spread
        x_SH = nn.functional.gelu(self.first(x_SD)) if self.first else x_SD
        own_SP: Tensor = self.last(x_SH)
        return own_SP

    def forward(self, sentence_SD: Tensor) -> Tensor:
        return self.common_P + self.own(sentence_SD)


@dataclass(frozen=True)
class FittedHypernet:
    """A trained network with its start."""

    network: Network
    learned: Layout
    """The layout of the network's output."""
    projection: Site | None
    """The projection, if it is among the sites."""
    start: SeenMeans | None
    ignores_experts: bool = True

    @cached_property
    def own_layout(self) -> Layout:
        rank = self.learned.rank + (2 if self.start else 0)
        return Layout(self.learned.sites, rank, float(rank)) if self.start else self.learned

    def adapters(self, sentence_SD: Tensor) -> Tensor:
        """Return adapters (S, P) for sentences. Differentiable with respect to the network."""
        flat_SP: Tensor = self.network(sentence_SD)
        if self.start is None or self.projection is None:
            return flat_SP
        b_start, a_start = (factor.float() for factor in removal(self.start, sentence_SD))
        factors = {}
        for name, (b, a) in self.learned.split(flat_SP).items():
            at_projection = name == self.projection.name
            b_more = b_start if at_projection else b.new_zeros(*b.shape[:-1], 2)  # all sites have the same rank
            a_more = a_start if at_projection else a.new_zeros(len(a), 2, a.shape[-1])
            factors[name] = torch.cat([b, b_more], dim=-1), torch.cat([a, a_more], dim=-2)
        return self.own_layout.join(factors)

    @torch.no_grad()
    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        """Generate (S, P). All samples are equal."""
        return self.adapters(prior.embedding_D[None]).repeat(samples, 1)

    def tensors(self) -> dict[str, Tensor]:
        kept = {f"network.{name}": value.half() for name, value in self.network.state_dict().items()}
        kept["layout"] = torch.tensor([self.learned.rank, self.learned.alpha])
        if self.start:
            kept |= self.start.tensors("start")
        elif self.projection:
            kept["site"] = text_tensor(self.projection.name)
            kept["shape"] = torch.tensor([self.projection.out_features, self.projection.in_features])
        return kept


def restore(experts: Experts, tensors: Mapping[str, Tensor]) -> FittedHypernet:
    """Recreate a hypernetwork from `tensors()`. Raises BadFile if they do not match the pack's layout."""
    try:
        state = {name[8:]: value.float() for name, value in tensors.items() if name.startswith("network.")}
        rank, alpha = tensors["layout"].tolist()
        start = SeenMeans.restored(tensors, "start") if "start.site" in tensors else None
        projection = start.projection if start else _site(tensors)
        size = len(state["common_P"])
        last = (projection,) if projection else ()
        layouts = (Layout(sites, int(rank), alpha) for sites in (last, (*experts.layout.sites, *last)) if sites)
        learned = next((layout for layout in layouts if layout.size == size), None)
        if learned is None:
            raise ValueError(f"its output has {size} parameters, which does not match the pack's sites")
        hidden, width = len(state["first.bias"]) if "first.bias" in state else 0, len(state["mean_D"])
        shapes = {"last.weight": (size, hidden or width), **({"first.weight": (hidden, width)} if hidden else {})}
        if wrong := [name for name, shape in shapes.items() if state[name].shape != shape]:
            raise ValueError(f"{wrong[0]} has shape {list(state[wrong[0]].shape)}")
        network = Network(torch.zeros(size), torch.zeros(2, width), hidden, torch.Generator())
        network.load_state_dict(state)
    except (KeyError, IndexError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise BadFile(f"these are not the tensors of a hypernetwork: {error}", "build the pack again") from None
    return FittedHypernet(network.requires_grad_(False).eval(), learned, projection, start)


def _site(tensors: Mapping[str, Tensor]) -> Site | None:
    """Return the projection if it is updated without the closed form."""
    if "site" not in tensors:
        return None
    out, into = tensors["shape"].tolist()
    return Site(text_of(tensors["site"]), int(out), int(into))
