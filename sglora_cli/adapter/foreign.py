"""An adapter of any format, before it is converted to a layout.

Shapes: O out_features, I in_features, F rank of a site's factors, P parameters of an adapter.
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

PARTS_LIMIT, NAME_LIMIT = 20_000, 1000
"""The most weights with an update in a file, and the most characters of the name of one."""
PROJECTION = "visual_projection"
"""The layer after a CLIP's vision tower in transformers. An update of it changes the image embeddings."""


def _claims_nothing(name: str) -> str:
    return ""


@dataclass(frozen=True)
class ForeignAdapter:
    """Updates of any rank at named weights, as read from a file.

    parts: maps each name to (B (O, F), A (F, I)), float64, with the scaling included in B, so that the update is B A.
    scaling: the scaling of all sites if they share one scaling and one rank, else 1.  metadata: the provenance; {} for
    a file of another program.  base: the recorded base.  claims: returns the entry of the file's configuration by which
    a weight of that name has an update, or "".  unmet: other entries of the configuration for which the file has no
    update.  lost: relative error that reading added to the update.  format: a key of `read.READERS`.
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
        size = f"format {self.format}, {counted(len(self.parts), 'site')}, {counted(self.size, 'parameter')}"
        return line("ForeignAdapter", self.metadata, size + self._stated_base(", base {}"))

    def _repr_html_(self) -> str:
        facts = {
            "base": self._stated_base("{}") or None,
            "format": self.format,
            "rank": self.rank if self.parts else None,
            "parameters": f"{self.size} at {counted(len(self.parts), 'site')}",
        }
        return table(self.metadata, facts)

    def _stated_base(self, text: str) -> str:
        """Format the base that another program recorded; "" if there is none, or if the metadata has a backbone."""
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
        """Return the Frobenius norm of the complete update."""
        grams = [((b.mT @ b) * (a @ a.mT)).sum() for b, a in self.parts.values()]
        return float(torch.stack(grams).sum().clamp_min(0).sqrt())

    def layout(self, rank: int | None = None) -> Layout:
        """Return the layout that stores this placed adapter exactly, or one of another rank to approximate it in."""
        sites = tuple(Site(name, len(b_OF), a_FI.shape[1]) for name, (b_OF, a_FI) in self.parts.items())
        if rank is None or rank == self.rank:
            return Layout(sites, self.rank, self.scaling * self.rank)
        return Layout(sites, rank, float(rank))

    def fitted(self, layout: Layout) -> tuple[Tensor, float]:
        """Return the adapter's parameters (P,) in a layout with the same sites, and the relative error of the update.

        If the rank fits, the factors are copied, so nothing is lost and the gauge does not change. Otherwise the update
        is approximated as well as the rank allows.
        """
        if self.rank <= layout.rank:
            parts, error = {name: padded(b, a, layout.rank) for name, (b, a) in self.parts.items()}, 0.0
        else:
            parts, error = compress_all(_of_one_rank(self.parts, self.rank), layout.rank)
        scaled = {name: (b_OR.double() / layout.scaling, a_RI.double()) for name, (b_OR, a_RI) in parts.items()}
        return layout.join(scaled).float(), math.hypot(error, self.lost)

    def check_whole(self, path: Path) -> None:
        """Raise BadFile if the file's configuration lists modules that have no update."""
        if self.unmet:
            raise BadFile(
                f"{path} has no update of {', '.join(self.unmet[:3])}, which {CONFIG} lists",
                f"fetch the adapter again, or delete the name from {CONFIG} if its base has no such module",
            )

    def placed(
        self, choices: Sequence[Sequence[Site]], visual_only: bool = False, zero: bool = False
    ) -> ForeignAdapter:
        """Return the same updates under the names of a backbone's sites. Sites without an update get zeros.

        choices: the result of `site_choices`; the first one with all sites of the file is used.  visual_only: ignore
        updates outside the visual encoder.  zero: accept an adapter whose update is zero.
        A name may lack leading parts of a site's name (a flat model) or have additional ones (a wrapped model).
        Raises Mismatch for updates at other weights, of other shapes, or of zero, and BadFile if the file has no update
        for a site that its configuration lists.
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
                    f"but the backbone's weight is {site.out_features} x {site.in_features}",
                    "use the backbone that the adapter was made for; this one has another architecture",
                )
        adapter = replace(self, parts=placed)
        if not zero and adapter.norm() == 0:
            raise Mismatch(
                "the adapter's update is zero, so it would change nothing", "it was probably saved before training"
            )
        return adapter


def checked_parts(parts: Mapping[str, Factors], where: str) -> dict[str, Factors]:
    """Return the factors as float64. Raises BadFile unless they are finite matrices with matching shapes."""
    if not parts:
        raise BadFile(f"{where} has no updates")
    if len(parts) > PARTS_LIMIT:
        raise BadFile(f"{where} has updates of {len(parts)} weights, the limit is {PARTS_LIMIT}")
    if too_long := next((name for name in parts if len(name) > NAME_LIMIT), ""):
        raise BadFile(f"{where}: the name {too_long[:100]!r}... of a weight has more than {NAME_LIMIT} characters")
    for name, factors in parts.items():
        for letter, x in zip("BA", factors, strict=True):
            if not x.is_floating_point():
                raise BadFile(f"{where}: {letter} of {name} has the type {x.dtype}, which is not a float type")
            if not bool(torch.isfinite(x.double()).all()):  # torch has no isfinite for every float8
                raise BadFile(f"{where}: {letter} of {name} contains numbers that are not finite", "it cannot be used")
        b, a = factors
        if b.ndim != 2 or a.ndim != 2 or b.shape[1] != a.shape[0] or 0 in (*b.shape, *a.shape):
            raise BadFile(f"{where}: B and A of {name} have shapes {tuple(b.shape)} and {tuple(a.shape)}")
    return {name: (b.double(), a.double()) for name, (b, a) in parts.items()}


def _of_one_rank(parts: Mapping[str, Factors], rank: int) -> dict[str, Factors]:
    return {name: padded(b, a, rank) for name, (b, a) in parts.items()}  # so that sites of one shape make one batch


def matched(names: Iterable[str], sites: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Map each site to the file's name for it, and return the file's names that match no site.

    Raises Mismatch if two names match one site.
    """
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
                f"{named[candidates[0]]} and {name} are both updates of {candidates[0]}", "save a single adapter"
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
            f"no update of the file matches a site of the backbone: the file has {name}, "
            f"the backbone has {sites[0].name}",
            "use the backbone that the adapter was made for; this one has another architecture",
        )
    towers = {site.name.split(".")[0] for site in sites if "." in site.name}
    flat = {name.split(".")[0] for site, name in named.items() if len(name) < len(site)}
    for name in elsewhere:
        if towers & set(parts := name.split(".")) or parts[0] in flat or parts[-1] == PROJECTION:
            raise Mismatch(
                f"{name} has an update but is not a site of the backbone, so its effect would be lost",
                f"use an adapter of {', '.join(sorted({site.name.split('.')[-1] for site in sites}))} only",
            )
    if elsewhere and not visual_only:
        raise Mismatch(
            f"the file has {counted(len(elsewhere), 'update')} outside the visual encoder, such as {elsewhere[0]}",
            "pass --visual-only to ignore them",
        )


def _check_missing(claims: Callable[[str], str], named: Mapping[str, str], site: str) -> None:
    some_site, some_name = next(iter(named.items()))
    if len(some_name) <= len(some_site):
        left_out = len(some_site) - len(some_name)
        if not site.startswith(some_site[:left_out]):
            return  # a flat model is one tower, so other sites are not part of it
        expected = site[left_out:]
    else:
        expected = some_name[: len(some_name) - len(some_site)] + site
    if claim := claims(expected):
        raise BadFile(
            f"the update of {expected} is missing, but adapter_config.json lists it ({claim})",
            "fetch the adapter again, or list only modules with an update in adapter_config.json",
        )
