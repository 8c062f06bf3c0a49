"""A data set of which only a part is there: the rest is in no task, and it is counted."""

from __future__ import annotations

import pytest
from photo_lists import photos_of
from trees import coco_tree, flowers_tree, pets_tree

from sglora_cli.errors import Unavailable
from sglora_datasets.coco import Coco
from sglora_datasets.flickr30k import Flickr30k
from sglora_datasets.flowers import Flowers
from sglora_datasets.pets import Pets

PLUGINS = {"coco": Coco(), "pets": Pets(), "flowers": Flowers(), "flickr30k": Flickr30k()}


@pytest.fixture(params=PLUGINS)
def case(request, tmp_path):
    """A data set with all its images, and its folder."""
    if request.param == "coco":
        coco_tree(tmp_path, {1: [("cat", 0)], 2: [("cat", 0), ("dog", 0)], 3: [("dog", 0)], 4: []})
    elif request.param == "pets":
        pets_tree(tmp_path)
    elif request.param == "flowers":
        flowers_tree(tmp_path, [1, 1, 74, 74], {"trnid": [2], "valid": [1, 3], "tstid": [4]})
    else:
        (tmp_path / "results_20130124.token").write_text("".join(f"{n}.jpg#0\tphoto {n}\n" for n in range(5)))
        for n in range(5):
            (tmp_path / f"{n}.jpg").write_bytes(b"")
    return PLUGINS[request.param], tmp_path


def without(photos, gone):
    """The photos of `photos_of` without some names; tasks without any are dropped."""
    left = {
        task: {split: [one for one in some if one[0] not in gone] for split, some in splits.items()}
        for task, splits in photos.items()
    }
    return {task: splits for task, splits in left.items() if any(splits.values())}


def test_what_is_missing_is_in_no_task_and_the_rest_is_as_it_was(case):
    dataset, root = case
    whole = photos_of(dataset.tasks(root))
    images = sorted(root.rglob("*.jpg"))
    assert dataset.image_counts(root) == (len(images), len(images))
    for count, image in enumerate(images[:-1], 1):
        image.unlink()
        assert dataset.image_counts(root) == (len(images) - count, len(images))
        gone = {path.name for path in images[:count]}
        if expected := without(whole, gone):
            assert photos_of(dataset.tasks(root)) == expected
        assert not {name.rpartition("/")[2] for name, _ in dataset.passed_over(root)} & gone


def test_without_any_image_the_data_set_is_missing(case):
    dataset, root = case
    for image in root.rglob("*.jpg"):
        image.unlink()
    assert dataset.image_counts(root)[0] == 0
    with pytest.raises(Unavailable, match=r"has none of the .* images named in "):
        dataset.tasks(root)
