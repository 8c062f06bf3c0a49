"""Explains an adapter: its prior, how well the experts cover the task, and which adapters it resembles.

Distances are between updates B A, not factors, and relative to the norm of the other adapter. A pack has no adapters of
training tasks, so an adapter is only compared with experts and the joint adapter.

Shapes: S samples, E experts, T adapters of all kinds.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from sglora_cli.generate.generated import Generated
from sglora_cli.lora.algebra import distances, inner_products
from sglora_cli.lora.prior import log_density
from sglora_cli.pack.dependence import Dependence
from sglora_cli.pack.health import ratio
from sglora_cli.pack.pack import Pack

COPY = 0.01
"""Two updates closer than this fraction of their norm count as equal."""


def explanation(pack: Pack, generated: Generated, dependence: Dependence | None) -> dict[str, Any]:
    """Return everything that `generate --explain` prints, as JSON values."""
    prior, prior_settings = generated.prior, generated.metadata["prior"]
    total = float(prior.variance_P.double().sum())
    within = ratio(float(prior.within_P.double().sum()), total)
    return {
        "prior": {
            **prior_settings,
            "variance": total,
            "within": within,
            "between": 1 - within if total else 0.0,
            "used": bool(generated.metadata["experts"]),
        },
        "coverage": {
            "closeness": generated.coverage.closeness,
            "percentile": generated.coverage.percentile,
            "far": generated.coverage.far,
        },
        "dependence": {**asdict(dependence), "line": dependence.line()} if dependence else None,
        **_resemblance(pack, generated),
    }


def _resemblance(pack: Pack, generated: Generated) -> dict[str, Any]:
    """Return norm, log density and distances of every sample, and the distances between samples.

    If the generator chooses its own sites or rank, only the norm is returned.
    """
    if generated.layout != pack.layout:
        norms = generated.layout.update_norm(generated.adapters_SP).tolist()
        return {
            "samples": [{"sample": n, "norm": x} for n, x in zip(generated.drawn, norms, strict=True)],
            "diversity": None,
        }
    known = {"mu*": generated.prior.mean_P[None]} | ({"joint": pack.joint_P[None]} if pack.has_joint else {})
    names = [*known, *pack.experts.names]
    count = len(generated.adapters_SP)
    flat_TP = torch.cat([generated.adapters_SP, *known.values(), pack.experts.means()])
    inner_TT = inner_products(generated.layout, flat_TP)
    apart_TT, norm_T = distances(inner_TT), inner_TT.diagonal().clamp_min(0).sqrt()
    likely_S = log_density(generated.prior, generated.adapters_SP)
    samples = []
    for s in range(count):
        far = {name: ratio(float(apart_TT[s, count + t]), float(norm_T[count + t])) for t, name in enumerate(names)}
        nearest = min(pack.experts.names, key=lambda name: far[name])
        samples.append(
            {
                "sample": generated.drawn[s],
                "norm": float(norm_T[s]),
                "log_density": float(likely_S[s]),
                "to_prior_mean": far["mu*"],
                "to_joint": far.get("joint"),
                "nearest_expert": nearest,
                "to_nearest_expert": far[nearest],
                "copy_of": next((name for name in sorted(names, key=far.__getitem__) if far[name] < COPY), None),
            }
        )
    return {"samples": samples, "diversity": diversity(apart_TT[:count, :count], norm_T[:count])}


def diversity(apart_SS: Tensor, norm_S: Tensor) -> dict[str, float] | None:
    """Return the mean, smallest and largest distance between samples, relative to their mean norm.

    Returns None for a single sample.
    """
    count = len(norm_S)
    if count < 2:
        return None
    one, other = torch.triu_indices(count, count, 1)
    pairs, norm = apart_SS[one, other], float(norm_S.mean())
    return {name: ratio(float(getattr(pairs, name)()), norm) for name in ("mean", "min", "max")}


def to_lines(facts: dict[str, Any]) -> list[str]:
    """Return the explanation as lines to print."""
    prior, cover = facts["prior"], facts["coverage"]
    mixed = [
        f"prior      K {prior['k']}, tau {prior['tau']:g}, space {prior['space']}; "
        f"{prior['within']:.1%} of its variance is within experts, {prior['between']:.1%} between them"
    ]
    text = [
        *(mixed if prior["used"] else []),
        f"coverage   closeness {cover['closeness']:.2f} to the tasks the pack has seen; {cover['percentile']:.0f}% of "
        f"these are at most this close to the others; below {cover['far']:.2f} is far",
    ]
    compared = any("nearest_expert" in row for row in facts["samples"])
    text.append("sample       norm  log density  to mu*  to joint  nearest expert" if compared else "sample       norm")
    for row in facts["samples"]:
        if not compared:
            text.append(f"  {row['sample']:<8} {row['norm']:6.3f}")
            continue
        joint = "-" if row["to_joint"] is None else f"{row['to_joint']:.1%}"
        text.append(
            f"  {row['sample']:<8} {row['norm']:6.3f}  {row['log_density']:11.3f}"
            f"  {row['to_prior_mean']:6.1%}  {joint:>8}  {row['nearest_expert']} {row['to_nearest_expert']:.1%}"
            + (f"; a copy of {row['copy_of']}" if row["copy_of"] else "")
        )
    if facts["diversity"]:
        spread = facts["diversity"]
        text.append(
            f"diversity  samples are {spread['mean']:.2%} of their norm apart "
            f"(from {spread['min']:.2%} to {spread['max']:.2%})"
        )
    if facts["dependence"]:
        text.append(f"depends    {facts['dependence']['line']}")
    if compared:
        text.append(
            "           distances are between updates; the pack has no adapters of training tasks to compare with"
        )
    else:
        text.append(
            "           its sites or ranks differ from the experts', so the pack has nothing to compare it with"
        )
    return text
