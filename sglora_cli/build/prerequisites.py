"""Checks what a build needs before it starts: valid names, data, captions, weights, packages, disk space and tasks.

All problems are reported in one error, before torch is imported and before any photo is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sglora_cli.config import RuntimeConfig
from sglora_cli.data.check import Needs, partial_line
from sglora_cli.data.refusals import Refused, wrong_photos, wrong_tasks
from sglora_cli.data.text_limit import TextLimit
from sglora_cli.errors import BadFile, Mismatch, SgloraError, Unavailable, UnknownName
from sglora_cli.files.escape import shell_word
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
    """Return the tasks of every source by role. Raises one error for everything that is missing or invalid.

    data: the folder of the data sets, or None for the folder in the settings.
    Missing weights alone are not an error, because the backbone can download them.
    """
    faults = Faults(recipe.path, recipe.lines)
    _check_names(faults, host, recipe)
    faults.refuse()  # now, because reading the data takes long
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
    """Collect unknown names of plugins and unknown keys of their tables."""
    with faults.at("backbone"):
        host.backbones[recipe.backbone]
    with faults.at("default_generator"):
        host.generators[recipe.default_generator]
    for name, table in recipe.generators.items():
        with faults.at("generators", name):
            plain, colon, _ = name.partition(":")
            if colon:
                raise BadFile(f"generator name {name!r} contains settings", f"move them to [generators.{plain}]")
            kind = host.generators[name].config
            if kind is not None:
                table_config(faults, kind, table, "generators", name)
    for n, source in enumerate(recipe.sources):
        with faults.at("source", n, "dataset"):
            host.datasets[source.dataset]


@dataclass(frozen=True)
class _DataPlace:
    """The folder of the data sets, or its name in commands if it does not exist."""

    root: Path
    option: str
    """Option for commands: " --data DIR", or "" if the settings name the folder."""
    errors: Sequence[SgloraError] = ()

    @classmethod
    def of(cls, data: Path | None) -> _DataPlace:
        named = settings.load().data
        option = f" --data {shell_word(data)}" if data else ""
        try:
            return cls(data_folder(data, named), option)
        except Unavailable as error:
            return cls(Path(data or named or "DIR"), option, [error])


@dataclass(frozen=True)
class _Absent:
    """A source whose data is missing or cannot be read."""

    errors: Sequence[SgloraError]
    plan: FetchPlan | None = None
    """What fetching it would download, if the data set can tell."""


def _available(host: Host, source: Source, place: _DataPlace) -> dict[str, Task] | _Absent:
    """Return the tasks of a source by name."""
    dataset, root = host.datasets[source.dataset], place.root / source.path
    try:
        return {task.name: task for task in dataset.tasks(root)}
    except SgloraError as error:
        if isinstance(error, Unavailable) or place.errors:
            return _absent(source.dataset, dataset, root, place, error)
        return _Absent([error])


def _absent(name: str, dataset: Dataset, root: Path, place: _DataPlace, why: SgloraError) -> _Absent:
    """Return the errors for missing parts of a data set, with the commands that fetch them.

    If the folder of the data sets does not exist, the user may have the data elsewhere.
    why: the data set's own error, which is reported if no command helps.
    """
    plan: FetchPlan | None = None
    errors: list[SgloraError] = []
    known_place = not place.errors
    where = f"is not in {root}" if known_place else "is needed there, unless you have it elsewhere"
    if isinstance(dataset, PlansFetch):
        try:
            plan = dataset.fetch_plan(place.root)
        except Unavailable as error:  # it may not be downloaded
            return _Absent([error])
    if isinstance(dataset, Fetches) and (plan is None or plan.waiting):
        known = "size unknown" if plan is None or plan.left is None else size(plan.left)
        part = "the rest of " if plan is not None and len(plan.waiting) < len(plan.downloads) else ""
        command = f"sglora data fetch {shell_word(name)}{place.option}"
        errors.append(Unavailable(f"{known}: {part}data set {name!r} {where}", command))
    if known_place and plan is not None and plan.folder != root:
        text = f"`sglora data fetch {shell_word(name)}` writes to {plan.folder}, but the recipe reads from {root}"
        errors.append(Unavailable(text, f'set path = "{plan.folder.name}" in its [[source]]'))
    if (plan is not None and not plan.captions) or (not errors and _has_images(dataset, root)):
        command = f"sglora data caption {shell_word(name)} --path {shell_word(root)}"
        none = f"there are none in {root}" if known_place else "the data set does not include them"
        errors.append(Unavailable(f"captions of data set {name!r}: {none}", command))
    if not errors:
        errors = [why if known_place else Unavailable(f"{root} is needed, unless you have it elsewhere", why.hint)]
    return _Absent(errors, plan)


def _has_images(dataset: Dataset, root: Path) -> bool:
    """Return whether a data set has images that a captioner could describe."""
    if not isinstance(dataset, ListsImages):
        return False
    try:
        return bool(dataset.images(root))
    except SgloraError:
        return False


def _lacking_disk(place: _DataPlace, absent: Sequence[_Absent]) -> Iterator[SgloraError]:
    """Yield an error if the disk is too small for the data to fetch."""
    plans = {one.plan.folder: one.plan for one in absent if one.plan is not None and one.plan.waiting}
    needed, free = sum(plan.disk or 0 for plan in plans.values()), free_disk(place.root)
    if needed > free:
        text = (
            f"fetching and unpacking needs {size(needed)} of disk space in {place.root}, but only {size(free)} are free"
        )
        yield Unavailable(text, "free disk space, or pass a folder on another disk with --data")


def _lacking_weights(host: Host, recipe: Recipe, runtime: RuntimeConfig | None) -> Iterator[SgloraError]:
    name, backbone = recipe.backbone, host.backbones[recipe.backbone]
    if isinstance(backbone, SaysAbsent):
        with no_network():
            lacks = backbone.absent(settings.runtime(runtime or RuntimeConfig(), name))
        if lacks:
            command = "sglora settings set weights FILE"
            if name != settings.load().backbone:
                command = f"sglora pack build {shell_word(recipe.name)} --weights FILE"
            missing = settings.missing_weights_hint(runtime or RuntimeConfig(), name)
            hint = missing or f"{command}, or let the build download them"
            yield Unavailable(f"backbone {name!r}: {lacks}", hint)


def _lacking_packages(host: Host, recipe: Recipe) -> Iterator[SgloraError]:
    """Yield an error for each generator of a recipe that lacks a package, before training starts."""
    names = [part for name in (*recipe.generators, recipe.default_generator) for part in parts_of(name)]
    for name in dict.fromkeys(names):
        generator = host.generators[name]
        if isinstance(generator, SaysAbsent) and (lacks := generator.absent(RuntimeConfig())):
            yield Unavailable(f"generator {name!r}: {lacks}")


def planned_source(
    host: Host, recipe: Recipe, n: int, available: Mapping[str, Task], root: Path
) -> tuple[dict[str, list[Task]], list[Refused]]:
    """Return the tasks of source `n` by role with the photos that the recipe assigns, and the errors of its build."""
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
        text = f"{partial}; this may be why tasks lack photos"
        refused.append(Refused("partial", Unavailable(text, _fetching(source.dataset, dataset, root))))
    refused += _wrong_descriptions(host, recipe, [task for _, task in pairs])
    return planned, refused


def _fetching(name: str, dataset: Dataset, root: Path) -> str:
    """Return the command that fetches the rest of a data set into its folder, or "" if there is none."""
    try:
        plan = dataset.fetch_plan(root.parent) if isinstance(dataset, PlansFetch) else None
    except SgloraError:
        plan = None
    command = f"sglora data fetch {shell_word(name)} --data {shell_word(root.parent)}"
    return command if plan and plan.folder == root else ""


def paired(planned: Mapping[str, Sequence[Task]]) -> list[tuple[str, Task]]:
    """Return tasks by role as (role, task) pairs."""
    return [(role, task) for role, tasks in planned.items() for task in tasks]


def _wrong_descriptions(host: Host, recipe: Recipe, tasks: Sequence[Task]) -> Iterator[Refused]:
    """Yield descriptions that a pack cannot store, and those that the backbone's text encoder would truncate."""
    for task in tasks:
        try:
            hint = "rename the task or its classes in the data set"
            check_printable(task.description, f"the description of task {task.key}", hint)
        except SgloraError as error:
            yield Refused("refused", error, task.name)
    cut = TextLimit.of(host, recipe.backbone).cut(task.description for task in tasks)
    for task in tasks:
        if tokens := cut.tokens.get(task.description):
            text = f"the description of task {task.key} has {tokens}, but the text encoder of {recipe.backbone} reads "
            yield Refused(
                "refused", Mismatch(f"{text}{cut.limit.tokens}: {task.description!r:.100}", _SHORTER), task.name
            )


_SHORTER = "shorten the template or the description in the recipe"


def needs_of(host: Host, recipe: Recipe, dataset: str, root: Path) -> Needs:
    """Return what a recipe needs from a data set, and what its build would reject there.

    Raises Mismatch if no source of the recipe reads the data set.
    """
    host.datasets[dataset]  # report an unknown name before checking the recipe
    source = source_of(recipe, dataset, root)
    n = recipe.sources.index(source)

    def error_of(refused: Sequence[Refused]) -> SgloraError | None:
        faults = Faults(recipe.path, recipe.lines, [(one.address, one.error) for one in refused])
        return faults.error()

    def absent(why: Unavailable) -> SgloraError:
        place = _DataPlace(root.parent, f" --data {shell_word(root.parent)}")
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
        source.whole,
    )


def _wrong_content(
    recipe: Recipe,
    source: Source,
    planned: Mapping[str, Sequence[Task]],
    hash_of: Mapping[Path, str],
    broken: Mapping[Path, SgloraError],
) -> list[Refused]:
    """Return what a build would reject of the photos and captions of one source, if it were the only source."""
    pairs = paired(planned)
    if refused := wrong_photos(pairs, hash_of, broken):
        return refused
    if set(recipe.from_captions) != {source.name}:
        return []  # no phrases, or phrases of other data too
    from sglora_cli.build.pool_tasks import check_phrases

    try:
        check_phrases(recipe, pairs, hash_of)
    except SgloraError as error:
        return [Refused("refused", error)]
    return []
