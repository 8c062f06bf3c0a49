"""The data sets on real photos: counts taken another way."""

from __future__ import annotations

import json

import pytest
from test_datasets_layouts import counts

from sglora_datasets.coco import Coco
from sglora_datasets.folder import Folder
from sglora_datasets.pets import Pets


@pytest.mark.data
def test_real_pets_are_31_breeds_of_ten_photos(data):
    tasks = Pets().tasks(data / "oxford-iiit-pet")
    assert set(counts(tasks).values()) == {(5, 5)}
    assert len(tasks) == 31
    theirs = {
        t.name: {s: sorted(p.path for p in t.photos[s]) for s in t.photos}
        for t in Folder().tasks(data / "oxford-iiit-pet")
    }
    assert {t.name: {s: sorted(p.path for p in t.photos[s]) for s in t.photos} for t in tasks} == theirs


@pytest.mark.data
@pytest.mark.parametrize(("folder", "categories", "photos"), [("coco_mini", 80, 80), ("coco_tiny", 50, 50)])
def test_real_coco_is_joined_as_by_hand(data, folder, categories, photos):
    root = data / folder
    instances = json.loads((root / "annotations/instances_train2017.json").read_text())
    names = {c["id"]: c["name"] for c in instances["categories"]}
    pairs = {(names[a["category_id"]], a["image_id"]) for a in instances["annotations"] if not a["iscrowd"]}
    tasks = Coco().tasks(root)
    mine = {(t.name, int(p.path.stem)) for t in tasks for side in t.photos.values() for p in side}
    assert mine == pairs
    assert all(len(p.captions) == 5 for t in tasks for side in t.photos.values() for p in side)
    sides = {p.path: split for t in tasks for split, side in t.photos.items() for p in side}
    assert all(sides[p.path] == split for t in tasks for split, side in t.photos.items() for p in side)
    assert len(instances["images"]) == photos >= len(sides)
