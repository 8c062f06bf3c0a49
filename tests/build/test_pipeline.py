"""A build that is interrupted goes on, and ends with the same bytes."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toys import EXPERTS

from sglora_cli.build import pipeline, steps, training
from sglora_cli.build.estimate import Estimate, Stage
from sglora_cli.data import features
from sglora_cli.errors import Mismatch
from sglora_cli.files import tensor_rows
from sglora_cli.files import tensors as tensors_module
from sglora_cli.files.tensors import load_tensors, read_metadata
from sglora_cli.pack.pack import Pack
from sglora_cli.plugin.values import ROLES

WARM = "[train]\nwarmup_epochs = 3\njoint_learning_rate = 0.02"


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def trained(home: Path) -> dict[str, torch.Tensor]:
    """States (M, P) a build left in the cache, by task; the warm-up's adapter under "start"."""
    states = {}
    for path in (home / "cache/work").glob("*.safetensors"):
        tensors, metadata = load_tensors(path)
        if metadata["kind"] == "states":
            states |= {task: tensors[str(n)] for n, task in enumerate(metadata["tasks"])}
        else:
            states |= tensors
    return states


@pytest.fixture
def whole(toy_pack, own_home) -> dict[str, bytes]:
    """The files of the pack, built in one go."""
    return content(own_home / "cache/packs/toys")


NOTHING = Estimate([Stage("all", "", 0.0)], 0, "cpu", 0, 0, 0, 0, Path("."))
STEPS = [  # where a build is interrupted: (owner, method, after so many calls)
    (features, "looked_at", 5),
    (training.JointTraining, "advance", 2),
    (training.OwnTraining, "advance", 1),
    (training.OwnTraining, "advance", 10),
    (training.JointTraining, "advance", 10),
    (tensor_rows.TensorDraft, "finish", 13),
    (pipeline, "save_tensors", 2),
    (pipeline, "write_manifest", 0),
]


@pytest.mark.parametrize(("owner", "method", "calls"), STEPS, ids=lambda value: getattr(value, "__name__", str(value)))
@pytest.mark.parametrize("seconds", [0, 1000], ids=["often", "never"])
def test_an_interrupted_build_goes_on_with_the_same_bytes(
    run, recipe, toys, own_home, tiny, monkeypatch, tmp_path, owner, method, calls, seconds
):
    recipe.write_text(recipe.read_text().replace("[train]", WARM))
    assert run("pack", "build", recipe, "--data", toys).exit_code == 0
    expected = content(own_home / "cache/packs/toys")
    monkeypatch.setenv("SGLORA_HOME", str(tmp_path / "second"))
    monkeypatch.setattr(tensors_module, "SECONDS", seconds)
    original, calls_made = getattr(owner, method), []

    def interrupted(*args, **kwargs):
        if len(calls_made) == calls:
            raise KeyboardInterrupt
        calls_made.append(1)
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, method, interrupted)
        stopped = run("pack", "build", recipe, "--data", toys, "--force")
    assert (stopped.exit_code, stopped.stderr.splitlines()[-1]) == (
        130,
        "interrupted; finished steps are saved, and the same command resumes after them",
    )
    assert not (tmp_path / "second/cache/packs/toys").exists()
    assert run("pack", "build", recipe, "--data", toys).exit_code == 0
    assert content(tmp_path / "second/cache/packs/toys") == expected
    left = {p.suffix for p in (tmp_path / "second/cache").rglob("*") if p.is_file() and "packs" not in p.parts}
    assert left <= {".safetensors", ".lock"}


@pytest.mark.parametrize("calls", [3, 30, 60])
def test_a_full_disk_stops_a_build_and_loses_nothing(whole, run, recipe, toys, monkeypatch, tmp_path, calls):
    monkeypatch.setenv("SGLORA_HOME", str(tmp_path / "second"))
    monkeypatch.setattr(tensors_module, "SECONDS", 0)
    original, writes = tensor_rows.TensorDraft._write, []

    def full(*args):
        writes.append(1)
        if len(writes) > calls:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(tensor_rows.TensorDraft, "_write", full)
        stopped = run("pack", "build", recipe, "--data", toys)
    assert stopped.exit_code == 6
    error, hint = stopped.stderr.splitlines()[-2:]
    assert error.startswith("error: cannot write ")
    assert error.endswith(".part: No space left on device")
    assert hint == "hint: free some space, or move the cache with SGLORA_HOME; completed work is kept"
    assert run("pack", "build", recipe, "--data", toys).exit_code == 0
    assert content(tmp_path / "second/cache/packs/toys") == whole


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x20
    path.write_bytes(data)


@pytest.mark.slow
def test_whatever_changes_in_the_cache_between_two_builds_is_made_anew(run, recipe, toys, own_home, tiny):
    """The pack has the same bytes although every file of features and steps was damaged in turn."""
    recipe.write_text(recipe.read_text().replace("[train]", WARM))
    build = ("pack", "build", recipe, "--data", toys)
    assert run(*build).exit_code == 0
    expected, cache = content(own_home / "cache/packs/toys"), content(own_home / "cache")
    files = [name for name in cache if name.startswith(("features", "work")) and name.endswith(".safetensors")]
    assert len(files) > 9 + 3
    for name in [n for n in files if n.startswith("work")]:
        flip(own_home / "cache" / name)
        assert run(*build).exit_code == 0
        assert (own_home / "cache" / name).read_bytes() == cache[name]
    for name in files:
        flip(own_home / "cache" / name)
    assert run(*build).exit_code == 0
    assert content(own_home / "cache/packs/toys") == expected


@pytest.mark.parametrize("kind", [".checkpoint", ".part"])
def test_damage_to_an_unfinished_step_is_noticed(whole, run, recipe, toys, own_home, monkeypatch, tmp_path, kind):
    monkeypatch.setenv("SGLORA_HOME", str(tmp_path / "second"))
    monkeypatch.setattr(tensors_module, "SECONDS", 0)
    original = training.OwnTraining.advance

    def interrupted(self):
        if self.epoch == 4:  # of six, the last four are kept
            raise KeyboardInterrupt
        return original(self)

    with monkeypatch.context() as patch:
        patch.setattr(training.OwnTraining, "advance", interrupted)
        assert run("pack", "build", recipe, "--data", toys).exit_code == 130
    (file,) = (tmp_path / "second/cache/work").glob(f"*{kind}")
    if kind == ".part":
        data = bytearray(file.read_bytes())
        data[-1] ^= 0x20
        file.write_bytes(data)
        result = run("pack", "build", recipe, "--data", toys)
        assert result.exit_code == 4
        assert result.stderr.splitlines()[-1] == "hint: run the command again to recreate it"
    else:
        flip(file)
    assert run("pack", "build", recipe, "--data", toys).exit_code == 0
    assert content(tmp_path / "second/cache/packs/toys") == whole


@pytest.mark.parametrize("damage", ["a byte of a fitted generator", "nothing"])
def test_a_generator_that_was_fitted_is_fitted_again_only_if_its_file_changed(
    whole, run, recipe, toys, monkeypatch, tmp_path, damage
):
    from sglora_cvae import Cvae

    monkeypatch.setenv("SGLORA_HOME", str(tmp_path / "second"))
    fits, fit = [], Cvae.fit
    monkeypatch.setattr(Cvae, "fit", lambda *args: (fits.append(1), fit(*args))[1])

    def stops(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "write_manifest", stops)
        assert run("pack", "build", recipe, "--data", toys).exit_code == 130
    if damage != "nothing":
        fitted = [p for p in (tmp_path / "second/cache/work").glob("*.safetensors") if "health" in read_metadata(p)]
        flip(*fitted)
    assert run("pack", "build", recipe, "--data", toys).exit_code == 0
    assert len(fits) == 1 + (damage != "nothing")
    assert content(tmp_path / "second/cache/packs/toys") == whole


KILLED = """
import sys, sglora_cli.files.tensors
sglora_cli.files.tensors.SECONDS = 0
from sglora_cli.cli.main import main
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_killed_build_goes_on_with_the_same_bytes(whole, recipe, toys, tmp_path, monkeypatch):
    """Killed at moments nobody chose, until it comes to its end."""
    monkeypatch.setenv("SGLORA_HOME", str(tmp_path / "second"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    command = [sys.executable, "-c", KILLED, "pack", "build", str(recipe), "--data", str(toys)]
    kills = 0
    for seconds in (1.0, 2.0, 2.5, 3.0, 3.5, 4.0, 6.0, 9.0, 600.0):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            _, said = process.communicate(timeout=seconds)
            assert process.returncode == 0, said
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
    assert kills
    assert content(tmp_path / "second/cache/packs/toys") == whole
    assert [p.name for p in (tmp_path / "second/cache/packs").iterdir()] == ["toys"]


def test_a_build_replaces_a_pack_as_it_was_built_and_nothing_else(run, recipe, toys, toy_pack, own_home, tmp_path):
    build = ("pack", "build", recipe, "--data", toys)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("precious")
    refused = run(*build, "-o", mine)
    assert (refused.exit_code, refused.stderr.splitlines()[-2:]) == (
        2,
        [f"error: {mine} exists and is not a pack", "hint: choose another name with -o"],
    )
    assert (mine / "notes.txt").read_text() == "precious"

    pack = own_home / "cache/packs/toys"
    (pack / "notes.txt").write_text("precious")
    assert f"error: {pack} has files that do not belong to the pack: notes.txt" in run(*build).stderr
    (pack / "notes.txt").unlink()
    (pack / "gauge.safetensors").write_bytes(b"damaged")
    assert run(*build).exit_code == run("pack", "verify", "toys").exit_code == 0

    assert run("pack", "remove", "toys", "toys/ball", "--yes").exit_code == 0
    refused = run(*build)
    assert refused.exit_code == 2
    assert (
        "and a build would undo this change: removed expert toys/ball\nhint: remove it (sglora pack remove"
        in refused.stderr
    )
    assert "toys/ball" not in Pack(pack).experts.names


def test_an_expert_is_the_mean_and_variance_of_its_states(toy_pack, own_home):
    pack = Pack(own_home / "cache/packs/toys")
    states = trained(own_home)
    for row, name in enumerate(pack.experts.names):
        x = states[name]
        assert x.shape == (4, pack.layout.size)
        assert torch.allclose(pack.experts.means([row])[0], x.mean(dim=0), atol=1e-6)
        assert torch.allclose(pack.experts.variances([row])[0], x.var(dim=0, correction=0), atol=1e-6)


@pytest.fixture
def starts(monkeypatch) -> list[torch.Tensor]:
    """Where groups of tasks started from, as they start."""
    starts_P = []

    class Watched(training.OwnTraining):
        def __init__(self, model, layout, tasks, config, start_P):
            starts_P.append(start_P)
            super().__init__(model, layout, tasks, config, start_P)

    monkeypatch.setattr(steps, "OwnTraining", Watched)
    monkeypatch.setattr(pipeline.Build, "estimate", lambda self: NOTHING)  # it trains a little, too
    return starts_P


def test_every_task_starts_from_the_warm_up_of_the_experts(run, tiny, toys, recipe, own_home, starts):
    recipe.write_text(recipe.read_text().replace("[train]", WARM))
    assert run("pack", "build", recipe, "--data", toys, "--json").exit_code == 0
    assert len(starts) == 3
    warm_P = trained(own_home)["start"]
    assert all(torch.equal(start_P, warm_P) for start_P in starts)
    assert not torch.allclose(warm_P, Pack(own_home / "cache/packs/toys").layout.initial(0))


def test_without_a_warm_up_every_task_starts_from_the_initial_adapter(run, tiny, toys, recipe, own_home, starts):
    assert run("pack", "build", recipe, "--data", toys, "--json").exit_code == 0
    initial_P = Pack(own_home / "cache/packs/toys").layout.initial(0)
    assert len(starts) == 3
    assert all(torch.equal(start_P, initial_P) for start_P in starts)


def test_a_warm_up_is_not_done_twice(run, tiny, toys, recipe, own_home, monkeypatch):
    recipe.write_text(recipe.read_text().replace("[train]", WARM))
    assert run("pack", "build", recipe, "--data", toys).exit_code == 0
    expected = content(own_home / "cache/packs/toys")
    (start,) = (p for p in (own_home / "cache/work").glob("*.safetensors") if read_metadata(p)["kind"] == "start")
    modified = start.stat().st_mtime_ns
    assert "already trained: 9 tasks" in run("pack", "build", recipe, "--data", toys).stderr
    assert content(own_home / "cache/packs/toys") == expected
    recipe.write_text(recipe.read_text().replace("epochs = 6", "epochs = 5", 1))  # other adapters, the same warm-up
    assert "before" not in run("pack", "build", recipe, "--data", toys).stderr
    assert start.stat().st_mtime_ns == modified


def test_another_expert_is_another_start_for_all(run, tiny, toys, recipe, own_home):
    recipe.write_text(recipe.read_text().replace("[train]", WARM))
    assert run("pack", "build", recipe, "--data", toys).exit_code == 0
    recipe.write_text(recipe.read_text().replace(f', "{EXPERTS[-1]}"]', "]"))
    assert "before" not in run("pack", "build", recipe, "--data", toys).stderr


def test_nothing_is_written_by_a_dry_run(run, tiny, toys, recipe, own_home):
    result = run("pack", "build", recipe, "--data", toys, "--dry-run")
    assert result.exit_code == 0
    assert result.stdout.startswith(
        "pack 'toys' for backbone 'tiny': "
        "4 experts (20 photos), 3 training tasks (15 photos), 2 unseen tasks (16 photos)\n"
    )
    assert "\n10 LoRAs, about " in result.stdout
    assert not (own_home / "cache").exists()


def test_a_build_says_that_it_replaces_the_pack_of_another_recipe(run, toy_pack, toys, recipe, tmp_path, own_home):
    again = run("pack", "build", recipe, "--data", toys)
    assert "replacing the pack" not in again.stderr
    (tmp_path / "other").mkdir()
    other = tmp_path / "other/toys.toml"
    other.write_text(recipe.read_text().replace("epochs = 6", "epochs = 5"))
    result = run("pack", "build", other, "--data", toys)
    assert result.exit_code == 0
    place = own_home / "cache/packs/toys"
    assert f"replacing the pack in {place}, which was built from a different recipe or version of it" in result.stderr


def test_a_recipe_can_be_built_for_another_backbone(run, clipling, toys, recipe, own_home):
    result = run("pack", "build", recipe, "--data", toys, "--backbone", "clipling")
    assert result.exit_code == 0, result.output
    manifest = json.loads((own_home / "cache/packs/toys/pack.json").read_text())
    assert (manifest["backbone"], manifest["recipe"]["backbone"]) == ("clipling", "clipling")


def test_a_dry_run_counts_the_warm_up(run, tiny, toys, recipe):
    recipe.write_text(recipe.read_text().replace("[train]", WARM))
    facts = json.loads(run("pack", "build", recipe, "--data", toys, "--dry-run", "--json").stdout)
    assert facts["adapters_to_train"] == 11
    assert [stage["name"] for stage in facts["stages"]] == ["features", "warm-up", "adapters", "joint", "cvae"]


def test_a_pack_of_one_expert_has_a_joint_adapter_too(run, tiny, toys, tmp_path):
    recipe = tmp_path / "one.toml"
    recipe.write_text(
        'backbone = "tiny"\ndefault_generator = "top-k"\n[train]\nepochs = 2\nstates = 2\n[prior]\nk = 1\n'
        '[[source]]\nname = "toys"\nexpert = ["ball"]\nunseen = ["mug"]\n'
    )
    assert run("pack", "build", recipe, "--data", toys).exit_code == 0
    assert run("bench", "--pack", "one", "--baselines", "joint,top-k").exit_code == 0


def test_a_description_that_would_be_cut_stops_the_build(run, tiny, toys, recipe, own_home, monkeypatch):
    import sglora_tiny

    def check_text(self, text):
        if "nest" in text:
            raise Mismatch("the sentence has 99 tokens, more than 77", "shorten it")

    monkeypatch.setattr(sglora_tiny.TinyModel, "check_text", check_text, raising=False)
    result = run("pack", "build", recipe, "--data", toys)
    assert (result.exit_code, result.stderr) == (
        5,
        "error: the sentence has 99 tokens, more than 77\nhint: shorten it\n",
    )
    assert not (own_home / "cache").exists()


def test_seen_tasks_may_learn_from_all_their_photos_and_from_mirrored_ones(run, recipe, toys, own_home, tiny):
    text = recipe.read_text().replace("[train]", "[train]\nmirror = 0.5")
    recipe.write_text(text.replace('name = "toys"', 'name = "toys"\nwhole = true'))
    assert run("pack", "build", recipe, "--data", toys).exit_code == 0
    tasks = Pack(own_home / "cache/packs/toys").tasks
    counts = {role: {(t["train_photos"], t["test_photos"]) for t in tasks.of(role)} for role in ROLES}
    assert counts == {"expert": {(8, 0)}, "training": {(8, 0)}, "unseen": {(5, 3)}}
    stored = list((own_home / "cache/features").glob("*.safetensors"))
    assert len(stored) == 2 * len(tasks) + 2  # and two tests
    assert run("bench", "--baselines", "oracle,top-k,cvae").exit_code == 0


def test_a_backbone_that_cannot_hide_is_refused_before_anything_is_trained(run, recipe, toys, own_home, tiny):
    recipe.write_text(recipe.read_text().replace("[train]", "[train]\nhide = 0.5"))
    refused = run("pack", "build", recipe, "--data", toys)
    assert refused.exit_code == 5
    assert refused.stderr.splitlines() == [
        "error: this backbone cannot hide parts of photos",
        "hint: set hide = 0 in the recipe, or remove hide",
    ]
    assert not (own_home / "cache/work").exists()


def test_a_pack_is_written_where_a_link_leads(run, tiny, toys, recipe, tmp_path):
    real, link = tmp_path / "disk/pack", tmp_path / "pack"
    link.symlink_to(real)
    for _ in range(2):
        assert run("pack", "build", recipe, "--data", toys, "-o", link).exit_code == 0
        assert link.is_symlink()
        assert Pack(real).verify() == []
