"""Check whether a trained generator works, by the training numbers in the manifest and by a quick measurement.

The measurement uses the experts' own sentences, because a pack contains no other adapters to compare with. A merging
rule is as good as its experts and is not measured. No torch at import time, because reports are cached.

Shapes: E measured experts, P parameters of an adapter.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from sglora_cli import __version__
from sglora_cli.errors import BadFile, SgloraError
from sglora_cli.pack.content.manifest import MANIFEST
from sglora_cli.pack.pack import Pack
from sglora_cli.plugin.contracts import Fitted, Generator, adapter_layout
from sglora_cli.plugin.guard import source_files
from sglora_cli.plugin.host import Host
from sglora_cli.system.fingerprints import remembered

SMALL, SAME, UNUSED, KEPT, FEW, DROPPED = 0.01, 1e-3, 0.1, 0.5, 2, 0.7
"""SMALL: an update below this share of the experts' norm has no effect.  SAME: adapters closer than this share of their
norm are equal.  UNUSED: below this KL divergence, in nats, the latent carries no information.  KEPT: a projection that
keeps less than this share of the squared norm drops most of an adapter.  FEW: a generator that is trained on fewer
tasks cannot generalise to others.  DROPPED: a rank that loses this share of the norm drops most of an adapter."""
QUICK = 6
"""The number of experts to measure before a generator is used. `sglora inspect` measures all of them."""


@dataclass(frozen=True)
class Health:
    """Measures of a generator's output for the experts' own sentences, each relative to a norm of updates."""

    size: float | None
    """Norm of its means (temperature 0), relative to the experts' norm; None if its sites are not the experts'."""
    gap: float | None
    """Distance of its means to mu*, relative to the norm of mu*; None if its sites are not the experts'."""
    spread: float
    """Mean distance between its means for different sentences, relative to their norm. NaN for one expert."""
    draws: float
    """Mean distance of a draw to the mean for its sentence, relative to the mean's norm."""


def measure(pack: Pack, fitted: Fitted, most: int = 1000) -> Health:
    """Measure at most `most` experts, spread evenly over the pack. NaN if the output is not finite."""
    import torch

    from sglora_cli.lora.algebra import distances, inner_products, stacked

    count = len(pack.experts.names)
    rows = sorted({round(i * (count - 1) / max(1, min(count, most) - 1)) for i in range(min(count, most))})
    priors = [pack.prior(pack.expert_query(row)) for row in rows]
    mean_EP = torch.cat([fitted.generate(prior, 1, 0, 0.0) for prior in priors])
    drawn_EP = torch.cat([fitted.generate(prior, 1, row, 1.0) for row, prior in zip(rows, priors, strict=True)])
    layout, flat_TP = adapter_layout(fitted, pack.layout), torch.cat([mean_EP, drawn_EP])
    if alike := layout.sites == pack.layout.sites:
        known_EP = torch.cat([torch.stack([prior.mean_P for prior in priors]), pack.experts.means(rows)])
        layout, flat_TP = stacked(layout, flat_TP, pack.layout, known_EP)
    if not bool(torch.isfinite(flat_TP).all()):
        return Health(math.nan, math.nan, math.nan, math.nan)
    inner_TT = inner_products(layout, flat_TP)
    apart_TT, norm_T = distances(inner_TT), inner_TT.diagonal().clamp_min(0).sqrt()
    n, own = len(rows), torch.arange(len(rows))
    pairs = apart_TT[:n, :n].sum() / (n * (n - 1)) if n > 1 else torch.tensor(math.nan)
    size, *norms = (float(norm_T[first : first + n].mean()) for first in range(0, len(norm_T), n))
    _, star, expert = norms if alike else (0.0, 0.0, 0.0)
    return Health(
        size=ratio(size, expert) if alike else None,
        gap=ratio(float(apart_TT[own, 2 * n + own].mean()), star) if alike else None,
        spread=ratio(float(pairs), size),
        draws=ratio(float(apart_TT[own, n + own].mean()), size),
    )


def ratio(part: float, whole: float) -> float:
    """Return part / whole. If whole is 0, return 0 for a part of 0 and NaN otherwise."""
    return part / whole if whole else math.nan if part else 0.0


def faults(health: Health, training: Mapping[str, Any]) -> list[str]:
    """Return the reasons, in sentences, why a generator must not be used. training: its numbers in the manifest."""
    reasons = _training_faults(training)
    if math.isnan(health.draws) and (health.size is None or math.isnan(health.size)):
        reasons.append("its output is not finite")
    elif health.size is not None and health.size < SMALL:
        reasons.append(f"its updates have {health.size:.1%} of the experts' norm, which has no effect")
    elif health.spread < SAME and health.draws < SAME:
        reasons.append("it generates the same adapter for every sentence and every draw")
    return reasons


def _training_faults(training: Mapping[str, Any]) -> list[str]:
    """Return the faults that the training numbers reveal, with the setting to change. Missing numbers are skipped."""
    reasons = []
    seen, projection = (training.get(key) for key in ("trained_on", "projection"))
    if isinstance(seen, Mapping) and "states" in seen and isinstance(tasks := seen.get("tasks"), int) and tasks < FEW:
        reasons.append(f"it was trained on {tasks} training task (list more in the recipe's `training`)")
    if isinstance(projection, Mapping) and isinstance(kept := projection.get("kept_share"), float) and kept < KEPT:
        wider = f"raise `projection` above {projection.get('numbers')}, or `energy`"
        reasons.append(f"its projection keeps {kept:.1%} of the adapters' squared norm ({wider})")
    error, spread, loss, constant, start, dropped = (
        training.get(key)
        for key in ("error_per_number", "spread_per_number", "loss", "loss_of_constant", "loss_at_start", "dropped")
    )
    for of, limit, text in (
        (error, spread, "it does not explain its training data (error {:.3g} per parameter, spread {:.3g})"),
        (loss, constant, "it learned nothing (loss {:.3g}, a constant has {:.3g})"),
        (loss, start, "it learned nothing (loss {:.4g}, before training {:.4g})"),
    ):
        if isinstance(of, float) and isinstance(limit, float) and not of < limit:
            diverged = "" if math.isfinite(of) else " because training diverged (lower `learning_rate`)"
            reasons.append(text.format(of, limit) + diverged)
    if isinstance(dropped, float) and not dropped < DROPPED:
        reasons.append(f"at rank {training.get('rank')} its updates lose {dropped:.0%} of their norm (raise `rank`)")
    return reasons


def notes(health: Health, training: Mapping[str, Any], draws: bool = True) -> list[str]:
    """Return remarks, in sentences, that are not faults. draws: whether the generator's samples differ."""
    kl, texts = training.get("kl"), []
    if isinstance(kl, float) and kl < UNUSED:
        texts.append(f"its latent carries almost no information (KL {kl:.2g} nats), so only the sentence matters")
    if draws and health.draws < SAME:
        texts.append("its draws for one sentence hardly differ")
    return texts


def check_trained(pack: Pack, generator: Generator, fitted: Fitted) -> None:
    """Raise BadFile for a trainable generator that looks untrained."""
    if not generator.learns:
        return
    reasons = faults(measure(pack, fitted, QUICK), pack.manifest["generators"].get(generator.name, {}))
    if reasons:
        raise BadFile(
            f"generator {generator.name!r} of pack {pack.name!r} looks untrained: {'; '.join(reasons)}",
            "build the pack again with more epochs or tasks, or pass --force to use it anyway",
        )


def report(host: Host, pack: Pack) -> dict[str, dict[str, Any]]:
    """Map each trained generator's name to its measures, faults and notes. An error is reported as a fault.

    Reports are cached until the pack's files or the generator's code change.
    """
    results: dict[str, dict[str, Any]] = {}
    for name in pack.manifest["generators"]:
        try:
            generator = host.generators[name]
            files = [pack.folder / MANIFEST, *pack.files_of(generator), *source_files(generator)]
            said = remembered(f"health {__version__} {name}", files, partial(_told, pack, generator))
            results[name] = json.loads(said)
        except SgloraError as error:  # a damaged or third-party generator must not hide the rest of the pack
            results[name] = {"faults": [error.message], "notes": []}
    return results


def _told(pack: Pack, generator: Generator) -> str:
    health, training = measure(pack, pack.fitted(generator)), pack.manifest["generators"][generator.name]
    told: dict[str, Any] = {
        key: value if value is not None and math.isfinite(value) else None for key, value in asdict(health).items()
    }
    told |= {"faults": faults(health, training), "notes": notes(health, training, generator.draws)}
    return json.dumps(told)


def to_lines(report: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the report as lines of text."""
    rows = []
    for name, facts in report.items():
        cells = [f"{key} {facts[key]:.1%}" for key in ("size", "gap", "spread", "draws") if facts.get(key) is not None]
        meaning = "on the experts' own sentences, relative to norms: " + ", ".join(cells) if cells else "not measured"
        rows.append(f"health     {name}: {meaning}")
        rows += [f"fault      {name}: {fault}; `generate` requires --force" for fault in facts["faults"]]
        rows += [f"note       {name}: {note}" for note in facts["notes"]]
    return rows
