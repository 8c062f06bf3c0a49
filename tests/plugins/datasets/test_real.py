"""The data sets on real photos: counts taken another way."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from photo_lists import counts
from scipy.io import savemat

from sglora_datasets.coco import Coco
from sglora_datasets.flowers import SPECIES, Flowers
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


@pytest.mark.data
def test_real_flowers_in_torchvisions_layout_are_the_same_tasks(data, tmp_path):
    """The photos of the folder, put as torchvision puts them, under the labels and lists they came from."""
    (tmp_path / "jpg").mkdir()
    labels, sides, rows = np.ones(8189, dtype=np.uint8), {"trnid": [], "valid": [], "tstid": []}, []
    for line in (data / "flowers/captions.jsonl").read_text().splitlines():
        row = json.loads(line)
        name = row["image"].rsplit("/", 1)[1]
        number = int(name[6:11])
        shutil.copyfile(data / "flowers" / row["image"], tmp_path / "jpg" / name)
        labels[number - 1] = SPECIES.index(row["task"]) + 1
        sides["tstid" if row["split"] == "test" else ("trnid", "valid")[number % 2]].append(number)
        rows.append(json.dumps({"image": f"jpg/{name}", "captions": row["captions"]}))
    savemat(tmp_path / "imagelabels.mat", {"labels": labels[None]})
    savemat(tmp_path / "setid.mat", {name: np.array([numbers]) for name, numbers in sides.items()})
    (tmp_path / "captions.jsonl").write_text("\n".join(rows))

    def content(tasks):
        return {
            (t.name, split): sorted((p.path.name, p.captions) for p in t.photos[split])
            for t in tasks
            for split in t.photos
        }

    assert content(Flowers().tasks(tmp_path)) == content(Folder().tasks(data / "flowers"))


@pytest.mark.data
def test_real_captions_are_taken_as_they_are(run, data, tmp_path):
    """Photos without their captions, and the captions from elsewhere: what was there is there again."""
    shutil.copytree(data / "oxford-iiit-pet", tmp_path / "pets")
    (tmp_path / "pets/captions.jsonl").rename(tmp_path / "elsewhere.jsonl")
    result = run("data", "caption", "pets", "--path", tmp_path / "pets", "--from", tmp_path / "elsewhere.jsonl")
    assert result.exit_code == 0, result.output
    files = (tmp_path / "pets/captions.jsonl", tmp_path / "elsewhere.jsonl")
    mine, theirs = ({r["image"]: r for r in map(json.loads, path.read_text().splitlines())} for path in files)
    assert mine == theirs
