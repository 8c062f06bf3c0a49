"""A data set before it costs a night: what is in it, and what is wrong with it.

Every image is decoded once. check_rules.py judges captions and sizes, near_duplicates.py finds images that look alike;
this module asks both and puts the answers together.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sglora_cli.config import CheckConfig
from sglora_cli.data import check_rules
from sglora_cli.data.check_rules import ISSUE_KINDS, CaptionCount, Common, DataIssue, IssueKind
from sglora_cli.data.near_duplicates import hasher, near_pairs
from sglora_cli.errors import BadFile, SgloraError, SgloraWarning, Unavailable, UnknownName
from sglora_cli.files.images import read_image
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import Task
from sglora_cli.system.progress import progress

if TYPE_CHECKING:
    from PIL.Image import Image


MOST_PAIRS = 100_000
"""Pairs that are listed. Thousands of equal images make millions of pairs, and say nothing more."""
_THREADS = 4  # decoding and hashing leave Python; a decoded photo is large, so no more


@dataclass(frozen=True)
class Picture:
    """An image file that was looked at. One file may belong to several tasks."""

    name: str
    path: Path
    places: tuple[tuple[str, str], ...]
    """Every (task, split) it is in."""
    size: tuple[int, int] = (0, 0)
    """Width and height."""
    hash: int | None = None
    """Perceptual hash; None if it could not be read, or nothing hashes."""
    reason: str = ""
    """Why it could not be read."""


@dataclass(frozen=True)
class Pair:
    """Two images that look alike, or one that is in two splits."""

    kind: str
    """"splits", "tasks" or "within": what they lie across, the gravest first."""
    first: Picture
    second: Picture
    distance: int
    """Bits in which their hashes differ, of 64."""


@dataclass(frozen=True)
class Needs:
    """What a recipe needs of a data set."""

    recipe: str
    """The recipe's name."""
    roles: Mapping[str, Sequence[str]]
    """Role to the names of its tasks."""
    batch: int
    """Photos of one task in a training step."""


@dataclass(frozen=True)
class DataCheck:
    """A data set that was checked."""

    dataset: str
    root: Path
    recipe: str
    """Name of the recipe it was checked against, if any."""
    config: CheckConfig
    tasks: tuple[Task, ...]
    counts: Mapping[str, Mapping[str, CaptionCount]]
    """Task -> split -> counts."""
    total: CaptionCount
    """An image of several tasks counts once."""
    pictures: Mapping[Path, Picture]
    problems: tuple[DataIssue, ...]
    common: tuple[Common, ...]
    """Captions of several images, the most common first."""
    pairs: tuple[Pair, ...]
    """The gravest kind first, then the closest."""
    more_pairs: bool
    """Whether there are more than the MOST_PAIRS that are listed."""

    def kinds(self) -> Iterator[tuple[str, IssueKind, int]]:
        """What was found, with how often: key, the kind with its numbers filled in, count."""
        count_of = Counter(x.kind for x in self.problems) + Counter(x.kind for x in self.pairs)
        for key, kind in ISSUE_KINDS.items():
            if count_of[key]:
                title, why = (text.format_map(asdict(self.config)) for text in (kind.title, kind.why))
                yield key, IssueKind(kind.level, title, why), count_of[key]

    def many(self, level: str) -> int:
        """How many errors or warnings."""
        return sum(count for _, kind, count in self.kinds() if kind.level == level)

    @property
    def verdict(self) -> str:
        errors, warnings = self.many("error"), self.many("warning")
        least = "at least " if self.more_pairs else ""
        return f"{errors} error{'s' * (errors != 1)}, {least}{warnings} warning{'s' * (warnings != 1)}"


def run(
    host: Host, dataset: str, root: Path, needs: Needs | None = None, config: CheckConfig | None = None
) -> DataCheck:
    """Check the data set in a folder, also for what a recipe needs of it.

    Without imagehash it warns, and looks for no near-identical images.
    Raises UnknownName, Unavailable (no such folder), and whatever the data set raises where it cannot be listed.
    """
    config, hash_of = config or CheckConfig(), _hasher()
    plugin = host.datasets[dataset]
    if not root.is_dir():
        raise Unavailable(f"the folder {root} does not exist", "pass --path DIR")
    tasks = tuple(plugin.tasks(root))
    if not tasks:
        raise BadFile(f"data set {dataset!r} finds no task in {root}")
    pictures = _pictures(tasks, root, hash_of)
    pairs = list(islice(_pairs(list(pictures.values()), config.distance), MOST_PAIRS + 1))
    order = list(ISSUE_KINDS)
    return DataCheck(
        dataset=dataset,
        root=root,
        recipe=needs.recipe if needs else "",
        config=config,
        tasks=tasks,
        counts={
            task.name: {split: CaptionCount.of_photos(photos) for split, photos in task.photos.items()}
            for task in tasks
        },
        total=CaptionCount.of_photos({photo.path: photo for _, _, photo in check_rules.every_photo(tasks)}.values()),
        pictures=pictures,
        problems=tuple(_problems(tasks, pictures, config, needs)),
        common=tuple(check_rules.common_captions(tasks)),
        pairs=tuple(sorted(pairs[:MOST_PAIRS], key=lambda p: (order.index(p.kind), p.distance, p.first.name))),
        more_pairs=len(pairs) > MOST_PAIRS,
    )


def _hasher() -> Callable[[Image], int | None]:
    try:
        return hasher()
    except Unavailable as error:
        warnings.warn(f"near-identical images are not looked for: {error.message} ({error.hint})", SgloraWarning, 2)
        return lambda image: None


def _pictures(tasks: Sequence[Task], root: Path, hash_of: Callable[[Image], int | None]) -> dict[Path, Picture]:
    """Every image file, looked at once."""
    places: dict[Path, dict[tuple[str, str], None]] = {}
    for task in tasks:
        for split, photos in task.photos.items():
            for photo in photos:
                places.setdefault(photo.path, {})[task.name, split] = None
    waiting = [Picture(_name(root, path), path, tuple(own)) for path, own in places.items()]
    pool = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1))
    try:
        looked = pool.map(partial(_looked_at, hash_of), waiting)
        return {picture.path: next(looked) for picture in progress(waiting, "images")}
    finally:
        pool.shutdown(cancel_futures=True)  # after an interruption nobody waits for the rest


def _looked_at(hash_of: Callable[[Image], int | None], picture: Picture) -> Picture:
    try:
        image = read_image(picture.path)
    except BadFile as error:
        path = str(picture.path)
        return replace(picture, reason=error.message.removeprefix("image ").removeprefix(path).strip())
    return replace(picture, size=image.size, hash=hash_of(image))


def _name(root: Path, path: Path) -> str:
    """An image's path below the data set's folder; its whole path if it lies elsewhere."""
    full, folder = path.resolve(), root.resolve()
    return full.relative_to(folder).as_posix() if full.is_relative_to(folder) else str(path)


def _problems(
    tasks: Sequence[Task],
    pictures: Mapping[Path, Picture],
    config: CheckConfig,
    needs: Needs | None,
) -> Iterator[DataIssue]:
    for picture in pictures.values():
        task, split = picture.places[0]
        if picture.reason:
            yield DataIssue("broken", task, split, picture.name, picture.reason)
        elif min(picture.size) < config.pixels:
            yield DataIssue("small", task, split, picture.name, "{} x {}".format(*picture.size))
    yield from check_rules.caption_problems(tasks, lambda path: pictures[path].name, config.words)
    yield from check_rules.shared_problems(tasks)
    wanted = [task for role in needs.roles.values() for task in role] if needs else [task.name for task in tasks]
    used = [task for task in tasks if task.name in set(wanted)]
    yield from check_rules.size_problems(used, config, needs.batch if needs else 0)
    yield from check_rules.absent_problems(needs.roles if needs else {}, [task.name for task in tasks])


def _pairs(pictures: Sequence[Picture], distance: int) -> Iterator[Pair]:
    """Files that are in several splits themselves, then every two that look alike."""
    for picture in pictures:
        if len({split for _, split in picture.places}) > 1:
            yield Pair("splits", picture, picture, 0)
    read = [(picture, picture.hash) for picture in pictures if picture.hash is not None]
    hashes_N = np.array([hash_ for _, hash_ in read], dtype=np.uint64)
    for i, j, apart in near_pairs(hashes_N, distance):
        first, second = read[i][0], read[j][0]
        yield Pair(_across(first, second), first, second, apart)


def _across(first: Picture, second: Picture) -> str:
    if len({split for _, split in first.places + second.places}) > 1:
        return "splits"
    same = {task for task, _ in first.places} == {task for task, _ in second.places}
    return "within" if same else "tasks"


def error_of(check: DataCheck) -> SgloraError | None:
    """The error a check ends with, if it found one: BadFile for what is in the files, else UnknownName."""
    many = Counter(problem.kind for problem in check.problems)
    bad = [problem for problem in check.problems if problem.kind in ("broken", "empty")]
    if bad:
        counts = f"images that do not decode: {many['broken']}, captions without a word: {many['empty']}"
        return BadFile(f"{counts}; the first: {bad[0].image}: {bad[0].text}", "mend or remove them, then check again")
    if many["absent"]:
        names = ", ".join(repr(problem.task) for problem in check.problems if problem.kind == "absent")
        return UnknownName(f"tasks of recipe {check.recipe!r} that are not there: {names}", "correct the recipe")
    return None


def to_json(check: DataCheck) -> dict[str, Any]:
    """Everything about a check, for programs."""
    return {
        "dataset": check.dataset,
        "path": str(check.root),
        "recipe": check.recipe or None,
        "config": asdict(check.config),
        "total": {"tasks": len(check.tasks), **check.total.to_json()},
        "tasks": {task: {split: n.to_json() for split, n in splits.items()} for task, splits in check.counts.items()},
        "problems": [{"level": ISSUE_KINDS[problem.kind].level, **asdict(problem)} for problem in check.problems],
        "common_captions": [asdict(common) for common in check.common],
        "pairs": [
            {"level": ISSUE_KINDS[pair.kind].level, "kind": pair.kind, "distance": pair.distance}
            | {"images": [{"name": p.name, "places": p.places} for p in (pair.first, pair.second)]}
            for pair in check.pairs
        ],
        "more_pairs": check.more_pairs,
        "errors": check.many("error"),
        "warnings": check.many("warning"),
    }
