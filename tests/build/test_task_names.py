"""Every task has files of its own, whatever it is called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sglora_cli.files.hashes import file_hash
from sglora_cli.pack.content.names import file_name
from sglora_cli.pack.pack import Pack

RENAMED = {
    "ball": "猫",
    "box": "犬",
    "cup": "C++",
    "hat": "C#",
    "jar": "Polish",
    "kite": "polish",
    "mug": "a-b",
    "nest": "a b",
}


def renamed(toys: Path, recipe: Path, names: dict[str, str]) -> None:
    """Give tasks of the toys other names, in the data set and in the recipe."""
    table = toys / "toys/captions.jsonl"
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    table.write_text("".join(json.dumps(row | {"task": names.get(row["task"], row["task"])}) + "\n" for row in rows))
    text = recipe.read_text()
    for old, new in names.items():
        text = text.replace(f'"{old}"', json.dumps(new, ensure_ascii=False))
    recipe.write_text(text)


@pytest.mark.slow
def test_tasks_whose_names_look_alike_do_not_overwrite_each_other(run, tiny, toys, recipe, own_home):
    renamed(toys, recipe, RENAMED)
    result = run("pack", "build", recipe, "--data", toys)
    assert result.exit_code == 0, result.output
    pack = Pack(own_home / "cache/packs/toys")
    means_EP = pack.experts.means()
    assert len({tuple(row.tolist()) for row in means_EP}) == 4
    texts = {task.name: task.captions[0] for task in pack.unseen()}
    assert sorted(texts) == ["a b", "a-b"]
    assert ["mug" in texts["a-b"], "nest" in texts["a b"]] == [True, True]
    assert run("pack", "verify", "toys").exit_code == 0


def older(pack: Path, old_name: dict[str, str]) -> None:
    """Name the files of a pack's tasks as older versions did."""
    manifest = json.loads((pack / "pack.json").read_text())
    for key, name in old_name.items():
        for folder in ("experts", "evaluation"):
            if (path := pack / folder / file_name(key)).exists():
                path.rename(pack / folder / name)
    manifest["files"] = {
        path.relative_to(pack).as_posix(): file_hash(path)
        for path in sorted(pack.rglob("*"))
        if path.is_file() and path.name != "pack.json"
    }
    (pack / "pack.json").write_text(json.dumps(manifest))


def test_a_pack_with_file_names_of_an_older_version_is_read_and_edited(run, format_one, tmp_path):
    folder = format_one
    before = Pack(folder).experts.means().clone()
    keys = [task["key"] for task in Pack(folder).tasks]
    older(folder, {key: key.replace("/", "-") + ".safetensors" for key in keys})
    pack = Pack(folder)
    assert torch.equal(pack.experts.means(), before)
    assert {task.name for task in pack.unseen()} == {"mug", "nest"}
    assert run("generate", "a red mug", "--pack", "toys", "-o", tmp_path / "a.safetensors").exit_code == 0
    added = run("pack", "add", "toys", tmp_path / "a.safetensors", "--text", "a ball!", "--name", "toys/ball!")
    assert added.exit_code == 0, added.output
    assert torch.equal(Pack(folder).experts.means()[:4], before)
    assert run("pack", "remove", "toys", "toys/box", "--yes").exit_code == 0
    assert torch.equal(Pack(folder).experts.means()[:3], before[[0, 2, 3]])
    assert run("pack", "verify", "toys").exit_code == 0


def test_a_pack_in_which_one_task_overwrote_another_is_refused(run, format_one):
    folder = format_one
    older(folder, {"toys/ball": "toys-c.safetensors", "toys/box": "toys-box.safetensors"})
    text = (folder / "pack.json").read_text()
    (folder / "pack.json").write_text(text.replace('"toys/ball"', '"toys/C++"').replace('"toys/box"', '"toys/C#"'))
    result = run("pack", "verify", "toys")
    assert (result.exit_code, result.stdout) == (4, "")
    assert "tasks 'toys/C++' and 'toys/C#' have one file, experts/toys-c.safetensors: one overwrote" in result.stderr
    assert "hint: build the pack again" in result.stderr


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("ball", "toys/ball is expert and expert"),
        ("ball ", "'toys/ball' and 'toys/ball ' look the same: they differ in spaces or in how an accent is stored"),
        ("b\\u001ball", "has a control character in 'b\\x1ball'"),
    ],
)
def test_names_that_cannot_be_told_apart_are_refused_when_the_recipe_is_read(run, tiny, toys, recipe, new, message):
    recipe.write_text(recipe.read_text().replace('"ball", ', f'"ball", "{new}", '))
    result = run("pack", "build", recipe, "--data", toys)
    assert result.exit_code == 4
    assert message in result.stderr


def test_two_ways_to_store_an_accent_are_one_name(run, tiny, toys, recipe):
    recipe.write_text(recipe.read_text().replace('"ball", ', '"caf\\u00e9", "cafe\\u0301", '))
    result = run("pack", "build", recipe, "--data", toys)
    assert result.exit_code == 4
    assert "'toys/caf\\xe9' and 'toys/cafe\\u0301' look the same" in result.stderr


def test_a_name_that_would_lead_out_of_the_pack_stays_in_it(run, tiny, toys, recipe, own_home):
    renamed(toys, recipe, {"ball": "../../../ball"})
    assert run("pack", "build", recipe, "--data", toys, "--limit", 2).exit_code == 0
    pack = Pack(own_home / "cache/packs/toys-limit-2")
    folders = ("", "experts", "evaluation", "generators", "tasks")
    assert all(Path(name).parent.name in folders for name in pack.manifest["files"])


def test_settings_in_a_generators_name_are_refused(run, tiny, toys, recipe):
    recipe.write_text(recipe.read_text().replace("[generators.cvae]", '[generators."cvae:hidden=8/../x"]'))
    result = run("pack", "build", recipe, "--data", toys)
    assert result.exit_code == 4
    assert "generator name 'cvae:hidden=8/../x' contains settings" in result.stderr
    assert "move them to [generators.cvae]" in result.stderr
