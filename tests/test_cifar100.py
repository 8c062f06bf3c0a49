"""CIFAR-100 in both of its layouts, what is wrong with one, pickles that would do something; folders with classes."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import sys
import tarfile
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from servers import serving
from speckles import speckles
from trees import SUPERCLASSES, cifar_speckles, cifar_tree, python2_pickle

from sglora_cli.errors import BadFile, Unavailable
from sglora_datasets.cifar100 import Cifar100
from sglora_datasets.folder import Folder


@pytest.fixture
def root(tmp_path):
    return tmp_path / "cifar-100-python"


def shown(tasks):
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
    found = shown(tasks)
    owner = {name: task.replace("_", " ") for task, names in SUPERCLASSES.items() for name in names}
    for split, some in images.items():
        for n, (name, image) in enumerate(some):
            assert found[owner[name]][split][f"{n:05d}"] == ((name.replace("_", " "),), np.asarray(image).tobytes())
        assert sum(len(sides[split]) for sides in found.values()) == len(some)


def test_both_versions_are_the_same_tasks(root, tmp_path):
    cifar_tree(root, cifar_speckles())
    cifar_tree(tmp_path / "binary", cifar_speckles(), binary=True)
    assert shown(Cifar100().tasks(root)) == shown(Cifar100().tasks(tmp_path / "binary"))


def test_pickles_of_python_3_are_read_too(root):
    cifar_tree(root, cifar_speckles())
    before = shown(Cifar100().tasks(root))
    for protocol in (2, 4):
        for path in root.iterdir():
            path.write_bytes(pickle.dumps(pickle.loads(path.read_bytes(), encoding="latin1"), protocol))
        assert shown(Cifar100().tasks(root)) == before


def test_torchvision_reads_the_same_tree(root, tmp_path):
    import hashlib

    from torchvision.datasets import CIFAR100

    cifar_tree(root, cifar_speckles())
    md5 = {p.name: hashlib.md5(p.read_bytes()).hexdigest() for p in root.iterdir()}

    class Mini(CIFAR100):
        train_list = (("train", md5["train"]),)
        test_list = (("test", md5["test"]),)
        meta: ClassVar[dict] = {**CIFAR100.meta, "md5": md5["meta"]}

    found = shown(Cifar100().tasks(root))
    for split in ("train", "test"):
        theirs = Mini(str(tmp_path), train=split == "train")
        ours = {n: photo for sides in found.values() for n, photo in sides[split].items()}
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
    assert not [p for p in (own_home / "cache/images").iterdir() if p.name.startswith(".")]


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
    assert not list((own_home / "cache/images").iterdir())
    assert len(Cifar100().tasks(root)) == 3


def side(root, name="train", **changes):
    """One file of the tree with other values."""
    table = pickle.loads((root / name).read_bytes(), encoding="bytes")
    table.update({key.encode(): value for key, value in changes.items()})
    (root / name).write_bytes(python2_pickle(table))


FINE = [b"bear", b"lion", b"oak_tree", b"palm", b"ray", b"shark", b"wolf"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: side(r, fine_labels=[7] * 21), "train: image 0 has class 7, there are names for 7"),
        (
            lambda r: side(r, coarse_labels=[0, -1] + [0] * 19),
            "train: image 1 has superclass -1, there are names for 3",
        ),
        (lambda r: side(r, fine_labels=[1] * 20), "train: fine_labels is not a list of 21 numbers, one an image"),
        (lambda r: side(r, fine_labels=["1"] * 21), "train: fine_labels is not a list of 21 numbers, one an image"),
        (lambda r: side(r, coarse_labels=[1] * 21), "test: image 0 puts class 'ray' into 'fish', others into 'large"),
        (lambda r: side(r, data=np.zeros((21, 3071), np.uint8)), "train: its data are 64491 bytes of shape (21, 3071)"),
        (lambda r: side(r, data=np.zeros((21, 3072), np.int64)), "train: its data are no array of bytes"),
        (lambda r: side(r, data=np.zeros((3072, 21), np.uint8).T), "train: its data are no array of bytes"),
        (lambda r: side(r, data=[1, 2]), "train: its data are no array of bytes"),
        (lambda r: side(r, "meta", fine_label_names=FINE[:-1]), "train: image 4 has class 6, there are names for 6"),
        (lambda r: side(r, "meta", fine_label_names=[*FINE, b"x"]), "meta: no image is of class 'x' (1 such classes)"),
        (lambda r: side(r, "meta", fine_label_names=[b"bear"] * 7), "meta: a class has no name, or two have one"),
        (lambda r: side(r, "meta", fine_label_names=[b"\x1b"] * 7), "meta: the names of classes are not a list of"),
        (lambda r: side(r, "meta", fine_label_names=3), "meta: the names of classes are not a list of texts"),
        (lambda r: (r / "meta").write_bytes(python2_pickle({})), "meta has no 'fine_label_names'"),
        (lambda r: (r / "meta").write_bytes(python2_pickle([1])), "meta holds no table"),
        (lambda r: (r / "test").write_bytes((r / "test").read_bytes()[:500]), "test is not loaded: "),
        (lambda r: (r / "test").write_bytes(b""), "test is not loaded: "),
        (lambda r: (r / "test").unlink(), "test does not exist"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(root, damage, message, own_home):
    cifar_tree(root, cifar_speckles())
    damage(root)
    with pytest.raises(BadFile) as error:
        Cifar100().tasks(root)
    assert error.value.message.startswith(f"{root}/{message}")
    assert not (own_home / "cache").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: (r / "train.bin").write_bytes(b"\0" * 9000), "train.bin has 9000 bytes, which is no whole number"),
        (lambda r: (r / "train.bin").write_bytes(b""), "train.bin has 0 bytes, which is no whole number of images"),
        (
            lambda r: (r / "test.bin").write_bytes(b"\x02\x07" + b"\0" * 3072),
            "test.bin: image 0 has class 7, there are",
        ),
        (lambda r: (r / "fine_label_names.txt").unlink(), "fine_label_names.txt does not exist"),
        (
            lambda r: (r / "coarse_label_names.txt").write_text("a\na\nb\n"),
            "coarse_label_names.txt: a class has no name",
        ),
    ],
)
def test_what_is_wrong_with_the_binary_version_is_named(root, damage, message):
    cifar_tree(root, cifar_speckles(), binary=True)
    damage(root)
    with pytest.raises(BadFile) as error:
        Cifar100().tasks(root)
    assert error.value.message.startswith(f"{root}/{message}")


def test_an_empty_folder_says_how_to_get_it(run, tmp_path):
    result = run("data", "check", "cifar100", "--path", tmp_path)
    assert (result.exit_code, result.stdout) == (6, "")
    assert result.stderr == (
        f"error: {tmp_path} has no CIFAR-100: neither train nor train.bin\n"
        "hint: `sglora data fetch cifar100` downloads it into the data folder as cifar-100-python\n"
    )


@pytest.mark.parametrize(
    ("classes", "train", "message"),
    [
        ({"fish": ("ray", "shark"), "trees": ("palm",)}, 3, "meta: classification task 'trees' has one class, 'palm'"),
        (SUPERCLASSES, 1, "meta: class 'ray' of 'fish' has 1 training image(s)"),
    ],
)
def test_a_task_too_small_to_sort_is_refused(root, classes, train, message):
    cifar_tree(root, cifar_speckles(train, 2, classes), classes)
    with pytest.raises(BadFile) as error:
        Cifar100().tasks(root)
    assert error.value.message == f"{root}/{message}"


class Calls:
    """A pickle of it calls a function."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (Calls(exec, "import sys; sys.was_run = True"), "builtins.exec"),
        (Calls(getattr, "text", "upper"), "builtins.getattr"),
        (Calls(np.frombuffer, b"123", "u1"), "numpy.frombuffer"),
        (Calls(np.dtype, np.float64), "numpy.float64"),
    ],
)
def test_a_pickle_that_would_do_something_does_nothing(root, value, named):
    cifar_tree(root, cifar_speckles())
    (root / "train").write_bytes(pickle.dumps({"data": value, "fine_labels": [], "coarse_labels": []}, 4))
    with pytest.raises(BadFile, match=f"it names {named}, and could run any program"):
        Cifar100().tasks(root)
    assert not hasattr(sys, "was_run")


def test_numpy_is_not_asked_to_unpickle(root):
    """Types of numpy that could hold objects or any memory are kept as words, and refused as no bytes."""
    cifar_tree(root, cifar_speckles())
    (root / "train").write_bytes(
        pickle.dumps({"data": np.array([{}, ()], dtype=object), "fine_labels": [], "coarse_labels": []}, 2)
    )
    with pytest.raises(BadFile, match="its data are no array of bytes"):
        Cifar100().tasks(root)


@pytest.mark.parametrize("seed", range(30))
def test_any_damage_is_a_bad_file_or_harmless(root, seed):
    """Bytes are changed, in the first and last part of a pickle where its structure is."""
    cifar_tree(root, cifar_speckles())
    dice = np.random.default_rng(seed)
    for name in ("meta", "train"):
        content = bytearray((root / name).read_bytes())
        for place in dice.choice(min(400, len(content)), 3):
            content[place if seed % 2 else -1 - place] = dice.integers(256)
        (root / name).write_bytes(content)
    try:
        tasks = Cifar100().tasks(root)
    except (BadFile, Unavailable):
        return
    assert all(len(task.classes) >= 2 for task in tasks)


def test_names_of_classes_are_no_paths(root, own_home):
    classes = {"a/../../b": ("../../../x", "/etc"), "c": ("d", "e")}
    cifar_tree(root, cifar_speckles(classes=classes), classes)
    tasks = Cifar100().tasks(root)
    assert {t.name for t in tasks} == {"a/../../b", "c"}
    assert all(
        p.path.resolve().is_relative_to(own_home.resolve()) for t in tasks for some in t.photos.values() for p in some
    )


def test_it_is_fetched_from_where_torchvision_says(run, tmp_path, monkeypatch, own_home):
    import torchvision.datasets

    source, data, memory = tmp_path / "source", tmp_path / "data", io.BytesIO()
    cifar_tree(source / "cifar-100-python", cifar_speckles())
    data.mkdir()
    with tarfile.open(fileobj=memory, mode="w:gz") as archive:
        archive.add(source / "cifar-100-python", "cifar-100-python")
    with serving({"/cifar-100-python.tar.gz": memory.getvalue()}) as server:
        monkeypatch.setattr(torchvision.datasets.CIFAR100, "url", f"{server.url}/cifar-100-python.tar.gz")
        monkeypatch.setattr(torchvision.datasets.CIFAR100, "tgz_md5", hashlib.md5(memory.getvalue()).hexdigest())
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


def rows(folder, lines):
    for n, line in enumerate(lines):
        line.setdefault("image", f"{n}.png")
        speckles(n).save(folder / line["image"])
    (folder / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


SORTED = [
    {"task": "pets", "class": ("cat", "dog")[n % 2], "split": "train" if n < 4 else "test"} for n in range(6)
]  # fmt: skip
CAPTIONED = {"task": "toys", "captions": ["a ball"]}


def test_a_folder_may_have_classes_instead_of_captions(tmp_path):
    rows(tmp_path, [*(dict(row) for row in SORTED), dict(CAPTIONED)])
    pets, toys = Folder().tasks(tmp_path)
    assert (pets.name, pets.classes, toys.name, toys.classes) == ("pets", ("cat", "dog"), "toys", ())
    assert [p.captions for p in pets.photos["train"]] == [("cat",), ("dog",)] * 2
    assert [len(photos) for photos in pets.photos.values()] == [4, 2]


def test_a_table_may_have_classes(tmp_path):
    rows(tmp_path, [dict(row) for row in SORTED])
    expected = Folder().tasks(tmp_path)
    lines = [f"{n}.png,{row['task']},{row['split']},{row['class']}" for n, row in enumerate(SORTED)]
    (tmp_path / "captions.jsonl").unlink()
    (tmp_path / "captions.csv").write_text("\n".join(["image,task,split,class", *lines]) + "\n")
    assert Folder().tasks(tmp_path) == expected
    (tmp_path / "captions.csv").write_text("image,task,split,class\n0.png,pets,train,cat\n0.png,pets,train,dog\n")
    with pytest.raises(BadFile, match=r"line 3: class of '0.png' is 'dog', in line 2 'cat'"):
        Folder().tasks(tmp_path)


def test_classes_are_no_captions_of_another_layout(tmp_path):
    from sglora_datasets.captions import read_captions

    (tmp_path / "captions.jsonl").write_text('{"image": "a.jpg", "class": "cat"}')
    with pytest.raises(BadFile, match="'captions' must be a list of texts, got None"):
        read_captions(tmp_path / "captions.jsonl", ("image",))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            [*SORTED, {"task": "pets", "captions": ["x"]}],
            ", line 7: task 'pets' has images with captions and images with",
        ),
        ([{"task": "pets", "class": ""}], ", line 1: 'class' must be a text, got ''"),
        ([{"task": "pets", "class": 3}], ", line 1: 'class' must be a text, got 3"),
        ([{"class": "cat"}], ", line 1: 'task' must be a text, got None"),
        ([{"task": "pets", "class": "cat"}] * 3, ": classification task 'pets' has one class, 'cat'"),
        (SORTED[:3], ": class 'dog' of 'pets' has 1 training image(s)"),
    ],
)
def test_wrong_classes_of_a_folder_are_named(tmp_path, lines, message):
    rows(tmp_path, [dict(line) for line in lines])
    with pytest.raises(BadFile) as error:
        Folder().tasks(tmp_path)
    assert error.value.message.startswith(f"{tmp_path}/captions.jsonl{message}")
