"""Which tasks methods are measured on: carried by a pack, by another pack, or read from photos."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from sglora_cli.config import ABLATIONS, TASK_TABLES
from sglora_cli.data.features import Features
from sglora_cli.errors import BadFile, Mismatch, SgloraWarning, Unavailable, UnknownName, UsageError
from sglora_cli.files.hashes import file_hash
from sglora_cli.pack.content.evaluation import UnseenTask
from sglora_cli.pack.content.learned import short
from sglora_cli.pack.content.tasks import Task as PackTask
from sglora_cli.pack.pack import Pack
from sglora_cli.pack.recipe import PROMPTS
from sglora_cli.pack.recipe_parser import parse
from sglora_cli.plugin.contracts import Model
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import EXPERT, TEST, TRAINING, UNSEEN, Task, TaskTensors


def unseen_tasks(host: Host, pack: Pack, model: Model, dataset: str, data: Path | None) -> list[UnseenTask]:
    """The tasks to measure on: carried by the pack, or read from photos when `data` is given.

    A data set the pack knows nothing of is read from its folder below `data`: all tasks with test photos.
    Raises UnknownName for a data set the pack has no unseen task of, Unavailable if there is nothing.
    """
    carried = list(pack.unseen())
    names = sorted({task["dataset"] for task in pack.tasks.of(UNSEEN)})
    if dataset and dataset not in names:
        if data is None or dataset not in host.datasets:
            raise UnknownName.of("dataset with unseen tasks in this pack", dataset, names)
        return list(of_dataset(host, model, dataset, data))
    if data is not None:
        carried = list(_from_photos(host, pack, model, dataset, data, {(t.dataset, t.name): t for t in carried}))
    chosen = [task for task in carried if not dataset or task.dataset == dataset]
    if not chosen:
        raise Unavailable(f"pack {pack.name!r} carries no evaluation", "name the photos: --dataset NAME --data DIR")
    return chosen


def training_tasks(host: Host, pack: Pack, model: Model, dataset: str, data: Path | None) -> list[UnseenTask]:
    """The pack's training tasks, as if they were unseen: their test photos, whether or not the build learned from all.

    Photos that an expert learned from, or that an unseen task is tested on, are left out: a photo may belong to several
    tasks. So experts have seen nothing of them. What was fitted to training tasks has, and so has the joint adapter.
    Raises Unavailable without `data` or test photos, UnknownName for a data set without training tasks in this pack.
    """
    if data is None:
        raise Unavailable(
            "no pack carries photos of its training tasks", "name the folder of the data sets: --data DIR"
        )
    names = sorted({task["dataset"] for task in pack.tasks.of(TRAINING)})
    if dataset and dataset not in names:
        raise UnknownName.of("dataset with training tasks in this pack", dataset, names)
    recipe = parse(pack.name, pack.manifest["recipe"])
    sources = [replace(source, whole=False) for source in recipe.sources if dataset in ("", source.name)]
    tasks = [task for source in sources for task in source.tasks(host, data, recipe.template)[TRAINING]]
    tasks = _apart(pack, [task for task in tasks if task.photos.get(TEST)])
    if not tasks:
        raise Unavailable(f"pack {pack.name!r} has no training tasks with test photos", "see `sglora pack show`")
    return [of_task(model, task, recipe.prompts) for task in tasks]


def _apart(pack: Pack, tasks: Sequence[Task]) -> list[Task]:
    """The tasks without test photos that the pack's experts learned from, or its unseen tasks are tested on."""
    taken = set((pack.learned or {}).get(EXPERT, ())) | {short(photo) for t in pack.unseen() for photo in t.hashes}
    kept = []
    for task in tasks:
        photos = [photo for photo in task.photos[TEST] if short(file_hash(photo.path)) not in taken]
        kept.append(replace(task, photos={**task.photos, TEST: photos}))
    left_out = [len(t.photos[TEST]) - len(k.photos[TEST]) for t, k in zip(tasks, kept, strict=True)]
    if any(left_out):
        photos_of_tasks = f"{sum(left_out)} photos of {sum(map(bool, left_out))} tasks"
        why = "which experts learned from or unseen tasks are tested on"
        warnings.warn(f"left out: {photos_of_tasks}, {why}", SgloraWarning, 2)
    return [task for task in kept if task.photos[TEST]]


def _from_photos(
    host: Host, pack: Pack, model: Model, dataset: str, data: Path, carried: Mapping[tuple[str, str], UnseenTask]
) -> Iterator[UnseenTask]:
    recipe = parse(pack.name, pack.manifest["recipe"])
    for source in recipe.sources:
        if dataset in ("", source.name):
            for task in source.tasks(host, data, recipe.template)[UNSEEN]:
                known = carried.get((task.dataset, task.name))
                yield of_task(model, task, recipe.prompts, known.oracle_P if known else None)


def of_dataset(host: Host, model: Model, dataset: str, data: Path) -> Iterator[UnseenTask]:
    """Every task of a data set plugin that has test photos, without Oracles. Raises Unavailable for none."""
    root = data / dataset if (data / dataset).is_dir() else data
    tasks = [task for task in host.datasets[dataset].tasks(root) if task.photos.get("test")]
    if not tasks:
        raise Unavailable(f"no task of data set {dataset!r} in {root} has test photos", "see `sglora data check`")
    for task in tasks:
        yield of_task(model, task, PROMPTS, None)


def of_other(pack: Pack, other: Pack, dataset: str) -> list[UnseenTask]:
    """The unseen tasks that another pack of the same backbone carries. Raises Mismatch for another backbone.

    An Oracle of another layout is left out: it is no adapter of this pack's kind.
    """
    if other.fingerprint != pack.fingerprint:
        raise Mismatch(
            f"pack {other.name!r} was built for backbone {other.backbone!r} ({other.fingerprint}), "
            f"pack {pack.name!r} for {pack.backbone!r} ({pack.fingerprint})",
            "stems of another backbone mean nothing here: name photos with --dataset and --data",
        )
    tasks = [task for task in other.unseen() if dataset in ("", task.dataset)]
    if not tasks:
        raise Unavailable(f"pack {other.name!r} carries no evaluation" + (f" of {dataset!r}" if dataset else ""))
    if other.layout == pack.layout:
        return tasks
    return [replace(task, oracle_P=None) for task in tasks]


def check_fits(model: Model, tasks: Sequence[UnseenTask]) -> None:
    """Raises BadFile for photos and texts, as a pack carries them, that are not of this backbone's shapes."""
    from PIL import Image

    stem = model.stem([Image.new("RGB", (32, 32))])
    width = model.encode_image(stem).shape[-1]
    for task in tasks:
        shapes = (tuple(task.tensors.stem_N.shape[1:]), task.tensors.text_CD.shape[1])
        if shapes != (tuple(stem.shape[1:]), width):
            raise BadFile(
                f"what the pack carries of {task.key} has the shapes {shapes}, "
                f"the backbone's are {(tuple(stem.shape[1:]), width)}",
                "build or fetch the pack again",
            )


def narrowed(tasks: Sequence[UnseenTask], pack: Pack | None, wanted: str, table: str) -> list[UnseenTask]:
    """Only tasks named in `wanted` (names or keys with commas) and of a table of the paper; ablations keep all.

    Raises UnknownName, UsageError for nothing left. A task of one image is left out with a warning.
    """
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    known = {t.key for t in tasks}
    for name in names:
        if name not in known and name not in {t.name for t in tasks}:
            raise UnknownName.of("task to measure on", name, known)
    if table not in (*TASK_TABLES, *ABLATIONS):
        raise UnknownName.of("table", table, [*TASK_TABLES, *ABLATIONS])
    own = {task["dataset"] for task in pack.tasks.of(EXPERT)} if pack else set()
    kept = [t for t in tasks if not names or t.name in names or t.key in names]
    kept = [t for t in kept if table in ABLATIONS or KEPT[table](t, own)]
    single = [t for t in kept if len(t.tensors.stem_N) < 2 and not t.tensors.label_of]
    for t in single:
        warnings.warn(f"task {t.key} has one image, which is always found: left out", SgloraWarning, 2)
    kept = [t for t in kept if t not in single]
    if not kept:
        raise UsageError(f"no task is left to measure on (table {table!r})", f"there were: {', '.join(sorted(known))}")
    return kept


KEPT: Mapping[str, Callable[[UnseenTask, set[str]], bool]] = {
    "all": lambda task, own: True,
    "in": lambda task, own: task.dataset in own,
    "cross": lambda task, own: task.dataset not in own,
    "flickr": lambda task, own: task.dataset.lower().startswith("flickr"),
    "retrieval": lambda task, own: not task.tensors.label_of,
    "classification": lambda task, own: bool(task.tensors.label_of),
}
"""Table -> whether it keeps a task; `own` are the data sets that the pack's experts come from."""


def _photo_leaks(pack: Pack, tasks: Sequence[UnseenTask], role: str) -> list[str]:
    """The tasks with test photos that the pack learned from, and how many. A task's Oracle is asked, too."""
    learned = pack.learned or {}
    seen = frozenset().union(*(learned.get(one, ()) for one in _seen_roles(role)))
    leaking = []
    for t in tasks:
        oracle = learned.get(UNSEEN, frozenset()) if t.oracle_P is not None else frozenset()
        count = sum(short(photo) in seen or short(photo) in oracle for photo in t.hashes)
        if count:
            leaking.append(f"{count} of {len(t.hashes)} photos of {t.key}")
    return leaking


def photos_unknown(pack: Pack, tasks: Sequence[UnseenTask]) -> str:
    """Why nobody can say whether the pack learned from the tested photos, as a note; "" if it is known."""
    if pack.learned is None:
        why = f"pack {pack.name!r} keeps no hashes of its photos; build it again to know"
    elif bare := [t.key for t in tasks if not t.hashes]:
        why = f"what is tested on keeps no hashes of its photos: {', '.join(bare[:3])}"
    elif added := [task["key"] for task in pack.tasks if "origin" in task]:
        why = f"nothing says which photos these experts were trained on: {', '.join(added[:3])}"
    else:
        return ""
    return f"unknown whether the pack learned from the tested photos: {why}"


def _seen_roles(role: str) -> tuple[str, ...]:
    """The roles whose tasks a pack may not have in common with tasks of `role` that it is measured on."""
    return (EXPERT,) if role == TRAINING else (EXPERT, TRAINING)


def leaks(pack: Pack, tasks: Sequence[UnseenTask], role: str = UNSEEN) -> list[str]:
    """What the pack has seen of tasks: those that are, by their key or their sentence, an expert or training task of
    the pack (of training tasks, which of course the pack has, those that are an expert, too), then tested photos."""
    roles = _seen_roles(role)
    seen: dict[str, PackTask] = {}
    for task in (task for one in roles for task in pack.tasks.of(one)):
        seen[task["key"].casefold()] = seen[task["description"].casefold()] = task
    leaking = []
    for t in tasks:
        known = seen.get(t.key.casefold()) or seen.get(t.description.casefold())
        if known:
            leaking.append(f"{t.key} ({known['role']} {known['key']})")
    return [*leaking, *_photo_leaks(pack, tasks, role)]


def check_leaks(pack: Pack, tasks: Sequence[UnseenTask], role: str = UNSEEN) -> None:
    """Raises Mismatch if there is a leak: of a task, or of photos."""
    if leaking := leaks(pack, tasks, role):
        more = f" and {len(leaking) - 3} more" if len(leaking) > 3 else ""
        raise Mismatch(
            f"pack {pack.name!r} has seen what it would be measured on: {', '.join(leaking[:3])}{more}",
            "choose others with --tasks, or measure the leak knowingly with --own-expert",
        )


def of_task(model: Model, task: Task, prompts: Sequence[str], oracle: Tensor | None = None) -> UnseenTask:
    """A task of a data set with its test photos read, and its training photos where somebody asks for them."""
    photos, learnt = task.photos["test"], task.photos.get("train", ())
    captions = tuple(task.classes) or tuple(c for photo in photos for c in photo.captions)
    test = Features.of(model, task.key, photos, task.classes, prompts)

    def training() -> TaskTensors:
        train = Features.of(model, task.key, learnt, task.classes, prompts).without(model, set(test.hashes))
        if not train.photos:
            raise BadFile(f"every training photo of {task.key} is a test photo, too", "see `sglora data check`")
        return train.tensors(model)

    return UnseenTask(
        task.dataset,
        task.name,
        task.description,
        test.tensors(model),
        captions,
        oracle,
        training if learnt else None,
        test.hashes,
    )
