"""Methods x unseen tasks -> rows, and what the rows say.

Shapes: S adapters of one task, N images, C captions, D embedding, P numbers, T tasks, B resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sglora_cli.adapters import Layout
from sglora_cli.classifying import ACCURACY, accuracy
from sglora_cli.configs import BenchConfig
from sglora_cli.contracts import Model, Report, Row
from sglora_cli.errors import Mismatch, Unavailable, UnknownName
from sglora_cli.features import task_tensors
from sglora_cli.generating import Session
from sglora_cli.host import Host
from sglora_cli.packs import Pack, UnseenTask
from sglora_cli.progressing import progress
from sglora_cli.recipes import parse
from sglora_cli.retrieval import chance, recalls
from sglora_cli.rows import table
from sglora_cli.training import TaskTensors

ORACLE = "oracle"
CHANCE = "chance"
AGAINST = "top-k"
PAPER = ("zero-shot", ORACLE, "model-soups", "adapter-soup", "top-k", "cvae")


def methods(host: Host, pack: Pack, wanted: str) -> dict[str, str]:
    """Method names to labels, in the table's order. `wanted`: "all", "paper" or names with commas.

    Raises UnknownName; a learned generator that the pack lacks is left out of "all".
    """
    usable = {n: g for n, g in host.generators.items() if not g.learns or n in pack.manifest["generators"]}
    if wanted == "all":
        names = [n for n in usable if not usable[n].learns]
        names = [*names[:1], ORACLE, *names[1:], *(n for n in usable if usable[n].learns)]
    elif wanted == "paper":
        names = [n for n in PAPER if n == ORACLE or n in usable]
    else:
        names = [n.strip() for n in wanted.split(",") if n.strip()]
    usable |= {n: host.generators[n] for n in names if n.partition(":")[0] in usable}  # `ties:density=0.5`
    for name in names:
        if name != ORACLE and name not in usable:
            if name in host.generators:
                raise UnknownName(f"pack {pack.name!r} has no trained {name!r}", "build the pack again with it")
            raise UnknownName.of("method", name, [*usable, ORACLE])
    return {n: "Oracle" if n == ORACLE else usable[n].label for n in names}


def unseen_tasks(host: Host, pack: Pack, model: Model, dataset: str, data: Path | None) -> list[UnseenTask]:
    """The tasks to measure on: carried by the pack, or read from photos when `data` is given.

    Raises UnknownName for a data set the pack has no unseen task of, Unavailable if there is nothing.
    """
    carried = list(pack.unseen())
    names = sorted({task["dataset"] for task in pack.manifest["tasks"] if task["role"] == "unseen"})
    if dataset and dataset not in names:
        raise UnknownName.of("dataset with unseen tasks in this pack", dataset, names)
    if data is not None:
        carried = list(_from_photos(host, pack, model, dataset, data, {(t.dataset, t.name): t for t in carried}))
    chosen = [task for task in carried if not dataset or task.dataset == dataset]
    if not chosen:
        raise Unavailable(f"pack {pack.name!r} carries no evaluation", "name the photos: --dataset NAME --data DIR")
    return chosen


def _from_photos(
    host: Host, pack: Pack, model: Model, dataset: str, data: Path, carried: Mapping[tuple[str, str], UnseenTask]
) -> Iterator[UnseenTask]:
    recipe = parse(pack.name, pack.manifest["recipe"])
    for source in recipe.sources:
        if dataset in ("", source.name):
            for task in source.tasks(host, data, recipe.template)["unseen"]:
                photos = task.photos["test"]
                known = carried.get((task.dataset, task.name))
                yield UnseenTask(
                    task.dataset,
                    task.name,
                    task.description,
                    task_tensors(model, task.key, photos, task.classes, recipe.prompts),
                    tuple(task.classes) or tuple(c for photo in photos for c in photo.captions),
                    known.oracle_P if known else None,
                )


def run(session: Session, tasks: Sequence[UnseenTask], names: Mapping[str, str], config: BenchConfig) -> list[Row]:
    """Measure every method on every task. Adapters of one task share one pass over its images."""
    pack, model = session.pack, session.model
    fitted = {n: pack.fitted(session.host.generators[n]) for n in names if n != ORACLE}
    rows: list[Row] = []
    embeddings_TD = model.encode_text([task.description for task in tasks])
    for task, embedding_D in zip(progress(tasks, "bench"), embeddings_TD, strict=True):
        prior = pack.prior(embedding_D)
        adapters: dict[str, Tensor] = {}
        for name in names:
            if name != ORACLE:
                generator = session.host.generators[name]
                count = config.samples if getattr(generator, "draws", generator.learns) else 1
                adapters[name] = fitted[name].generate(prior, count, config.seed, config.temperature)
            elif task.oracle_P is not None:
                adapters[name] = task.oracle_P[None]
            else:
                raise Unavailable(f"there is no Oracle adapter of {task.name!r}", "leave oracle out of --baselines")
        rows += _measure(model, pack.layout, task, adapters)
    return rows


def _measure(model: Model, layout: Layout, task: UnseenTask, adapters: Mapping[str, Tensor]) -> list[Row]:
    owner = [(name, sample) for name, flat in adapters.items() for sample in range(len(flat))]
    images_SND = encode_images(model, layout, task.tensors, torch.cat(list(adapters.values())))
    rows = []
    for (name, sample), image_ND in zip(owner, images_SND, strict=True):
        if not bool(torch.isfinite(image_ND).all()):
            raise Mismatch(f"method {name!r} gives embeddings that are not finite on {task.name!r}")
        found = _scores(image_ND, task.tensors)
        rows += [Row(name, task.dataset, task.name, sample, d, k, value) for (d, k), value in found.items()]
    by_chance = {ACCURACY: 100.0 / len(task.tensors.text_CD)} if task.tensors.label_of else None
    by_chance = by_chance or chance(len(task.tensors.stem_N), task.tensors.image_of)
    return rows + [Row(CHANCE, task.dataset, task.name, 0, d, k, value) for (d, k), value in by_chance.items()]


def _scores(image_ND: Tensor, task: TaskTensors) -> dict[tuple[str, int], float]:
    """Recalls, or the accuracy of a classification task, by (direction, k)."""
    text_CD = task.text_CD.float()
    if task.label_of:
        return {ACCURACY: accuracy(image_ND, text_CD, task.label_of)}
    return recalls(image_ND, text_CD, task.image_of)


@torch.no_grad()
def encode_images(model: Model, layout: Layout, task: TaskTensors, adapters_SP: Tensor, at_once: int = 256) -> Tensor:
    """(S, N, D): every adapter on every image, about `at_once` images of work in one forward."""
    step = max(1, at_once // max(1, len(task.stem_N)))
    parts = [
        model.encode_image(task.stem_N, layout, adapters_SP[first : first + step]).cpu()
        for first in range(0, len(adapters_SP), step)
    ]
    return torch.cat(parts)


def differences(
    rows: Sequence[Row], config: BenchConfig, dataset: str = "", against: str = AGAINST
) -> dict[tuple[str, str, int], tuple[float, float, float]]:
    """(method, direction, k) -> mean difference to `against` in points and its 95 % interval.

    Paired bootstrap over tasks: the same resampled tasks for both methods.
    """
    found = table(rows, dataset)
    if against not in found:
        return {}
    result = {}
    for cell in dict.fromkeys((row.direction, row.k) for row in rows):
        if not (tasks := sorted(t for t, cells in found[against].items() if cell in cells)):
            continue
        dice = torch.Generator().manual_seed(config.seed)
        drawn_BT = torch.randint(len(tasks), (config.resamples, len(tasks)), generator=dice)
        for method, by_task in found.items():
            gap_T = torch.tensor([by_task[t][cell] - found[against][t][cell] for t in tasks], dtype=torch.float64)
            low, high = torch.quantile(gap_T[drawn_BT].mean(dim=1), torch.tensor([0.025, 0.975], dtype=torch.float64))
            result[(method, *cell)] = (float(gap_T.mean()), float(low), float(high))
    return result


def report(pack: Pack, rows: Sequence[Row], names: Mapping[str, str], config: BenchConfig) -> Report:
    """Rows with everything a reporter prints."""
    labels = {CHANCE: "Chance", **names}
    tasks = sorted({(row.dataset, row.task) for row in rows})
    sizes = ", ".join(f"{sum(d == name for d, _ in tasks)} {name}" for name in sorted({d for d, _ in tasks}))
    what = " and ".join(sorted({"accuracy" if row.direction == "ACC" else "recall" for row in rows}, reverse=True))
    notes = [f"{len(tasks)} unseen tasks ({sizes}); {what} in percent, averaged over tasks; pack {pack.name!r}"]
    return Report(pack.name, rows, labels, differences(rows, config), AGAINST, notes)
