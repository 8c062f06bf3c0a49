"""What a check finds, against slow and obvious definitions of the same."""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image
from speckles import speckles

from sglora_cli.config import CheckConfig
from sglora_cli.data import check as check_module
from sglora_cli.data import check_rules
from sglora_cli.data.check_rules import CaptionCount, Common, DataIssue
from sglora_cli.errors import Mismatch
from sglora_cli.pack.recipe import source_of
from sglora_cli.pack.recipe_parser import parse
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import Photo, Task


@pytest.mark.filterwarnings("always:near-identical")
def test_without_the_library_only_near_identical_images_are_not_looked_for(monkeypatch, tmp_path, run):
    monkeypatch.setitem(sys.modules, "imagehash", None)
    (tmp_path / "images").mkdir()
    for n in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / f"images/{n}.png")  # all alike
    rows = [{"image": f"images/{n}.png", "task": "cat", "captions": [f"cat {n}"]} for n in range(3)]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run("data", "check", "folder", "--path", tmp_path)
    assert result.exit_code == 0
    assert result.stderr == (
        "warning: near-identical images are not detected: the package imagehash is not installed "
        '(pip install "sglora[check]")\n'
    )
    assert "alike" not in result.stdout


def task(name: str, **photos: list[tuple[str, list[str]]]) -> Task:
    found = {split: [Photo(Path(path), tuple(captions)) for path, captions in some] for split, some in photos.items()}
    return Task("toys", name, name, found)


CAT = task(
    "cat",
    train=[("a", ["A cat", "a  CAT ", "red"]), ("b", ["a cat", " "]), ("c", [])],
    test=[("d", ["a cat", "one two three four"])],
)
DOG = task("dog", train=[("e", ["A cat", "blue", "blue", "blue"])], test=[("a", ["A cat", "a  CAT ", "red"])])


def test_captions_are_found_empty_repeated_long_and_cut():
    reported = list(check_rules.caption_problems([CAT, DOG], str, words=3, cut={"red": "99 tokens"}))
    assert reported == [
        DataIssue("cut", "cat", "train", "a", "99 tokens: red"),
        DataIssue("repeated", "cat", "train", "a", "2 times: A cat"),
        DataIssue("empty", "cat", "train", "b", "caption 2 of 2 is ' '"),
        DataIssue("empty", "cat", "train", "c", "no caption"),
        DataIssue("long", "cat", "test", "d", "4 words: one two three four"),
        DataIssue("repeated", "dog", "train", "e", "3 times: blue"),
    ]  # image a is in two tasks and named once


def test_shared_captions_are_those_of_several_images_of_one_task_and_split():
    assert list(check_rules.shared_problems([CAT, DOG])) == [
        DataIssue("shared", "cat", "train", text="2 images: A cat")
    ]


@pytest.mark.parametrize("seed", range(3))
def test_common_and_shared_captions_are_the_obvious_ones(seed):
    rng = random.Random(seed)
    rows = [
        (rng.choice(["cat", "dog"]), rng.choice(["train", "test"]), str(n), rng.choices(["a", "b", "A ", "c"], k=2))
        for n in range(12)
    ]
    tasks = [
        task(name, **{s: [(n, c) for t, q, n, c in rows if (t, q) == (name, s)] for s in ("train", "test")})
        for name in ("cat", "dog")
    ]
    common = {c.caption.strip().lower(): (c.images, c.tasks) for c in check_rules.common_captions(tasks)}
    for text in "abc":
        having = [row for row in rows if any(c.strip().lower() == text for c in row[3])]
        assert common.get(text, (len(having), None))[0] == len(having)
        if len(having) > 1:
            assert common[text] == (len(having), len({row[0] for row in having}))
    problems = check_rules.shared_problems(tasks)
    shared = {(p.task, p.split, p.text.split(": ")[1].strip().lower()): p.text for p in problems}
    for name in ("cat", "dog"):
        for split in ("train", "test"):
            for text in "abc":
                many = sum(r[:2] == (name, split) and any(c.strip().lower() == text for c in r[3]) for r in rows)
                assert ((name, split, text) in shared) == (many > 1)
                assert many < 2 or shared[name, split, text].startswith(f"{many} images: ")


def test_the_most_common_caption_comes_first():
    assert check_rules.common_captions([CAT, DOG]) == [Common("A cat", 4, 2)]


def test_tasks_are_too_small_to_train_or_to_measure():
    config = CheckConfig(k=1)
    assert list(check_rules.size_problems([CAT, DOG], config, batch=4)) == [
        DataIssue("test", "cat", "test", text="1 image"),
        DataIssue("batch", "cat", "train", text="3 images, batch 4"),
        DataIssue("training", "dog", "train", text="1 image"),
        DataIssue("test", "dog", "test", text="1 image"),
    ]
    assert list(check_rules.size_problems([task("none")], CheckConfig())) == [
        DataIssue("training", "none", "train", text="0 images"),
        DataIssue("test", "none", "test", text="0 images"),
    ]


def test_counts_of_several_splits_are_put_together():
    counts = [CaptionCount.of_photos(photos) for photos in CAT.photos.values()]
    assert counts == [CaptionCount(3, 5, 0, 3), CaptionCount(1, 2, 2, 2)]
    assert CaptionCount.of([*counts, CaptionCount.of_photos([])]) == CaptionCount(4, 7, 0, 3)
    assert CaptionCount.of(counts).mean == 7 / 4
    assert CaptionCount.of([]).to_json() == {"images": 0, "captions": 0, "fewest": 0, "most": 0, "mean": 0.0}


class Listed:
    """A data set whose tasks are given."""

    name, summary = "listed", "given tasks"

    def __init__(self, *tasks: Task) -> None:
        self._tasks = tasks

    def tasks(self, root: Path) -> list[Task]:
        return list(self._tasks)


def checked(root: Path, *tasks: Task, **config: int) -> check_module.DataCheck:
    host = Host()
    host.datasets.add("here", "listed", Listed(*tasks))
    return check_module.run(host, "listed", root, config=CheckConfig(**config))


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    """Three images, and a smaller copy of the first."""
    images = {name: speckles(seed) for seed, name in enumerate("abc")}
    images["a2"] = images["a"].resize((48, 48))
    for name, image in images.items():
        image.save(tmp_path / f"{name}.png")
    return {name: str(tmp_path / f"{name}.png") for name in images}


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        (("cat", "train"), ("cat", "train"), "within"),
        (("cat", "train"), ("cat", "test"), "splits"),
        (("cat", "train"), ("dog", "train"), "tasks"),
        (("cat", "train"), ("dog", "test"), "splits"),
    ],
)
def test_a_pair_is_named_after_what_it_lies_across(tmp_path, files, first, second, kind):
    places = {"a": first, "a2": second, "b": ("cat", "train"), "c": ("dog", "test")}
    tasks = [
        task(name, **{s: [(files[f], [f]) for f, at in places.items() if at == (name, s)] for s in ("train", "test")})
        for name in ("cat", "dog")
    ]
    check = checked(tmp_path, *tasks)
    assert [(p.kind, {p.first.name, p.second.name}) for p in check.pairs] == [(kind, {"a.png", "a2.png"})]
    assert not check.more_pairs


def test_an_image_of_several_tasks_counts_once_and_is_no_leak_in_one_split(tmp_path, files):
    both = [(files["a"], ["x"]), (files["b"], ["y", "z"])]
    check = checked(tmp_path, task("cat", train=both), task("dog", train=both))
    assert check.total == CaptionCount(2, 3, 1, 2)
    assert check.pairs == ()
    check = checked(tmp_path, task("cat", train=both), task("dog", test=both[:1]))
    assert [(p.kind, p.how, p.first.name, p.second.name) for p in check.pairs] == [
        ("copies", "same file", "a.png", "a.png")
    ]


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        (("cat", "train"), ("cat", "test"), "copies"),
        (("cat", "train"), ("dog", "test"), "copies"),
        (("cat", "train"), ("dog", "train"), "tasks"),
        (("cat", "test"), ("cat", "test"), "within"),
    ],
)
@pytest.mark.parametrize("hashed", [True, False])
def test_equal_bytes_under_two_names_are_found_as_what_they_are(
    tmp_path, files, first, second, kind, hashed, monkeypatch
):
    if not hashed:  # without the library, too
        monkeypatch.setattr("sglora_cli.data.pictures.hasher", lambda: lambda image: None)
    shutil.copy(files["a"], tmp_path / "copy.png")
    places = {files["a"]: first, str(tmp_path / "copy.png"): second, files["b"]: ("cat", "train")}
    tasks = [
        task(name, **{s: [(f, [f]) for f, at in places.items() if at == (name, s)] for s in ("train", "test")})
        for name in ("cat", "dog")
    ]
    (pair,) = checked(tmp_path, *tasks).pairs
    assert (pair.kind, pair.how, pair.equal) == (kind, "equal bytes", True)
    assert {pair.first.name, pair.second.name} == {"a.png", "copy.png"}


def test_a_photo_that_is_twice_in_one_split_is_found(tmp_path, files):
    """As two samples of a shard with one photo are."""
    (pair,) = checked(tmp_path, task("cat", train=[(files["a"], ["x"]), (files["a"], ["y"])])).pairs
    assert (pair.kind, pair.how, pair.first.places) == ("within", "same file", (("cat", "train"), ("cat", "train")))


def test_images_of_one_colour_and_animations_are_found(tmp_path, files):
    Image.new("RGB", (40, 40), "white").save(tmp_path / "white.png")
    frames = [speckles(seed) for seed in (4, 5)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    photos = [(str(tmp_path / name), [name]) for name in ("white.png", "x.gif", "a.png")]
    problems = checked(tmp_path, task("cat", train=photos), k=1).problems
    assert [(p.kind, p.image) for p in problems if p.image] == [("plain", "white.png"), ("frames", "x.gif")]


def test_more_pairs_than_are_listed_are_said_to_be_more(tmp_path, files, monkeypatch):
    tasks = task("cat", train=[(files["a"], ["x"])], test=[(files["a2"], ["y"])])
    monkeypatch.setattr(check_module, "MOST_PAIRS", 1)
    assert checked(tmp_path, tasks, k=1).verdict == "0 errors, 3 warnings"
    monkeypatch.setattr(check_module, "MOST_PAIRS", 0)
    assert checked(tmp_path, tasks, k=1).verdict == "0 errors, at least 2 warnings"


def test_an_image_outside_the_folder_has_its_whole_path(tmp_path, files):
    inside = tmp_path / "inside"
    inside.mkdir()
    check = checked(inside, task("cat", train=[(files["a"], ["x"])]))
    assert [picture.name for picture in check.pictures.values()] == [files["a"]]


def test_the_source_of_a_recipe_is_found_by_its_folder(tmp_path):
    recipe = parse(
        "r",
        {
            "backbone": "tiny",
            "prior": {"k": 1},
            "source": [
                {"name": "x", "path": "all/cats", "expert": ["a"]},
                {"name": "y", "path": "dogs", "expert": ["b"]},
                {"name": "z", "dataset": "other", "expert": ["c"]},
            ],
        },
    )
    assert source_of(recipe, "folder", tmp_path / "cats").name == "x"
    assert source_of(recipe, "other", tmp_path / "wherever").name == "z"
    with pytest.raises(Mismatch) as error:
        source_of(recipe, "folder", tmp_path / "birds")
    assert error.value.message == f"recipe 'r' does not define exactly one source for {tmp_path / 'birds'}"
    assert error.value.hint == "use one of its sources: all/cats (folder), dogs (folder), z (other)"
