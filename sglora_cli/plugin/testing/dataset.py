"""The conformance checks of data sets."""

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
    """tasks gives at least one task, sorted by name and each once; all say of which data set they are."""
    tasks = dataset.tasks(root)
    ask(len(tasks) > 0, f"there is no task in {root}", "raise Unavailable where there is nothing")
    names = [task.name for task in tasks]
    ask(names == sorted(names), "tasks must be sorted by name")
    ask(len(set(names)) == len(names), "two tasks have one name")
    for task in tasks:
        ask(task.dataset != "", f"task {task.name!r} says no data set", "its folder's name, or the plugin's")
        ask(task.description.strip() != "", f"task {task.name!r} has no description")


def photos_are_there(dataset: Dataset, root: Path) -> None:
    """Every photo is a file with captions that are not empty; the first of each task can be read."""
    for task in dataset.tasks(root):
        photos = [photo for side in task.photos.values() for photo in side]
        ask(len(photos) > 0, f"task {task.name!r} has no photo")
        for photo in photos:
            ask(photo.path.is_file(), f"{photo.path} does not exist")
            good = len(photo.captions) > 0 and all(isinstance(c, str) and c.strip() for c in photo.captions)
            ask(good, f"{photo.path} has no caption, or an empty one")
            known = not task.classes or (len(photo.captions) == 1 and photo.captions[0] in task.classes)
            ask(known, f"{photo.path}: {photo.captions!r:.100} is none of the classes of task {task.name!r}")
        read_image(photos[0].path)


def splits_are_apart(dataset: Dataset, root: Path) -> None:
    """Splits are train and test, and no photo of a task is in both."""
    for task in dataset.tasks(root):
        ask(set(task.photos) <= set(SPLITS), f"task {task.name!r} has splits {sorted(task.photos)}")
        train, test = ({photo.path for photo in task.photos.get(split, ())} for split in SPLITS)
        both = sorted(map(str, train & test))
        ask(not both, f"task {task.name!r} trains and tests on {both[0] if both else ''}")


def the_same_every_time(dataset: Dataset, root: Path) -> None:
    """tasks, and images where there is one, give the same when they are asked again."""
    ask(list(dataset.tasks(root)) == list(dataset.tasks(root)), "tasks gives something else the second time")
    if isinstance(dataset, ListsImages):
        names = [one.image for one in dataset.images(root)]
        ask(names == [one.image for one in dataset.images(root)], "images gives something else the second time")
        ask(len(set(names)) == len(names), "images lists an image twice")


def what_is_passed_over_is_in_no_task(dataset: Dataset, root: Path) -> None:
    """passed_over, where there is one, gives pairs of a name and a reason, and names nothing that tasks gives."""
    if not isinstance(dataset, SaysPassedOver):
        return
    photos = {photo.path.resolve() for task in dataset.tasks(root) for side in task.photos.values() for photo in side}
    for pair in dataset.passed_over(root):
        wrong = wrong_pair(pair)
        ask(not wrong, f"passed_over {wrong}")
        ask((root / pair[0]).resolve() not in photos, f"passed_over names {pair[0]!r}, which is a photo of a task")


def a_plan_of_a_download_only_looks(dataset: Dataset, root: Path) -> None:
    """fetch_plan, where there is one, uses no network and writes nothing, and its folder is below the data folder."""
    if not isinstance(dataset, PlansFetch):
        return
    ask(isinstance(dataset, Fetches), "fetch_plan is for data sets that have fetch, too")
    with tempfile.TemporaryDirectory() as empty, no_network():
        try:
            plan = dataset.fetch_plan(Path(empty))
        except Unavailable as error:  # it may not be downloaded
            ask(not error.message.startswith(FORBIDDEN), error.message)
            return
        wrong = wrong_plan(plan)
        ask(not wrong, f"fetch_plan {wrong}")
        ask(plan.folder.is_relative_to(empty), f"fetch_plan names {plan.folder}, which is not below {empty}")
        ask(not any(Path(empty).iterdir()), "fetch_plan writes into the data folder")


def photos_are_counted(dataset: Dataset, root: Path) -> None:
    """image_counts, where there is one, counts at least the photos of tasks."""
    if isinstance(dataset, CountsImages):
        counts = dataset.image_counts(root)
        wrong = wrong_image_counts(counts)
        ask(not wrong, f"image_counts {wrong}")
        photos = {photo.path for task in dataset.tasks(root) for side in task.photos.values() for photo in side}
        ask(counts[0] >= len(photos), f"image_counts finds {counts[0]} images, and tasks have {len(photos)} photos")


def an_empty_folder_is_refused(dataset: Dataset, root: Path) -> None:
    """A folder without the data set is answered with Unavailable or another error of sglora, not with no tasks."""
    with tempfile.TemporaryDirectory() as empty:
        try:
            dataset.tasks(Path(empty))
        except SgloraError as error:
            ask(error.message != "", "the error says nothing")
            return
    ask(False, "an empty folder is taken for the data set", "raise Unavailable, and say what belongs there")


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
    """Raises PluginError with everything that is wrong with a data set in its folder."""
    run_all(DATASET_CHECKS, dataset, root)
