"""Estimates the time, memory and disk space of a build from a few measured steps. Nothing is written.

Shapes: P parameters of an adapter, N photos, C captions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch

from sglora_cli.build.recorded_step import WARM_UP
from sglora_cli.build.steps import Steps
from sglora_cli.build.tasks import BuildTask, missing_features
from sglora_cli.build.training import OwnTraining
from sglora_cli.config import TrainConfig
from sglora_cli.data.features import stems
from sglora_cli.errors import Unavailable
from sglora_cli.pack.recipe import Recipe
from sglora_cli.plugin.contracts import Model, SaysCost
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import TRAINING, TaskTensors
from sglora_cli.system.hardware import available_memory, free_disk, nearest_existing, peak_memory
from sglora_cli.system.paths import cache_folder
from sglora_cli.system.progress import size, span

V = TypeVar("V")

_PROBE_SECONDS = 1.0
"""If the small trial step takes less than this, a full step is measured instead."""
_MEMORY = ("bytes", "device_bytes")
"""Keys of a generator's cost: the CPU memory and the device memory that its fit needs."""
_UNKNOWN = "no estimate available"


@dataclass(frozen=True)
class Stage:
    """One part of a build, and the time for its unfinished steps."""

    name: str
    what: str
    seconds: float
    """At the pace of the fastest trial."""
    most: float = 0.0
    """At the pace of the slowest trial, or 0 if there was only one."""


@dataclass(frozen=True)
class Estimate:
    """What a build needs. Sizes are in bytes. Disk sizes only include files that do not exist yet."""

    stages: Sequence[Stage]
    adapters: int
    device: str
    memory: int
    device_memory: int
    cache_bytes: int
    pack_bytes: int
    target: Path

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages)

    @property
    def most(self) -> float:
        return sum(max(stage.seconds, stage.most) for stage in self.stages)

    def to_lines(self) -> list[str]:
        """Return the estimate as lines to print."""
        wide = [max(len(getattr(s, key)) for s in self.stages) for key in ("name", "what")]
        rows = [f"{s.name:<{wide[0]}}  {s.what:<{wide[1]}}  {_left(s)}" for s in self.stages]
        where = [f"{self.target}: {size(self.pack_bytes)}", f"{cache_folder()}: {size(self.cache_bytes)}"]
        memory = f"memory: about {size(self.memory)} of {size(available_memory())} free"
        if self.device_memory:
            memory += f"; on {self.device} about {size(self.device_memory)}"
        return [
            *rows,
            f"{self.adapters} LoRAs, about {span(self.seconds, self.most)} on {self.device}, measured on a few steps",
            memory,
            f"disk: {', '.join(where)}; {size(free_disk(self.target))} free",
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as JSON values."""
        return {
            "stages": [
                {**asdict(stage), "seconds": round(stage.seconds, 3), "most": round(max(stage.seconds, stage.most), 3)}
                for stage in self.stages
            ],
            "adapters_to_train": self.adapters,
            "device": self.device,
            "seconds": round(self.seconds, 3),
            "seconds_range": [round(self.seconds, 3), round(self.most, 3)],
            "memory_bytes": self.memory,
            "device_memory_bytes": self.device_memory,
            "cache_bytes": self.cache_bytes,
            "pack_bytes": self.pack_bytes,
            "target": str(self.target),
        }

    def check(self) -> None:
        """Raise Unavailable if there is not enough memory or disk space."""
        places: dict[int, tuple[Path, int]] = {}
        for path, needed in ((cache_folder(), self.cache_bytes), (self.target, self.pack_bytes)):
            device = nearest_existing(path).stat().st_dev
            places[device] = (path, places.get(device, (path, 0))[1] + needed)
        for path, needed in places.values():
            if needed > (free := free_disk(path)):
                raise Unavailable(
                    f"the build needs about {size(needed)} of disk space at {path}, but only {size(free)} are free",
                    "free space, move the cache with SGLORA_HOME, or lower states or photos; --force skips this check",
                )
        if self.memory > (free := available_memory()):
            raise Unavailable(
                f"the build needs about {size(self.memory)} of memory, but only {size(free)} are free",
                "lower tasks_at_once or batch in [train], or the generator's width; --force skips this check",
            )


def estimated(
    host: Host, recipe: Recipe, model: Model, tasks: Sequence[BuildTask], steps: Steps, target: Path
) -> Estimate:
    """Measure a few steps and extrapolate to all unfinished steps."""
    trial = _trial(model, steps)
    config, numbers = recipe.train, steps.layout.size
    missing, absent = missing_features(tasks), [path for path in steps.paths if not steps.done(path)]
    photos = sum(len(features.photos) for features in missing)
    captions = sum(len(photo.captions) for features in missing for photo in features.photos)
    paces = zip(trial.photo_seconds, trial.text_seconds, strict=True)
    seconds = [photos * photo + captions * text for photo, text in paces]
    stages = [Stage("features", f"{photos} photos", *seconds)]
    for name, what, paths in (
        ("warm-up", f"{config.warmup_epochs} epochs on {len(steps.experts)} experts", [steps.start_path]),
        ("adapters", f"{len(tasks)} tasks, {config.epochs} epochs, {steps.kept} states each", steps.group_paths),
        ("joint", f"{config.joint_epochs} epochs on {len(steps.seen)} seen tasks", [steps.joint_path]),
    ):
        if set(paths) & set(steps.paths):
            left = sum(steps.passes(path) for path in paths if path in absent)
            stages.append(Stage(name, what, *(left * pace for pace in trial.pass_seconds)))
    costs = _costs(host, recipe, steps, trial.pass_seconds)
    stages += [
        Stage(name, _need(c) if c else _UNKNOWN, c.get("seconds", 0.0), c.get("most", 0.0)) for name, c in costs.items()
    ]
    groups = [sum(len(t.photos) for t in group) * trial.photo_bytes for group in steps.groups]
    on_gpu = model.device.type == "cuda"
    widest, widest_on_gpu = (max((int(c.get(k, 0)) for c in costs.values()), default=0) for k in _MEMORY)
    tests = sum(len(t.test.photos) for t in tasks if t.test)
    states = sum(len(g) for p, g in zip(steps.group_paths, steps.groups, strict=True) if p in absent)
    return Estimate(
        stages=stages,
        adapters=len(tasks) + 1 + bool(config.warmup_epochs),
        device=str(model.device),
        memory=trial.memory + max(0 if on_gpu else max(groups), widest),
        device_memory=trial.device_memory + max(max(groups), widest_on_gpu) if on_gpu else 0,
        cache_bytes=photos * trial.photo_bytes
        + 4 * numbers * (states * steps.kept + 4 * config.tasks_at_once)
        + sum(map(_stored, costs.values())),
        pack_bytes=4 * numbers * (2 * len(steps.experts) + 1 + len(tasks) - len(steps.seen))
        + tests * trial.photo_bytes
        + sum(map(_stored, costs.values())),
        target=target,
    )


def _costs(host: Host, recipe: Recipe, steps: Steps, pass_seconds: Pace) -> dict[str, dict[str, Any]]:
    """Return the cost that each learned generator reports, or {} if it reports none.

    Passes through the backbone are converted to seconds.
    """
    count = sum(t.role == TRAINING for t in steps.tasks)
    costs: dict[str, dict[str, Any]] = {}
    for name, table in recipe.generators.items():
        generator, costs[name] = host.generators[name], {}
        if isinstance(generator, SaysCost):
            costs[name] |= generator.cost(steps.layout, count, steps.kept, table, str(steps.model.device))
        own, passes = costs[name].get("seconds", 0.0), costs[name].pop("passes", 0)
        if passes:
            costs[name] |= {"seconds": own + passes * pass_seconds[0], "most": own + passes * pass_seconds[1]}
        if "seconds" in costs[name] and (folds := int(table.get("held_out", 0))) > 1:
            # One more fit per fold, on (folds - 1) / folds of the tasks. A fixed number of passes does not shrink.
            for key in {"seconds", "most"} & set(costs[name]):
                costs[name][key] *= folds + bool(passes)
    return costs


def _need(cost: Mapping[str, Any]) -> str:
    memory = f", {size(cost['bytes'])} of memory" if "bytes" in cost else ""
    memory += f", {size(cost['device_bytes'])} on the device" if cost.get("device_bytes") else ""
    return f"{int(cost['parameters']):,} parameters{memory}"


def _stored(cost: Mapping[str, Any]) -> int:
    return int(cost.get("stored_bytes", 2 * cost.get("parameters", 0)))


Pace = tuple[float, float]
"""Seconds per unit, of the fastest and of the slowest trial."""


def _paced(work: Callable[[], V], units: int) -> tuple[V, Pace]:
    """Return the result of `work`, and its pace in two trials."""
    times = []
    for _ in range(2):
        began = time.monotonic()
        result = work()
        times.append((time.monotonic() - began) / max(1, units))
    return result, (min(times), max(times))


@dataclass(frozen=True)
class _Trial:
    photo_seconds: Pace
    text_seconds: Pace
    pass_seconds: Pace
    photo_bytes: int
    """Size of the features of a photo and its captions, on disk and in memory."""
    memory: int
    """Peak memory of this process in a full step, without the tasks' photos."""
    device_memory: int


def _trial(model: Model, steps: Steps) -> _Trial:
    photos = max(steps.tasks, key=lambda t: len(t.photos)).photos[:8]
    captions = [caption for photo in photos for caption in photo.captions]
    stems(model, photos[:1])  # first calls are slow, on a GPU by seconds
    model.encode_text(captions[:1])
    stem_N, photo_seconds = _paced(lambda: stems(model, photos), len(photos))
    text_CD, text_seconds = _paced(lambda: model.encode_text(captions), len(captions))
    owners = tuple(i for i, photo in enumerate(photos) for _ in photo.captions)
    probe = TaskTensors("probe", stem_N, text_CD, owners)
    pass_seconds, memory = _step(model, steps, probe)
    per_photo = stem_N[0].numel() * 2 + len(captions) / len(photos) * text_CD[0].numel() * 4
    on_gpu = model.device.type == "cuda"
    return _Trial(
        photo_seconds=photo_seconds,
        text_seconds=text_seconds,
        pass_seconds=pass_seconds,
        photo_bytes=int(per_photo),
        memory=memory,
        device_memory=torch.cuda.max_memory_allocated(model.device) if on_gpu else 0,
    )


def _step(model: Model, steps: Steps, probe: TaskTensors) -> tuple[Pace, int]:
    """Measure a training step and return (seconds per photo, peak memory in bytes).

    A small step is measured first. If it is fast, a full step is measured instead. On a GPU a full step is always
    measured, because the first step there is not representative.
    """
    config = steps.config
    widest = min(config.batch, max(len(t.photos) for t in steps.tasks))
    small, full = (1, min(4, widest)), (min(config.tasks_at_once, len(steps.tasks)), widest)
    before = psutil.Process().memory_info().rss
    step = small
    times = [_one_step(model, steps, probe, *small)]
    if times[0] < _PROBE_SECONDS or model.device.type == "cuda":
        step = full
        times = [_one_step(model, steps, probe, *full) for _ in range(3)][1:]  # the first step is slow
    growth = (peak_memory() - before) * max(1.0, full[0] * full[1] / (step[0] * step[1]))
    photos = step[0] * step[1]
    return (min(times) / photos, max(times) / photos), before + int(growth)


def _one_step(model: Model, steps: Steps, probe: TaskTensors, tasks: int, photos: int) -> float:
    """Return the seconds of a step of `tasks` tasks with `photos` photos each, repeated from the probe."""
    rows = [n % len(probe.stem_N) for n in range(photos)]
    task = replace(probe, stem_N=probe.stem_N[rows], text_CD=probe.text_CD[rows], image_of=tuple(range(photos)))
    config = TrainConfig(epochs=1, states=1, batch=max(2, photos), seed=steps.config.seed)
    training = OwnTraining(model, steps.layout, [task] * tasks, config, steps.layout.initial(config.seed))
    for _ in range(WARM_UP + 1 if model.device.type == "cuda" else 0):
        training.advance()  # after these, a small step is recorded
    began = time.monotonic()
    training.advance()
    return time.monotonic() - began


def _left(stage: Stage) -> str:
    nothing = "not counted" if stage.what == _UNKNOWN else "done"
    return f"about {span(stage.seconds, max(stage.seconds, stage.most))}" if stage.seconds else nothing
