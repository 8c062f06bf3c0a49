"""Selects the tasks that methods are measured on: from the pack, from another pack, or from photos."""

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
    """A task that can be measured on. Its photos are read and their features computed on demand."""

    dataset: str
    name: str
    read: Callable[[], UnseenTask] = field(repr=False)
    sorts: bool | None = None
    """Whether it is a classification task, or None if only its content shows that."""

    @property
    def key(self) -> str:
        return f"{self.dataset}/{self.name}"


def unseen_tasks(loaded: LoadedPack, dataset: str, data: Path | None) -> list[Offered]:
    """Return the tasks to measure on: those the pack contains, or tasks read from photos if `data` is given.

    For a data set that the pack does not know, all tasks with test photos are read from its folder below `data`.
    Raises UnknownName for a data set without unseen tasks in the pack, and Unavailable if there is no task.
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
        raise Unavailable(
            f"pack {pack.name!r} has no evaluation data", "pass the photos with --dataset NAME --data DIR"
        )
    return chosen


def carried(pack: Pack) -> list[Offered]:
    """Return the unseen tasks that a pack contains evaluation data for."""
    return [Offered(task["dataset"], task["name"], partial(pack.evaluation, task)) for task in pack.evaluated()]


def training_tasks(
    loaded: LoadedPack, dataset: str, data: Path | None, wanted: str = "", table: str = "all"
) -> list[Offered]:
    """Return the pack's training tasks with their test photos, as if they were unseen.

    wanted, table: as for `narrowed`. Photos of other tasks are not read.
    Photos that an expert learned from or that an unseen task is tested on are left out, since a photo may belong to
    several tasks. The experts have therefore not seen these tasks, but generators fitted to training tasks and the
    joint adapter have.
    Raises Unavailable without `data` or test photos, and UnknownName for a data set without training tasks in this
    pack.
    """
    pack = loaded.pack
    if data is None:
        raise Unavailable(
            "packs do not contain photos of their training tasks", "pass the folder of the data sets with --data DIR"
        )
    names = sorted({task["dataset"] for task in pack.tasks.of(TRAINING)})
    if dataset and dataset not in names:
        raise UnknownName.of("dataset with training tasks in this pack", dataset, names)
    recipe = parse(pack.name, pack.manifest["recipe"])
    sources = [replace(source, whole=False) for source in recipe.sources if dataset in ("", source.name)]
    tasks = [task for source in sources for task in source.tasks(loaded.host, data, recipe.template)[TRAINING]]
    tasks = [task for task in tasks if task.photos.get(TEST)]
    if not tasks:
        raise Unavailable(
            f"pack {pack.name!r} has no training tasks with test photos", "list its tasks with `sglora pack show PACK`"
        )
    read = partial(of_task, loaded.model, prompts=recipe.prompts)
    chosen = {task.key for task in _chosen(offered(tasks, read), pack, wanted, table)}
    return offered(_apart(pack, [task for task in tasks if task.key in chosen]), read)


def offered(tasks: Sequence[Task], read: Callable[[Task], UnseenTask]) -> list[Offered]:
    """Return tasks of a data set that are read with `read`."""
    return [Offered(task.dataset, task.name, partial(read, task), bool(task.classes)) for task in tasks]


def _apart(pack: Pack, tasks: Sequence[Task]) -> list[Task]:
    """Remove test photos that the pack's experts learned from or that its unseen tasks are tested on.

    Tasks without any photo left are removed.
    """
    taken = set((pack.learned or {}).get(EXPERT, ())) | {short(photo) for t in pack.unseen() for photo in t.hashes}
    kept = []
    for task in tasks:
        photos = [photo for photo in task.photos[TEST] if short(file_hash(photo.path)) not in taken]
        kept.append(replace(task, photos={**task.photos, TEST: photos}))
    left_out = [len(t.photos[TEST]) - len(k.photos[TEST]) for t, k in zip(tasks, kept, strict=True)]
    if any(left_out):
        photos_of_tasks = f"{sum(left_out)} photos of {sum(map(bool, left_out))} tasks"
        why = "because experts learned from them or unseen tasks are tested on them"
        warnings.warn(f"left out {photos_of_tasks}, {why}", SgloraWarning, 2)
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
    """Return every task of a data set plugin that has test photos, without Oracles.

    Raises Unavailable if there is none.
    """
    root = data / dataset if (data / dataset).is_dir() else data
    tasks = [task for task in host.datasets[dataset].tasks(root) if task.photos.get("test")]
    if not tasks:
        raise Unavailable(
            f"no task of data set {dataset!r} in {root} has test photos", "run `sglora data check DATASET`"
        )
    return offered(tasks, partial(of_task, model, prompts=PROMPTS))


def of_other(pack: Pack, other: Pack, dataset: str) -> list[Offered]:
    """Return the unseen tasks of another pack of the same backbone. Raises Mismatch for another backbone.

    An Oracle of another layout is left out, because it does not fit this pack.
    """
    if other.fingerprint != pack.fingerprint:
        raise Mismatch(
            f"pack {other.name!r} was built for backbone {other.backbone!r} ({other.fingerprint}), "
            f"but pack {pack.name!r} for {pack.backbone!r} ({pack.fingerprint})",
            "measure on photos instead: --dataset NAME --data DIR",
        )
    tasks = [task for task in carried(other) if dataset in ("", task.dataset)]
    if not tasks:
        raise Unavailable(f"pack {other.name!r} has no evaluation data" + (f" of {dataset!r}" if dataset else ""))
    if other.layout == pack.layout:
        return tasks

    def bare(task: Offered) -> UnseenTask:
        return replace(task.read(), oracle_P=None)

    return [replace(task, read=partial(bare, task)) for task in tasks]


def check_fits(model: Model, tasks: Sequence[UnseenTask]) -> None:
    """Raise BadFile if the photos or texts that a pack contains do not have this backbone's shapes.

    The backbone encodes one photo for this, because its frozen part would have to be loaded to learn the shape of a
    stem.
    """
    if not tasks:
        return
    again = "rebuild the pack or download it again"
    shapes = {t.key: (tuple(t.tensors.stem_N.shape[1:]), t.tensors.text_CD.shape[1]) for t in tasks}
    stem, _ = shapes[tasks[0].key]
    try:
        width = int(model.encode_image(tasks[0].tensors.stem_N[:1]).shape[-1])
    except PluginError as error:
        raise BadFile(f"the backbone cannot read the pack's photos of {tasks[0].key}: {error}", again) from None
    for key, shape in shapes.items():
        if shape != (stem, width):
            raise BadFile(f"the pack has {key} in shapes {shape}, expected {(stem, width)}", again)


def narrowed(some: Sequence[Offered], pack: Pack | None, wanted: str, table: str) -> list[UnseenTask]:
    """Return the tasks that are named in `wanted` and belong to a table of the paper. Ablations keep all.

    wanted: comma-separated names or keys. Other tasks are not read. A task with one image is left out with a warning.
    Raises UnknownName for an unknown task or table, and UsageError if no task is left.
    """
    own, keep = _own(pack), _keep(table)
    read = [one.read() for one in _chosen(some, pack, wanted, table)]
    kept = [t for t in read if keep(t.dataset, bool(t.tensors.label_of), own)]
    single = [t for t in kept if len(t.tensors.stem_N) < 2 and not t.tensors.label_of]
    for t in single:
        warnings.warn(f"left out task {t.key}: its only image is always found", SgloraWarning, 2)
    kept = [t for t in kept if t not in single]
    if not kept:
        raise _nothing(some, table)
    return kept


def _chosen(some: Sequence[Offered], pack: Pack | None, wanted: str, table: str) -> list[Offered]:
    """Return the tasks that `narrowed` reads. It may leave out some of them later."""
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
    return UsageError(f"no task is left to measure on (table {table!r})", f"available tasks: {known}")


_Keep = Callable[[str, bool | None, set[str]], bool]
KEPT: Mapping[str, _Keep] = {
    "all": lambda dataset, sorts, own: True,
    "in": lambda dataset, sorts, own: dataset in own,
    "cross": lambda dataset, sorts, own: dataset not in own,
    "flickr": lambda dataset, sorts, own: dataset.lower().startswith("flickr"),
    "retrieval": lambda dataset, sorts, own: not sorts,
    "classification": lambda dataset, sorts, own: sorts is not False,
}
"""Table -> whether it keeps a task.

The arguments are the task's data set, whether it is a classification task (None while that is unknown, which keeps
it), and the data sets of the pack's experts.
"""


def of_task(model: Model, task: Task, prompts: Sequence[str], oracle: Tensor | None = None) -> UnseenTask:
    """Read a task's test photos. Its training photos are read on demand."""
    photos, learnt = task.photos["test"], task.photos.get("train", ())
    captions = tuple(task.classes) or tuple(c for photo in photos for c in photo.captions)
    test = Features.of(model, task.key, photos, task.classes, prompts)

    def training() -> TaskTensors:
        train = Features.of(model, task.key, learnt, task.classes, prompts).without(model, set(test.hashes))
        if not train.photos:
            raise BadFile(
                f"every training photo of {task.key} is also a test photo", "check it with `sglora data check DATASET`"
            )
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
