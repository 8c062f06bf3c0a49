"""Conformance checks of data sets."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from sglora_cli.errors import SgloraError, Unavailable
from sglora_cli.files.images import read_image
from sglora_cli.network import FORBIDDEN, no_network
from sglora_cli.plugin.contracts import CountsImages, Dataset, Fetches, ListsImages, PlansFetch, SaysPassedOver
from sglora_cli.plugin.testing.toys import ask, run_all
from sglora_cli.plugin.validation import wrong_image_counts, wrong_pair, wrong_plan
from sglora_cli.plugin.values import SPLITS


def tasks_are_sorted_and_named(dataset: Dataset, root: Path) -> None:
    """tasks returns at least one task, sorted by name, with unique names. Every task names its data set."""
    tasks = dataset.tasks(root)
    ask(len(tasks) > 0, f"no tasks found in {root}", "raise Unavailable if there is nothing")
    names = [task.name for task in tasks]
    ask(names == sorted(names), "tasks must be sorted by name")
    ask(len(set(names)) == len(names), "two tasks have the same name")
    for task in tasks:
        ask(task.dataset != "", f"task {task.name!r} has no data set name", "use its folder's name, or the plugin's")
        ask(task.description.strip() != "", f"task {task.name!r} has no description")


def photos_are_there(dataset: Dataset, root: Path) -> None:
    """Every photo is an existing file with non-empty captions, and the first photo of each task can be read."""
    for task in dataset.tasks(root):
        photos = [photo for side in task.photos.values() for photo in side]
        ask(len(photos) > 0, f"task {task.name!r} has no photos")
        for photo in photos:
            ask(photo.path.is_file(), f"{photo.path} does not exist")
            good = len(photo.captions) > 0 and all(isinstance(c, str) and c.strip() for c in photo.captions)
            ask(good, f"{photo.path} has no caption, or an empty one")
            known = not task.classes or (len(photo.captions) == 1 and photo.captions[0] in task.classes)
            ask(known, f"{photo.path}: {photo.captions!r:.100} is not a class of task {task.name!r}")
        read_image(photos[0].path)


def splits_are_apart(dataset: Dataset, root: Path) -> None:
    """The only splits are train and test, and no photo of a task is in both."""
    for task in dataset.tasks(root):
        ask(set(task.photos) <= set(SPLITS), f"task {task.name!r} has splits {sorted(task.photos)}")
        train, test = ({photo.path for photo in task.photos.get(split, ())} for split in SPLITS)
        both = sorted(map(str, train & test))
        ask(not both, f"task {task.name!r} has a photo in both splits: {both[0] if both else ''}")


def the_same_every_time(dataset: Dataset, root: Path) -> None:
    """tasks, and images if implemented, return the same when called again."""
    ask(list(dataset.tasks(root)) == list(dataset.tasks(root)), "tasks returned something different the second time")
    if isinstance(dataset, ListsImages):
        names = [one.image for one in dataset.images(root)]
        ask(names == [one.image for one in dataset.images(root)], "images returned something different the second time")
        ask(len(set(names)) == len(names), "images lists an image twice")


def what_is_passed_over_is_in_no_task(dataset: Dataset, root: Path) -> None:
    """passed_over, if implemented, yields pairs of a name and a reason, and names no photo that tasks returns."""
    if not isinstance(dataset, SaysPassedOver):
        return
    photos = {photo.path.resolve() for task in dataset.tasks(root) for side in task.photos.values() for photo in side}
    for pair in dataset.passed_over(root):
        wrong = wrong_pair(pair)
        ask(not wrong, f"passed_over {wrong}")
        ask((root / pair[0]).resolve() not in photos, f"passed_over names {pair[0]!r}, which is a photo of a task")


def a_plan_of_a_download_only_looks(dataset: Dataset, root: Path) -> None:
    """fetch_plan, if implemented, uses no network and writes nothing. Its folder is below the data folder."""
    if not isinstance(dataset, PlansFetch):
        return
    ask(isinstance(dataset, Fetches), "fetch_plan requires fetch")
    with tempfile.TemporaryDirectory() as empty, no_network():
        try:
            plan = dataset.fetch_plan(Path(empty))
        except Unavailable as error:  # the download may not be permitted
            ask(not error.message.startswith(FORBIDDEN), error.message)
            return
        wrong = wrong_plan(plan)
        ask(not wrong, f"fetch_plan {wrong}")
        ask(
            plan.folder.is_relative_to(empty),
            f"fetch_plan returns the folder {plan.folder}, which is not below {empty}",
        )
        ask(not any(Path(empty).iterdir()), "fetch_plan writes into the data folder")


def photos_are_counted(dataset: Dataset, root: Path) -> None:
    """image_counts, if implemented, counts at least the photos of all tasks."""
    if isinstance(dataset, CountsImages):
        counts = dataset.image_counts(root)
        wrong = wrong_image_counts(counts)
        ask(not wrong, f"image_counts {wrong}")
        photos = {photo.path for task in dataset.tasks(root) for side in task.photos.values() for photo in side}
        ask(counts[0] >= len(photos), f"image_counts found {counts[0]} images, but tasks have {len(photos)} photos")


def an_empty_folder_is_refused(dataset: Dataset, root: Path) -> None:
    """For a folder without the data set, tasks raises Unavailable or another sglora error."""
    with tempfile.TemporaryDirectory() as empty:
        try:
            dataset.tasks(Path(empty))
        except SgloraError as error:
            ask(error.message != "", "the error message is empty")
            return
    ask(False, "an empty folder was accepted as the data set", "raise Unavailable and say which files are missing")


DATASET_CHECKS: tuple[Callable[[Dataset, Path], None], ...] = (
    tasks_are_sorted_and_named,
    photos_are_there,
    splits_are_apart,
    the_same_every_time,
    what_is_passed_over_is_in_no_task,
    a_plan_of_a_download_only_looks,
    photos_are_counted,
    an_empty_folder_is_refused,
)


def check_dataset(dataset: Dataset, root: Path) -> None:
    """Raise PluginError listing everything that is wrong with a data set in its folder."""
    run_all(DATASET_CHECKS, dataset, root)
