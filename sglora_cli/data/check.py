"""Check a data set before training: its contents, its problems, and the files that it skips.

Every image is decoded once. check_rules.py checks captions and sizes, pictures.py finds duplicate and near-identical
images, and text_limit.py finds captions that are truncated. This module combines the results.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from sglora_cli.config import CheckConfig
from sglora_cli.data import check_rules, pictures
from sglora_cli.data.check_rules import ISSUE_KINDS, CaptionCount, Common, DataIssue, IssueKind
from sglora_cli.data.overlaps import Overlap, overlaps, sides_of
from sglora_cli.data.pictures import Pair, Picture
from sglora_cli.data.refusals import Refused, needed
from sglora_cli.data.text_limit import TextLimit, TextsCut
from sglora_cli.errors import BadFile, SgloraError, Unavailable
from sglora_cli.files.passed_over import PassedOver, tally
from sglora_cli.plugin.contracts import CountsImages, Dataset, SaysPassedOver
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import TEST, TRAIN, UNSEEN, Task
from sglora_cli.system.display import counted

MOST_PAIRS = 100_000
"""The most pairs to list. Thousands of equal images make millions of pairs, which tell the user nothing more."""


@dataclass(frozen=True)
class Needs:
    """What a recipe needs of a data set."""

    recipe: str
    """The recipe's name."""
    roles: Mapping[str, Sequence[str]]
    """Maps each role to the names of its tasks."""
    batch: int
    """Photos of one task in a training step."""
    backbone: str
    planned: Callable[[Mapping[str, Task]], tuple[Mapping[str, Sequence[Task]], Sequence[Refused]]]
    """Maps the data set's tasks by name to the tasks of each role, with the photos that the recipe assigns to them, and
    to what a build refuses before it reads a photo."""
    wrong_content: Callable[
        [Mapping[str, Sequence[Task]], Mapping[Path, str], Mapping[Path, SgloraError]], Sequence[Refused]
    ]
    """Maps those tasks, the photo hashes and the errors of broken photos to what a build refuses about the photos."""
    error: Callable[[Sequence[Refused]], SgloraError | None]
    """Returns the error that a build ends with for what it refuses."""
    absent: Callable[[Unavailable], SgloraError]
    """Returns the error that a build ends with if the data set is missing, given the data set's own error."""
    whole: bool = False
    """Whether seen tasks are trained on all their photos, so their test photos count as training photos."""

    def splits_of(self, task: Task) -> Task:
        """Return the task with its photos in the splits that the recipe uses them for."""
        if not self.whole or not any(task.name in names for role, names in self.roles.items() if role != UNSEEN):
            return task
        return replace(task, photos={TRAIN: [photo for some in task.photos.values() for photo in some], TEST: []})


@dataclass(frozen=True)
class DataCheck:
    """The results of checking a data set."""

    dataset: str
    root: Path
    recipe: str
    """Name of the recipe that the data set was checked against, or ""."""
    config: CheckConfig
    tasks: tuple[Task, ...]
    """The tasks, with the splits of `Needs.splits_of` if there is a recipe."""
    counts: Mapping[str, Mapping[str, CaptionCount]]
    """Counts by task and split."""
    total: CaptionCount
    """Counts over all images. An image of several tasks counts once."""
    pictures: Mapping[Path, Picture]
    problems: tuple[DataIssue, ...]
    common: tuple[Common, ...]
    """Captions that several images share, the most common first."""
    pairs: tuple[Pair, ...]
    """Pairs of similar images, ordered by severity, then by distance."""
    more_pairs: bool
    """Whether there are more pairs than the MOST_PAIRS that are listed."""
    limit: TextLimit
    """The text encoder's limit that captions were compared with."""
    passed_over: Sequence[PassedOver]
    """Files that the data set skips, the most frequent first."""
    partial: tuple[int, int] | None = None
    """The number of images that exist and the number that the data set's lists name. None if all exist, or if the data
    set does not count them."""
    overlaps: Sequence[Overlap] = ()
    """Photos that tasks of the recipe share, leaks first."""
    refusal: SgloraError | None = None
    """The error that a build of the recipe would end with because of this data, or None."""
    whole: bool = False
    """Whether the recipe trains seen tasks on all their photos (see `Needs`)."""

    def kinds(self) -> Iterator[tuple[str, IssueKind, int]]:
        """Yield key, kind and count of every kind of issue that was found. Numbers in the kind's text are filled in."""
        count_of = Counter(x.kind for x in self.problems) + Counter(x.kind for x in self.pairs)
        for key, kind in ISSUE_KINDS.items():
            if count_of[key]:
                numbers = asdict(self.config) | {"backbone": self.limit.backbone, "limit": self.limit.tokens}
                title, why = (text.format_map(numbers) for text in (kind.title, kind.why))
                yield key, IssueKind(kind.level, title, why), count_of[key]

    def many(self, level: str) -> int:
        """Count the issues of a level, "error" or "warning"."""
        return sum(count for _, kind, count in self.kinds() if kind.level == level)

    @property
    def splits_note(self) -> str:
        """Why the counts differ from the data set's splits; "" if they do not."""
        note = "With `whole = true`, the recipe trains experts and training tasks on their test images, too."
        return note if self.whole else ""

    @property
    def verdict(self) -> str:
        errors, warnings = self.many("error"), self.many("warning")
        least = "at least " if self.more_pairs else ""
        return f"{counted(errors, 'error')}, {least}{counted(warnings, 'warning')}"


def run(
    host: Host,
    dataset: str,
    root: Path,
    needs: Needs | None = None,
    config: CheckConfig | None = None,
    backbone: str = "",
) -> DataCheck:
    """Check the data set in a folder, optionally against a recipe and for captions that a backbone truncates.

    Without the package imagehash it warns and does not search for near-identical images.
    Raises UnknownName, Unavailable if the folder is missing, and any error of a data set that cannot be listed.
    """
    config = config or CheckConfig()
    plugin = host.datasets[dataset]
    try:
        if not root.is_dir():
            raise Unavailable.no_folder(root, "the folder ", f"pass the folder of data set {dataset!r} with --path")
        tasks = tuple(plugin.tasks(root))
    except Unavailable as error:
        raise needs.absent(error) if needs else error from None
    if not tasks:
        raise BadFile(f"data set {dataset!r} found no tasks in {root}")
    used = tuple(map(needs.splits_of, tasks)) if needs else tasks
    looked = pictures.look_at(used, root)
    planned, refused = _refused(tasks, looked, needs) if needs else ({}, [])
    pairs = list(islice(pictures.alike(list(looked.values()), config.distance), MOST_PAIRS + 1))
    cut = TextLimit.of(host, backbone).cut(captions_of(used)) if backbone else TextsCut(TextLimit(), {})
    order = list(ISSUE_KINDS)
    return DataCheck(
        dataset=dataset,
        root=root,
        recipe=needs.recipe if needs else "",
        config=config,
        tasks=used,
        counts={
            task.name: {split: CaptionCount.of_photos(photos) for split, photos in task.photos.items()} for task in used
        },
        total=CaptionCount.of_photos({photo.path: photo for _, _, photo in check_rules.every_photo(used)}.values()),
        pictures=looked,
        problems=tuple(_problems(used, looked, config, needs, cut, planned, refused)),
        common=tuple(check_rules.common_captions(used)),
        pairs=tuple(sorted(pairs[:MOST_PAIRS], key=lambda p: (order.index(p.kind), p.distance, p.first.name))),
        more_pairs=len(pairs) > MOST_PAIRS,
        limit=cut.limit,
        passed_over=passed_over(plugin, root),
        partial=image_counts(plugin, root),
        overlaps=overlaps(sides_of(planned)),
        refusal=needs.error(refused) if needs else None,
        whole=bool(needs and needs.whole),
    )


def _refused(
    tasks: Sequence[Task], looked: Mapping[Path, Picture], needs: Needs
) -> tuple[Mapping[str, Sequence[Task]], Sequence[Refused]]:
    """Return the recipe's tasks by role and what its build refuses. Photos are checked only if the tasks pass."""
    planned, refused = needs.planned({task.name: task for task in tasks})
    if refused:
        return planned, refused
    hash_of = {path: picture.digest for path, picture in looked.items() if picture.digest}
    broken = {path: picture.error for path, picture in looked.items() if picture.error}
    return planned, needs.wrong_content(planned, hash_of, broken)


def image_counts(dataset: Dataset, root: Path) -> tuple[int, int] | None:
    """Return the number of images that exist and the number that a data set's lists name.

    None if all exist, or if the data set does not count them.
    """
    here, named = dataset.image_counts(root) if isinstance(dataset, CountsImages) else (0, 0)
    return (here, named) if here < named else None


def partial_line(name: str, dataset: Dataset, root: Path) -> str:
    """Describe how many images a partial data set has; "" for a complete one."""
    counts = image_counts(dataset, root)
    return partial_text(name, counts) if counts else ""


def partial_text(name: str, counts: tuple[int, int]) -> str:
    """
    >>> partial_text("coco", (1894, 123287))
    'coco: 1,894 of the 123,287 images in its annotations exist'
    """
    return f"{name}: {counts[0]:,} of the {counts[1]:,} images in its annotations exist"


def passed_over(dataset: Dataset, root: Path, but: Collection[str] = ()) -> list[PassedOver]:
    """Count the files that a data set skips, the most frequent reason first. `but`: names to leave out."""
    pairs = dataset.passed_over(root) if isinstance(dataset, SaysPassedOver) else ()
    return tally((name, reason) for name, reason in pairs if name not in but)


def captions_of(tasks: Iterable[Task]) -> Iterator[str]:
    """Yield the captions of captioned tasks. Classes are embedded in a prompt, which is checked separately."""
    photos = check_rules.every_photo(task for task in tasks if not task.classes)
    return (caption for _, _, photo in photos for caption in photo.captions)


def _problems(
    tasks: Sequence[Task],
    looked: Mapping[Path, Picture],
    config: CheckConfig,
    needs: Needs | None,
    cut: TextsCut,
    planned: Mapping[str, Sequence[Task]],
    refused: Sequence[Refused],
) -> Iterator[DataIssue]:
    read = {photo.path for role, some in planned.items() for task in some for photo in needed(role, task)}
    for picture in looked.values():
        task, split = picture.places[0]
        if picture.error:
            kind = "unused" if needs and picture.path not in read else "broken"
            yield DataIssue(kind, task, split, picture.name, picture.reason)
            continue
        if min(picture.size) < config.pixels:
            yield DataIssue("small", task, split, picture.name, "{} x {}".format(*picture.size))
        if picture.plain:
            yield DataIssue("plain", task, split, picture.name, "{} x {}".format(*picture.size))
        if picture.frames:
            yield DataIssue("frames", task, split, picture.name, "an animation or a multi-page file")
    words = config.words if cut.limit.reason else None
    for issue in check_rules.caption_problems(tasks, str, words, cut.tokens):
        path = Path(issue.image)
        kind = "wordless" if issue.kind == "empty" and needs and path not in read else issue.kind
        yield replace(issue, kind=kind, image=looked[path].name)
    yield from check_rules.shared_problems(tasks)
    if needs is None:
        yield from check_rules.size_problems(tasks, config)
        return
    for role, some in planned.items():
        # A build refuses tasks with too few training images. Nothing is tested on seen tasks.
        kinds = ("batch", "test") if role == UNSEEN else ("batch",)
        yield from (one for one in check_rules.size_problems(some, config, needs.batch) if one.kind in kinds)
    yield from check_rules.absent_problems(needs.roles, [task.name for task in tasks])
    yield from (DataIssue("refused", one.task, text=one.error.message) for one in refused if one.kind == "refused")


def error_of(check: DataCheck) -> SgloraError | None:
    """Return the error that a check ends with, or None. With a recipe it is the error that its build ends with."""
    if check.recipe:
        return check.refusal
    many = Counter(problem.kind for problem in check.problems)
    bad = [problem for problem in check.problems if problem.kind in ("broken", "empty")]
    if bad:
        counts = f"images that cannot be decoded: {many['broken']}, captions without words: {many['empty']}"
        return BadFile(f"{counts}. The first is {bad[0].image}: {bad[0].text}", "fix or remove them, then check again")
    return None


def to_json(check: DataCheck) -> dict[str, Any]:
    """Return a check as JSON values."""
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
            {"level": ISSUE_KINDS[pair.kind].level, "kind": pair.kind, "distance": pair.distance, "equal": pair.equal}
            | {"images": [{"name": p.name, "places": p.places} for p in (pair.first, pair.second)]}
            for pair in check.pairs
        ],
        "more_pairs": check.more_pairs,
        "tokens": check.limit.to_json(),
        "passed_over": [one.to_json() for one in check.passed_over],
        "partial": {"here": check.partial[0], "named": check.partial[1]} if check.partial else None,
        "overlaps": [one.to_json() for one in check.overlaps],
        "errors": check.many("error"),
        "warnings": check.many("warning"),
    }
