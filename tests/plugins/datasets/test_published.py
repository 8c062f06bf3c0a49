"""What fetching a data set would download is what it downloads, and it is known without a network."""

from __future__ import annotations

import json
import shutil
import socket

import pytest
from trees import coco_tree, flowers_tree, pets_tree

from sglora_cli.errors import Unavailable
from sglora_cli.network import no_network
from sglora_cli.plugin.testing.dataset import a_plan_of_a_download_only_looks, photos_are_counted
from sglora_cli.plugin.testing.toys import run_check
from sglora_datasets import cifar100, flowers, pets
from sglora_datasets.cifar100 import Cifar100
from sglora_datasets.coco import Coco
from sglora_datasets.flickr30k import Flickr30k
from sglora_datasets.flowers import Flowers
from sglora_datasets.pets import Pets


def left(dataset, data):
    """{file: bytes} that are still to be downloaded."""
    with no_network():
        plan = dataset.fetch_plan(data)
    return {one.path.name: one.left for one in plan.waiting}


def test_the_files_and_checksums_are_those_of_torchvision():
    from torchvision import datasets as theirs

    ours = {remote.url: remote.md5 for remote in pets.ARCHIVES.values()}
    assert ours == dict(theirs.OxfordIIITPet._RESOURCES)
    prefix = theirs.Flowers102._download_url_prefix
    ours = {remote.url: remote.md5 for remote in flowers.FILES.values()}
    assert ours == {prefix + name: md5 for name, md5 in theirs.Flowers102._file_dict.values()}
    assert (cifar100.ARCHIVE.url, cifar100.ARCHIVE.md5) == (theirs.CIFAR100.url, theirs.CIFAR100.tgz_md5)


@pytest.mark.parametrize(
    ("dataset", "files"),
    [
        (Coco(), {"annotations_trainval2017.zip": 252_907_541, "train2017.zip": 19_336_861_798}),
        (Coco().member("val2014"), {"annotations_trainval2014.zip": 252_872_794, "val2014.zip": 6_645_013_297}),
        (Pets(), {"annotations.tar.gz": 19_173_078, "images.tar.gz": 791_918_971}),
        (Flowers(), {"imagelabels.mat": 502, "setid.mat": 14_989, "102flowers.tgz": 344_862_509}),
        (Cifar100(), {"cifar-100-python.tar.gz": 169_001_437}),
    ],
    ids=["coco", "coco:val2014", "pets", "flowers", "cifar100"],
)
def test_of_an_empty_folder_everything_is_missing(tmp_path, dataset, files):
    assert left(dataset, tmp_path) == files
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_and_what_came_of_a_broken_download_are_not_counted(tmp_path):
    root = tmp_path / "coco"
    root.mkdir()
    (root / "annotations_trainval2017.zip").write_bytes(b"x" * 541)
    (root / "train2017.zip.part").write_bytes(b"x" * 798)
    assert left(Coco(), tmp_path) == {
        "annotations_trainval2017.zip": 252_907_000,
        "train2017.zip": 19_336_861_000,
    }
    coco_tree(root, {1: [("cat", 0)], 2: [("dog", 0)]})
    assert left(Coco(), tmp_path) == {}
    next((root / "train2017").iterdir()).unlink()
    assert left(Coco(), tmp_path) == {"train2017.zip": 19_336_861_000}


def test_karpathys_coco_needs_the_photos_that_it_names(tmp_path):
    root = tmp_path / "coco"
    coco_tree(root, {1: [("cat", 0)]}, "train2014")
    image = next((root / "train2014").iterdir()).name
    rows = [
        {"filepath": split, "filename": image, "cocoid": n, "split": "train", "sentences": [{"raw": "a cat"}]}
        for n, split in enumerate(("train2014", "val2014"))
    ]
    (root / "dataset_coco.json").write_text(json.dumps({"images": rows}))
    assert list(left(Coco(), tmp_path)) == ["annotations_trainval2014.zip", "val2014.zip"]
    shutil.copy(root / "annotations/instances_train2014.json", root / "annotations/instances_val2014.json")
    assert list(left(Coco(), tmp_path)) == ["val2014.zip"]


@pytest.mark.parametrize("name", ["pets", "flowers"])
def test_images_that_the_lists_name_and_that_are_missing_are_fetched(tmp_path, name):
    plugin, module = (Pets(), pets) if name == "pets" else (Flowers(), flowers)
    root = tmp_path / module.FOLDER
    if name == "pets":
        pets_tree(root)
    else:
        flowers_tree(root, [1, 74, 102], {"trnid": [2], "valid": [1], "tstid": [3]})
    assert left(plugin, tmp_path) == {}
    assert plugin.fetch_plan(tmp_path).captions
    next(root.glob("*/*.jpg")).unlink()
    (root / "captions.jsonl").unlink()
    assert len(left(plugin, tmp_path)) == 1
    assert not plugin.fetch_plan(tmp_path).captions


def test_what_may_not_be_downloaded_says_so_as_fetching_does(tmp_path):
    with pytest.raises(Unavailable) as planned:
        Flickr30k().fetch_plan(tmp_path)
    with pytest.raises(Unavailable) as fetched:
        Flickr30k().fetch(tmp_path, print)
    assert planned.value.to_json() == fetched.value.to_json()


@pytest.mark.parametrize("dataset", [Coco(), Pets(), Flowers(), Flickr30k()], ids=["coco", "pets", "flowers", "flickr"])
def test_plans_keep_their_contract(dataset, tmp_path):
    assert run_check(a_plan_of_a_download_only_looks, dataset, tmp_path) == ""


def test_a_plan_that_asks_the_network_or_writes_is_found(tmp_path):
    class Asks(Pets):
        def fetch_plan(self, data):
            socket.getaddrinfo("photos.invalid", 80)

    class Writes(Pets):
        def fetch_plan(self, data):
            (data / "x").write_text("")
            return super().fetch_plan(data)

    class Boasts(Pets):
        def image_counts(self, root):
            return 1, 9

    pets_tree(tmp_path)
    assert run_check(a_plan_of_a_download_only_looks, Writes(), tmp_path) == "fetch_plan writes into the data folder"
    assert "the network may not be used" in run_check(a_plan_of_a_download_only_looks, Asks(), tmp_path)
    assert run_check(photos_are_counted, Pets(), tmp_path) == ""
    assert run_check(photos_are_counted, Boasts(), tmp_path).startswith("image_counts found 1 images, but tasks have 8")
