"""What is wrong with a CIFAR-100, named with its file; pickles that would do something."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest
from trees import SUPERCLASSES, cifar_speckles, cifar_tree, python2_pickle

from sglora_cli.errors import BadFile, Unavailable
from sglora_datasets.cifar100 import Cifar100


@pytest.fixture
def root(tmp_path):
    return tmp_path / "cifar-100-python"


def side(root, name="train", **changes):
    """One file of the tree with other values."""
    table = pickle.loads((root / name).read_bytes(), encoding="bytes")
    table.update({key.encode(): value for key, value in changes.items()})
    (root / name).write_bytes(python2_pickle(table))


FINE = [b"bear", b"lion", b"oak_tree", b"palm", b"ray", b"shark", b"wolf"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: side(r, fine_labels=[7] * 21), "train: image 0 has class 7, but there are only 7 names"),
        (
            lambda r: side(r, coarse_labels=[0, -1] + [0] * 19),
            "train: image 1 has superclass -1, but there are only 3 names",
        ),
        (lambda r: side(r, fine_labels=[1] * 20), "train: fine_labels is not a list of 21 integers, one per image"),
        (lambda r: side(r, fine_labels=["1"] * 21), "train: fine_labels is not a list of 21 integers, one per image"),
        (
            lambda r: side(r, coarse_labels=[1] * 21),
            "test: image 0 has class 'ray' in superclass 'fish', but others have it in 'large",
        ),
        (
            lambda r: side(r, data=np.zeros((21, 3071), np.uint8)),
            "train: its data have 64491 bytes and shape (21, 3071)",
        ),
        (lambda r: side(r, data=np.zeros((21, 3072), np.int64)), "train: its data are not an array of bytes"),
        (lambda r: side(r, data=np.zeros((3072, 21), np.uint8).T), "train: its data are not an array of bytes"),
        (lambda r: side(r, data=[1, 2]), "train: its data are not an array of bytes"),
        (
            lambda r: side(r, "meta", fine_label_names=FINE[:-1]),
            "train: image 4 has class 6, but there are only 6 names",
        ),
        (lambda r: side(r, "meta", fine_label_names=[*FINE, b"x"]), "meta: no image has class 'x' (such classes: 1)"),
        (lambda r: side(r, "meta", fine_label_names=[b"bear"] * 7), "meta: a class name is empty or not unique"),
        (lambda r: side(r, "meta", fine_label_names=[b"\x1b"] * 7), "meta: the class names are not a list of"),
        (lambda r: side(r, "meta", fine_label_names=3), "meta: the class names are not a list of strings"),
        (lambda r: (r / "meta").write_bytes(python2_pickle({})), "meta has no 'fine_label_names'"),
        (lambda r: (r / "meta").write_bytes(python2_pickle([1])), "meta contains no dictionary"),
        (lambda r: (r / "test").write_bytes((r / "test").read_bytes()[:500]), "test cannot be loaded: "),
        (lambda r: (r / "test").write_bytes(b""), "test cannot be loaded: "),
        (  # remembered under a number for which pickle would allocate gigabytes
            lambda r: (r / "meta").write_bytes(b"\x80\x02}r\xff\xff\xff\x0f."),
            "meta uses the memo number 268435455, which is not plausible",
        ),
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
        (lambda r: (r / "train.bin").write_bytes(b"\0" * 9000), "train.bin has 9000 bytes, which is not a multiple"),
        (lambda r: (r / "train.bin").write_bytes(b""), "train.bin has 0 bytes, which is not a multiple"),
        (
            lambda r: (r / "test.bin").write_bytes(b"\x02\x07" + b"\0" * 3072),
            "test.bin: image 0 has class 7, but there are",
        ),
        (lambda r: (r / "fine_label_names.txt").unlink(), "fine_label_names.txt does not exist"),
        (
            lambda r: (r / "coarse_label_names.txt").write_text("a\na\nb\n"),
            "coarse_label_names.txt: a class name is empty",
        ),
    ],
)
def test_what_is_wrong_with_the_binary_version_is_named(root, damage, message):
    cifar_tree(root, cifar_speckles(), binary=True)
    damage(root)
    with pytest.raises(BadFile) as error:
        Cifar100().tasks(root)
    assert error.value.message.startswith(f"{root}/{message}")


@pytest.mark.parametrize(
    ("classes", "train", "message"),
    [
        (
            {"fish": ("ray", "shark"), "trees": ("palm",)},
            3,
            "meta: classification task 'trees' has only one class, 'palm'",
        ),
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
    with pytest.raises(BadFile, match=f"it refers to {named}, which could run arbitrary code"):
        Cifar100().tasks(root)
    assert not hasattr(sys, "was_run")


def test_numpy_is_not_asked_to_unpickle(root):
    """Types of numpy that could hold objects or any memory are kept as words, and refused as no bytes."""
    cifar_tree(root, cifar_speckles())
    (root / "train").write_bytes(
        pickle.dumps({"data": np.array([{}, ()], dtype=object), "fine_labels": [], "coarse_labels": []}, 2)
    )
    with pytest.raises(BadFile, match="its data are not an array of bytes"):
        Cifar100().tasks(root)


@pytest.mark.parametrize("seed", range(30))
def test_any_damage_is_a_bad_file_or_harmless(root, seed):
    """Bytes are changed, in the first and last part of a pickle where its structure is."""
    cifar_tree(root, cifar_speckles())
    rng = np.random.default_rng(seed)
    for name in ("meta", "train"):
        content = bytearray((root / name).read_bytes())
        for place in rng.choice(min(400, len(content)), 3):
            content[place if seed % 2 else -1 - place] = rng.integers(256)
        (root / name).write_bytes(content)
    try:
        tasks = Cifar100().tasks(root)
    except (BadFile, Unavailable):
        return
    assert all(len(task.classes) >= 2 for task in tasks)
