"""Measure how much a generator's adapters depend on the sentence, on sentences of tasks that the pack has not seen.

Results are stored in the user cache. The key is a hash of the pack's manifest and of one adapter of the generator.

Shapes: T sentences, P parameters of an adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglora_cli.errors import BadFile, SgloraError
from sglora_cli.files.hashes import content_hash
from sglora_cli.files.text import read_sealed, write_sealed
from sglora_cli.lora.algebra import inner_products
from sglora_cli.lora.layout import Layout
from sglora_cli.pack.loaded import LoadedPack
from sglora_cli.plugin.sentences import queries
from sglora_cli.plugin.values import EXPERT, UNSEEN
from sglora_cli.system.paths import cache_folder

HARDLY = 0.98
"""If the mean cosine of adapters for different sentences is above this, the sentence hardly matters."""
_MOST, _READ = 50, 1000
"""The most sentences to compare, and the most tasks to read for them."""


@dataclass(frozen=True)
class Dependence:
    """Similarity of a generator's updates B A, drawn at temperature 0 for sentences of different tasks."""

    sentences: int
    cosine: float
    """The mean cosine over all pairs of updates."""
    lowest: float
    """The lowest cosine of a pair."""
    own: float
    """The share of the mean squared norm that the updates do not have in common: 1 - ||mean update||^2 / mean ||.||^2.
    """
    where: str = ""
    """The sites that were compared, "" for all; see `dependence`."""

    @property
    def hardly(self) -> bool:
        return self.cosine > HARDLY

    def line(self) -> str:
        """The result in words."""
        verdict = ". They hardly depend on the sentence" if self.hardly else ""
        where = f" at {self.where}" if self.where else ""
        return (
            f"adapters for {self.sentences} tasks{where} have a mean cosine of {self.cosine:.3f} (lowest "
            f"{self.lowest:.3f}), and {self.own:.1%} of their squared norm is not common to all{verdict}"
        )


def of_products(inner_TT: Tensor) -> Dependence | None:
    """Compute the dependence from the inner products (T, T) of updates; None for fewer than two, or if one is zero.

    >>> of_products(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    Dependence(sentences=2, cosine=0.0, lowest=0.0, own=0.5, where='')
    """
    inner_TT = inner_TT.double()
    norm_T = inner_TT.diagonal().clamp_min(0).sqrt()
    count = len(norm_T)
    if count < 2 or not bool(torch.isfinite(inner_TT).all()) or not bool((norm_T > 0).all()):
        return None
    one, other = torch.triu_indices(count, count, 1)
    cosine = (inner_TT[one, other] / (norm_T[one] * norm_T[other])).clamp(-1, 1)
    own = 1 - float(inner_TT.mean() / inner_TT.diagonal().mean())
    return Dependence(count, float(cosine.mean()), float(cosine.min()), max(0.0, own))


def dependence(loaded: LoadedPack, name: str) -> Dependence | None:
    """Return the dependence of a pack's generator, from the cache or measured.

    None if it cannot be measured, because the generator needs photos or makes no update. The sentences are those of the
    pack's unseen tasks, or of its experts if it has fewer than two unseen tasks. Norms at the experts' sites cannot be
    compared with norms at other sites. So both are measured separately, and the stronger dependence is returned.
    Raises the errors of loading the backbone if nothing is cached.
    """
    if loaded.host.generators[name].needs:
        return None
    pack = loaded.pack
    probe = pack.prior(pack.expert_query(0))
    probe_P = loaded.fitted(name).generate(probe, 1, 0, 0.0)  # another version of the generator makes another adapter
    key = content_hash("dependence 2", pack.manifest, name, probe_P)
    path = cache_folder() / "measured" / "dependence" / f"{key}.json"
    if (known := _kept(path)) is not None:
        return Dependence(**known) if known else None
    found = _measured(loaded, name)
    write_sealed(path, asdict(found) if found else {})
    return found


def _kept(path: Path) -> dict[str, Any] | None:
    """Return the cached result, {} if it cannot be measured; None if there is no result or the file is damaged."""
    try:
        content = read_sealed(path) if path.exists() else None
    except BadFile:
        return None
    return content if isinstance(content, dict) and set(content) in (set(), set(Dependence.__annotations__)) else None


def _measured(loaded: LoadedPack, name: str) -> Dependence | None:
    pack, fitted = loaded.pack, loaded.fitted(name)
    unseen, experts = ([task["description"] for task in pack.tasks.of(role)[:_READ]] for role in (UNSEEN, EXPERT))
    texts = list(dict.fromkeys(unseen if len(set(unseen)) > 1 else experts))[:_MOST]
    if len(texts) < 2:
        return None
    flat_TP = torch.cat([fitted.generate(pack.prior(one), 1, 0, 0.0) for one in queries(loaded.model, texts)])
    layout = pack.layout_of(fitted)
    own = tuple(site for site in layout.sites if site in pack.layout.sites)
    found = []
    for sites in filter(None, (own, tuple(site for site in layout.sites if site not in own))):
        some = Layout(sites, layout.rank, layout.alpha)
        if one := of_products(inner_products(some, some.join(layout.split(flat_TP)))):
            where = "" if sites == layout.sites else f"{sites[0].name} and others" if sites[1:] else sites[0].name
            found.append(replace(one, where=where))
    return min(found, key=lambda one: one.cosine, default=None)


def report(loaded: LoadedPack) -> dict[str, Dependence | str]:
    """Return the dependence of the pack's default generator and of each trained one, or why it cannot be measured."""
    manifest: Mapping[str, Any] = loaded.pack.manifest
    found: dict[str, Dependence | str] = {}
    for name in dict.fromkeys([manifest["default_generator"], *manifest["generators"]]):
        try:
            found[name] = dependence(loaded, name) or "there is nothing to compare"
        except SgloraError as error:  # as in health, a failing generator must not hide the others
            found[name] = error.message
    return found


def to_json(report: Mapping[str, Dependence | str]) -> dict[str, Any]:
    """Return the report as JSON values: the numbers of each generator, or why there are none."""
    return {name: {"unknown": one} if isinstance(one, str) else asdict(one) for name, one in report.items()}


def to_lines(report: Mapping[str, Dependence | str]) -> list[str]:
    """Return the report as lines of text."""
    said = {name: f"not measured: {one}" if isinstance(one, str) else one.line() for name, one in report.items()}
    return [f"depends    {name}: {text}" for name, text in said.items()]
