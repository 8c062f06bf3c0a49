"""Sums of generators: `joint+all-but-the-task` has the updates of both."""

from __future__ import annotations

import json

import pytest
import torch

from sglora_cli.adapter.file import load_adapter
from sglora_cli.errors import UsageError
from sglora_cli.plugin.combined import Combined, FittedCombined, parts_of
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.testing.toys import LAYOUT


def test_a_plus_within_a_number_does_not_separate():
    assert parts_of("ties:density=0.5+joint") == ["ties:density=0.5", "joint"]
    assert parts_of("all-but-the-task:strength=1e+0") == ["all-but-the-task:strength=1e+0"]


def test_a_sum_is_named_after_its_parts():
    combined = Host.load().generators["cvae+all-but-the-task:strength=0.5"]
    assert combined.name == "cvae+all-but-the-task:strength=0.5"
    assert combined.label == "SG-LoRA + All-but-the-task (strength=0.5)"
    assert (combined.learns, combined.draws, combined.needs) == (False, True, "")


def test_what_looks_at_data_cannot_be_summed():
    generators = Host.load().generators
    with pytest.raises(UsageError, match="'semla' uses the unseen task's data and cannot be combined"):
        Combined([generators["joint"], generators["semla"]])


def test_the_parts_of_a_sum_move_to_a_device_where_they_can():
    class Stays:
        pass

    class Moves:
        def on_device(self, device):
            return device

    stays = Stays()
    moved = FittedCombined([stays, Moves()], LAYOUT).on_device(torch.device("cuda"))
    assert moved == FittedCombined([stays, torch.device("cuda")], LAYOUT)


def test_two_generators_of_the_same_sites_are_refused(run, toy_pack):
    result = run("generate", "a photo of a mug", "--generator", "joint+top-k")
    assert result.exit_code == 5
    assert result.stderr.startswith("error: both adapters update ")
    assert "hint: combine only generators with different sites\n" in result.stderr


def test_an_unknown_part_is_named(run, toy_pack):
    result = run("generate", "a photo of a mug", "--generator", "joint+all-but-the-tusk")
    assert result.exit_code == 3
    assert "no generator named 'all-but-the-tusk'" in result.stderr


@pytest.fixture
def clip_pack(clipling, toys, recipe, run):
    """The toy pack, small, for a backbone with a projection."""
    result = run("pack", "build", recipe, "--data", toys, "--backbone", "clipling", "--limit", 2)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()[-1]


def test_the_parts_of_a_sum_are_what_the_generators_make_alone(clip_pack, run, tmp_path):
    made = {}
    for name in ("joint", "all-but-the-task", "joint+all-but-the-task"):
        path = tmp_path / f"{len(made)}.safetensors"
        result = run("generate", "a photo of a mug", "--generator", name, "--pack", clip_pack, "-o", path)
        assert result.exit_code == 0, result.output
        adapter = load_adapter(path)
        parts = adapter.layout.split(adapter.flat_P.double())
        made[name] = {site: adapter.layout.scaling * b @ a for site, (b, a) in parts.items()}
    alone = made["joint"] | made["all-but-the-task"]
    assert list(alone) == list(made["joint+all-but-the-task"])
    assert list(made["all-but-the-task"]) == ["visual_projection"]
    for site, dense in made["joint+all-but-the-task"].items():
        torch.testing.assert_close(dense, alone[site], rtol=1e-5, atol=1e-7)


def test_bench_measures_sums_and_what_chooses_its_sites(clip_pack, run):
    wanted = "zero-shot,joint,all-but-the-task,joint+all-but-the-task"
    report = json.loads(run("bench", "--pack", clip_pack, "--baselines", wanted, "--json").stdout)
    assert set(report["averages"]) == {*wanted.split(","), "chance"}
    assert {gain["method"] for gain in report["sentence_gains"]} == {"all-but-the-task", "joint+all-but-the-task"}


def test_a_sum_depends_on_the_sentence_if_one_of_its_parts_does(clip_pack, run, tmp_path):
    call = ("generate", "a photo of a mug", "--pack", clip_pack, "--json", "--explain")
    said = {
        name: json.loads(run(*call, "--generator", name).stdout)["explained"]["dependence"]
        for name in ("joint", "all-but-the-task", "joint+all-but-the-task")
    }
    assert said["joint"]["cosine"] == pytest.approx(1.0)
    assert said["all-but-the-task"]["cosine"] < 0.99
    both = said["joint+all-but-the-task"]
    assert (both["cosine"], both["own"]) == pytest.approx(
        (said["all-but-the-task"]["cosine"], said["all-but-the-task"]["own"]), abs=1e-5
    )
    assert both["where"] == "visual_projection"
    assert "adapters for 2 tasks at visual_projection have a mean cosine of" in both["line"]


def test_no_prior_ranks_the_draws_of_other_sites(clip_pack, run):
    result = run("generate", "a mug", "--generator", "all-but-the-task", "--pack", clip_pack, "--best", 1)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "differ from the experts'" in result.stderr
