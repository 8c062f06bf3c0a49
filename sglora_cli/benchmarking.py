"""Methods x unseen tasks -> rows, and what the rows say.

Shapes: P numbers of an adapter, D embedding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglora_cli import caching
from sglora_cli.adapters import Layout, checked_flat
from sglora_cli.configs import BenchConfig
from sglora_cli.contracts import Generator, Model, Report, Row
from sglora_cli.errors import Unavailable, UnknownName, UsageError
from sglora_cli.evidence import Witness
from sglora_cli.files import content_hash
from sglora_cli.formats import read_adapter
from sglora_cli.generating import Session
from sglora_cli.host import Host
from sglora_cli.measuring import Candidate, Measurer, encode_images, labels
from sglora_cli.packs import Pack, UnseenTask
from sglora_cli.progressing import progress
from sglora_cli.recording import Log
from sglora_cli.retrieval import KS, chance
from sglora_cli.rows_files import Header
from sglora_cli.semantics import Prior
from sglora_cli.statistics import bootstrap

ORACLE = "oracle"
CHANCE = "chance"
ZERO = "zero-shot"
AGAINST = "top-k"
PAPER = ("zero-shot", ORACLE, "model-soups", "adapter-soup", "top-k", "cvae")

Maker = Callable[[UnseenTask], list[Candidate]]
"""A task -> the adapters to measure on it."""


@dataclass(frozen=True)
class Plan:
    """What will be measured: everything the rows follow from."""

    model: Model
    tasks: Sequence[UnseenTask]
    names: Mapping[str, str]
    """Method name to its label, in the order of the table."""
    make: Maker = field(repr=False)
    config: BenchConfig
    pack: str
    backbone: str
    against: str = AGAINST
    references: Mapping[str, str] = field(default_factory=dict)
    """Methods that are compared with another one than `against`."""
    on: str = ""
    """The other pack that the tasks came from."""
    protocol: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    """What a reader of the table must know."""
    origin: Any = None
    """What else the adapters follow from, as JSON: the pack's manifest, or the adapters' files."""

    def header(self, command: str = "", table: str = "") -> Header:
        settings = {k: v for k, v in asdict(self.config).items() if k != "resamples"}
        keys = [[t.dataset, t.name, t.description, len(t.tensors.stem_N)] for t in self.tasks]
        plan = content_hash([self.origin, self.model.fingerprint, list(self.names), settings, keys])[:16]
        more = {"plan": plan, "command": command, "table": table, "config": settings}
        more |= {"fingerprint": self.model.fingerprint, "on": self.on, "references": dict(self.references)}
        more["notes"] = list(self.notes)
        return Header(self.pack, self.backbone, {CHANCE: "Chance", **self.names}, self.against, more=more)


def methods(host: Host, pack: Pack, wanted: str, oracle: bool = True, without: Container[str] = ()) -> dict[str, str]:
    """Method names to labels, in the table's order. `wanted`: names with commas; "all" and "paper" stand for several.

    Raises UnknownName; a learned generator that the pack lacks is left out of "all", and so are the Oracle
    where no task has one, and names in `without`.
    """
    usable = {n: g for n, g in host.generators.items() if not g.learns or n in pack.manifest["generators"]}
    rules = [n for n, g in usable.items() if not g.learns and n not in without]
    learned = [n for n, g in usable.items() if g.learns and n not in without]
    several = {
        "all": [*rules[:1], *[ORACLE] * oracle, *rules[1:], *learned],
        "paper": [n for n in PAPER if (n == ORACLE and oracle) or n in usable],
    }
    asked = [n.strip() for n in wanted.split(",") if n.strip()]
    names = list(dict.fromkeys(name for one in asked for name in several.get(one, [one])))
    usable |= {n: host.generators[n] for n in names if n.partition(":")[0] in usable}  # `ties:density=0.5`
    for name in names:
        if name != ORACLE and name not in usable:
            if name in host.generators:
                raise UnknownName(f"pack {pack.name!r} has no trained {name!r}", "build the pack again with it")
            raise UnknownName.of("method", name, [*usable, ORACLE])
    return {n: "Oracle" if n == ORACLE else usable[n].label for n in names}


def plan(session: Session, tasks: Sequence[UnseenTask], names: Mapping[str, str], config: BenchConfig) -> Plan:
    """Measure a pack's methods."""
    pack, host = session.pack, session.host
    fitted = {n: pack.fitted(host.generators[n]) for n in names if n != ORACLE}
    embeddings_TD = session.model.encode_text([task.description for task in tasks])
    embedding_of = {f"{t.dataset}/{t.name}": d for t, d in zip(tasks, embeddings_TD, strict=True)}

    def make(task: UnseenTask) -> list[Candidate]:
        prior, witness = pack.prior(embedding_of[f"{task.dataset}/{task.name}"]), Witness(session.model, pack, task)
        found = []
        for name in names:
            if name == ORACLE:
                if task.oracle_P is None:
                    hint = "leave oracle out of --baselines"
                    raise Unavailable(f"there is no Oracle adapter of {task.name!r}", hint)
                found.append(Candidate(name, pack.layout, task.oracle_P))
                continue
            ask = partial(witness.ask, host.generators[name], fitted[name])
            found += candidates(pack.layout, host.generators[name], ask, prior, config, name)
        return found

    def steady(task: UnseenTask) -> list[Candidate]:
        with pack.steady():  # or these adapters may be of two packs
            return make(task)

    protocol: dict[str, Any] = {"backbone": pack.backbone, "rank": pack.layout.rank, "k": pack.prior_config.k}
    protocol["experts"] = sorted({t["dataset"] for t in pack.manifest["tasks"] if t["role"] == "expert"})
    return Plan(
        session.model, tasks, names, steady, config, pack.name, pack.backbone, protocol=protocol, origin=pack.manifest
    )


def candidates(
    layout: Layout,
    generator: Generator,
    ask: Callable[[Prior, int, int, float], Tensor],
    prior: Prior,
    config: BenchConfig,
    method: str,
    draws: int = 1,
    fold: Callable[[Prior, Tensor], Tensor] | None = None,
) -> list[Candidate]:
    """A method's adapters for a prior: of every seed every sample. With `fold`, a sample is made of n `draws`.

    ask: (prior, samples, seed, temperature) -> (S, P), or (S, N, P) where each image has its own adapter.
    """
    found = []
    several = getattr(generator, "draws", generator.learns)
    for seed in range(config.seed, config.seed + (config.seeds if several else 1)):
        count = config.samples if several else 1
        flat_SP = ask(prior, count * draws, seed, config.temperature)
        if fold is not None:
            flat_SP = torch.stack([fold(prior, part_nP) for part_nP in flat_SP.split(draws)])
        found += [Candidate(method, layout, flat_P, s, seed) for s, flat_P in enumerate(flat_SP)]
    return found


def plan_of_adapters(
    model: Model, backbone: str, paths: Sequence[Path], tasks: Sequence[UnseenTask], config: BenchConfig
) -> Plan:
    """Measure adapter files of any format beside zero-shot. Raises BadFile, Mismatch for a file that does not fit."""
    found: dict[str, Candidate] = {}
    for path in paths:
        name = path.name.removesuffix(".safetensors").removesuffix(".pt")
        if name in found or name in (ZERO, CHANCE):
            raise UsageError(f"two methods would be called {name!r}", "rename a file")
        loose = read_adapter(path, model)
        layout = loose.layout(model.sites)
        found[name] = Candidate(name, layout, checked_flat(loose.fitted(layout)[0], str(path)))
    first = next(iter(found.values()))
    zero = Candidate(ZERO, first.layout, torch.zeros(first.layout.size))
    names = {ZERO: "Zero-shot", **{name: name for name in found}}
    origin = [[name, content_hash(c.flat_P, c.layout.about())] for name, c in found.items()]
    make = lambda task: [zero, *found.values()]  # noqa: E731
    return Plan(model, tasks, names, make, config, "", backbone, against=ZERO, origin=origin)


@caching.in_use()
def run(plan: Plan, measurer: Measurer, log: Log | None = None) -> list[Row]:
    """Measure all of it. Adapters of one task share one pass over its images; finished tasks are in the log."""
    rows: list[Row] = []
    for task in progress(plan.tasks, "bench"):
        found = [*measurer.rows(task, plan.make(task)), *_by_chance(task)]
        if log is not None:
            log.add(found)
        rows += found
    return rows


def _by_chance(task: UnseenTask) -> list[Row]:
    if labels(task.tensors):
        found = {("ACC", 1): 100.0 / len(task.tensors.text_CD)}
    else:
        found = chance(len(task.tensors.stem_N), task.tensors.image_of)
    return [Row(CHANCE, task.dataset, task.name, 0, d, k, value) for (d, k), value in found.items()]


def estimate(plan: Plan, measurer: Measurer) -> dict[str, Any]:
    """What a run would do, without doing it: one task's images are encoded once, to see how long that takes."""
    made = {f"{t.dataset}/{t.name}": plan.make(t) for t in plan.tasks}
    wanted = {key: len(t.tensors.stem_N) * len(made[key]) for key, t in zip(made, plan.tasks, strict=True)}
    images = sum(measurer.missing(t, made[key]) for key, t in zip(made, plan.tasks, strict=True))
    first = made[next(iter(made))][-1]
    tensors = plan.tasks[0].tensors
    one_P = first.flat_P.view(-1, first.layout.size)[:1]
    encode_images(plan.model, first.layout, tensors, one_P)  # the first time warms up
    start = time.perf_counter()
    encode_images(plan.model, first.layout, tensors, one_P)
    rate = len(tensors.stem_N) / (time.perf_counter() - start)
    return {
        "pack": plan.pack,
        "tasks": list(made),
        "methods": list(plan.names),
        "adapters": sum(map(len, made.values())),
        "images_to_encode": images,
        "images_known": sum(wanted.values()) - images,
        "images_per_second": round(rate, 1),
        "seconds": round(images / rate, 1),
    }


def differences(
    rows: Sequence[Row], config: BenchConfig, dataset: str = "", against: str = AGAINST
) -> dict[tuple[str, str, int], tuple[float, float, float]]:
    """(method, direction, k) -> mean difference to `against` in points and its 95 % interval; see statistics.py."""
    chosen = [row for row in rows if dataset in ("", row.dataset)]
    return bootstrap(chosen, config.resamples, config.seed).differences(against)


def report(plan: Plan, rows: Sequence[Row], paper: bool = False) -> Report:
    """Rows with everything a reporter prints."""
    found = bootstrap(rows, plan.config.resamples, plan.config.seed)
    against = plan.against if plan.against in plan.names or plan.references else next(iter(plan.names))
    labels = {CHANCE: "Chance", **plan.names}
    said = [*_summary(plan, rows), *_trivial(plan.tasks), *plan.notes]
    if bare := sorted(found.without_hits - {CHANCE}):
        said.append(f"intervals of {', '.join(bare)}: over tasks only, hits of single queries were not kept")
    return Report(
        plan.pack, rows, labels, found.differences(against, plan.references), against, said, paper, plan.protocol
    )


def _summary(plan: Plan, rows: Sequence[Row]) -> list[str]:
    tasks = sorted({(row.dataset, row.task) for row in rows})
    sizes = ", ".join(f"{sum(d == name for d, _ in tasks)} {name}" for name in sorted({d for d, _ in tasks}))
    what = " and ".join(sorted({"accuracy" if row.direction == "ACC" else "recall" for row in rows}, reverse=True))
    noun = ("unseen " if plan.protocol else "") + ("tasks" if len(tasks) != 1 else "task")
    owner = f"; pack {plan.pack!r}" if plan.pack else ""
    return [f"{len(tasks)} {noun} ({sizes}); {what} in percent, averaged over tasks{owner}"]


def _trivial(tasks: Sequence[UnseenTask]) -> list[str]:
    """Where k is not smaller than the number of images: then every caption finds its own."""
    found = []
    for k in KS:
        small = [t for t in tasks if not labels(t.tensors) and len(t.tensors.stem_N) <= k]
        if small:
            found.append(f"T2I R@{k} is 100 by definition in {len(small)} tasks of at most {k} images")
    return found
