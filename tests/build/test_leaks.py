"""No photo that an unseen task is tested on reaches any training, whatever it is called and whichever task has it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from pack_folders import BUNDLED

from sglora_cli.files.hashes import file_hash
from sglora_cli.files.tensors import load_tensors, save_tensors
from sglora_cli.pack.content.learned import LEARNED, short
from sglora_cli.pack.pack import Pack


def share(toys: Path, photo: str, task: str, split: str = "train") -> None:
    """Give a task a copy of another task's photo, under a name of its own."""
    root = toys / "toys"
    name = f"images/copy_{task}_{photo}"
    shutil.copy(root / "images" / photo, root / name)
    row = {"image": name, "task": task, "split": split, "captions": [f"a copy of {photo}"]}
    with (root / "captions.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def adapters(pack: Pack) -> dict[str, torch.Tensor]:
    """Every adapter that was trained, by task."""
    means = dict(zip(pack.experts.names, pack.experts.means(), strict=True))
    return means | {task.key: task.oracle_P for task in pack.unseen()} | {"joint": pack.joint_P}


@pytest.fixture
def shared(toys):
    """Photos that the unseen task `mug` is tested on are training photos of an expert, of a training task, and of its
    own; one photo of its training side is an expert's, too."""
    for photo, task in (("mug_5.png", "ball"), ("mug_6.png", "ball"), ("mug_6.png", "jar"), ("mug_7.png", "mug")):
        share(toys, photo, task)
    share(toys, "mug_0.png", "hat")


@pytest.mark.slow
def test_what_is_trained_is_what_is_trained_without_the_shared_photos(run, toy_pack, toys, recipe, own_home, tmp_path):
    built = own_home / "cache/packs/toys"
    clean = shutil.copytree(built, tmp_path / "clean")
    for photo, task in (("mug_5.png", "ball"), ("mug_6.png", "ball"), ("mug_6.png", "jar"), ("mug_7.png", "mug")):
        share(toys, photo, task)
    result = run("pack", "build", recipe, "--data", toys)
    assert result.exit_code == 0
    assert "left out of training: 3 photos of 3 tasks, because unseen tasks are tested on them" in result.stderr
    expected, got = adapters(Pack(clean)), adapters(Pack(built))
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    left_out = {task["key"]: task.get("left_out", 0) for task in Pack(built).tasks}
    assert {key: count for key, count in left_out.items() if count} == {"toys/ball": 2, "toys/jar": 1, "toys/mug": 1}


def test_a_pack_keeps_the_photos_that_it_learned_from_and_none_that_it_is_tested_on(
    run, tiny, toys, recipe, shared, own_home
):
    recipe.write_text(recipe.read_text().replace('name = "toys"', 'name = "toys"\nwhole = true'))
    assert run("pack", "build", recipe, "--data", toys).exit_code == 0
    learned = Pack(own_home / "cache/packs/toys").learned
    hashes = {path.name: short(file_hash(path)) for path in (toys / "toys/images").glob("*_?.png")}
    tested = {hashes[f"{task}_{n}.png"] for task in ("mug", "nest") for n in (5, 6, 7)}
    seen = {hashes[f"ball_{n}.png"] for n in range(8)}
    assert seen <= learned["expert"]
    assert {hashes["mug_0.png"]} == learned["unseen"] & learned["expert"]
    assert not tested & (learned["expert"] | learned["training"] | learned["unseen"])


def test_a_dry_run_says_what_is_left_out_and_what_is_shared(run, tiny, toys, recipe, shared):
    result = run("pack", "build", recipe, "--data", toys, "--dry-run")
    assert "left out of training: 3 photos of 3 tasks, because unseen tasks are tested on them\n" in result.stdout
    assert "1 photos are training photos of a seen and of an unseen task (2 tasks)\n" in result.stdout
    content = json.loads(run("pack", "build", recipe, "--data", toys, "--dry-run", "--json").stdout)
    assert content["left_out"] == {"toys/ball": 2, "toys/jar": 1, "toys/mug": 1}


def test_a_task_that_has_nothing_left_to_learn_from_is_refused(run, tiny, toys, recipe):
    for n, twin in ((1, 5), (2, 6), (3, 7), (4, 7)):
        shutil.copy(toys / f"toys/images/mug_{twin}.png", toys / f"toys/images/ball_{n}.png")
    result = run("pack", "build", recipe, "--data", toys)
    assert result.exit_code == 4
    assert "task toys/ball has 5 training photos, and unseen tasks are tested on all but 1 of them" in result.stderr


BENCH = ("bench", "--baselines", "zero-shot,top-k,oracle")


@pytest.fixture
def swapped(toy_pack, toys) -> Path:
    """Another data folder: there two training photos of the expert `ball` are test photos of the unseen task `mug`."""
    other = shutil.copytree(toys, toys.parent / "other")
    for n in (0, 1):
        share(other, f"ball_{n}.png", "mug", "test")
    return other


def test_photos_that_the_pack_learned_from_are_not_measured(run, swapped):
    result = run(*BENCH, "--pack", "toys", "--data", swapped)
    assert result.exit_code == 5
    assert "pack 'toys' has already seen test data: 2 of 5 photos of toys/mug" in result.stderr
    assert "--own-expert" in result.stderr
    knowingly = run(*BENCH, "--pack", "toys", "--data", swapped, "--own-expert")
    assert knowingly.exit_code == 0
    assert "leak: the pack has already seen 2 of 5 photos of toys/mug" in knowingly.stdout + knowingly.stderr


def test_a_task_of_a_data_set_that_no_recipe_names_is_asked_for_its_photos_too(run, swapped):
    (swapped / "folder").symlink_to(swapped / "toys")
    result = run(
        *BENCH[:2], "zero-shot,top-k", "--pack", "toys", "--dataset", "folder", "--data", swapped, "--tasks", "mug"
    )
    assert result.exit_code == 5
    assert "2 of 5 photos of folder/mug" in result.stderr


def test_the_oracle_did_not_learn_from_what_it_is_measured_on(run, toy_pack, toys):
    other = shutil.copytree(toys, toys.parent / "other")
    share(other, "mug_0.png", "mug", "test")
    text = (other / "toys/captions.jsonl").read_text()
    (other / "toys/captions.jsonl").write_text(
        "".join(line + "\n" for line in text.splitlines() if '"images/mug_0.png"' not in line)
    )
    result = run(*BENCH, "--pack", "toys", "--data", other)
    assert result.exit_code == 5
    assert "1 of 4 photos of toys/mug" in result.stderr


def test_a_pack_that_carries_another_ones_training_photos_is_refused(run, toy_pack, toys, recipe, tmp_path):
    """Another recipe is tested on what `ball` learned from, and calls it `globe`."""
    table = toys / "toys/captions.jsonl"
    other_side = {"train": "test", "test": "train"}
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    for row in rows:
        if row["task"] == "ball":
            row |= {"task": "globe", "split": other_side[row["split"]]}
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = recipe.read_text().replace('"ball"', '"mug"').replace('"mug", "nest"', '"globe", "nest"')
    crossed = tmp_path / "crossed.toml"
    crossed.write_text(text.replace('name = "toys"', 'name = "crossed"\npath = "toys"'))
    assert run("pack", "build", crossed, "--data", toys).exit_code == 0
    result = run(*BENCH, "--pack", "toys", "--on", "crossed", "--tasks", "globe")
    assert result.exit_code == 5
    assert "5 of 5 photos of crossed/globe" in result.stderr


def forget(pack: Path) -> None:
    """Make a pack an older one, which kept no hashes of photos."""
    manifest = json.loads((pack / "pack.json").read_text())
    del manifest["files"][LEARNED]
    (pack / LEARNED).unlink()
    (pack / "pack.json").write_text(json.dumps(manifest))


def test_of_a_pack_without_hashes_it_is_said_to_be_unknown(run, toy_pack, swapped, own_home):
    forget(own_home / "cache/packs/toys")
    result = run(*BENCH, "--pack", "toys", "--data", swapped)
    assert result.exit_code == 0
    note = "unknown whether the pack learned from the tested photos: pack 'toys' has no hashes of its photos"
    assert note in result.stdout + result.stderr


def test_of_what_an_older_pack_carries_itself_nothing_is_unknown(run, tmp_path):
    older = shutil.copytree(BUNDLED, tmp_path / "older")
    forget(older)
    for path in (older / "evaluation").iterdir():  # its unseen tasks have no hashes either
        tensors, metadata = load_tensors(path)
        save_tensors(path, tensors, {key: value for key, value in metadata.items() if key != "photos"})
    result = run("bench", "--baselines", "zero-shot", "--pack", older, "--tasks", "pug")
    assert result.exit_code == 0
    assert "unknown whether" not in result.stdout + result.stderr


def test_of_an_added_expert_it_is_said_to_be_unknown(run, toy_pack, tmp_path):
    assert run("generate", "a red mug", "--pack", "toys", "-o", tmp_path / "a.safetensors").exit_code == 0
    assert run("pack", "add", "toys", tmp_path / "a.safetensors", "--text", "a tent", "--name", "x/tent").exit_code == 0
    result = run(*BENCH, "--pack", "toys")
    assert "the training photos of these experts are not recorded: x/tent" in result.stdout + result.stderr
