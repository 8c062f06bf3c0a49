"""Turns a request of `sglora bench` into a plan, and reports every error of the request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import torch

from sglora_cli.adapter.read import provenance, read_adapter, recognise
from sglora_cli.bench.ablations import plan_of_ablation
from sglora_cli.bench.candidates import Candidate
from sglora_cli.bench.evidence import lack, saw_training
from sglora_cli.bench.leaks import check_leaks, leaks, photos_unknown
from sglora_cli.bench.measure import Part
from sglora_cli.bench.methods import BenchPlan, methods, plan_of_methods
from sglora_cli.bench.request import BenchRequest
from sglora_cli.bench.tasks import (
    check_fits,
    narrowed,
    of_dataset,
    of_other,
    training_tasks,
    unseen_tasks,
)
from sglora_cli.config import ABLATIONS, BenchConfig, RuntimeConfig
from sglora_cli.errors import Mismatch, UsageError
from sglora_cli.files.hashes import content_hash
from sglora_cli.lora.layout import checked_flat
from sglora_cli.pack.content.evaluation import UnseenTask
from sglora_cli.pack.library import Library
from sglora_cli.pack.loaded import LoadedPack
from sglora_cli.pack.pack import Pack
from sglora_cli.plugin.contracts import Model
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import CHANCE, ORACLE, TRAINING, ZERO
from sglora_cli.system import settings
from sglora_cli.system.paths import data_folder


def bench_plan(host: Host, request: BenchRequest, config: BenchConfig, runtime: RuntimeConfig) -> BenchPlan:
    """Return the plan of a request. Raises an SgloraError for an invalid request, before anything is measured."""
    request.check()
    known = settings.load().data if (request.dataset or request.role == TRAINING) and not request.on else ""
    data = data_folder(request.data, known) if request.data or known else None
    if request.adapters and data and request.dataset and not request.pack:
        return _of_adapters(host, request, data, config, runtime)
    loaded = LoadedPack.open(host, request.pack, runtime, request.backbone)
    tasks = _tasks(loaded, request, data)
    if request.adapters:
        return plan_of_adapters(loaded.model, loaded.pack.backbone, request.adapters, tasks, config)
    return plan_of_tasks(loaded, request, tasks, config)


def plan_of_tasks(
    loaded: LoadedPack, request: BenchRequest, tasks: Sequence[UnseenTask], config: BenchConfig
) -> BenchPlan:
    """Plan the measurement of a pack's methods on these tasks.

    Raises Mismatch for tasks that the pack has seen and for methods that have seen the tasks, and UnknownName or
    Unavailable for methods that cannot be measured.
    """
    host = loaded.host
    if not request.own_expert:
        check_leaks(loaded.pack, tasks, request.role)
    seen = leaks(loaded.pack, tasks, request.role)
    notes = [f"leak: the pack has already seen {', '.join(seen)}"] if seen else []
    own = not request.on and not any(t.hashes for t in tasks)  # tasks contained in an older pack
    if not own and (why := photos_unknown(loaded.pack, tasks)):
        notes.append(why)
    saw = cache(partial(saw_training, loaded)) if request.role == TRAINING else lambda name: False
    without = [] if request.own_expert else [name for name in host.generators if saw(name)]
    if request.table in ABLATIONS:
        plan = plan_of_ablation(
            loaded, tasks, request.table, request.baselines, request.sentences, config, request.role, without
        )
    else:
        names, left = _methods(loaded, request.baselines, tasks, without)
        plan, notes = plan_of_methods(loaded, tasks, names, config), notes + left
    leaking = [name for name in plan.names if name != ORACLE and saw(name.rpartition("@")[0] or name)]
    notes += _notes_of_training(request, leaking, without)
    return replace(plan, notes=[*plan.notes, *notes], on=request.on, role=request.role)


def _notes_of_training(request: BenchRequest, leaking: Sequence[str], without: Sequence[str]) -> list[str]:
    """Return notes on methods that have seen the training tasks they are measured on, or were left out for it.

    Raises Mismatch if such a method was requested by name.
    """
    if leaking and not request.own_expert:
        raise Mismatch(
            f"{leaking[0]!r} has seen the training tasks: it was fitted to them or uses the joint adapter or moments",
            "remove it from --baselines, or pass --own-expert to measure with this leak",
        )
    if leaking:
        return [f"leak: {', '.join(leaking)} have already seen these training tasks"]
    why = "because they were fitted to the training tasks or use the joint adapter or moments"
    return [f"left out: {', '.join(without)}, {why}"] if without and request.baselines in ("all", "paper") else []


def _methods(
    loaded: LoadedPack, wanted: str, tasks: Sequence[UnseenTask], without: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """Return the usable methods, and a note for each that "all" leaves out because something it needs is missing.

    "all" also leaves out methods in `without`. Raises Unavailable if such a method was requested by name.
    """
    host, pack = loaded.host, loaded.pack
    lacking = {n: why for n, g in host.generators.items() if (why := lack(pack, g, tasks))}
    names = methods(host, pack, wanted, all(t.oracle_P is not None for t in tasks), [*lacking, *without])
    for name in names:
        if name != ORACLE and (why := lack(pack, host.generators[name], tasks)):
            raise why
    return names, [f"left out: {why.message} ({why.hint})" for why in lacking.values() if wanted == "all"]


def _tasks(loaded: LoadedPack, request: BenchRequest, data: Path | None) -> list[UnseenTask]:
    host, pack = loaded.host, loaded.pack
    if request.on:
        other = Pack(Library(host.recipe_folders).find(request.on)[0].folder)
        if other.backbone == pack.backbone:
            other.check_model(loaded.model)  # the model may recognise the other pack's weights from an earlier version
        offered = of_other(pack, other, request.dataset)
    elif request.role == TRAINING:
        offered = training_tasks(loaded, request.dataset, data, request.tasks, request.table)
    else:
        offered = unseen_tasks(loaded, request.dataset, data)
    tasks = narrowed(offered, pack, request.tasks, request.table)
    check_fits(loaded.model, tasks)
    return tasks


def _of_adapters(
    host: Host, request: BenchRequest, data: Path, config: BenchConfig, runtime: RuntimeConfig
) -> BenchPlan:
    """Plan the measurement of adapter files on a data set.

    This needs no pack, only the backbone, which the first file may name.
    """
    stated = provenance(recognise(request.adapters[0])).get("backbone")
    name = request.backbone or (stated if isinstance(stated, str) else "") or settings.load().backbone
    model: Model = host.backbones[name].load(settings.runtime(runtime, name))
    tasks = narrowed(of_dataset(host, model, request.dataset, data), None, request.tasks, request.table)
    return plan_of_adapters(model, name, request.adapters, tasks, config)


def plan_of_adapters(
    model: Model, backbone: str, paths: Sequence[Path], tasks: Sequence[UnseenTask], config: BenchConfig
) -> BenchPlan:
    """Plan the measurement of adapter files of any format beside zero-shot.

    Raises BadFile or Mismatch for a file that does not fit, and UsageError if two files have the same name.
    """
    adapters: dict[str, Candidate] = {}
    for path in paths:
        name = path.name.removesuffix(".safetensors").removesuffix(".pt")
        if name in adapters or name in (ZERO, CHANCE):
            raise UsageError(f"two methods would be called {name!r}", "rename one of the files")
        foreign = read_adapter(path, model, backbone=backbone)
        layout = foreign.layout()
        adapters[name] = Candidate(name, layout, checked_flat(foreign.fitted(layout)[0], str(path)))
    first = next(iter(adapters.values()))
    zero = Candidate(ZERO, first.layout, torch.zeros(first.layout.size))
    names = {ZERO: "Zero-shot", **{name: name for name in adapters}}
    origin = [[name, content_hash(c.flat_P, c.layout.to_json())] for name, c in adapters.items()]
    whole = Part("", lambda: [zero, *adapters.values()], name=", ".join(adapters), ready=True)
    return BenchPlan(model, tasks, names, lambda task: [whole], config, "", backbone, against=ZERO, origin=origin)
