"""Whether a trained generator does anything: what its manifest says, and what can be measured at once.

Measured on the experts' own sentences, whose adapters are known: nothing else is in a pack. A
merging rule is as healthy as its experts and is not looked at.

Shapes: E experts asked, P numbers of an adapter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from sglora_cli.errors import BadFile, SgloraError
from sglora_cli.lora.algebra import distances, inner_products
from sglora_cli.pack.pack import Pack
from sglora_cli.plugin.contracts import Fitted, Generator
from sglora_cli.plugin.host import Host

SMALL, SAME, UNUSED = 0.01, 1e-3, 0.1
"""An update below SMALL of the experts' norm is nothing; adapters closer than SAME of their norm are one; a KL
below UNUSED nats says that the latent carries nothing."""
ASKED = 6
"""Experts asked before a generator is used; `sglora inspect` asks all."""


@dataclass(frozen=True)
class Health:
    """What a generator makes of the experts' own sentences; all are parts of a norm of updates."""

    size: float
    """Norm of its means (temperature 0), of the experts' norm."""
    gap: float
    """Distance of its means to mu*, of mu*'s norm."""
    spread: float
    """Mean distance between its means for different sentences, of their norm. NaN for one expert."""
    draws: float
    """Mean distance of a draw to the mean of its sentence, of the mean's norm."""


def measured(pack: Pack, fitted: Fitted, most: int = 1000) -> Health:
    """Ask for at most `most` experts, evenly over the pack. NaN where the output is not finite."""
    count = len(pack.experts.names)
    rows = sorted({round(i * (count - 1) / max(1, min(count, most) - 1)) for i in range(min(count, most))})
    priors = [pack.prior(pack.index_ED[row]) for row in rows]
    mean_EP = torch.cat([fitted.generate(prior, 1, 0, 0.0) for prior in priors])
    drawn_EP = torch.cat([fitted.generate(prior, 1, row, 1.0) for row, prior in zip(rows, priors, strict=True)])
    star_EP = torch.stack([prior.mean_P for prior in priors])
    flat_TP = torch.cat([mean_EP, drawn_EP, star_EP, pack.experts.means(rows)])
    if not bool(torch.isfinite(flat_TP).all()):
        return Health(math.nan, math.nan, math.nan, math.nan)
    inner_TT = inner_products(pack.layout, flat_TP)
    apart_TT, norm_T = distances(inner_TT), inner_TT.diagonal().clamp_min(0).sqrt()
    n, own = len(rows), torch.arange(len(rows))
    size, star, expert = (float(norm_T[first : first + n].mean()) for first in (0, 2 * n, 3 * n))
    pairs = apart_TT[:n, :n].sum() / (n * (n - 1)) if n > 1 else torch.tensor(math.nan)
    return Health(
        size=part(size, expert),
        gap=part(float(apart_TT[own, 2 * n + own].mean()), star),
        spread=part(float(pairs), size),
        draws=part(float(apart_TT[own, n + own].mean()), size),
    )


def part(of: float, whole: float) -> float:
    return of / whole if whole else math.nan if of else 0.0


def faults(health: Health, told: Mapping[str, Any]) -> list[str]:
    """Why a generator must not be trusted, in sentences; `told` is what the manifest says of its training."""
    error, spread = told.get("error_per_number"), told.get("spread_per_number")
    found = []
    if isinstance(error, float) and isinstance(spread, float) and not error < spread:
        found.append(f"it explains nothing of what it learned from: error {error:.3g} a number, spread {spread:.3g}")
    if not math.isfinite(health.size):
        found.append("its output is not finite")
    elif health.size < SMALL:
        found.append(f"its updates have {health.size:.1%} of the experts' norm: they change nothing")
    elif health.spread < SAME and health.draws < SAME:
        found.append("it makes the same adapter for every sentence and every draw")
    return found


def notes(health: Health, told: Mapping[str, Any]) -> list[str]:
    """What is no fault but good to know."""
    kl, found = told.get("kl"), []
    if isinstance(kl, float) and kl < UNUSED:
        found.append(f"its latent carries next to nothing (KL {kl:.2g} nats): what it makes follows from the sentence")
    if health.draws < SAME:
        found.append("its draws for one sentence hardly differ")
    return found


def check_generator(pack: Pack, generator: Generator, fitted: Fitted) -> None:
    """Raises BadFile for a generator that learns and looks as if it had not."""
    if not generator.learns:
        return
    wrong = faults(measured(pack, fitted, ASKED), pack.manifest["generators"].get(generator.name, {}))
    if wrong:
        raise BadFile(
            f"generator {generator.name!r} of pack {pack.name!r} looks untrained: {'; '.join(wrong)}",
            "build the pack again with more epochs or tasks, or pass --force to use it all the same",
        )


def report(host: Host, pack: Pack) -> dict[str, dict[str, Any]]:
    """Name of each trained generator to its measures, faults and notes; to an error where it cannot be asked."""
    found: dict[str, dict[str, Any]] = {}
    for name, told in pack.manifest["generators"].items():
        try:
            health = measured(pack, pack.fitted(host.generators[name]))
        except SgloraError as error:  # a damaged or foreign generator must not hide the rest of the pack
            found[name] = {"faults": [error.message], "notes": []}
            continue
        values = {key: value if math.isfinite(value) else None for key, value in asdict(health).items()}
        found[name] = {**values, "faults": faults(health, told), "notes": notes(health, told)}
    return found


def lines(report: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The report for a person."""
    shown = []
    for name, facts in report.items():
        cells = [f"{key} {facts[key]:.1%}" for key in ("size", "gap", "spread", "draws") if facts.get(key) is not None]
        meaning = "on the experts' own sentences, of norms: " + ", ".join(cells) if cells else "not measured"
        shown.append(f"health     {name}: {meaning}")
        shown += [f"fault      {name}: {fault}; `generate` refuses it without --force" for fault in facts["faults"]]
        shown += [f"note       {name}: {note}" for note in facts["notes"]]
    return shown
