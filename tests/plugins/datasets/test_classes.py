"""Folders with classes instead of captions."""

from __future__ import annotations

import json

import pytest
from speckles import speckles

from sglora_cli.errors import BadFile
from sglora_datasets.folder import Folder


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
    from sglora_cli.data.caption_file import read_captions

    (tmp_path / "captions.jsonl").write_text('{"image": "a.jpg", "class": "cat"}')
    with pytest.raises(BadFile, match="'captions' must be a list of strings, got None"):
        read_captions(tmp_path / "captions.jsonl", ("image",))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            [*SORTED, {"task": "pets", "captions": ["x"]}],
            ", line 7: task 'pets' mixes images with captions and images with",
        ),
        ([{"task": "pets", "class": ""}], ", line 1: 'class' must be a non-empty string, got ''"),
        ([{"task": "pets", "class": 3}], ", line 1: 'class' must be a non-empty string, got 3"),
        ([{"class": "cat"}], ", line 1: 'task' must be a non-empty string, got None"),
        ([{"task": "pets", "class": "cat"}] * 3, ": classification task 'pets' has only one class, 'cat'"),
        (SORTED[:3], ": class 'dog' of 'pets' has 1 training image(s)"),
    ],
)
def test_wrong_classes_of_a_folder_are_named(tmp_path, lines, message):
    rows(tmp_path, [dict(line) for line in lines])
    with pytest.raises(BadFile) as error:
        Folder().tasks(tmp_path)
    assert error.value.message.startswith(f"{tmp_path}/captions.jsonl{message}")
