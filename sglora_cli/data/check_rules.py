"""Rules for the captions and sizes of a data set. Each rule is a function that yields the issues it finds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sglora_cli.config import CheckConfig
from sglora_cli.errors import UnknownName
from sglora_cli.plugin.values import SPLITS, TEST, TRAIN, Photo, Task
from sglora_cli.system.display import counted


@dataclass(frozen=True)
class IssueKind:
    """A kind of issue and its severity."""

    level: str
    """"error" if a pack cannot be built from the data, "warning" if it can but may be worse."""
    title: str
    why: str


ISSUE_KINDS: Mapping[str, IssueKind] = {
    "broken": IssueKind("error", "images that cannot be decoded", "Building a pack stops at the first one."),
    "empty": IssueKind("error", "captions without words", "They describe every image equally badly."),
    "absent": IssueKind("error", "missing tasks of the recipe", "Building this pack would fail."),
    "refused": IssueKind("error", "other reasons why the recipe cannot be built", "Building this pack would fail."),
    "unused": IssueKind(
        "warning", "images outside the recipe's tasks that cannot be decoded", "The pack does not need them."
    ),
    "wordless": IssueKind(
        "warning", "captions without words outside the recipe's tasks", "The pack does not need them."
    ),
    "small": IssueKind("warning", "images smaller than {pixels} pixels", "They show little detail."),
    "plain": IssueKind("warning", "images of one colour", "They show nothing."),
    "frames": IssueKind("warning", "images with several frames", "Only the first frame is used."),
    "repeated": IssueKind("warning", "captions repeated within an image", "They count twice in training."),
    "shared": IssueKind(
        "warning",
        "captions shared by images of one task and split",
        "In a batch or a ranking the other images count as wrong answers, although the caption fits them.",
    ),
    "cut": IssueKind(
        "warning",
        "captions with more tokens than the text encoder of {backbone} reads ({limit})",
        "The encoder ignores their end, so captions that differ only there are the same to it.",
    ),
    "long": IssueKind("warning", "captions longer than {words} words", "Text encoders truncate long captions."),
    "training": IssueKind(
        "warning", "tasks with fewer than 2 training images", "Training has no wrong answers to compare with."
    ),
    "test": IssueKind("warning", "tasks with at most {k} test images", "Recall@{k} is 100 for any model."),
    "batch": IssueKind(
        "warning", "tasks smaller than the recipe's batch", "Each training step has fewer wrong answers."
    ),
    "copies": IssueKind("warning", "equal images across splits", "Test images were seen in training."),
    "splits": IssueKind(
        "warning", "near-identical images across splits", "Test images may have been seen in training."
    ),
    "tasks": IssueKind(
        "warning", "near-identical images across tasks", "One image has two answers, and unseen tasks are not unseen."
    ),
    "within": IssueKind(
        "warning", "near-identical images within a task and split", "Each counts as a wrong answer for the other."
    ),
}


@dataclass(frozen=True)
class DataIssue:
    """An issue with an image, a caption or a task. Fields that do not apply are empty."""

    kind: str
    task: str = ""
    split: str = ""
    image: str = ""
    text: str = ""

    @property
    def where(self) -> str:
        return self.image or ", ".join(x for x in (self.task, self.split) if x)


@dataclass(frozen=True)
class Common:
    """A caption that several images share."""

    caption: str
    images: int
    tasks: int


@dataclass(frozen=True)
class CaptionCount:
    """The numbers of images and captions, and the fewest and most captions per image."""

    images: int
    captions: int
    fewest: int
    most: int

    @property
    def mean(self) -> float:
        return self.captions / self.images if self.images else 0.0

    @classmethod
    def of_photos(cls, photos: Iterable[Photo]) -> CaptionCount:
        many = [len(photo.captions) for photo in photos]
        return cls(len(many), sum(many), min(many, default=0), max(many, default=0))

    @classmethod
    def of(cls, counts: Iterable[CaptionCount]) -> CaptionCount:
        """Add up several counts. Counts without images do not affect the fewest and most."""
        some = [count for count in counts if count.images]
        images, captions = sum(c.images for c in some), sum(c.captions for c in some)
        return cls(images, captions, min((c.fewest for c in some), default=0), max((c.most for c in some), default=0))

    def to_json(self) -> dict[str, float]:
        return {**vars(self), "mean": round(self.mean, 4)}


Name = Callable[[Path], str]
"""Maps an image file to its display name."""


def normal(caption: str) -> str:
    """Normalise a caption for comparison, ignoring case and white space.

    >>> normal(" A Red  ball ")
    'a red ball'
    """
    return " ".join(caption.split()).casefold()


def every_photo(tasks: Iterable[Task]) -> Iterator[tuple[Task, str, Photo]]:
    """Yield every photo with its task and split."""
    return ((task, split, photo) for task in tasks for split, photos in task.photos.items() for photo in photos)


def caption_problems(
    tasks: Iterable[Task], name: Name, words: int | None, cut: Mapping[str, str] | None = None
) -> Iterator[DataIssue]:
    """Find empty and repeated captions, captions of more than `words` words, and captions that are `cut`.

    cut: maps each truncated caption to its number of tokens, as text. An image of several tasks is checked once if its
    captions are the same.
    """
    seen = set()
    for task, split, photo in every_photo(tasks):
        if (photo.path, photo.captions) in seen:
            continue
        seen.add((photo.path, photo.captions))
        faults = [("empty", "no caption")] if not photo.captions else []
        times: dict[str, list[str]] = defaultdict(list)
        for number, caption in enumerate(photo.captions, 1):
            if not normal(caption):
                faults.append(("empty", f"caption {number} of {len(photo.captions)} is {caption!r}"))
                continue
            times[normal(caption)].append(caption)
            if words is not None and (length := len(caption.split())) > words:
                faults.append(("long", f"{length} words: {caption}"))
            if cut and not task.classes and caption in cut:
                faults.append(("cut", f"{cut[caption]}: {caption}"))
        faults += [("repeated", f"{len(same)} times: {same[0]}") for same in times.values() if len(same) > 1]
        for kind, text in faults:
            yield DataIssue(kind, task.name, split, name(photo.path), text)


def shared_problems(tasks: Iterable[Task]) -> Iterator[DataIssue]:
    """Find captions shared by several images of one task and split, the most common first.

    Classification tasks are skipped, because their images share classes on purpose.
    """
    images: dict[tuple[str, str, str], dict[Path, str]] = defaultdict(dict)
    for task, split, photo in every_photo(task for task in tasks if not task.classes):
        for caption in photo.captions:
            if normal(caption):
                images[task.name, split, normal(caption)].setdefault(photo.path, caption)
    # Only images of one split appear in the same batch or ranking.
    shared = [(len(paths), key, paths) for key, paths in images.items() if len(paths) > 1]
    for count, (task_name, split, _), paths in sorted(shared, key=lambda item: (-item[0], item[1])):
        yield DataIssue("shared", task_name, split, text=f"{count} images: {next(iter(paths.values()))}")


def common_captions(tasks: Iterable[Task]) -> list[Common]:
    """Find captions that several images share across all tasks except classification tasks, the most common first."""
    images: dict[str, set[Path]] = defaultdict(set)
    of: dict[str, set[str]] = defaultdict(set)
    first_spelling: dict[str, str] = {}
    for task, _, photo in every_photo(task for task in tasks if not task.classes):
        for caption in photo.captions:
            if key := normal(caption):
                first_spelling.setdefault(key, caption)
                images[key].add(photo.path)
                of[key].add(task.name)
    common = [Common(first_spelling[key], len(paths), len(of[key])) for key, paths in images.items() if len(paths) > 1]
    return sorted(common, key=lambda one: (-one.images, one.caption))


def size_problems(tasks: Iterable[Task], config: CheckConfig, batch: int = 0) -> Iterator[DataIssue]:
    """Find tasks that are too small for training or testing. `batch` is the recipe's batch size, 0 without a recipe."""
    for task in tasks:
        training, test = (len(task.photos.get(split, ())) for split in SPLITS)
        if training < 2:
            yield DataIssue("training", task.name, TRAIN, text=counted(training, "image"))
        if test <= (0 if task.classes else config.k):
            yield DataIssue("test", task.name, TEST, text=counted(test, "image"))
        if 2 <= training < batch:
            yield DataIssue("batch", task.name, TRAIN, text=f"{counted(training, 'image')}, batch {batch}")


def absent_problems(wanted: Mapping[str, Sequence[str]], known: Iterable[str]) -> Iterator[DataIssue]:
    """Find tasks that a recipe names (role -> names) but the data set lacks, each with the closest known name."""
    names = sorted(known)
    for role, tasks in wanted.items():
        for task in tasks:
            if task not in names:
                yield DataIssue("absent", task, text=f"{role}; {UnknownName.of('task', task, names).hint}")
