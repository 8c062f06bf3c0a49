"""Miniature data sets in the exact layouts of the real ones."""

from __future__ import annotations

import io
import json
import pickle
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

CATEGORIES = {17: "cat", 18: "dog", 44: "bottle"}


def picture(path: Path, n: int) -> None:
    """A small picture that no other n gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (n * 37 % 256, n * 91 % 256, n * 53 % 256)).save(path)


def captions_file(root: Path, captions: Mapping[str, Sequence[str]]) -> None:
    rows = [{"image": image, "captions": list(texts)} for image, texts in captions.items()]
    (root / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def captioned(root: Path) -> list[dict[str, Any]]:
    """What a data set's captions.jsonl says, an object a line."""
    return [json.loads(line) for line in (root / "captions.jsonl").read_text().splitlines()]


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


def karpathy_files(root: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """What COCO's annotations and Karpathy's splits say of pictures; a row has image, task, split and captions."""
    numbers = {task: n for n, task in enumerate(dict.fromkeys(row["task"] for row in rows), 1)}
    images = [
        {
            "filepath": str(Path(row["image"]).parent),
            "filename": Path(row["image"]).name,
            "cocoid": n,
            "split": row["split"],
            "sentences": [{"raw": text} for text in row["captions"]],
        }
        for n, row in enumerate(rows)
    ]
    instances = [
        {"id": n, "image_id": n, "category_id": numbers[row["task"]], "iscrowd": 0, "area": 9.0, "bbox": [0, 0, 3, 3]}
        for n, row in enumerate(rows)
    ]
    listed = [{"id": n, "file_name": row["filename"], "height": 64, "width": 64} for n, row in enumerate(images)]
    categories = [{"id": number, "name": task, "supercategory": "x"} for task, number in numbers.items()]
    (root / "annotations").mkdir()
    table = {"images": listed, "annotations": instances, "categories": categories}
    (root / "annotations/instances_train2014.json").write_text(json.dumps(table))
    (root / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))


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


class _AsPython2(pickle._Pickler):
    """Writes bytes as texts of Python 2, and numpy's old names, as the published files have them."""

    dispatch: ClassVar[dict] = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value: bytes) -> None:
        self.write(b"T" + struct.pack("<i", len(value)) + value)  # BINSTRING
        self.memoize(value)

    def save_name(self, value: Any, name: str | None = None) -> None:
        module = value.__module__.replace("numpy._core", "numpy.core")
        self.write(f"c{module}\n{name or value.__qualname__}\n".encode())
        self.memoize(value)

    dispatch[bytes] = save_bytes
    dispatch[type] = save_name
    save_global = save_name


def python2_pickle(value: Any) -> bytes:
    out = io.BytesIO()
    _AsPython2(out, 2).dump(value)
    return out.getvalue()


SUPERCLASSES = {"fish": ("ray", "shark"), "large_carnivores": ("bear", "lion", "wolf"), "trees": ("oak_tree", "palm")}


def cifar_tree(
    root: Path,
    images: Mapping[str, Sequence[tuple[str, Any]]],
    classes: Mapping[str, Sequence[str]] = SUPERCLASSES,
    binary: bool = False,
) -> None:
    """CIFAR-100: split to (class, pixels (32, 32, 3)), as pickles of Python 2 or in the binary version."""
    import numpy as np

    fine, coarse = sorted(name for names in classes.values() for name in names), sorted(classes)
    owner = {name: superclass for superclass, names in classes.items() for name in names}
    root.mkdir(parents=True, exist_ok=True)
    for split, some in images.items():
        labels = [fine.index(name) for name, _ in some]
        superlabels = [coarse.index(owner[name]) for name, _ in some]
        data = np.stack([np.asarray(pixels, dtype=np.uint8).transpose(2, 0, 1).reshape(-1) for _, pixels in some])
        if binary:
            rows = np.concatenate([np.array([superlabels, labels], dtype=np.uint8).T, data], axis=1)
            (root / f"{split}.bin").write_bytes(rows.tobytes())
        else:
            table = {
                b"filenames": [f"{n}.png".encode() for n in range(len(some))],
                b"batch_label": b"one of one",
                b"fine_labels": labels,
                b"coarse_labels": superlabels,
                b"data": data,
            }
            (root / split).write_bytes(python2_pickle(table))
    if binary:
        for name, names in (("fine", fine), ("coarse", coarse)):
            (root / f"{name}_label_names.txt").write_text("\n".join(names) + "\n\n")
    else:
        meta = {b"fine_label_names": [n.encode() for n in fine], b"coarse_label_names": [n.encode() for n in coarse]}
        (root / "meta").write_bytes(python2_pickle(meta))


def cifar_speckles(train: int = 3, test: int = 2, classes: Mapping[str, Sequence[str]] = SUPERCLASSES):
    """Images for `cifar_tree`: so many a class, no two alike; the classes take turns."""
    from speckles import speckles

    names = [name for names in classes.values() for name in names]
    return {
        split: [
            (name, speckles(10_000 * (split == "test") + i * len(names) + n, 32))
            for i in range(many)
            for n, name in enumerate(names)
        ]
        for split, many in (("train", train), ("test", test))
    }
