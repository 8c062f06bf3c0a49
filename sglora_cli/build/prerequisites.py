"""What a build needs before it starts: names that exist, data, captions, weights, packages, disk and whole tasks.

Everything that is wrong is one error, before torch is imported and before a photo is read.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sglora_cli.config import RuntimeConfig
from sglora_cli.data.check import Needs, partial_line
from sglora_cli.data.refusals import Refused, wrong_photos, wrong_tasks
from sglora_cli.data.text_limit import TextLimit
from sglora_cli.errors import BadFile, Mismatch, SgloraError, Unavailable, UnknownName
from sglora_cli.network import no_network
from sglora_cli.pack.content.manifest import check_printable
from sglora_cli.pack.recipe import Recipe, Source, source_of
from sglora_cli.pack.recipe_parser import Faults, table_config
from sglora_cli.plugin.combined import parts_of
from sglora_cli.plugin.contracts import Dataset, Fetches, ListsImages, PlansFetch, SaysAbsent
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import FetchPlan, Task
from sglora_cli.system import settings
from sglora_cli.system.hardware import free_disk
from sglora_cli.system.paths import data_folder
from sglora_cli.system.progress import size


def plan_tasks(
    host: Host, recipe: Recipe, data: Path | None, runtime: RuntimeConfig | None = None
) -> list[dict[str, list[Task]]]:
    """Tasks by role of every source. Raises one error for everything that is not there, and that is wrong with tasks.

    data: the folder of the data sets, that of the settings if None. Weights alone are no reason to stop: with a network
    the backbone fetches them.
    """
    faults = Faults(recipe.path, recipe.lines)
    _check_names(faults, host, recipe)
    faults.refuse()  # before the data is read: that takes long
    place = _DataPlace.of(data)
    faults.collect(place.errors)
    by_source, absent = [], []
    for n, source in enumerate(recipe.sources):
        found = _available(host, source, place)
        if isinstance(found, _Absent):
            faults.collect(found.errors)
            absent.append(found)
            continue
        planned, refused = planned_source(host, recipe, n, found, place.root / source.path)
        by_source.append(planned)
        for one in refused:
            faults.errors.append((one.address, one.error))
    faults.collect(_lacking_packages(host, recipe))
    if faults.errors:
        faults.collect(_lacking_disk(place, absent))
        faults.collect(_lacking_weights(host, recipe, runtime))
    faults.refuse()
    return by_source


def _check_names(faults: Faults, host: Host, recipe: Recipe) -> None:
    """Collects the names of plugins, and keys of their tables, that do not exist."""
    with faults.at("backbone"):
        host.backbones[recipe.backbone]
    with faults.at("default_generator"):
        host.generators[recipe.default_generator]
    for name, table in recipe.generators.items():
        with faults.at("generators", name):
            plain, colon, _ = name.partition(":")
            if colon:
                raise BadFile(f"{name!r} has settings in a generator's name", f"write them below [generators.{plain}]")
            kind = host.generators[name].config
            if kind is not None:
                table_config(faults, kind, table, "generators", name)
    for n, source in enumerate(recipe.sources):
        with faults.at("source", n, "dataset"):
            host.datasets[source.dataset]


@dataclass(frozen=True)
class _DataPlace:
    """The folder of the data sets, or what commands call it as long as it is not there."""

    root: Path
    option: str
    """For commands: " --data DIR", or "" where the settings name the folder."""
    errors: Sequence[SgloraError] = ()

    @classmethod
    def of(cls, data: Path | None) -> _DataPlace:
        named = settings.load().data
        option = f" --data {shlex.quote(str(data))}" if data else ""
        try:
            return cls(data_folder(data, named), option)
        except Unavailable as error:
            return cls(Path(data or named or "DIR"), option, [error])


@dataclass(frozen=True)
class _Absent:
    """A source whose data is not there, or cannot be read."""

    errors: Sequence[SgloraError]
    plan: FetchPlan | None = None
    """What fetching it would download, where it says that."""


def _available(host: Host, source: Source, place: _DataPlace) -> dict[str, Task] | _Absent:
    """The tasks of a source by name."""
    dataset, root = host.datasets[source.dataset], place.root / source.path
    if place.errors:
        return _absent(source.dataset, dataset, root, place)
    try:
        return {task.name: task for task in dataset.tasks(root)}
    except Unavailable as error:
        return _absent(source.dataset, dataset, root, place, error)
    except SgloraError as error:
        return _Absent([error])


def _absent(name: str, dataset: Dataset, root: Path, place: _DataPlace, why: Unavailable | None = None) -> _Absent:
    """What is missing of a data set, with the commands that get it; `why` where there are none.

    why: None as long as the folder of the data sets is not there: then nobody knows what its user has elsewhere.
    """
    plan, errors = None, []
    where = f"is not in {root}" if why else "goes there, unless you have it elsewhere"
    if isinstance(dataset, PlansFetch):
        try:
            plan = dataset.fetch_plan(place.root)
        except Unavailable as error:  # it may not be downloaded
            return _Absent([error])
    if isinstance(dataset, Fetches) and (plan is None or plan.waiting):
        known = "size unknown" if plan is None or plan.left is None else size(plan.left)
        part = "the rest of " if plan is not None and len(plan.waiting) < len(plan.downloads) else ""
        command = f"sglora data fetch {name}{place.option}"
        errors.append(Unavailable(f"{known}: {part}data set {name!r} {where}", command))
    if why and plan is not None and plan.folder != root:
        text = f"`sglora data fetch {name}` puts it into {plan.folder}, and the recipe reads {root}"
        errors.append(Unavailable(text, f'write path = "{plan.folder.name}" in its [[source]]'))
    if (plan is not None and not plan.captions) or (why and not errors and _has_images(dataset, root)):
        command = f"sglora data caption {name} --path {shlex.quote(str(root))}"
        none = f"there are none in {root}" if why else "they are not part of it"
        errors.append(Unavailable(f"captions of data set {name!r}: {none}", command))
    return _Absent(errors or ([why] if why else []), plan)


def _has_images(dataset: Dataset, root: Path) -> bool:
    """Whether a data set has images that a captioner could look at."""
    if not isinstance(dataset, ListsImages):
        return False
    try:
        return bool(dataset.images(root))
    except SgloraError:
        return False


def _lacking_disk(place: _DataPlace, absent: Sequence[_Absent]) -> Iterator[SgloraError]:
    """Whether the disk is too small for what is to be fetched."""
    plans = {one.plan.folder: one.plan for one in absent if one.plan is not None and one.plan.waiting}
    needed, free = sum(plan.disk or 0 for plan in plans.values()), free_disk(place.root)
    if needed > free:
        text = f"{size(needed)} of disk are needed in {place.root} to fetch and unpack this, {size(free)} are free"
        yield Unavailable(text, "make room, or name a folder on another disk with --data")


def _lacking_weights(host: Host, recipe: Recipe, runtime: RuntimeConfig | None) -> Iterator[SgloraError]:
    name, backbone = recipe.backbone, host.backbones[recipe.backbone]
    if isinstance(backbone, SaysAbsent):
        with no_network():
            lacks = backbone.absent(settings.runtime(runtime or RuntimeConfig(), name))
        if lacks:
            command = "sglora settings set weights FILE"
            if name != settings.load().backbone:
                command = f"sglora pack build {recipe.name} --weights FILE"
            yield Unavailable(f"backbone {name!r}: {lacks}", f"{command}, or let the build fetch them")


def _lacking_packages(host: Host, recipe: Recipe) -> Iterator[SgloraError]:
    """What the generators of a recipe lack: known now, and not after the training."""
    names = [part for name in (*recipe.generators, recipe.default_generator) for part in parts_of(name)]
    for name in dict.fromkeys(names):
        generator = host.generators[name]
        if isinstance(generator, SaysAbsent) and (lacks := generator.absent(RuntimeConfig())):
            yield Unavailable(f"generator {name!r}: {lacks}")


def planned_source(
    host: Host, recipe: Recipe, n: int, available: Mapping[str, Task], root: Path
) -> tuple[dict[str, list[Task]], list[Refused]]:
    """The tasks of source `n` by role, with the photos that the recipe gives them, and what a build refuses of them."""
    source, dataset = recipe.sources[n], host.datasets[recipe.sources[n].dataset]
    refused = [
        Refused("absent", UnknownName.of(f"task in {source.name}", name, available), name, ("source", n, role, name))
        for role, names in source.roles.items()
        for name in names
        if name not in available
    ]
    roles = {role: tuple(name for name in names if name in available) for role, names in source.roles.items()}
    try:
        planned = replace(source, roles=roles).by_role(available, recipe.template)
    except SgloraError as error:
        address = ("source", n, "description") if source.description else ("template",)
        return {}, [*refused, Refused("refused", error, "", address)]
    pairs = paired(planned)
    refused += wrong_tasks(pairs)
    if refused and (partial := partial_line(source.dataset, dataset, root)):
        text = f"{partial}; that may be why photos of tasks are missing"
        refused.append(Refused("partial", Unavailable(text, _fetching(source.dataset, dataset, root))))
    refused += _wrong_descriptions(host, recipe, [task for _, task in pairs])
    return planned, refused


def _fetching(name: str, dataset: Dataset, root: Path) -> str:
    """The command that fetches the rest of a data set into its folder; "" if there is none."""
    try:
        plan = dataset.fetch_plan(root.parent) if isinstance(dataset, PlansFetch) else None
    except SgloraError:
        plan = None
    return f"sglora data fetch {name} --data {shlex.quote(str(root.parent))}" if plan and plan.folder == root else ""


def paired(planned: Mapping[str, Sequence[Task]]) -> list[tuple[str, Task]]:
    """Tasks by role as pairs."""
    return [(role, task) for role, tasks in planned.items() for task in tasks]


def _wrong_descriptions(host: Host, recipe: Recipe, tasks: Sequence[Task]) -> Iterator[Refused]:
    """Descriptions that a pack cannot keep, and those that the text encoder of the recipe's backbone would cut."""
    for task in tasks:
        try:
            hint = "rename the task or its classes in the data set"
            check_printable(task.description, f"the description of task {task.key}", hint)
        except SgloraError as error:
            yield Refused("refused", error, task.name)
    cut = TextLimit.of(host, recipe.backbone).cut(task.description for task in tasks)
    for task in tasks:
        if tokens := cut.tokens.get(task.description):
            text = f"the description of task {task.key} has {tokens}, the text encoder of {recipe.backbone} reads "
            yield Refused(
                "refused", Mismatch(f"{text}{cut.limit.tokens}: {task.description!r:.100}", _SHORTER), task.name
            )


_SHORTER = "shorten the template or the description in the recipe"


def needs_of(host: Host, recipe: Recipe, dataset: str, root: Path) -> Needs:
    """What a recipe needs of a data set, and what its build would refuse of it. Raises Mismatch if no source of the
    recipe reads it."""
    host.datasets[dataset]  # a name that nobody has is what is wrong, whatever the recipe says
    source = source_of(recipe, dataset, root)
    n = recipe.sources.index(source)

    def error_of(refused: Sequence[Refused]) -> SgloraError | None:
        faults = Faults(recipe.path, recipe.lines, [(one.address, one.error) for one in refused])
        return faults.error()

    def absent(why: Unavailable) -> SgloraError:
        place = _DataPlace(root.parent, f" --data {shlex.quote(str(root.parent))}")
        faults = Faults(recipe.path, recipe.lines)
        faults.collect(_absent(dataset, host.datasets[dataset], root, place, why).errors)
        return faults.error() or why

    return Needs(
        recipe.name,
        source.roles,
        recipe.train.batch,
        recipe.backbone,
        lambda available: planned_source(host, recipe, n, available, root),
        lambda planned, hash_of, broken: _wrong_content(recipe, source, planned, hash_of, broken),
        error_of,
        absent,
    )


def _wrong_content(
    recipe: Recipe,
    source: Source,
    planned: Mapping[str, Sequence[Task]],
    hash_of: Mapping[Path, str],
    broken: Mapping[Path, SgloraError],
) -> list[Refused]:
    """What a build refuses of the photos and captions of one source, if it has no other."""
    pairs = paired(planned)
    if refused := wrong_photos(pairs, hash_of, broken):
        return refused
    if set(recipe.from_captions) != {source.name}:
        return []  # no phrases, or also those of other data
    from sglora_cli.build.pool_tasks import check_phrases

    try:
        check_phrases(recipe, pairs, hash_of)
    except SgloraError as error:
        return [Refused("refused", error)]
    return []
