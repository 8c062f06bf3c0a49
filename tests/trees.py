"""Miniature data sets in the exact layouts of the real ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

CATEGORIES = {17: "cat", 18: "dog", 44: "bottle"}


def picture(path: Path, n: int) -> None:
    """A small picture that no other n gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (n * 37 % 256, n * 91 % 256, n * 53 % 256)).save(path)


def captions_file(root: Path, captions: Mapping[str, Sequence[str]]) -> None:
    rows = [{"image": image, "captions": list(texts)} for image, texts in captions.items()]
    (root / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def coco_tree(root: Path, images: Mapping[int, Sequence[tuple[str, int]]], split: str = "train2017") -> None:
    """COCO: image id to (category, iscrowd) of its instances. Images get two captions each."""
    of = {name: number for number, name in CATEGORIES.items()}
    prefix = "COCO_train2014_" if split.endswith("2014") else ""
    listed = [{"id": n, "file_name": f"{prefix}{n:012d}.jpg", "height": 16, "width": 16} for n in images]
    for n, row in zip(images, listed, strict=True):
        picture(root / split / row["file_name"], n)
    instances = [
        {
            "id": 100 * n + i,
            "image_id": n,
            "category_id": of[name],
            "iscrowd": crowd,
            "area": 4.5,
            "bbox": [0, 0, 3, 3],
            "segmentation": {"counts": [9], "size": [3, 3]} if crowd else [[0.5, 0, 3, 0, 3, 3]],
        }
        for n, members in images.items()
        for i, (name, crowd) in enumerate(members)
    ]
    captions = [
        {"id": 2 * n + i, "image_id": n, "caption": f"{text} {n} \n"} for n in images for i, text in enumerate("AB")
    ]
    categories = [{"id": number, "name": name, "supercategory": "x"} for number, name in CATEGORIES.items()]
    (root / "annotations").mkdir(exist_ok=True)
    tables: dict[str, dict[str, Any]] = {
        "instances": {"images": listed, "annotations": instances, "categories": categories},
        "captions": {"images": listed, "annotations": captions},
    }
    for name, table in tables.items():
        (root / "annotations" / f"{name}_{split}.json").write_text(json.dumps({"info": {}, "licenses": [], **table}))


def pets_tree(root: Path, breeds: Sequence[str] = ("Abyssinian", "american_bulldog"), photos: int = 4) -> None:
    """Oxford-IIIT Pet: class ids from 1, half of the photos in each list; two captions an image."""
    captions, lists = {}, {"trainval": "", "test": ""}
    for label, breed in enumerate(breeds, 1):
        for n in range(photos):
            name = f"{breed}_{n + 1}"
            picture(root / "images" / f"{name}.jpg", 100 * label + n)
            captions[f"images/{name}.jpg"] = [f"one {breed} {n}", f"other {breed} {n}"]
            lists["trainval" if n < photos / 2 else "test"] += f"{name} {label} 1 {label}\n"
    (root / "annotations").mkdir()
    for name, text in lists.items():
        (root / "annotations" / f"{name}.txt").write_text(text)
    captions_file(root, captions)


def flowers_tree(root: Path, labels: Sequence[int], sides: Mapping[str, Sequence[int]]) -> None:
    """Oxford 102 Flowers: the class of image 1, 2, ... and the numbers in each list; one caption an image."""
    import numpy as np
    from scipy.io import savemat

    for n in range(1, len(labels) + 1):
        picture(root / f"jpg/image_{n:05d}.jpg", n)
    savemat(root / "imagelabels.mat", {"labels": np.array([labels], dtype=np.uint8)})
    savemat(root / "setid.mat", {name: np.array([numbers], dtype=np.uint16) for name, numbers in sides.items()})
    captions_file(root, {f"jpg/image_{n:05d}.jpg": [f"flower {n}"] for n in range(1, len(labels) + 1)})
