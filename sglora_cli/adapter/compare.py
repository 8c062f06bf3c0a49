"""Compare two adapters: the similarity of their updates, by site and in total, and their provenance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sglora_cli.adapter.foreign import ForeignAdapter, matched
from sglora_cli.adapter.made_from import Fact, made_from
from sglora_cli.adapter.provenance import expert_weights
from sglora_cli.adapter.read import Found, lacks_scaling, provenance, read_adapter, recognise, stated_base
from sglora_cli.config import RuntimeConfig
from sglora_cli.errors import BadFile, Mismatch
from sglora_cli.lora.algebra import Factors, Similarity, similarity
from sglora_cli.plugin.contracts import Model
from sglora_cli.plugin.host import Host
from sglora_cli.system import settings
from sglora_cli.system.display import counted

DECIMALS = 4
"""Decimals of a cosine, both in tables and when it is compared with the thresholds below."""
NEARLY, SIMILAR, PARTLY = 0.98, 0.8, 0.3
"""Cosines from which two updates are called nearly the same, similar, and partly alike."""
_ROUNDING = 1e-5
"""Relative difference of an update that two programs have written."""
_SAME_SIZE = 0.1
_ONE_BACKBONE = "generate one of them again for the other's backbone; only adapters of one backbone can be compared"


@dataclass(frozen=True)
class Side:
    """One of the two adapters, and its recorded provenance."""

    path: Path
    facts: Mapping[str, Fact]
    experts: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        return {"file": str(self.path), "made_from": dict(self.facts), "experts": dict(self.experts)}


@dataclass(frozen=True)
class Comparison:
    """The comparison of two adapters A and B. In `sites` and `total`, X is the update of A and Y is that of B."""

    a: Side
    b: Side
    sites: Mapping[str, Similarity]
    """Similarities by A's site names."""
    total: Similarity
    notes: tuple[str, ...]
    """Reservations about the comparison, in sentences."""

    @property
    def facts(self) -> dict[str, tuple[Fact, Fact]]:
        """The facts that each file records, by name; None for a fact that is not recorded."""
        names = dict.fromkeys([*self.a.facts, *self.b.facts])
        return {name: (self.a.facts.get(name), self.b.facts.get(name)) for name in names}

    @property
    def experts(self) -> dict[str, tuple[float, float]]:
        """The weights in A and B of each expert, by `expert NAME`; 0 for an adapter without this expert."""
        names = dict.fromkeys([*self.a.experts, *self.b.experts])
        return {f"expert {name}": (self.a.experts.get(name, 0.0), self.b.experts.get(name, 0.0)) for name in names}

    @property
    def differs(self) -> list[str]:
        """Names of facts and experts that differ between the sides."""
        return [name for name, (one, other) in (self.facts | self.experts).items() if one != other]

    @property
    def relative(self) -> float | None:
        """The norm of the difference relative to the norm of A; None if A is zero."""
        return self.total.difference / self.total.norm_x if self.total.norm_x else None

    def to_json(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return {
            "a": self.a.to_json(),
            "b": self.b.to_json(),
            "differs": self.differs,
            **_numbers(self.total),
            "relative_difference": self.relative,
            "summary": summary(self.total),
            "sites": [{"site": name, **_numbers(site)} for name, site in self.sites.items()],
            "notes": list(self.notes),
        }


def _numbers(one: Similarity) -> dict[str, float | None]:
    return {"cosine": one.cosine, "norm_a": one.norm_x, "norm_b": one.norm_y, "difference": one.difference}


def compare_adapters(
    host: Host,
    path_a: Path,
    path_b: Path,
    runtime: RuntimeConfig,
    *,
    backbone: str = "",
    visual_only: bool = False,
) -> Comparison:
    """Compare two adapters in any format.

    A backbone is loaded if its name or weights are given, or if an adapter is a merged checkpoint, whose update is its
    difference to the backbone. Without a name, the backbone that a file records is used, or else that of the settings.
    The adapters are then compared at the backbone's sites. Without a backbone, their sites must be the same.
    visual_only: leave out updates outside the visual encoder. Raises the errors of `read_adapter`, BadFile for an
    update whose norm is not finite, Mismatch for adapters of different backbones or sites.
    """
    found = [recognise(path) for path in (path_a, path_b)]
    _check_fingerprints(path_a, provenance(found[0]), path_b, provenance(found[1]))  # before any weights are loaded
    model, name = None, ""
    if backbone or visual_only or runtime.weights or any(one.kind == "open_clip" for one in found):
        name = backbone or _stated_backbone(found) or settings.load().backbone
        model = host.backbones[name].load(settings.runtime(runtime, name, exact=True))
    a, b = (_read(one, model, name, visual_only) for one in found)
    notes = [
        f"{one.path} has no adapter_config.json next to it, so its norm assumes a lora_alpha of 1"
        for one in found
        if lacks_scaling(one)
    ]
    if model is None:
        notes += _check_backbones(a, b, path_a, path_b)
    else:
        a, b = _filled(a, b), _filled(b, a)
    sites = {site: similarity(*pair) for site, pair in _paired(a, b, path_a, path_b).items()}
    total = Similarity.total(sites.values())
    for path, square in ((path_a, total.square_x), (path_b, total.square_y), (path_b, total.square_apart)):
        if not math.isfinite(square):
            raise BadFile(f"{path}: the norm of the update is not finite", "generate or fetch the adapter again")
    return Comparison(_side(path_a, a), _side(path_b, b), sites, total, tuple(notes))


def _side(path: Path, adapter: ForeignAdapter) -> Side:
    return Side(path, made_from(adapter), dict(expert_weights(adapter.metadata)))


def _stated_backbone(found: list[Found]) -> str:
    """Return the backbone that one of the files records, preferring a merged checkpoint; "" if none does."""
    for one in sorted(found, key=lambda one: one.kind != "open_clip"):
        if isinstance(name := provenance(one).get("backbone"), str):
            return name
    return ""


def _read(found: Found, model: Model | None, backbone: str, visual_only: bool) -> ForeignAdapter:
    alpha = 1.0 if lacks_scaling(found) else None
    foreign = read_adapter(found, model, backbone=backbone, alpha=alpha, visual_only=visual_only, zero=True)
    foreign.check_whole(found.path)
    return foreign


def _check_fingerprints(path_a: Path, a: Mapping[str, Any], path_b: Path, b: Mapping[str, Any]) -> None:
    """Raise Mismatch if both files record a fingerprint and they differ."""
    one, other = (str(metadata.get("fingerprint", "")) for metadata in (a, b))
    if one and other and one != other:
        raise Mismatch(
            f"{path_a} is for backbone {a.get('backbone', 'unknown')} with fingerprint {one}, "
            f"but {path_b} for {b.get('backbone', 'unknown')} with fingerprint {other}",
            _ONE_BACKBONE,
        )


def _check_backbones(a: ForeignAdapter, b: ForeignAdapter, path_a: Path, path_b: Path) -> list[str]:
    """Return warnings if the adapters may have different backbones. Raises Mismatch if they do."""
    _check_fingerprints(path_a, a.metadata, path_b, b.metadata)
    if a.fingerprint and b.fingerprint:
        return []
    base_a, base_b = stated_base(a, path_a), stated_base(b, path_b)
    if base_a.name and base_b.name and (gap := base_a.gap([base_b.name])):
        raise Mismatch(f"{path_a} is for {base_a}, but {path_b} for {base_b}: {gap}", _ONE_BACKBONE)
    unknown = [str(path) for path, one in ((path_a, a), (path_b, b)) if not one.fingerprint]
    return [
        f"the backbone of {' and of '.join(unknown)} is unknown, so sites are compared by name and shape; "
        "pass --backbone to check it"
    ]


def _paired(a: ForeignAdapter, b: ForeignAdapter, path_a: Path, path_b: Path) -> dict[str, tuple[Factors, Factors]]:
    """Map each site of A to the factors of A and B. Raises Mismatch unless both have the same sites and shapes.

    The names of one side may lack leading parts that the names of the other side have.
    """
    named, only_b = matched(b.parts, list(a.parts))
    if missing := [*(site for site in a.parts if site not in named), *only_b]:
        owner = path_b if missing[0] in only_b else path_a
        raise Mismatch(
            f"the sites differ: {path_a} has {len(a.parts)}, {path_b} has {len(b.parts)}, and "
            f"{len(missing)} of them are only in one file, such as {missing[0]} of {owner}",
            "pass --backbone NAME if both are for one backbone; missing updates then count as zero",
        )
    pairs = {site: (a.parts[site], b.parts[named[site]]) for site in a.parts}
    shapes = {site: [f"{len(b)} x {a.shape[1]}" for b, a in pair] for site, pair in pairs.items()}
    if other := [site for site, (one, two) in shapes.items() if one != two]:
        raise Mismatch(
            f"{len(other)} of {counted(len(pairs), 'site')} differ in shape, such as {other[0]}, "
            f"{shapes[other[0]][0]} in {path_a} and {shapes[other[0]][1]} in {path_b}",
            _ONE_BACKBONE,
        )
    return pairs


def _filled(one: ForeignAdapter, other: ForeignAdapter) -> ForeignAdapter:
    """Add updates of zero at the sites that only the other adapter has. Both are placed at sites of one backbone."""
    missing = {name: (b * 0, a * 0) for name, (b, a) in other.parts.items() if name not in one.parts}
    return replace(one, parts={**one.parts, **missing})


def summary(total: Similarity) -> str:
    """Summarise the numbers in a sentence.

    >>> summary(Similarity(square_x=1.0, square_y=1.0, product=0.99, square_apart=0.02))
    'the two adapters are nearly the same update'
    >>> summary(Similarity(square_x=1.0, square_y=1.0, product=0.5, square_apart=1.0))
    'the two adapters are partly alike: 25% of each squared norm lies along the other update'
    """
    if total.cosine is None:
        if total.square_x == total.square_y:
            return "both updates are zero, so neither adapter changes anything"
        return f"the update of {'A' if total.square_x == 0 else 'B'} is zero, so that adapter changes nothing"
    if total.difference <= _ROUNDING * total.norm_x:
        return "the two adapters are the same update" + (" up to rounding" if total.difference else "")
    cosine, ratio = round(total.cosine, DECIMALS), total.norm_y / total.norm_x
    along = f"{cosine**2:.0%} of each squared norm lies along the other update"
    if abs(cosine) >= NEARLY:
        same_size = abs(ratio - 1) <= _SAME_SIZE
        if cosine > 0 and same_size:
            return "the two adapters are nearly the same update"
        size = "" if same_size else f", and the update of B is {ratio:.3g} times as large"
        return f"the two updates have nearly {'the same direction' if cosine > 0 else 'opposite directions'}{size}"
    if cosine >= SIMILAR:
        return f"the two adapters are similar: {along}"
    if cosine >= PARTLY:
        return f"the two adapters are partly alike: {along}"
    if cosine > -PARTLY:
        return f"the two adapters have almost nothing in common: {along}"
    return f"the two adapters partly oppose each other: {along}"
