"""COCO with Karpathy's splits, in his file and as CLIP_benchmark keeps it."""

from __future__ import annotations

import json

import pytest
from photo_lists import photos_of
from trees import captions_file, coco_tree

from sglora_cli.errors import BadFile, Unavailable
from sglora_datasets.coco import Coco

# Number -> (folder, side). Image 1 would be for testing by its hash; here Karpathy says.
SIDES = {1: ("train2014", "train"), 2: ("val2014", "restval"), 3: ("val2014", "test"), 4: ("val2014", "val")}
EXPECTED = {
    "cat": {
        "train": [("1.jpg", ("one 1", "two 1")), ("2.jpg", ("one 2", "two 2"))],
        "test": [("3.jpg", ("one 3", "two 3"))],
    },
    "dog": {"train": [], "test": [("3.jpg", ("one 3", "two 3"))]},
}


@pytest.fixture
def root(tmp_path):
    """COCO of 2014, both splits, without a captions file of COCO's own."""
    coco_tree(tmp_path, {1: [("cat", 0)]}, "train2014")
    coco_tree(tmp_path, {2: [("cat", 0)], 3: [("cat", 0), ("dog", 0)], 4: [("cat", 0)]}, "val2014")
    for split in ("train2014", "val2014"):
        (tmp_path / f"annotations/captions_{split}.json").unlink()
        for path in (tmp_path / split).iterdir():
            path.rename(path.with_name(f"{int(path.stem[-12:])}.jpg"))
    return tmp_path


def karpathy(root, **changes):
    images = [
        {
            "filepath": folder,
            "filename": f"{n}.jpg",
            "cocoid": n,
            "split": side,
            "sentences": [{"raw": f"{word} {n} ", "tokens": [word]} for word in ("one", "two")],
            **changes,
        }
        for n, (folder, side) in SIDES.items()
    ]
    (root / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))


def ordered(tasks):
    return {task: {side: sorted(photos) for side, photos in sides.items()} for task, sides in photos_of(tasks).items()}


def test_karpathys_file_gives_captions_and_sides_and_coco_the_categories(root):
    karpathy(root)
    assert ordered(Coco().tasks(root)) == EXPECTED


def test_his_file_may_lie_with_the_annotations(root):
    karpathy(root)
    (root / "dataset_coco.json").rename(root / "annotations/dataset_coco.json")
    assert ordered(Coco().tasks(root)) == EXPECTED


def test_clip_benchmarks_files_give_the_same(root):
    for side, numbers in (("train", [1]), ("test", [3])):
        table = {
            "images": [{"id": n, "file_name": f"{n}.jpg"} for n in numbers],
            "annotations": [{"image_id": n, "caption": f"{word} {n}"} for n in numbers for word in ("one", "two")],
        }
        (root / f"coco_{side}_karpathy.json").write_text(json.dumps(table))
    expected = {**EXPECTED, "cat": {**EXPECTED["cat"], "train": EXPECTED["cat"]["train"][:1]}}
    assert ordered(Coco().tasks(root)) == expected


def test_images_are_listed_with_all_their_tasks_and_need_no_captions(root):
    karpathy(root)
    listed = {one.image: (one.shows, one.split) for one in Coco().images(root)}
    assert listed == {
        "train2014/1.jpg": ("cat", "train"),
        "val2014/2.jpg": ("cat", "train"),
        "val2014/3.jpg": ("cat and dog", "test"),
    }


def test_captions_beside_it_replace_his(root):
    karpathy(root)
    captions_file(root, {"val2014/3.jpg": ["mine"]})
    assert photos_of(Coco().tasks(root))["dog"]["test"] == [("3.jpg", ("mine",))]
    assert list(photos_of(Coco().tasks(root))) == ["cat", "dog"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cocoid": "1"}, "images[0]: filepath must be a string and cocoid an integer"),
        ({"filepath": "../x"}, "'../x/3.jpg' is not in a folder of COCO"),
        ({"split": "dev"}, "images[0]: split must be one of"),
        ({"filename": "9.jpg", "filepath": "x"}, "image 'x/9.jpg' is already named in images[0]"),
        ({"filename": "./9.jpg", "filepath": "x"}, "image 'x/./9.jpg' is already named in images[0]"),
        ({"cocoid": 5}, "cocoid 5 is also used in images[0]"),
    ],
)
def test_a_broken_file_is_named_with_the_image(root, changes, message):
    karpathy(root, **changes)
    with pytest.raises(BadFile) as error:
        Coco().tasks(root)
    assert f"{root}/dataset_coco.json, images[" in error.value.message
    assert message in error.value.message


def test_an_image_that_is_not_there_is_in_no_task_and_counted(root):
    karpathy(root)
    (root / "val2014/3.jpg").unlink()
    assert ordered(Coco().tasks(root)) == {"cat": {"train": EXPECTED["cat"]["train"], "test": []}}
    assert Coco().image_counts(root) == (2, 3)  # `val` is not meant
    assert "3.jpg" not in [name for name, _ in Coco().passed_over(root)]


def test_without_instances_there_are_no_categories(root):
    karpathy(root)
    for path in (root / "annotations").iterdir():
        path.unlink()
    with pytest.raises(Unavailable) as error:
        Coco().tasks(root)
    assert error.value.hint == "Karpathy's files have no categories"
