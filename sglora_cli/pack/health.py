"""Whether a trained generator does anything: by the manifest's numbers of its training, and by a quick measurement.

It is measured on the experts' own sentences, whose adapters are known: a pack contains no others. A
merging rule is as healthy as its experts and is not measured.

Shapes: E experts asked, P numbers of an adapter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from sglora_cli.errors import BadFile, SgloraError
from sglora_cli.lora.algebra import distances, inner_products, stacked
from sglora_cli.pack.pack import Pack
from sglora_cli.plugin.contracts import Fitted, Generator
from sglora_cli.plugin.host import Host

SMALL, SAME, UNUSED = 0.01, 1e-3, 0.1
DROPPED = 0.7
"""An update below SMALL of the experts' norm has no effect; adapters closer than SAME of their norm are equal; with
a KL divergence below UNUSED nats the latent carries no information. An update that lacks DROPPED of its norm lacks half
of its squared norm."""
QUICK = 6
"""Experts that are measured before a generator is used; `sglora inspect` measures all."""


@dataclass(frozen=True)
class Health:
    """Measures of a generator's output for the experts' own sentences, each relative to a norm of updates."""

    size: float
    """Norm of its means (temperature 0), of the experts' norm."""
    gap: float
    """Distance of its means to mu*, of mu*'s norm."""
    spread: float
    """Mean distance between its means for different sentences, of their norm. NaN for one expert."""
    draws: float
    """Mean distance of a draw to the mean of its sentence, of the mean's norm."""


def measure(pack: Pack, fitted: Fitted, most: int = 1000) -> Health:
    """Measure at most `most` experts, spread evenly over the pack. NaN if the output is not finite."""
    count = len(pack.experts.names)
    rows = sorted({round(i * (count - 1) / max(1, min(count, most) - 1)) for i in range(min(count, most))})
    priors = [pack.prior(pack.expert_query(row)) for row in rows]
    mean_EP = torch.cat([fitted.generate(prior, 1, 0, 0.0) for prior in priors])
    drawn_EP = torch.cat([fitted.generate(prior, 1, row, 1.0) for row, prior in zip(rows, priors, strict=True)])
    star_EP = torch.stack([prior.mean_P for prior in priors])
    made_EP, known_EP = torch.cat([mean_EP, drawn_EP]), torch.cat([star_EP, pack.experts.means(rows)])
    layout, flat_TP = stacked(pack.layout_of(fitted), made_EP, pack.layout, known_EP)
    if not bool(torch.isfinite(flat_TP).all()):
        return Health(math.nan, math.nan, math.nan, math.nan)
    inner_TT = inner_products(layout, flat_TP)
    apart_TT, norm_T = distances(inner_TT), inner_TT.diagonal().clamp_min(0).sqrt()
    n, own = len(rows), torch.arange(len(rows))
    size, star, expert = (float(norm_T[first : first + n].mean()) for first in (0, 2 * n, 3 * n))
    pairs = apart_TT[:n, :n].sum() / (n * (n - 1)) if n > 1 else torch.tensor(math.nan)
    return Health(
        size=ratio(size, expert),
        gap=ratio(float(apart_TT[own, 2 * n + own].mean()), star),
        spread=ratio(float(pairs), size),
        draws=ratio(float(apart_TT[own, n + own].mean()), size),
    )


def ratio(part: float, whole: float) -> float:
    """part / whole; of a whole that is 0, 0 for no part and NaN for any other."""
    return part / whole if whole else math.nan if part else 0.0


def faults(health: Health, training: Mapping[str, Any]) -> list[str]:
    """Why a generator must not be used, in sentences. `training`: the manifest's numbers of its training."""
    error, spread = training.get("error_per_number"), training.get("spread_per_number")
    reasons = []
    if isinstance(error, float) and isinstance(spread, float) and not error < spread:
        reasons.append(f"it explains nothing of what it learned from: error {error:.3g} a number, spread {spread:.3g}")
    if not math.isfinite(health.size):
        reasons.append("its output is not finite")
    elif health.size < SMALL:
        reasons.append(f"its updates have {health.size:.1%} of the experts' norm: they change nothing")
    elif health.spread < SAME and health.draws < SAME:
        reasons.append("it makes the same adapter for every sentence and every draw")
    reasons += _learned_nothing(training)
    return reasons


def _learned_nothing(training: Mapping[str, Any]) -> list[str]:
    """What a loss before and after says, and what a compressed update lacks; nothing where neither is known."""
    step, start, end, dropped = (training.get(key) for key in ("diverged_at_step", "loss_at_start", "loss", "dropped"))
    reasons = []
    if isinstance(step, int):
        reasons.append(f"its training diverged at step {step}: lower `learning_rate`")
    elif isinstance(start, float) and isinstance(end, float) and not end < start:
        reasons.append(f"its loss was {start:.4g} before it learned and is {end:.4g}: lower `learning_rate`")
    if isinstance(dropped, float) and not dropped < DROPPED:
        reasons.append(f"at rank {training.get('rank')} its updates lack {dropped:.0%} of their norm: raise `rank`")
    return reasons


def notes(health: Health, training: Mapping[str, Any]) -> list[str]:
    """Remarks, in sentences, that are no faults."""
    kl, texts = training.get("kl"), []
    if isinstance(kl, float) and kl < UNUSED:
        texts.append(f"its latent carries next to nothing (KL {kl:.2g} nats): what it makes follows from the sentence")
    if health.draws < SAME:
        texts.append("its draws for one sentence hardly differ")
    return texts


def check_trained(pack: Pack, generator: Generator, fitted: Fitted) -> None:
    """Raises BadFile for a generator that must be trained and looks untrained."""
    if not generator.learns:
        return
    reasons = faults(measure(pack, fitted, QUICK), pack.manifest["generators"].get(generator.name, {}))
    if reasons:
        raise BadFile(
            f"generator {generator.name!r} of pack {pack.name!r} looks untrained: {'; '.join(reasons)}",
            "build the pack again with more epochs or tasks, or pass --force to use it all the same",
        )


def report(host: Host, pack: Pack) -> dict[str, dict[str, Any]]:
    """Name of each trained generator -> its measures, faults and notes. The fault of one that fails is its error."""
    results: dict[str, dict[str, Any]] = {}
    for name, training in pack.manifest["generators"].items():
        try:
            health = measure(pack, pack.fitted(host.generators[name]))
        except SgloraError as error:  # a damaged or foreign generator must not hide the rest of the pack
            results[name] = {"faults": [error.message], "notes": []}
            continue
        values = {key: value if math.isfinite(value) else None for key, value in asdict(health).items()}
        results[name] = {**values, "faults": faults(health, training), "notes": notes(health, training)}
    return results


def to_lines(report: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The report in lines for a person."""
    rows = []
    for name, facts in report.items():
        cells = [f"{key} {facts[key]:.1%}" for key in ("size", "gap", "spread", "draws") if facts.get(key) is not None]
        meaning = "on the experts' own sentences, of norms: " + ", ".join(cells) if cells else "not measured"
        rows.append(f"health     {name}: {meaning}")
        rows += [f"fault      {name}: {fault}; `generate` refuses it without --force" for fault in facts["faults"]]
        rows += [f"note       {name}: {note}" for note in facts["notes"]]
    return rows
