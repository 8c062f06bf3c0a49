"""Sites and layouts, which define an adapter and the order of its parameters. No torch import at the top.

Shapes: T adapters, P parameters of an adapter, O = out_features, I = in_features, R rank. Means: K adapters, S means.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sglora_cli.errors import Mismatch

if TYPE_CHECKING:
    from torch import Tensor

MIXED = 1 << 22
"""Numbers of adapters that are summed in float64 at once, 32 MiB, or those of one adapter."""


@dataclass(frozen=True)
class Site:
    """A weight (out_features, in_features) that receives an update B A."""

    name: str
    out_features: int
    in_features: int


@dataclass(frozen=True)
class Layout:
    """The updated sites with rank and scale: h = W x + (alpha / rank) B A x.

    An adapter is flattened as in SG-LoRA (arXiv 2509.10535), Eq. 3: B then A of each site, in
    layer order.
    """

    sites: tuple[Site, ...]
    rank: int
    alpha: float

    def __repr__(self) -> str:
        return f"Layout({len(self.sites)} sites, rank {self.rank}, alpha {self.alpha:g}: {self.size} parameters)"

    @property
    def line(self) -> str:
        """A readable description."""
        sites = f"{len(self.sites)} site{'' if len(self.sites) == 1 else 's'}"
        return f"rank {self.rank}, alpha {self.alpha:g}, {sites}, {self.size} parameters"

    @cached_property
    def size(self) -> int:
        """P, the number of parameters of an adapter."""
        return sum(self.rank * (site.out_features + site.in_features) for site in self.sites)

    @property
    def scaling(self) -> float:
        return self.alpha / self.rank

    def split(self, flat_TP: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return views (B (T, O, R), A (T, R, I)) of each site, differentiable to flat_TP."""
        if flat_TP.shape[-1] != self.size:
            raise Mismatch(f"an adapter of this layout has {self.size} parameters, got {flat_TP.shape[-1]}")
        parts, start = {}, 0
        for site in self.sites:
            middle = start + site.out_features * self.rank
            end = middle + site.in_features * self.rank
            parts[site.name] = (
                flat_TP[..., start:middle].unflatten(-1, (site.out_features, self.rank)),
                flat_TP[..., middle:end].unflatten(-1, (self.rank, site.in_features)),
            )
            start = end
        return parts

    def join(self, parts: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor:
        """Invert `split`: (..., P)."""
        import torch

        return torch.cat([x.flatten(-2) for site in self.sites for x in parts[site.name]], dim=-1)

    def b_mask(self) -> Tensor:
        """Return (P,), True for parameters that belong to a B."""
        import torch

        parts = {
            s.name: (torch.ones(s.out_features, self.rank), torch.zeros(self.rank, s.in_features)) for s in self.sites
        }
        return self.join(parts).bool()

    def initial(self, seed: int) -> Tensor:
        """Return an initial adapter (P,): A uniform in +-1/sqrt(I) as in PEFT, and B zero, so the update is zero.

        Every task of a pack starts here. Since B A = (B G)(G^-1 A) for every invertible G, only
        adapters that start from the same A share a gauge in which they can be averaged.
        """
        import torch

        generator = torch.Generator().manual_seed(seed)
        parts = {}
        for site in self.sites:
            a_RI = torch.rand(self.rank, site.in_features, generator=generator) * 2 - 1
            parts[site.name] = (torch.zeros(site.out_features, self.rank), a_RI / math.sqrt(site.in_features))
        return self.join(parts)

    def update_norm(self, flat_TP: Tensor) -> Tensor:
        """Return the Frobenius norm of the update (alpha / rank) B A over all sites: (T,).

        Uses ||B A||^2 = trace((B^T B)(A A^T)), which is R x R, instead of building B A.
        """
        import torch

        total = torch.zeros(flat_TP.shape[:-1])
        for b_TOR, a_TRI in self.split(flat_TP).values():
            total = total + ((b_TOR.mT @ b_TOR) * (a_TRI @ a_TRI.mT)).sum(dim=(-2, -1))
        return self.scaling * total.clamp_min(0).sqrt()

    def to_json(self) -> dict[str, Any]:
        return {
            "rank": self.rank,
            "alpha": self.alpha,
            "sites": [[site.name, site.out_features, site.in_features] for site in self.sites],
        }

    @classmethod
    def restore(cls, metadata: Mapping[str, Any]) -> Layout:
        """Create a layout from the result of `to_json()`. Raises Mismatch if it is not a layout."""
        try:
            sites = tuple(Site(str(name), int(out), int(into)) for name, out, into in metadata["sites"])
            layout = cls(sites, int(metadata["rank"]), float(metadata["alpha"]))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise Mismatch(f"not a LoRA layout: {error}") from None
        if (
            layout.rank < 1
            or not math.isfinite(layout.alpha)
            or any(min(s.out_features, s.in_features) < 1 for s in sites)
        ):
            raise Mismatch("not a LoRA layout: rank and features must be positive")
        return layout


def text_tensor(text: str) -> Tensor:
    """Encode text, such as a site's name, for files that only contain tensors."""
    import torch

    return torch.tensor([*text.encode()], dtype=torch.uint8)


def text_of(bytes_N: Tensor) -> str:
    """Decode the text of `text_tensor`. Raises ValueError for any other tensor.

    >>> text_of(text_tensor("visual_projection"))
    'visual_projection'
    """
    import torch

    if bytes_N.dtype != torch.uint8 or bytes_N.ndim != 1:
        raise ValueError(f"a tensor of shape {list(bytes_N.shape)} and {bytes_N.dtype} is not text")
    return bytes_N.numpy().tobytes().decode()


def mix(weights_K: Tensor, adapters_KP: Tensor) -> Tensor:
    """Return the weighted mean of the factors (Eq. 7): (P,), or (S, P) for weights (S, K) of S means.

    Sums in float64, so that the order hardly matters. Only some adapters are converted at a time, see MIXED.
    """
    at_once = max(1, MIXED // max(1, adapters_KP.shape[-1]))
    parts = zip(weights_K.double().split(at_once, dim=-1), adapters_KP.split(at_once), strict=True)
    first, *rest = (weights @ some_KP.double() for weights, some_KP in parts)
    return sum(rest, start=first).float()


def checked_flat(flat_TP: Tensor, what: str) -> Tensor:
    """Return the adapters unchanged. Raises Mismatch unless every number is finite."""
    if not bool(flat_TP.isfinite().all()):
        raise Mismatch(f"{what} contains numbers that are not finite", "build or generate it again")
    return flat_TP
