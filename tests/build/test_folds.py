"""`bench --folds`: each task is unseen once, to a build that equals one made by hand without it."""

from __future__ import annotations

import json

import jsonschema
import pytest
from recalls import recalls
from toys import EXPERTS, RECIPE, TRAINING, UNSEEN

from sglora_cli.bench.rows_file import read_rows
from sglora_cli.build.pipeline import Build
from sglora_cli.cli.schemas import schema
from sglora_cli.data.encode import encode_images
from sglora_cli.data.features import task_tensors
from sglora_cli.pack.loaded import LoadedPack
from sglora_cli.pack.pack import Pack
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.sentences import queries

TASKS = (*EXPERTS, *TRAINING, *UNSEEN)
FOLDS = 3


@pytest.fixture
def folds(run, toy_pack, toys):
    """Measure the toys' recipe in three folds."""
    return lambda *args: run("bench", "--folds", FOLDS, "--data", toys, *args)


@pytest.fixture
def builds(own_home):
    """The folders of the packs that folds built."""
    return lambda: sorted(path.parent for path in (own_home / "cache/folds").glob("*/pack.json"))


def test_each_task_is_measured_once_by_a_build_that_has_not_seen_it(folds, builds, run, recipe, toys, tmp_path):
    file = tmp_path / "rows.jsonl"
    result = folds("--rows", file, "--baselines", "zero-shot,top-k,joint,cvae", "--samples", 1, "--json")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    cells = [(row["method"], row["direction"], row["k"], row["task"]) for row in content["rows"]]
    measured = [task for *cell, task in cells if cell == ["cvae", "I2T", 1]]
    assert sorted(measured) == sorted(TASKS)
    assert content["notes"][0].startswith("9 unseen tasks (9 toys)")
    assert (
        "3 folds of recipe 'toys': each task is measured on all its photos, with a build that left it out"
        in content["notes"]
    )
    seen = [{task["name"]: task["role"] for task in Pack(folder).tasks} for folder in builds()]
    assert sorted(name for roles in seen for name in set(TASKS) - set(roles)) == sorted(TASKS)
    for roles in seen:
        assert roles == {n: "expert" if n in EXPERTS else "training" for n in roles}
    # by hand: the recipe without the first fold's tasks
    out = TASKS[0::FOLDS]
    kept = [[name for name in names if name not in out] for names in (EXPERTS, (*TRAINING, *UNSEEN))]
    hand = tmp_path / "hand.toml"
    head = recipe.read_text().partition("expert = ")[0]
    hand.write_text(f"{head}expert = {json.dumps(kept[0])}\ntraining = {json.dumps(kept[1])}\n")
    assert run("pack", "build", hand, "--data", toys, "-o", tmp_path / "hand").exit_code == 0
    loaded = LoadedPack.open(Host.load(), str(tmp_path / "hand"))
    dataset = {task.name: task for task in loaded.host.datasets["folder"].tasks(toys / "toys")}
    for name in out:
        photos = [photo for some in dataset[name].photos.values() for photo in some]
        assert len(photos) == 8
        tensors = task_tensors(loaded.model, name, photos)
        prior = loaded.pack.prior(queries(loaded.model, [f"a photo of a {name}"])[0])
        for method in ("top-k", "joint", "cvae"):
            adapter_1P = loaded.fitted(method).generate(prior, 1, 0, 1.0)
            image_ND = encode_images(loaded.model, loaded.pack.layout, tensors, adapter_1P)[0]
            expected = recalls(image_ND, tensors.text_CD.float(), tensors.image_of)
            rows = [r for r in content["rows"] if (r["method"], r["task"]) == (method, name)]
            assert {(r["direction"], r["k"]): r["value"] for r in rows} == pytest.approx(dict(expected))
    (one,) = read_rows(file)
    assert (one.header.pack, one.header.more["role"]) == ("toys", "unseen")
    assert "9 unseen tasks" in run("report", file).stdout


def test_what_was_built_and_measured_is_not_done_again(folds, builds, tmp_path, monkeypatch):
    file = tmp_path / "rows.jsonl"
    whole, built = Build.run, []

    def stops(self):
        if len(built) == 2:
            raise KeyboardInterrupt
        built.append(self.target)
        return whole(self)

    monkeypatch.setattr(Build, "run", stops)
    asked = ("--rows", file, "--baselines", "zero-shot,top-k")
    assert folds(*asked).exit_code == 130
    assert len(builds()) == 2
    built.clear()
    first = folds(*asked)
    assert first.exit_code == 0, first.output
    assert len(built) == 1
    content = file.read_bytes()
    again = folds(*asked)
    assert (again.stdout, file.read_bytes(), len(built)) == (first.stdout, content, 1)
    assert again.stderr.startswith("0 images encoded, ")


def test_a_build_of_a_fold_that_was_damaged_is_built_again(folds, builds):
    assert folds("--baselines", "top-k", "--json").exit_code == 0
    files = {path: path.read_bytes() for path in [next((folder / "experts").iterdir()) for folder in builds()]}
    for path, data in files.items():
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert folds("--baselines", "top-k", "--json").exit_code == 0
    assert {path: path.read_bytes() for path in files} == files


def test_only_folds_of_the_tasks_that_are_asked_for_are_built(folds, builds):
    rows = json.loads(folds("--tasks", "mug,jar", "--baselines", "zero-shot", "--json").stdout)["rows"]
    assert {row["task"] for row in rows} == {"mug", "jar"}
    assert len(builds()) == len({TASKS.index("mug") % FOLDS, TASKS.index("jar") % FOLDS})


def test_a_dry_run_says_how_many_builds_and_what_they_need(folds, builds):
    text = folds("--dry-run").stdout
    assert [line for line in text.splitlines() if line.startswith("fold ")] == [
        f"fold {n} of 3: a build of 6 tasks" for n in (1, 2, 3)
    ]
    assert text.count("memory: about ") == 3
    plans = json.loads(folds("--dry-run", "--json").stdout)["folds"]
    assert [one["roles"]["expert"]["tasks"] + one["roles"]["training"]["tasks"] for one in plans] == [6, 6, 6]
    assert builds() == []
    assert folds("--tasks", "mug", "--baselines", "zero-shot").exit_code == 0
    assert "fold 2 of 3: a build of 6 tasks, done before" in folds("--dry-run").stdout.splitlines()
    report = json.loads(folds("--dry-run", "--json").stdout)
    assert [one["built"] for one in report["folds"]] == [False, True, False]
    jsonschema.validate(report, schema("bench --folds --dry-run"), cls=jsonschema.Draft202012Validator)


def test_builds_of_folds_are_cleaned_whole(folds, builds, run):
    folds("--tasks", "mug", "--baselines", "zero-shot")
    (folder,) = builds()
    assert run("cache", "clean", "folds", "--yes").exit_code == 0
    assert not folder.exists()
    assert "toys" in run("pack", "list").stdout


def test_seeds_of_a_recipe_are_builds_of_one_table(run, tiny, recipe, toys, tmp_path):
    files = []
    for seed in (0, 1):
        recipe.write_text(RECIPE.replace("[train]\n", f"[train]\nseed = {seed}\n"))
        assert run("pack", "build", recipe, "--data", toys).exit_code == 0
        files.append(tmp_path / f"{seed}.jsonl")
        asked = ("--folds", FOLDS, "--data", toys, "--baselines", "zero-shot,top-k,joint", "--rows", files[-1])
        assert run("bench", *asked).exit_code == 0
    result = run("report", *files, "--over", "builds")
    assert result.exit_code == 0, result.output
    assert "toys: 9 unseen tasks" in result.stdout
    assert "Joint, lowest to highest of 2 builds" in result.stdout


def test_what_does_not_go_with_folds_is_refused(run, folds, toy_pack, toys, tmp_path):
    for option, code, message in (
        (("--on", "starter"), 2, "--on cannot be combined with --folds"),
        (("--adapter", tmp_path / "x"), 2, "--adapter cannot be combined with --folds"),
        (("--role", "training"), 2, "--role training cannot be combined with --folds"),
        (("--own-expert",), 2, "--own-expert cannot be combined with --folds"),
        (("--table", "ablation-k"), 2, "--table ablation-k cannot be combined with --folds"),
        (("--dataset", "pets"), 3, "no source of this pack's recipe named 'pets'"),
        (("--tasks", "owl"), 3, "no task to measure on named 'owl'"),
        (("--baselines", "oracle"), 6, "there is no Oracle adapter of 'ball'"),
        (("--baselines", "lorahub"), 6, "'lorahub' needs training photos"),
    ):
        result = folds(*option)
        assert (result.exit_code, result.stdout) == (code, ""), result.output
        assert result.stderr.splitlines()[-2 if "hint" in result.stderr else -1].startswith(f"error: {message}")
    assert run("bench", "--folds", 3).exit_code == 6
    assert run("bench", "--folds", 1, "--data", toys).exit_code == 2
    assert "10 folds are too many for the 9 tasks" in run("bench", "--folds", 10, "--data", toys).stderr


def test_too_few_experts_are_said_before_anything_is_built(run, tiny, recipe, toys, builds):
    recipe.write_text(recipe.read_text().replace("k = 2", "k = 4"))
    assert run("pack", "build", recipe, "--data", toys).exit_code == 0
    result = run("bench", "--folds", 3, "--data", toys)
    assert (result.exit_code, result.stdout) == (5, "")
    assert "cannot be built without fold 1 of 3" in result.stderr
    assert "fewer than K = 4" in result.stderr
    assert builds() == []
