"""A build that is interrupted goes on, and ends with the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from sglora_cli import building
from sglora_cli.packs import Pack


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


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
    from sglora_cli.files import load_tensors

    states = {}
    for path in (own_home / "cache/work").glob("*.safetensors"):
        tensors, about = load_tensors(path)
        states[about.get("task", "joint")] = tensors
    for row, name in enumerate(pack.experts.names):
        x = states[name]["states"]
        assert x.shape == (4, pack.layout.size)
        assert torch.allclose(pack.experts.means([row])[0], x.mean(dim=0), atol=1e-6)
        assert torch.allclose(pack.experts.variances([row])[0], x.var(dim=0, correction=0), atol=1e-6)


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
