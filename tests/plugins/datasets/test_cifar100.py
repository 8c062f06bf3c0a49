"""CIFAR-100 in both of its layouts."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from servers import serving
from trees import SUPERCLASSES, cifar_speckles, cifar_tree

from sglora_cli.errors import Unavailable
from sglora_datasets import cifar100
from sglora_datasets.cifar100 import Cifar100
from sglora_datasets.download import Remote


@pytest.fixture
def root(tmp_path):
    return tmp_path / "cifar-100-python"


def photos_of(tasks):
    """{task: {split: {file number: (class, pixels)}}}"""
    return {
        t.name: {
            split: {p.path.stem: (p.captions, np.asarray(Image.open(p.path)).tobytes()) for p in photos}
            for split, photos in t.photos.items()
        }
        for t in tasks
    }


@pytest.mark.parametrize("binary", [False, True])
def test_a_task_is_a_superclass_and_its_photos_are_the_pixels(root, binary):
    images = cifar_speckles()
    cifar_tree(root, images, binary=binary)
    tasks = Cifar100().tasks(root)
    assert {t.name: t.classes for t in tasks} == {
        "fish": ("ray", "shark"), "large carnivores": ("bear", "lion", "wolf"), "trees": ("oak tree", "palm")
    }  # fmt: skip
    photos = photos_of(tasks)
    owner = {name: task.replace("_", " ") for task, names in SUPERCLASSES.items() for name in names}
    for split, some in images.items():
        for n, (name, image) in enumerate(some):
            assert photos[owner[name]][split][f"{n:05d}"] == ((name.replace("_", " "),), np.asarray(image).tobytes())
        assert sum(len(sides[split]) for sides in photos.values()) == len(some)


def test_both_versions_are_the_same_tasks(root, tmp_path):
    cifar_tree(root, cifar_speckles())
    cifar_tree(tmp_path / "binary", cifar_speckles(), binary=True)
    assert photos_of(Cifar100().tasks(root)) == photos_of(Cifar100().tasks(tmp_path / "binary"))


def test_pickles_of_python_3_are_read_too(root):
    cifar_tree(root, cifar_speckles())
    before = photos_of(Cifar100().tasks(root))
    for protocol in (2, 4):
        for path in root.iterdir():
            path.write_bytes(pickle.dumps(pickle.loads(path.read_bytes(), encoding="latin1"), protocol))
        assert photos_of(Cifar100().tasks(root)) == before


def test_torchvision_reads_the_same_tree(root, tmp_path):
    import hashlib

    from torchvision.datasets import CIFAR100

    cifar_tree(root, cifar_speckles())
    md5 = {p.name: hashlib.md5(p.read_bytes()).hexdigest() for p in root.iterdir()}

    class Mini(CIFAR100):
        train_list = (("train", md5["train"]),)
        test_list = (("test", md5["test"]),)
        meta: ClassVar[dict] = {**CIFAR100.meta, "md5": md5["meta"]}

    photos = photos_of(Cifar100().tasks(root))
    for split in ("train", "test"):
        theirs = Mini(str(tmp_path), train=split == "train")
        ours = {n: photo for sides in photos.values() for n, photo in sides[split].items()}
        for n, (image, label) in enumerate(theirs):
            assert ours[f"{n:05d}"] == ((theirs.classes[label].replace("_", " "),), np.asarray(image).tobytes())


def test_the_first_photos_are_a_fair_sample(root):
    images = cifar_speckles(train=4)
    images["train"].sort(key=lambda one: one[0])  # all bears first
    cifar_tree(root, images)
    task = {t.name: t for t in Cifar100().tasks(root)}["large carnivores"]
    assert [p.captions[0] for p in task.photos["train"]] == ["bear", "lion", "wolf"] * 4


def test_images_are_written_once_and_not_into_the_data(root, own_home):
    cifar_tree(root, cifar_speckles())
    before = sorted(root.iterdir())
    root.chmod(0o500)
    first = Cifar100().tasks(root)
    path = first[0].photos["train"][0].path
    assert path.is_relative_to(own_home / "cache/images")
    written = path.stat().st_mtime_ns
    assert Cifar100().tasks(root) == first
    assert path.stat().st_mtime_ns == written
    assert sorted(root.iterdir()) == before
    assert not [p for p in (own_home / "cache/images").iterdir() if p.name.startswith(".") and p.suffix != ".lock"]


def flipped(data):
    return data[:99] + bytes([data[99] ^ 1]) + data[100:]


@pytest.mark.parametrize("kind", ["*.png", "*.json"])
@pytest.mark.parametrize("damage", [flipped, lambda data: b"", None])
def test_a_cache_that_is_not_as_it_was_written_is_written_again(root, own_home, kind, damage):
    cifar_tree(root, cifar_speckles())
    before = Cifar100().tasks(root)
    file = max((own_home / "cache/images").rglob(kind))
    content = file.read_bytes()
    file.write_bytes(damage(content)) if damage else file.unlink()
    assert Cifar100().tasks(root) == before
    assert file.read_bytes() == content


def test_an_interrupted_writing_leaves_nothing(root, own_home, monkeypatch):
    cifar_tree(root, cifar_speckles())
    count = []

    def save(self, path):
        count.append(path)
        if len(count) == 5:
            raise OSError(28, "No space left on device")
        original(self, path)

    original = Image.Image.save
    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(Unavailable, match="No space left on device"):
        Cifar100().tasks(root)
    assert not [p for p in (own_home / "cache/images").iterdir() if p.suffix != ".lock"]
    assert len(Cifar100().tasks(root)) == 3


def test_an_empty_folder_says_how_to_get_it(run, tmp_path):
    result = run("data", "check", "cifar100", "--path", tmp_path)
    assert (result.exit_code, result.stdout) == (6, "")
    assert result.stderr == (
        f"error: {tmp_path} has no CIFAR-100: neither train nor train.bin\n"
        "hint: `sglora data fetch cifar100` downloads it into the data folder as cifar-100-python\n"
    )


def test_names_of_classes_are_no_paths(root, own_home):
    classes = {"a/../../b": ("../../../x", "/etc"), "c": ("d", "e")}
    cifar_tree(root, cifar_speckles(classes=classes), classes)
    tasks = Cifar100().tasks(root)
    assert {t.name for t in tasks} == {"a/../../b", "c"}
    assert all(
        p.path.resolve().is_relative_to(own_home.resolve()) for t in tasks for some in t.photos.values() for p in some
    )


def test_it_is_fetched_once(run, tmp_path, monkeypatch, own_home):
    source, data, memory = tmp_path / "source", tmp_path / "data", io.BytesIO()
    cifar_tree(source / "cifar-100-python", cifar_speckles())
    data.mkdir()
    with tarfile.open(fileobj=memory, mode="w:gz") as archive:
        archive.add(source / "cifar-100-python", "cifar-100-python")
    with serving({"/cifar-100-python.tar.gz": memory.getvalue()}) as server:
        digest = hashlib.md5(memory.getvalue()).hexdigest()
        monkeypatch.setattr(cifar100, "ARCHIVE", Remote(f"{server.url}/cifar-100-python.tar.gz", digest))
        result = run("data", "fetch", "cifar100", "--data", data)
        assert run("data", "fetch", "cifar100", "--data", data).exit_code == 0
    assert (result.exit_code, result.stdout) == (0, f"{data}/cifar-100-python\n"), result.output
    assert len(server.asked) == 1
    assert "captions" not in result.stderr
    assert len(list((own_home / "cache/images").glob("*/*/*/*.png"))) == 35


def test_a_check_does_not_complain_of_classes(run, root):
    cifar_tree(root, cifar_speckles(train=12, test=3))
    result = run("data", "check", "cifar100", "--path", root, "--distance", 0)
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[:3] == [
        "fish 24 train 6 test 2 classes",
        "large carnivores 36 train 9 test 3 classes",
        "trees 24 train 6 test 2 classes",
    ]
    assert lines[-1] == "0 errors, 0 warnings"
    assert "captions that" not in result.stdout
