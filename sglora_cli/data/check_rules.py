"""What can be wrong with a data set's captions and sizes: one function a question, each yields what it found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sglora_cli.config import CheckConfig
from sglora_cli.errors import UnknownName
from sglora_cli.plugin.values import SPLITS, TEST, TRAIN, Photo, Task


@dataclass(frozen=True)
class IssueKind:
    """A question, as the title of what it finds, and how grave that is."""

    level: str
    """"error": a pack cannot be built from it; "warning": it can, and may be worse for it."""
    title: str
    why: str


ISSUE_KINDS: Mapping[str, IssueKind] = {
    "broken": IssueKind("error", "images that do not decode", "Building a pack stops at the first."),
    "empty": IssueKind("error", "captions without a word", "They describe every image equally badly."),
    "absent": IssueKind("error", "tasks of the recipe that are not there", "Building this pack would stop."),
    "refused": IssueKind("error", "what else the recipe's build refuses", "Building this pack would stop."),
    "unused": IssueKind(
        "warning", "images in no task of the recipe that do not decode", "The pack does not need them."
    ),
    "wordless": IssueKind(
        "warning", "captions without a word in no task of the recipe", "The pack does not need them."
    ),
    "small": IssueKind("warning", "images smaller than {pixels} pixels", "Little can be seen on them."),
    "plain": IssueKind("warning", "images of one colour", "Nothing can be seen on them."),
    "frames": IssueKind("warning", "images with several pictures", "Only the first is seen."),
    "repeated": IssueKind("warning", "captions repeated within an image", "They weigh double in training."),
    "shared": IssueKind(
        "warning",
        "captions shared by images of one task and split",
        "In a batch or a ranking the other images count as wrong answers, although the caption fits them.",
    ),
    "cut": IssueKind(
        "warning",
        "captions with more tokens than the text encoder of {backbone} reads ({limit})",
        "Their end is not seen: captions that differ only there are the same.",
    ),
    "long": IssueKind("warning", "captions longer than {words} words", "Text encoders cut what is too long."),
    "training": IssueKind(
        "warning", "tasks with fewer than 2 training images", "Nothing can be told apart in training."
    ),
    "test": IssueKind("warning", "tasks with at most {k} test images", "Recall@{k} is 100 there, whatever the model."),
    "batch": IssueKind(
        "warning", "tasks smaller than the recipe's batch", "A step has fewer wrong answers to tell apart."
    ),
    "copies": IssueKind("warning", "equal images across splits", "What is measured was seen in training."),
    "splits": IssueKind(
        "warning", "near-identical images across splits", "What is measured may have been seen in training."
    ),
    "tasks": IssueKind(
        "warning", "near-identical images across tasks", "One image, two answers; unseen tasks are not."
    ),
    "within": IssueKind(
        "warning", "near-identical images within a task and split", "They are each other's wrong answer."
    ),
}


@dataclass(frozen=True)
class DataIssue:
    """One finding about an image, a caption or a task; empty is what does not apply."""

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
    """A caption that several images have."""

    caption: str
    images: int
    tasks: int


@dataclass(frozen=True)
class CaptionCount:
    """How many images, how many captions they have, and how many an image."""

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
        """Several counts together; those of no image say nothing about the fewest and most."""
        some = [count for count in counts if count.images]
        images, captions = sum(c.images for c in some), sum(c.captions for c in some)
        return cls(images, captions, min((c.fewest for c in some), default=0), max((c.most for c in some), default=0))

    def to_json(self) -> dict[str, float]:
        return {**vars(self), "mean": round(self.mean, 4)}


Name = Callable[[Path], str]
"""How an image file is called."""


def normal(caption: str) -> str:
    """The caption as it is compared: case and spaces do not tell captions apart.

    >>> normal(" A Red  ball ")
    'a red ball'
    """
    return " ".join(caption.split()).casefold()


def every_photo(tasks: Iterable[Task]) -> Iterator[tuple[Task, str, Photo]]:
    """Every photo with its task and split."""
    return ((task, split, photo) for task in tasks for split, photos in task.photos.items() for photo in photos)


def caption_problems(
    tasks: Iterable[Task], name: Name, words: int | None, cut: Mapping[str, str] | None = None
) -> Iterator[DataIssue]:
    """Empty and repeated captions, those of more than so many words, and those that are `cut`: caption to its tokens.

    An image of several tasks is looked at once, if its captions are the same.
    """
    seen = set()
    for task, split, photo in every_photo(tasks):
        if (photo.path, photo.captions) in seen:
            continue
        seen.add((photo.path, photo.captions))
        faults = [("empty", "it has no caption")] if not photo.captions else []
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
    """Captions that several images of one task and split have; the most common first. A class is to be shared."""
    images: dict[tuple[str, str, str], dict[Path, str]] = defaultdict(dict)
    for task, split, photo in every_photo(task for task in tasks if not task.classes):
        for caption in photo.captions:
            if normal(caption):
                images[task.name, split, normal(caption)].setdefault(photo.path, caption)
    # Only images of one split meet in a batch or in a ranking.
    shared = [(len(paths), key, paths) for key, paths in images.items() if len(paths) > 1]
    for count, (task_name, split, _), paths in sorted(shared, key=lambda item: (-item[0], item[1])):
        yield DataIssue("shared", task_name, split, text=f"{count} images: {next(iter(paths.values()))}")


def common_captions(tasks: Iterable[Task]) -> list[Common]:
    """Captions that several images of the data set have, in whatever task but those of classes; most common first."""
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
    """Tasks that are too small to learn from or to measure; `batch` is the recipe's, 0 without one."""
    for task in tasks:
        training, test = (len(task.photos.get(split, ())) for split in SPLITS)
        if training < 2:
            yield DataIssue("training", task.name, TRAIN, text=f"{training} image(s)")
        if test <= (0 if task.classes else config.k):
            yield DataIssue("test", task.name, TEST, text=f"{test} image(s)")
        if 2 <= training < batch:
            yield DataIssue("batch", task.name, TRAIN, text=f"{training} image(s), batch {batch}")


def absent_problems(wanted: Mapping[str, Sequence[str]], known: Iterable[str]) -> Iterator[DataIssue]:
    """Tasks that a recipe names (role -> names) and the data set lacks, each with the closest name it has."""
    names = sorted(known)
    for role, tasks in wanted.items():
        for task in tasks:
            if task not in names:
                yield DataIssue("absent", task, text=f"{role}; {UnknownName.of('task', task, names).hint}")
