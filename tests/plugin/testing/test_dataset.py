"""The conformance checks of data sets: the built-in folder passes, and faults are found."""

from __future__ import annotations

import pytest

from sglora_cli.plugin.values import Photo, Task
from sglora_cli.testing import DATASET_CHECKS, check_dataset, run_check
from sglora_datasets.folder import Folder


def test_the_folder_passes(photos):
    check_dataset(Folder(), photos)


def tasks(root, name="cat", captions=("a cat",), dataset="odd", **splits):
    photos = {split: [Photo(root / file, captions) for file in files] for split, files in splits.items()}
    return Task(dataset, name, f"a photo of a {name}", photos)


@pytest.mark.parametrize(
    ("make", "check", "message"),
    [
        (lambda r: [], "tasks_are_sorted_and_named", "no tasks found in "),
        (lambda r: [tasks(r, "b"), tasks(r, "a")], "tasks_are_sorted_and_named", "tasks must be sorted by name"),
        (lambda r: [tasks(r, dataset="")], "tasks_are_sorted_and_named", "task 'cat' has no data set name"),
        (lambda r: [tasks(r, test=["gone.png"])], "photos_are_there", "gone.png does not exist"),
        (lambda r: [tasks(r, captions=(" ",), test=["0.png"])], "photos_are_there", "has no caption, or an empty one"),
        (
            lambda r: [tasks(r, train=["0.png"], test=["0.png"])],
            "splits_are_apart",
            "task 'cat' has a photo in both splits: ",
        ),
        (
            lambda r: [tasks(r, test=["0.png"])],
            "an_empty_folder_is_refused",
            "an empty folder was accepted as the data",
        ),
    ],
)
def test_a_broken_data_set_is_found(photos, make, check, message):
    class Odd:
        name = summary = "odd"

        def tasks(self, root):
            return make(photos)

    answers = {c.__name__: run_check(c, Odd(), photos) for c in DATASET_CHECKS}
    assert message in answers[check]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["0.png"], "passed_over must return pairs of a name and a reason, got '0.png'"),
        ([("gone.png", "")], "passed_over must return pairs of a name and a reason, got ('gone.png', '')"),
        ([("0.png", "a reason")], "passed_over names '0.png', which is a photo of a task"),
        ([("gone.png", "a reason")], ""),
    ],
)
def test_a_data_set_that_passes_over_what_it_reads_is_found(photos, pairs, message):
    class Odd(Folder):
        def passed_over(self, root):
            return pairs

    answers = {c.__name__: run_check(c, Odd(), photos) for c in DATASET_CHECKS}
    assert {name: text for name, text in answers.items() if text} == (
        {"what_is_passed_over_is_in_no_task": message} if message else {}
    )
