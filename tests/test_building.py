"""A build that is interrupted goes on, and ends with the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from conftest import EXPERTS

from sglora_cli import building
from sglora_cli.errors import Mismatch
from sglora_cli.files import load_tensors
from sglora_cli.packs import Pack
from sglora_cli.training import train_tasks, warm_up

WARM = "[train]\nwarmup_epochs = 3\njoint_learning_rate = 0.02"


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def kept(home: Path) -> dict[str, dict[str, torch.Tensor]]:
    """What a build left in the cache, by task; the warm-up's adapter under "start"."""
    found = {}
    for path in (home / "cache/work").glob("*.safetensors"):
        tensors, about = load_tensors(path)
        found[about.get("task", about["kind"])] = tensors
    return found


def test_an_interrupted_build_goes_on_with_the_same_bytes(run, tiny, toys, recipe, own_home, monkeypatch, tmp_path):
    assert run("pack", "build", recipe, "--data", toys).exit_code == 0
    whole = content(own_home / "cache/packs/toys")
    monkeypatch.setenv("SGLORA_HOME", str(tmp_path / "second"))
    trained = []

    def interrupted(*args):
        for n, (task, states) in enumerate(original(*args)):
            if n == 4:
                raise KeyboardInterrupt
            trained.append(task.name)
            yield task, states

    original = building.train_tasks
    monkeypatch.setattr(building, "train_tasks", interrupted)
    stopped = run("pack", "build", recipe, "--data", toys)
    assert (stopped.exit_code, stopped.stderr.splitlines()[-1]) == (130, "interrupted; finished steps are kept")
    assert not (tmp_path / "second/cache/packs/toys").exists()
    monkeypatch.setattr(building, "train_tasks", original)
    resumed = run("pack", "build", recipe, "--data", toys)
    assert "4 tasks were trained before" in resumed.stderr
    assert content(tmp_path / "second/cache/packs/toys") == whole
    assert len(trained) == 4


def test_an_expert_is_the_mean_and_variance_of_its_states(toy_pack, own_home):
    pack = Pack(own_home / "cache/packs/toys")
    states = kept(own_home)
    for row, name in enumerate(pack.experts.names):
        x = states[name]["states"]
        assert x.shape == (4, pack.layout.size)
        assert torch.allclose(pack.experts.means([row])[0], x.mean(dim=0), atol=1e-6)
        assert torch.allclose(pack.experts.variances([row])[0], x.var(dim=0, correction=0), atol=1e-6)


def test_every_task_starts_from_the_warm_up_of_the_experts(run, tiny, toys, recipe, own_home, monkeypatch):
    starts, warmed_on = [], []

    def trained(model, layout, tasks, config, start_P):
        starts.append(start_P)
        return train_tasks(model, layout, tasks, config, start_P)

    def warm(model, layout, tasks, config):
        warmed_on.append([task.name for task in tasks])
        return warm_up(model, layout, tasks, config)

    monkeypatch.setattr(building, "train_tasks", trained)
    monkeypatch.setattr(building, "warm_up", warm)
    recipe.write_text(recipe.read_text().replace("[train]", WARM))
    assert run("pack", "build", recipe, "--data", toys).exit_code == 0
    assert warmed_on == [[f"toys/{name}" for name in EXPERTS]]
    (start_P,) = starts
    assert torch.equal(start_P, kept(own_home)["start"]["start"])


def test_a_warm_up_is_not_done_twice(run, tiny, toys, recipe, own_home, monkeypatch):
    recipe.write_text(recipe.read_text().replace("[train]", WARM))
    assert run("pack", "build", recipe, "--data", toys).exit_code == 0
    whole = content(own_home / "cache/packs/toys")
    monkeypatch.setattr(building, "warm_up", None)
    assert "9 tasks were trained before" in run("pack", "build", recipe, "--data", toys).stderr
    assert content(own_home / "cache/packs/toys") == whole
    recipe.write_text(recipe.read_text().replace("epochs = 6", "epochs = 5", 1))  # other adapters, the same warm-up
    assert "before" not in run("pack", "build", recipe, "--data", toys).stderr


def test_another_expert_is_another_start_for_all(run, tiny, toys, recipe, own_home):
    recipe.write_text(recipe.read_text().replace("[train]", WARM))
    assert run("pack", "build", recipe, "--data", toys).exit_code == 0
    recipe.write_text(recipe.read_text().replace(f', "{EXPERTS[-1]}"]', "]"))
    assert "before" not in run("pack", "build", recipe, "--data", toys).stderr


def test_without_a_warm_up_every_task_starts_from_the_initial_adapter(run, tiny, toys, recipe, monkeypatch):
    starts = []

    def trained(model, layout, tasks, config, start_P):
        starts.append((start_P, layout.initial(config.seed)))
        return train_tasks(model, layout, tasks, config, start_P)

    monkeypatch.setattr(building, "train_tasks", trained)
    assert run("pack", "build", recipe, "--data", toys).exit_code == 0
    ((start_P, initial_P),) = starts
    assert torch.equal(start_P, initial_P)


def test_nothing_is_written_by_a_dry_run(run, tiny, toys, recipe, own_home):
    result = run("pack", "build", recipe, "--data", toys, "--dry-run")
    assert result.exit_code == 0
    assert '"adapters_to_train": 10' in result.stdout
    assert not (own_home / "cache").exists()


def test_a_recipe_can_be_built_for_another_backbone(run, clipling, toys, recipe, own_home):
    result = run("pack", "build", recipe, "--data", toys, "--backbone", "clipling")
    assert result.exit_code == 0, result.output
    manifest = json.loads((own_home / "cache/packs/toys/pack.json").read_text())
    assert (manifest["backbone"], manifest["recipe"]["backbone"]) == ("clipling", "clipling")


def test_a_dry_run_counts_the_warm_up(run, tiny, toys, recipe):
    recipe.write_text(recipe.read_text().replace("[train]", WARM))
    assert '"adapters_to_train": 11' in run("pack", "build", recipe, "--data", toys, "--dry-run").stdout


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
