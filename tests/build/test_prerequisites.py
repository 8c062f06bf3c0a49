"""Everything that a build lacks is said at once, before anything is done, with the commands that get it."""

from __future__ import annotations

import json

import pytest
from distributions import install
from trees import coco_tree, flowers_tree, pets_tree

from sglora_cli.build import prerequisites

SOURCES = """
backbone = "BACKBONE"
default_generator = "top-k"
[prior]
k = 1
[[source]]
name = "coco"
dataset = "coco"
expert = ["cat"]
training = ["dog"]
[[source]]
name = "pets"
dataset = "pets"
path = "oxford-iiit-pet"
unseen = ["abyssinian"]
"""


@pytest.fixture
def mixed(tmp_path, tiny):
    """A recipe of COCO and the pets, for a backbone that lacks nothing, and a data folder with nothing."""
    (tmp_path / "mixed.toml").write_text(SOURCES.replace("BACKBONE", "tiny"))
    (tmp_path / "data").mkdir()
    return tmp_path / "mixed.toml"


def lines_of(result):
    assert result.stdout == ""
    first, *lines = result.stderr.splitlines()
    return first, [line.strip() for line in lines]


@pytest.mark.parametrize("more", [(), ("--dry-run",), ("--force",)], ids=["build", "dry run", "force"])
def test_everything_that_is_missing_is_said_at_once(run, mixed, tmp_path, own_home, more):
    data = tmp_path / "data"
    result = run("pack", "build", mixed, "--data", data, *more)
    pets = data / "oxford-iiit-pet"
    assert result.exit_code == 6
    assert lines_of(result) == (
        f"error: 3 things are missing to build recipe {mixed}",
        [
            f"19.6 GB: data set 'coco' is not in {data}/coco (sglora data fetch coco --data {data})",
            f"811.1 MB: data set 'pets' is not in {pets} (sglora data fetch pets --data {data})",
            f"captions of data set 'pets': there are none in {pets} (sglora data caption pets --path {pets})",
        ],
    )
    assert list(data.iterdir()) == []
    assert not (own_home / "cache").exists()


def test_what_is_there_is_not_missing(run, mixed, tmp_path):
    data = tmp_path / "data"
    coco_tree(data / "coco", {n: [("cat", 0), ("dog", 0)] for n in range(2, 9)})
    pets_tree(data / "oxford-iiit-pet")
    (data / "oxford-iiit-pet/captions.jsonl").unlink()
    result = run("pack", "build", mixed, "--data", data, "--dry-run")
    assert result.exit_code == 6
    assert result.stderr == (
        f"error: captions of data set 'pets': there are none in {data}/oxford-iiit-pet\n"
        f"hint: sglora data caption pets --path {data}/oxford-iiit-pet\n"
    )


def test_a_part_of_a_data_set_is_said_to_be_one(run, mixed, tmp_path):
    data = tmp_path / "data"
    pets_tree(data / "oxford-iiit-pet")
    coco_tree(data / "coco", {n: [("cat", 0), ("dog", 0)] for n in range(2, 9)})
    for path in (data / "coco/train2017").iterdir():
        path.unlink()
    result = run("pack", "build", mixed, "--data", data)
    assert result.stderr == (
        f"error: 19.3 GB: the rest of data set 'coco' is not in {data}/coco\n"
        f"hint: sglora data fetch coco --data {data}\n"
    )


def test_without_a_data_folder_the_sizes_are_said_too(run, mixed):
    result = run("pack", "build", mixed)
    assert result.exit_code == 6
    assert lines_of(result) == (
        f"error: 4 things are missing to build recipe {mixed}",
        [
            "no folder with data is known (sglora settings set data DIR, or pass --data DIR, or set SGLORA_DATA)",
            "19.6 GB: data set 'coco' is needed there, unless you have it elsewhere (sglora data fetch coco)",
            "811.1 MB: data set 'pets' is needed there, unless you have it elsewhere (sglora data fetch pets)",
            "captions of data set 'pets': the data set does not include them "
            "(sglora data caption pets --path DIR/oxford-iiit-pet)",
        ],
    )


def test_json_lists_what_is_missing(run, mixed, tmp_path):
    error = json.loads(run("pack", "build", mixed, "--data", tmp_path / "data", "--json").stderr)["error"]
    assert (error["class"], error["exit_code"]) == ("Unavailable", 6)
    assert [one["hint"].split()[:4] for one in error["errors"]] == [
        ["sglora", "data", "fetch", "coco"],
        ["sglora", "data", "fetch", "pets"],
        ["sglora", "data", "caption", "pets"],
    ]


def test_the_commands_of_the_lines_can_be_pasted(run, mixed, tmp_path):
    """A folder with a blank in its name; a dry run of each command is no error of usage."""
    import shlex

    data = tmp_path / "my data"
    data.mkdir()
    error = json.loads(run("pack", "build", mixed, "--data", data, "--json").stderr)["error"]
    pets_tree(data / "oxford-iiit-pet")  # as the second command leaves it
    (data / "oxford-iiit-pet/captions.jsonl").unlink()
    for one in error["errors"]:
        result = run(*shlex.split(one["hint"])[1:], "--dry-run")
        assert result.exit_code == 0, result.output


def test_a_data_set_that_a_fetch_puts_elsewhere_is_said_to_be_there(run, tiny, tmp_path):
    path, data = tmp_path / "mixed.toml", tmp_path / "data"
    path.write_text(SOURCES.replace("BACKBONE", "tiny").replace('"oxford-iiit-pet"', '"my-pets"'))
    coco_tree(data / "coco", {n: [("cat", 0), ("dog", 0)] for n in range(2, 9)})
    pets_tree(data / "oxford-iiit-pet")
    result = run("pack", "build", path, "--data", data)
    assert result.stderr == (
        f"error: `sglora data fetch pets` writes to {data}/oxford-iiit-pet, but the recipe reads from {data}/my-pets\n"
        'hint: set path = "oxford-iiit-pet" in its [[source]]\n'
    )


def test_only_what_this_build_needs_counts(run, tiny, tmp_path):
    """The recipe's backbone lacks its weights, and is not the one that is asked for."""
    path, data = tmp_path / "mixed.toml", tmp_path / "data"
    data.mkdir()
    path.write_text(SOURCES.replace("BACKBONE", "open_clip:ViT-L-14/laion2b_s32b_b82k"))
    weights = "backbone 'open_clip:ViT-L-14/laion2b_s32b_b82k': its weights ViT-L-14/laion2b_s32b_b82k are not in "
    error, lines = lines_of(run("pack", "build", path, "--data", data))
    assert error.startswith("error: 4 things are missing")
    assert lines[-1].startswith(weights)
    assert "(sglora pack build mixed --weights FILE, or let the build download them)" in lines[-1]
    error, lines = lines_of(run("pack", "build", path, "--data", data, "--backbone", "tiny"))
    assert error.startswith("error: 3 things are missing")


def test_a_package_that_a_generator_needs_is_missed_before_the_training(run, tiny, toys, recipe, monkeypatch, own_home):
    monkeypatch.setattr("sglora_merge.with_data.find_spec", lambda name: None)
    recipe.write_text(recipe.read_text().replace("[generators.cvae]", "[generators.lorahub]\n[generators.cvae]"))
    result = run("pack", "build", recipe, "--data", toys)
    assert (result.exit_code, result.stderr) == (
        6,
        "error: generator 'lorahub': the package cma is not installed: pip install \"sglora[lorahub]\"\n",
    )
    assert not (own_home / "cache").exists()


def test_too_small_a_disk_is_said_with_what_is_missing(run, mixed, tmp_path, monkeypatch):
    monkeypatch.setattr(prerequisites, "free_disk", lambda path: 40_000_000_000)
    _, lines = lines_of(run("pack", "build", mixed, "--data", tmp_path / "data"))
    assert lines[-1] == (
        f"fetching and unpacking needs 40.5 GB of disk space in {tmp_path}/data, but only 40.0 GB are free "
        "(free disk space, or pass a folder on another disk with --data)"
    )


def test_errors_of_the_data_and_missing_data_are_one_error(run, mixed, tmp_path):
    data = tmp_path / "data"
    coco_tree(data / "coco", {n: [("cat", 0)] for n in range(2, 9)})
    result = run("pack", "build", mixed, "--data", data)
    first, lines = lines_of(result)
    assert (result.exit_code, first) == (4, f"error: recipe {mixed} has 3 errors")
    assert [line.partition(" (")[0] for line in lines] == [
        f"811.1 MB: data set 'pets' is not in {data}/oxford-iiit-pet",
        f"captions of data set 'pets': there are none in {data}/oxford-iiit-pet",
        "line 10: no task in coco named 'dog'",
    ]


def test_tasks_whose_photos_are_not_here_are_said_to_be_in_a_partial_data_set(run, mixed, tmp_path):
    data = tmp_path / "data"
    pets_tree(data / "oxford-iiit-pet")
    coco_tree(data / "coco", {**{n: [("cat", 0)] for n in range(2, 9)}, 9: [("dog", 0)], 10: [("dog", 0)]})
    for number in (9, 10):
        next((data / "coco/train2017").glob(f"*{number}.jpg")).unlink()
    result = run("pack", "build", mixed, "--data", data)
    assert result.exit_code == 4
    assert lines_of(result)[1] == [
        "coco: 7 of the 9 images that its annotations name are here; this may be why tasks lack photos "
        f"(sglora data fetch coco --data {data})",
        "line 10: no task in coco named 'dog' (there are: cat)",
    ]


def test_a_partial_data_set_that_has_all_tasks_is_noted_once(run, mixed, tmp_path):
    data = tmp_path / "data"
    pets_tree(data / "oxford-iiit-pet")
    coco_tree(data / "coco", {n: [("cat", 0), ("dog", 0)] for n in range(2, 12)})
    next((data / "coco/train2017").iterdir()).unlink()
    said = "coco: 9 of the 10 images that its annotations name are here; missing images are not in any task"
    result = run("pack", "build", mixed, "--data", data, "--dry-run")
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines().count(said) == 1
    report = json.loads(run("pack", "build", mixed, "--data", data, "--dry-run", "--json").stdout)
    assert report["partial"] == [{"path": f"{data}/coco", "here": 9, "named": 10}]
    checked = run("data", "check", "coco", "--path", data / "coco")
    assert checked.stdout.count(f"partial: {said.partition(';')[0]}; ") == 1
    facts = json.loads(run("data", "check", "coco", "--path", data / "coco", "--json").stdout)
    assert facts["partial"] == {"here": 9, "named": 10}


UNKNOWN = """
from sglora_cli.api import Unavailable, hookimpl
class Mine:
    name, summary = "mine", "a stranger's data"
    def tasks(self, root): raise Unavailable(f"{root} has nothing", "put something there")
    def fetch(self, data, note): return data / "mine"
@hookimpl
def sglora_datasets(): return [Mine()]
"""


def test_a_stranger_that_does_not_say_sizes_has_none(run, site, tiny, tmp_path):
    install(site, "sglora-mine", "sglora_mine_unknown", UNKNOWN)
    path = tmp_path / "mine.toml"
    path.write_text(SOURCES.replace("BACKBONE", "tiny").replace('"coco"', '"mine"'))
    (tmp_path / "data").mkdir()
    _, lines = lines_of(run("pack", "build", path, "--data", tmp_path / "data"))
    data = tmp_path / "data"
    assert lines[0] == f"size unknown: data set 'mine' is not in {data}/mine (sglora data fetch mine --data {data})"


def test_flowers_of_another_folder_are_not_taken_for_the_fetched_ones(run, tiny, tmp_path):
    path = tmp_path / "flowers.toml"
    text = SOURCES.replace("BACKBONE", "tiny").split("[[source]]")[0]
    path.write_text(
        f'{text}[[source]]\nname = "f"\ndataset = "flowers"\npath = "flowers-102"\nexpert = ["tiger lily"]\n'
    )
    flowers_tree(tmp_path / "data/flowers-102", [6] * 4, {"trnid": [1], "valid": [2], "tstid": [3, 4]})
    assert run("pack", "build", path, "--data", tmp_path / "data", "--dry-run").exit_code == 0
