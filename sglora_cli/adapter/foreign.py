"""An adapter of any origin, before it is put into a layout.

Shapes: O out_features, I in_features, F rank of a site's factors, P numbers of an adapter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglora_cli.adapter.base import Base
from sglora_cli.adapter.peft_config import CONFIG
from sglora_cli.adapter.provenance import line, table
from sglora_cli.errors import BadFile, Mismatch
from sglora_cli.lora.algebra import Factors, compress_all, padded
from sglora_cli.lora.layout import Layout, Site
from sglora_cli.system.display import counted, quoted

PROJECTION = "visual_projection"
"""What follows a CLIP's vision tower in transformers: an update of it changes what the images look like."""


def _claims_nothing(name: str) -> str:
    return ""


@dataclass(frozen=True)
class ForeignAdapter:
    """Updates of any rank at named weights, as a file gives them.

    parts: name -> (B (O, F), A (F, I)), float64, the scaling included in B, so that the update is
    B A. scaling: that of all sites if they share one scaling and one rank, else 1. metadata: its
    provenance; {} for a foreign file. base: what the file says of its base. claims: what says in the
    file's configuration that a weight of that name has an update, "" if nothing does. unmet: what else the
    configuration names and the file lacks. lost: relative error of the update that reading cost.
    format: a key of `read.READERS`.
    """

    parts: Mapping[str, Factors]
    format: str
    scaling: float = 1.0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    base: Base = field(default_factory=Base)
    claims: Callable[[str], str] = _claims_nothing
    unmet: tuple[str, ...] = ()
    lost: float = 0.0

    def __repr__(self) -> str:
        size = f"format {self.format}, {counted(len(self.parts), 'site')}, {counted(self.size, 'number')}"
        return line("ForeignAdapter", self.metadata, size + self._stated_base(", base {}"))

    def _repr_html_(self) -> str:
        facts = {
            "base": self._stated_base("{}") or None,
            "format": self.format,
            "rank": self.rank if self.parts else None,
            "numbers": f"{self.size} at {counted(len(self.parts), 'site')}",
        }
        return table(self.metadata, facts)

    def _stated_base(self, text: str) -> str:
        """What a foreign file says of its base, put into a text; "" if it says nothing, or its metadata does."""
        known = "backbone" not in self.metadata and str(self.base) != "unknown"
        return text.format(quoted(str(self.base))) if known else ""

    @property
    def rank(self) -> int:
        """The highest rank of a site."""
        return max(b_OF.shape[1] for b_OF, _ in self.parts.values())

    @property
    def size(self) -> int:
        return sum(b_OF.numel() + a_FI.numel() for b_OF, a_FI in self.parts.values())

    @property
    def fingerprint(self) -> str:
        return str(self.metadata.get("fingerprint", ""))

    def norm(self) -> float:
        """Frobenius norm of the whole update."""
        grams = [((b.mT @ b) * (a @ a.mT)).sum() for b, a in self.parts.values()]
        return float(torch.stack(grams).sum().clamp_min(0).sqrt())

    def layout(self, rank: int | None = None) -> Layout:
        """The layout that holds this adapter, which was placed, exactly, or its best approximation of another rank."""
        sites = tuple(Site(name, len(b_OF), a_FI.shape[1]) for name, (b_OF, a_FI) in self.parts.items())
        if rank is None or rank == self.rank:
            return Layout(sites, self.rank, self.scaling * self.rank)
        return Layout(sites, rank, float(rank))

    def fitted(self, layout: Layout) -> tuple[Tensor, float]:
        """Its numbers (P,) in a layout with the same sites, and the relative error of the update.

        Where the rank fits, the factors are kept, so nothing is lost and the adapter keeps its
        gauge. Otherwise the update is approximated as well as the rank allows.
        """
        if self.rank <= layout.rank:
            parts, error = {name: padded(b, a, layout.rank) for name, (b, a) in self.parts.items()}, 0.0
        else:
            parts, error = compress_all(_of_one_rank(self.parts, self.rank), layout.rank)
        scaled = {name: (b_OR.double() / layout.scaling, a_RI.double()) for name, (b_OR, a_RI) in parts.items()}
        return layout.join(scaled).float(), math.hypot(error, self.lost)

    def check_whole(self, path: Path) -> None:
        """Raises BadFile if the file's configuration names what has no update."""
        if self.unmet:
            raise BadFile(
                f"{path} has no update of {', '.join(self.unmet[:3])}, which {CONFIG} names",
                f"fetch the adapter again; if its base has no such module, delete the name from {CONFIG}",
            )

    def placed(
        self, choices: Sequence[Sequence[Site]], visual_only: bool = False, zero: bool = False
    ) -> ForeignAdapter:
        """The same updates under the names of a backbone's sites; sites it does not name get an update of zero.

        choices: as `site_choices` gives them; the first is taken that has all sites which the file names.
        A name may lack the first parts of a site's name (a flat model), or have more in front (a
        wrapped one). zero: accept a whole update of zero. Raises Mismatch for updates elsewhere, of
        other shapes, or of zero, and BadFile if an update is missing that the file's configuration claims.
        """
        known = choices[-1]
        named, elsewhere = matched(self.parts, [site.name for site in known])
        _check_elsewhere(elsewhere, known, named, visual_only)
        for site in known:
            if site.name not in named:
                _check_missing(self.claims, named, site.name)
        placed: dict[str, Factors] = {}
        for site in next(sites for sites in choices if set(named) <= {site.name for site in sites}):
            if site.name not in named:
                placed[site.name] = (
                    torch.zeros(site.out_features, self.rank, dtype=torch.float64),
                    torch.zeros(self.rank, site.in_features, dtype=torch.float64),
                )
                continue
            b_OF, a_FI = placed[site.name] = self.parts[named[site.name]]
            if (len(b_OF), a_FI.shape[1]) != (site.out_features, site.in_features):
                raise Mismatch(
                    f"the update of {named[site.name]} is {len(b_OF)} x {a_FI.shape[1]}, "
                    f"the backbone's weight is {site.out_features} x {site.in_features}",
                    "this adapter was made for another architecture: use the backbone it was made for",
                )
        adapter = replace(self, parts=placed)
        if not zero and adapter.norm() == 0:
            raise Mismatch("the adapter's update is zero: it would change nothing", "it was saved before training")
        return adapter


def checked_parts(parts: Mapping[str, Factors], where: str) -> dict[str, Factors]:
    """The factors as float64. Raises BadFile unless they are finite matrices that fit each other."""
    if not parts:
        raise BadFile(f"{where} holds no update at all")
    for name, factors in parts.items():
        for letter, x in zip("BA", factors, strict=True):
            if not x.is_floating_point():
                raise BadFile(f"{where}: {letter} of {name} has numbers of type {x.dtype}, not of a LoRA adapter")
            if not bool(torch.isfinite(x.double()).all()):  # torch has no isfinite for every float8
                raise BadFile(f"{where}: {letter} of {name} contains numbers that are not finite", "it cannot be used")
        b, a = factors
        if b.ndim != 2 or a.ndim != 2 or b.shape[1] != a.shape[0] or 0 in (*b.shape, *a.shape):
            raise BadFile(f"{where}: B and A of {name} have shapes {tuple(b.shape)} and {tuple(a.shape)}")
    return {name: (b.double(), a.double()) for name, (b, a) in parts.items()}


def _of_one_rank(parts: Mapping[str, Factors], rank: int) -> dict[str, Factors]:
    return {name: padded(b, a, rank) for name, (b, a) in parts.items()}  # so that sites of one shape make one batch


def matched(names: Iterable[str], sites: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Site name -> the file's name for it, and the names of the file that match no site. Raises Mismatch for two names
    of one site."""
    by_end: dict[str, list[str]] = {}
    for site in sites:
        parts = site.split(".")
        for start in range(len(parts)):
            by_end.setdefault(".".join(parts[start:]), []).append(site)
    known, elsewhere = set(sites), []
    named: dict[str, str] = {}
    for name in names:
        parts = name.split(".")
        wrapped = [end for start in range(len(parts)) if (end := ".".join(parts[start:])) in known]
        candidates = wrapped[:1] or by_end.get(name, [])
        if len(candidates) != 1:
            elsewhere.append(name)
        elif candidates[0] in named:
            raise Mismatch(
                f"{named[candidates[0]]} and {name} are both updates of {candidates[0]}", "save one adapter alone"
            )
        else:
            named[candidates[0]] = name
    return named, elsewhere


def _check_elsewhere(
    elsewhere: Sequence[str], sites: Sequence[Site], named: Mapping[str, str], visual_only: bool
) -> None:
    if not named:
        name = elsewhere[0]
        raise Mismatch(
            f"no update of the file belongs to a site of the backbone: the file has {name}, "
            f"the backbone {sites[0].name}",
            "this adapter was made for another architecture: use the backbone it was made for",
        )
    towers = {site.name.split(".")[0] for site in sites if "." in site.name}
    flat = {name.split(".")[0] for site, name in named.items() if len(name) < len(site)}
    for name in elsewhere:
        if towers & set(parts := name.split(".")) or parts[0] in flat or parts[-1] == PROJECTION:
            raise Mismatch(
                f"{name} has an update, but is no site of the backbone: its effect would be lost",
                f"only adapters of {', '.join(sorted({site.name.split('.')[-1] for site in sites}))} can be taken",
            )
    if elsewhere and not visual_only:
        raise Mismatch(
            f"{len(elsewhere)} updates are outside the visual encoder, the first is {elsewhere[0]}",
            "pass --visual-only to take the visual part and leave them out",
        )


def _check_missing(claims: Callable[[str], str], named: Mapping[str, str], site: str) -> None:
    some_site, some_name = next(iter(named.items()))
    if len(some_name) <= len(some_site):
        left_out = len(some_site) - len(some_name)
        if not site.startswith(some_site[:left_out]):
            return  # a flat model is one tower: what is beside it is in no model of that class
        expected = site[left_out:]
    else:
        expected = some_name[: len(some_name) - len(some_site)] + site
    if claim := claims(expected):
        raise BadFile(
            f"the update of {expected} is missing: adapter_config.json names it ({claim})",
            "fetch the adapter again, or name in adapter_config.json only what has an update",
        )
