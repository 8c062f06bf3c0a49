"""What each data set passes over is said with its reason: nothing vanishes."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress

import pytest
from trees import captions_file, coco_tree, flowers_tree, pets_tree, picture

from sglora_cli.errors import Unavailable
from sglora_datasets.coco import Coco
from sglora_datasets.flickr30k import Flickr30k
from sglora_datasets.flowers import Flowers
from sglora_datasets.folder import Folder
from sglora_datasets.pets import Pets

HEIC = ".heic images, which are not supported (convert them to JPEG or PNG)"


def by_reason(dataset, root) -> Mapping[str, list[str]]:
    names = defaultdict(list)
    for name, reason in dataset.passed_over(root):
        names[reason].append(name)
    return dict(names)


ENDINGS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "jfif", "jpe", "JPG", "TIFF")


def test_images_of_every_ending_and_of_folders_within_are_listed(tmp_path):
    for n, ending in enumerate(ENDINGS):
        picture(tmp_path / f"images/red_fox/{'sub/far/' if n % 2 else ''}{n}.{ending}", n)
    listed = Folder().images(tmp_path)
    assert len(listed) == len(ENDINGS)
    assert {one.tasks for one in listed} == {("red fox",)}


def test_of_a_folder_without_captions_only_what_no_captioner_sees_has_another_reason(tmp_path):
    for name in ("images/pug/1.jpg", "images/pug/2.heic", "images/3.jpg", "elsewhere/4.jpg", "notes.txt"):
        picture(tmp_path / "x.jpg", 1)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x.jpg").rename(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    assert by_reason(Folder(), tmp_path) == {
        "images without captions": ["images/pug/1.jpg"],
        "images outside folders images/TASK": ["elsewhere/4.jpg", "images/3.jpg"],
        HEIC: ["images/pug/2.heic"],
    }
    (tmp_path / "names.jsonl").write_text('{"image": "images/3.jpg", "name": "pug"}\n')
    assert by_reason(Folder(), tmp_path) == {
        "images without captions": ["images/3.jpg"],
        "images not named in names.jsonl": ["elsewhere/4.jpg", "images/pug/1.jpg"],
        HEIC: ["images/pug/2.heic"],
    }
    captions_file(tmp_path, {"images/3.jpg": ["a pug"]})
    text = (tmp_path / "captions.jsonl").read_text().replace('"captions"', '"task": "pug", "captions"')
    (tmp_path / "captions.jsonl").write_text(text)
    (tmp_path / "captions.csv").write_text("image,task,caption\n")
    assert by_reason(Folder(), tmp_path) == {
        "images not named in captions.jsonl": ["elsewhere/4.jpg", "images/pug/1.jpg"],
        HEIC: ["images/pug/2.heic"],
        "captions files that are ignored because of captions.jsonl": ["captions.csv"],
    }


@pytest.mark.parametrize(
    ("places", "tasks"),
    [
        (["train/cat/1.jpg", "test/cat/2.jpg"], {"cat": {"train", "test"}}),
        (["train/cat/1.jpg", "test/cat/2.jpg", "val/cat/3.jpg"], {"cat": {"train", "test"}}),  # no task "train"
        (["train/cat/1.jpg", "val/cat/2.jpg", "val/3.jpg"], {"cat": {"train", "test"}}),
        (["train/cat/1.jpg", "train/2.jpg"], {"cat": {"train"}}),
        (["train/1.jpg", "car/2.jpg"], {"train": {"train"}, "car": {"train"}}),  # pictures of trains
        (["train/1.jpg", "train/steam/2.jpg", "car/3.jpg"], {"train": {"train"}, "car": {"train"}}),
        ([".hidden/1.jpg", "train/cat/2.jpg"], {"cat": {"train"}}),
        (["Training/cat/1.jpg", "valid/cat/2.jpg"], {"cat": {"train", "test"}}),
        (["train/1.jpg", "val/2.jpg"], {}),
    ],
)
def test_folders_are_splits_or_tasks_and_what_is_in_neither_is_said(tmp_path, monkeypatch, places, tasks):
    monkeypatch.setattr("sglora_datasets.folder.split_of", lambda image: "train")
    for n, place in enumerate(places):
        picture(tmp_path / "images" / place, n)
    found = defaultdict(set)
    with suppress(Unavailable):
        for one in Folder().images(tmp_path):
            found[one.shows].add(one.split)
    assert found == tasks
    listed = {one.image for one in Folder().images(tmp_path)} if tasks else set()
    others = {f"images/{place}" for place in places if not place.startswith(".")} - listed
    assert set(by_reason(Folder(), tmp_path).get("images outside folders images/TASK", [])) == others


def test_pets_and_flowers_say_who_has_no_captions_and_who_is_in_no_list(tmp_path):
    pets, flowers = tmp_path / "pets", tmp_path / "flowers"
    pets.mkdir()
    flowers.mkdir()
    pets_tree(pets, photos=1)
    flowers_tree(flowers, [1, 74, 74], {"trnid": [2], "valid": [1], "tstid": [3]})
    picture(pets / "images/more/pug_1.jpg", 3)
    (pets / "images/pug_2.heic").write_text("")
    captions_file(pets, {"images/Abyssinian_1.jpg": ["a cat"]})
    assert by_reason(Pets(), pets) == {
        "listed images without captions": ["images/american_bulldog_1.jpg"],
        HEIC: ["images/pug_2.heic"],
        "images not in any list": ["images/more/pug_1.jpg"],
    }
    captions_file(flowers, {"jpg/image_00001.jpg": ["a flower"]})
    picture(flowers / "jpg/image_00009.jpg", 3)
    assert by_reason(Flowers(), flowers) == {
        "listed images without captions": ["jpg/image_00002.jpg", "jpg/image_00003.jpg"],
        "images not in any list": ["jpg/image_00009.jpg"],
    }


def test_coco_says_who_has_no_instance_no_caption_or_no_annotation(tmp_path):
    coco_tree(tmp_path, {1: [("cat", 0)], 2: [("dog", 0)], 3: [("bottle", 1)], 4: []})
    path = tmp_path / "annotations/captions_train2017.json"
    table = json.loads(path.read_text())
    table["annotations"] = [row for row in table["annotations"] if row["image_id"] != 2]
    path.write_text(json.dumps(table))
    picture(tmp_path / "train2017/sub/5.png", 5)
    (tmp_path / "train2017/6.heic").write_text("")
    name = "train2017/{:012d}.jpg".format
    names = by_reason(Coco(), tmp_path)
    assert sorted(names.pop("images without an instance of any category")) == [name(3), name(4)]
    assert names == {
        "images without captions": [name(2)],
        "images not listed in any annotation": ["train2017/sub/5.png"],
        HEIC: ["train2017/6.heic"],
    }


KARPATHY = [
    {"filename": f"{n}.jpg", "split": split, "sentences": [{"raw": f"a dog {n}"}]}
    for n, split in enumerate(("train", "restval", "test", "val"), 1)
]


def test_karpathys_val_is_said_to_be_left_out(tmp_path):
    flickr, coco = tmp_path / "flickr", tmp_path / "coco"
    for n in (1, 2, 3, 4, 5):
        picture(flickr / f"images/{n}.jpg", n)
        picture(coco / f"val2014/{n}.jpg", n)
    (flickr / "dataset_flickr30k.json").write_text(json.dumps({"images": KARPATHY}))
    assert by_reason(Flickr30k(), flickr) == {
        "images of Karpathy's split `val`": ["4.jpg"],
        "images not named in the annotation": ["5.jpg"],
    }
    coco_tree(coco, {n: [("cat", 0)] for n in (1, 2, 3, 4)}, "val2014")
    for path in (coco / "val2014").glob("COCO*"):
        path.unlink()
    rows = [{**row, "filepath": "val2014", "cocoid": n} for n, row in enumerate(KARPATHY, 1)]
    (coco / "dataset_coco.json").write_text(json.dumps({"images": rows}))
    assert by_reason(Coco(), coco) == {
        "images of Karpathy's split `val`": ["val2014/4.jpg"],
        "images not listed in any annotation": ["val2014/5.jpg"],
    }


def test_what_is_read_is_not_passed_over(photos):
    """Of the data set without a fault, and with one line less."""
    assert by_reason(Folder(), photos) == {}
    lines = (photos / "captions.jsonl").read_text().splitlines(keepends=True)
    (photos / "captions.jsonl").write_text("".join(lines[1:]))
    assert by_reason(Folder(), photos) == {"images not named in captions.jsonl": ["0.png"]}
