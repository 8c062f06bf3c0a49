"""Which tasks methods are measured on: carried by a pack, by another pack, or read from photos."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from sglora_cli.config import ABLATIONS, TASK_TABLES
from sglora_cli.data.features import Features
from sglora_cli.errors import BadFile, Mismatch, PluginError, SgloraWarning, Unavailable, UnknownName, UsageError
from sglora_cli.files.hashes import file_hash
from sglora_cli.pack.content.evaluation import UnseenTask
from sglora_cli.pack.content.learned import short
from sglora_cli.pack.loaded import LoadedPack
from sglora_cli.pack.pack import Pack
from sglora_cli.pack.recipe import PROMPTS
from sglora_cli.pack.recipe_parser import parse
from sglora_cli.plugin.contracts import Model
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import EXPERT, TEST, TRAINING, UNSEEN, Task, TaskTensors


@dataclass(frozen=True)
class Offered:
    """A task that could be measured on. Its photos are read, and their features computed, when it is."""

    dataset: str
    name: str
    read: Callable[[], UnseenTask] = field(repr=False)
    sorts: bool | None = None
    """Whether it is a classification; None where only its content says so."""

    @property
    def key(self) -> str:
        return f"{self.dataset}/{self.name}"


def unseen_tasks(loaded: LoadedPack, dataset: str, data: Path | None) -> list[Offered]:
    """The tasks to measure on: carried by the pack, or read from photos when `data` is given.

    A data set the pack knows nothing of is read from its folder below `data`: all tasks with test photos.
    Raises UnknownName for a data set the pack has no unseen task of, Unavailable if there is nothing.
    """
    host, pack = loaded.host, loaded.pack
    names = sorted({task["dataset"] for task in pack.tasks.of(UNSEEN)})
    if dataset and dataset not in names:
        if data is None or dataset not in host.datasets:
            raise UnknownName.of("dataset with unseen tasks in this pack", dataset, names)
        return of_dataset(host, loaded.model, dataset, data)
    found = carried(pack) if data is None else _from_photos(loaded, dataset, data)
    chosen = [task for task in found if not dataset or task.dataset == dataset]
    if not chosen:
        raise Unavailable(f"pack {pack.name!r} carries no evaluation", "name the photos: --dataset NAME --data DIR")
    return chosen


def carried(pack: Pack) -> list[Offered]:
    """The unseen tasks that a pack carries an evaluation of."""
    return [Offered(task["dataset"], task["name"], partial(pack.evaluation, task)) for task in pack.evaluated()]


def training_tasks(
    loaded: LoadedPack, dataset: str, data: Path | None, wanted: str = "", table: str = "all"
) -> list[Offered]:
    """The pack's training tasks, as if they were unseen: their test photos, whether or not the build learned from all.

    wanted, table: as for `narrowed`; of other tasks no photo is read. Photos that an expert learned from, or that an
    unseen task is tested on, are left out: a photo may belong to several tasks. So experts have seen nothing of them.
    What was fitted to training tasks has, and so has the joint adapter.
    Raises Unavailable without `data` or test photos, UnknownName for a data set without training tasks in this pack.
    """
    pack = loaded.pack
    if data is None:
        raise Unavailable(
            "no pack carries photos of its training tasks", "name the folder of the data sets: --data DIR"
        )
    names = sorted({task["dataset"] for task in pack.tasks.of(TRAINING)})
    if dataset and dataset not in names:
        raise UnknownName.of("dataset with training tasks in this pack", dataset, names)
    recipe = parse(pack.name, pack.manifest["recipe"])
    sources = [replace(source, whole=False) for source in recipe.sources if dataset in ("", source.name)]
    tasks = [task for source in sources for task in source.tasks(loaded.host, data, recipe.template)[TRAINING]]
    tasks = [task for task in tasks if task.photos.get(TEST)]
    if not tasks:
        raise Unavailable(f"pack {pack.name!r} has no training tasks with test photos", "see `sglora pack show`")
    read = partial(of_task, loaded.model, prompts=recipe.prompts)
    chosen = {task.key for task in _chosen(offered(tasks, read), pack, wanted, table)}
    return offered(_apart(pack, [task for task in tasks if task.key in chosen]), read)


def offered(tasks: Sequence[Task], read: Callable[[Task], UnseenTask]) -> list[Offered]:
    """Tasks of a data set, each read by `read`."""
    return [Offered(task.dataset, task.name, partial(read, task), bool(task.classes)) for task in tasks]


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


def _from_photos(loaded: LoadedPack, dataset: str, data: Path) -> list[Offered]:
    pack = loaded.pack
    recipe = parse(pack.name, pack.manifest["recipe"])
    known = {(task["dataset"], task["name"]): task for task in pack.evaluated()}

    def read(task: Task) -> UnseenTask:
        kept = known.get((task.dataset, task.name))
        return of_task(loaded.model, task, recipe.prompts, pack.evaluation(kept).oracle_P if kept else None)

    sources = [source for source in recipe.sources if dataset in ("", source.name)]
    tasks = [task for source in sources for task in source.tasks(loaded.host, data, recipe.template)[UNSEEN]]
    return offered(tasks, read)


def of_dataset(host: Host, model: Model, dataset: str, data: Path) -> list[Offered]:
    """Every task of a data set plugin that has test photos, without Oracles. Raises Unavailable for none."""
    root = data / dataset if (data / dataset).is_dir() else data
    tasks = [task for task in host.datasets[dataset].tasks(root) if task.photos.get("test")]
    if not tasks:
        raise Unavailable(f"no task of data set {dataset!r} in {root} has test photos", "see `sglora data check`")
    return offered(tasks, partial(of_task, model, prompts=PROMPTS))


def of_other(pack: Pack, other: Pack, dataset: str) -> list[Offered]:
    """The unseen tasks that another pack of the same backbone carries. Raises Mismatch for another backbone.

    An Oracle of another layout is left out: it is no adapter of this pack's kind.
    """
    if other.fingerprint != pack.fingerprint:
        raise Mismatch(
            f"pack {other.name!r} was built for backbone {other.backbone!r} ({other.fingerprint}), "
            f"pack {pack.name!r} for {pack.backbone!r} ({pack.fingerprint})",
            "stems of another backbone mean nothing here: name photos with --dataset and --data",
        )
    tasks = [task for task in carried(other) if dataset in ("", task.dataset)]
    if not tasks:
        raise Unavailable(f"pack {other.name!r} carries no evaluation" + (f" of {dataset!r}" if dataset else ""))
    if other.layout == pack.layout:
        return tasks

    def bare(task: Offered) -> UnseenTask:
        return replace(task.read(), oracle_P=None)

    return [replace(task, read=partial(bare, task)) for task in tasks]


def check_fits(model: Model, tasks: Sequence[UnseenTask]) -> None:
    """Raises BadFile for photos and texts, as a pack carries them, that are not of this backbone's shapes.

    The backbone is asked about one photo: to learn the shape of a stem, its frozen part would have to be loaded.
    """
    if not tasks:
        return
    again = "build or fetch the pack again"
    shapes = {t.key: (tuple(t.tensors.stem_N.shape[1:]), t.tensors.text_CD.shape[1]) for t in tasks}
    stem, _ = shapes[tasks[0].key]
    try:
        width = int(model.encode_image(tasks[0].tensors.stem_N[:1]).shape[-1])
    except PluginError as error:
        raise BadFile(
            f"the backbone cannot read the photos the pack carries of {tasks[0].key}: {error}", again
        ) from None
    for key, shape in shapes.items():
        if shape != (stem, width):
            raise BadFile(f"the pack carries {key} in the shapes {shape}, expected {(stem, width)}", again)


def narrowed(some: Sequence[Offered], pack: Pack | None, wanted: str, table: str) -> list[UnseenTask]:
    """Only tasks named in `wanted` (names or keys with commas) and of a table of the paper; ablations keep all.

    Nothing is read of the others. Raises UnknownName, UsageError for nothing left. A task of one image is left out
    with a warning.
    """
    own, keep = _own(pack), _keep(table)
    read = [one.read() for one in _chosen(some, pack, wanted, table)]
    kept = [t for t in read if keep(t.dataset, bool(t.tensors.label_of), own)]
    single = [t for t in kept if len(t.tensors.stem_N) < 2 and not t.tensors.label_of]
    for t in single:
        warnings.warn(f"task {t.key} has one image, which is always found: left out", SgloraWarning, 2)
    kept = [t for t in kept if t not in single]
    if not kept:
        raise _nothing(some, table)
    return kept


def _chosen(some: Sequence[Offered], pack: Pack | None, wanted: str, table: str) -> list[Offered]:
    """What `narrowed` reads, and then perhaps leaves out."""
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    for name in names:
        if name not in {t.key for t in some} | {t.name for t in some}:
            raise UnknownName.of("task to measure on", name, [t.key for t in some])
    own, keep = _own(pack), _keep(table)
    chosen = [t for t in some if (not names or t.name in names or t.key in names) and keep(t.dataset, t.sorts, own)]
    if not chosen:
        raise _nothing(some, table)
    return chosen


def _keep(table: str) -> _Keep:
    if table not in (*TASK_TABLES, *ABLATIONS):
        raise UnknownName.of("table", table, [*TASK_TABLES, *ABLATIONS])
    return KEPT["all" if table in ABLATIONS else table]


def _own(pack: Pack | None) -> set[str]:
    return {task["dataset"] for task in pack.tasks.of(EXPERT)} if pack else set()


def _nothing(some: Sequence[Offered], table: str) -> UsageError:
    known = ", ".join(sorted(t.key for t in some))
    return UsageError(f"no task is left to measure on (table {table!r})", f"there were: {known}")


_Keep = Callable[[str, bool | None, set[str]], bool]
KEPT: Mapping[str, _Keep] = {
    "all": lambda dataset, sorts, own: True,
    "in": lambda dataset, sorts, own: dataset in own,
    "cross": lambda dataset, sorts, own: dataset not in own,
    "flickr": lambda dataset, sorts, own: dataset.lower().startswith("flickr"),
    "retrieval": lambda dataset, sorts, own: not sorts,
    "classification": lambda dataset, sorts, own: sorts is not False,
}
"""Table -> whether it keeps a task: by its data set, whether it is a classification (None before that is known: it may
be), and the data sets that the pack's experts come from."""


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
