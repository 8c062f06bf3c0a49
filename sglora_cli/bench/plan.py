"""What `sglora bench` was asked for -> a plan. Everything that is wrong with the request is said here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sglora_cli.adapter.read import provenance, read_adapter
from sglora_cli.bench.ablations import plan_of_ablation
from sglora_cli.bench.measure import Candidate
from sglora_cli.bench.methods import Plan, lack, methods, plan
from sglora_cli.bench.tasks import check_fits, check_leaks, leaks, narrowed, of_dataset, of_other, unseen_tasks
from sglora_cli.config import ABLATIONS, BenchConfig, RuntimeConfig
from sglora_cli.errors import UsageError
from sglora_cli.files.hashes import content_hash
from sglora_cli.lora.layout import checked_flat
from sglora_cli.pack.library import Library
from sglora_cli.pack.loaded import LoadedPack
from sglora_cli.pack.pack import Pack, UnseenTask
from sglora_cli.plugin.contracts import Model
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import CHANCE, ORACLE, ZERO
from sglora_cli.system import settings
from sglora_cli.system.settings import data_root


@dataclass(frozen=True)
class Asked:
    """The command line of `sglora bench`."""

    baselines: str = "all"
    pack: str = ""
    backbone: str = ""
    on: str = ""
    dataset: str = ""
    data: Path | None = None
    tasks: str = ""
    table: str = "all"
    adapters: Sequence[Path] = ()
    own_expert: bool = False
    sentences: Path | None = None


def planned(host: Host, asked: Asked, config: BenchConfig, runtime: RuntimeConfig) -> Plan:
    """Everything that is wrong with the request is said here, before anything is measured."""
    if asked.on and asked.data:
        raise UsageError("--on takes tasks from a pack, --data from photos", "leave out one of the two")
    if asked.sentences and asked.table not in ABLATIONS:
        raise UsageError("--sentences needs a table that compares descriptions", "pass --table ablation-description")
    if asked.adapters and asked.table in ABLATIONS:
        raise UsageError("an ablation is of a pack's methods, not of adapter files", "leave out one of the two")
    known = settings.load().data if asked.dataset and not asked.on else ""
    data = data_root(asked.data, known) if asked.data or known else None
    if asked.adapters and data and asked.dataset and not asked.pack:
        return _of_adapters(host, asked, data, config, runtime)
    loaded = LoadedPack.open(host, asked.pack, runtime, asked.backbone)
    tasks = _tasks(loaded, asked, data)
    if asked.adapters:
        return plan_of_adapters(loaded.model, loaded.pack.backbone, asked.adapters, tasks, config)
    if not asked.own_expert:
        check_leaks(loaded.pack, tasks)
    notes = [f"a leak: the pack has seen {', '.join(seen)}"] if (seen := leaks(loaded.pack, tasks)) else []
    if asked.table in ABLATIONS:
        made = plan_of_ablation(loaded, tasks, asked.table, asked.baselines, asked.sentences, config)
    else:
        names, left = _methods(loaded, asked.baselines, tasks)
        made, notes = plan(loaded, tasks, names, config), notes + left
    return replace(made, notes=[*made.notes, *notes], on=asked.on)


def _methods(loaded: LoadedPack, wanted: str, tasks: Sequence[UnseenTask]) -> tuple[dict[str, str], list[str]]:
    """Methods that have what they need, and a note for each that "all" leaves out. Raises Unavailable for one that is
    asked by name."""
    host, pack = loaded.host, loaded.pack
    lacking = {n: why for n, g in host.generators.items() if (why := lack(pack, g, tasks))}
    names = methods(host, pack, wanted, all(t.oracle_P is not None for t in tasks), lacking)
    for name in names:
        if name != ORACLE and (why := lack(pack, host.generators[name], tasks)):
            raise why
    return names, [f"left out: {why.message} ({why.hint})" for why in lacking.values() if wanted == "all"]


def _tasks(loaded: LoadedPack, asked: Asked, data: Path | None) -> list[UnseenTask]:
    host, pack = loaded.host, loaded.pack
    if asked.on:
        other = Pack(Library(host.recipe_folders).find(asked.on)[0].folder)
        tasks = of_other(pack, other, asked.dataset)
    else:
        tasks = unseen_tasks(host, pack, loaded.model, asked.dataset, data)
    check_fits(loaded.model, tasks)
    return narrowed(tasks, pack, asked.tasks, asked.table)


def _of_adapters(host: Host, asked: Asked, data: Path, config: BenchConfig, runtime: RuntimeConfig) -> Plan:
    """Adapter files on a data set: no pack is needed, only the backbone, which the first file may name."""
    said = provenance(asked.adapters[0]).get("backbone") if asked.adapters[0].exists() else None
    name = asked.backbone or (said if isinstance(said, str) else "") or settings.load().backbone
    model: Model = host.backbones[name].load(settings.runtime(runtime, name))
    tasks = narrowed(list(of_dataset(host, model, asked.dataset, data)), None, asked.tasks, asked.table)
    return plan_of_adapters(model, name, asked.adapters, tasks, config)


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
