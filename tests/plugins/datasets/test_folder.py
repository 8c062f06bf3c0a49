"""A folder of photos without captions: which folders are tasks, and on which side a photo is."""

from __future__ import annotations

import os
import sys

import pytest
from trees import captions_file, picture

from sglora_cli.errors import Unavailable
from sglora_datasets.folder import Folder
from sglora_datasets.tasks import split_of


def pictures(root, *places):
    for n, place in enumerate(places):
        picture(root / place, n)


def tasks_of(root):
    return {one.image: one.shows for one in Folder().images(root)}


def test_a_folder_of_photos_is_a_task_and_photos_beside_folders_are_passed_over(tmp_path):
    pictures(tmp_path, "red_fox/1.jpg", "red_fox/cubs/2.jpg", "Arctic  hare/3.png", ".thumbs/4.jpg", "5.jpg")
    assert tasks_of(tmp_path) == {
        "Arctic  hare/3.png": "Arctic hare",
        "red_fox/1.jpg": "red fox",
        "red_fox/cubs/2.jpg": "red fox",
    }
    assert ("5.jpg", "images outside folders TASK") in set(Folder().passed_over(tmp_path))


def test_where_there_is_a_folder_images_the_tasks_lie_in_it(tmp_path):
    pictures(tmp_path, "images/cat/1.jpg", "originals/2.jpg")
    assert tasks_of(tmp_path) == {"images/cat/1.jpg": "cat"}


def test_without_splits_each_name_says_its_side_and_copies_are_on_the_side_of_the_first(tmp_path):
    pictures(tmp_path, *(f"cat/{n}.jpg" for n in range(30)))
    for n in range(30):
        (tmp_path / "pets").mkdir(exist_ok=True)
        (tmp_path / f"pets/{n:03}.jpg").write_bytes((tmp_path / f"cat/{n}.jpg").read_bytes())
    side_of = {one.image: one.split for one in Folder().images(tmp_path)}
    for n in range(30):
        assert side_of[f"pets/{n:03}.jpg"] == side_of[f"cat/{n}.jpg"] == split_of(f"cat/{n}.jpg")
    assert set(side_of.values()) == {"train", "test"}
    assert any(split_of(f"pets/{n:03}.jpg") != split_of(f"cat/{n}.jpg") for n in range(30))


@pytest.mark.parametrize(
    ("places", "sides"),
    [
        (["train/cat/1.jpg", "test/cat/2.jpg"], ["test", "train"]),
        (["train/cat/1.jpg", "val/cat/2.jpg"], ["train", "test"]),
        (["train/cat/1.jpg", "test/cat/2.jpg", "val/cat/3.jpg"], ["test", "train"]),
        (["Training/cat/1.jpg", "Validation/cat/2.jpg"], ["train", "test"]),
    ],
)
def test_folders_of_splits_are_read_as_splits(tmp_path, places, sides):
    pictures(tmp_path, *places)
    assert [(one.shows, one.split) for one in Folder().images(tmp_path)] == [("cat", side) for side in sides]


def test_of_one_side_alone_one_image_in_five_is_for_testing(tmp_path):
    pictures(tmp_path, *(f"train/cat/{n}.jpg" for n in range(20)))
    assert {one.image: one.split for one in Folder().images(tmp_path)} == {
        f"train/cat/{n}.jpg": split_of(f"train/cat/{n}.jpg") for n in range(20)
    }


def test_a_folder_whose_photos_are_of_other_tasks_by_the_captions_file_is_no_task(tmp_path):
    pictures(tmp_path, "photos/1.jpg", "photos/2.jpg", "cat/old/3.jpg", "cat/old/4.jpg")
    captions_file(tmp_path, {"photos/1.jpg": ["a dog"], "cat/old/3.jpg": ["a cat"]})
    text = (tmp_path / "captions.jsonl").read_text()
    for task, image in (("dog", "photos/1.jpg"), ("cat", "cat/old/3.jpg")):
        text = text.replace(f'"image": "{image}"', f'"image": "{image}", "task": "{task}"')
    (tmp_path / "captions.jsonl").write_text(text)
    assert tasks_of(tmp_path) == {"photos/1.jpg": "dog", "cat/old/3.jpg": "cat", "cat/old/4.jpg": "cat"}
    (tmp_path / "captions.jsonl").write_text(text.replace("cat/old/3.jpg", "photos/2.jpg"))
    assert tasks_of(tmp_path) == {"photos/1.jpg": "dog", "photos/2.jpg": "cat"}  # the file does not go by folders


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such file names")
def test_names_that_are_not_utf8_are_passed_over(tmp_path):
    pictures(tmp_path, "cat/1.jpg", "cat/2.jpg")
    (tmp_path / "cat/2.jpg").rename(os.fsdecode(os.fsencode(tmp_path) + b"/cat/caf\xe9.jpg"))
    assert tasks_of(tmp_path) == {"cat/1.jpg": "cat"}
    reason = "images whose names are not UTF-8 (rename them)"
    assert ("cat/caf\N{REPLACEMENT CHARACTER}.jpg", reason) in set(Folder().passed_over(tmp_path))


def test_photos_without_captions_are_no_tasks_yet_and_the_hint_writes_captions(tmp_path):
    root = tmp_path / "my photos"
    pictures(root, "cat/1.jpg")
    with pytest.raises(Unavailable) as error:
        Folder().tasks(root)
    assert error.value.hint == f"write captions first with: sglora data caption folder --path '{root}'"


def test_a_folder_without_photos_of_tasks_says_where_they_go(tmp_path):
    pictures(tmp_path, "1.jpg")
    with pytest.raises(Unavailable, match="no images in TASK") as error:
        Folder().images(tmp_path)
    assert error.value.hint == "put each task's images into a folder with its name"
