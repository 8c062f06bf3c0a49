"""Diffusion and flow matching over adapters: what is told, guided, stored, refused and resumed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from killers import Kill, Killer
from worlds import World

from sglora_cli.errors import BadFile, UnknownName, UsageError
from sglora_cli.plugin.testing.toys import LAYOUT, ToyExperts, material
from sglora_flow import sglora_generators
from sglora_flow.network import Network, time_numbers
from sglora_flow.paths import path_of

FLOWS = {one.name: one for one in sglora_generators()}
QUICK = {"width": 16, "blocks": 1, "epochs": 20, "steps": 8}


def fitted(name, checkpoint=None, **settings):
    made = replace(material(ToyExperts()), checkpoint=checkpoint)
    return FLOWS[name].fit(made, {**QUICK, **settings})


def drawn(flow, row=7, samples=2, seed=5, temperature=1.0):
    return flow.generate(ToyExperts().prior(row), samples, seed, temperature)


@pytest.mark.parametrize(("name", "knows"), [("flow", True), ("p-diff", False), ("cond-p-diff", True), ("d2nwg", True)])
def test_those_with_a_condition_know_the_sentence(name, knows):
    flow, _ = fitted(name)
    assert torch.equal(drawn(flow, row=7), drawn(flow, row=8)) is not knows


def test_told_the_sentence_it_knows_nothing_of_the_experts_means():
    flow, _ = fitted("cond-p-diff")
    prior = ToyExperts().prior(7)
    other = replace(prior, mean_P=torch.zeros_like(prior.mean_P), variance_P=torch.ones_like(prior.mean_P))
    assert torch.equal(flow.generate(prior, 1, 0, 1.0), flow.generate(other, 1, 0, 1.0))


def test_guidance_1_is_none_and_guidance_0_ignores_the_sentence():
    flow, _ = fitted("d2nwg", learning_rate=0.02, epochs=100)
    plain, free = (replace(flow, config=replace(flow.config, guidance=g)) for g in (1.0, 0.0))
    assert not torch.allclose(drawn(flow), drawn(plain), atol=1e-3)
    assert torch.allclose(drawn(free, row=7), drawn(free, row=8), atol=1e-5)
    one = replace(plain, config=replace(plain.config, guidance=1 + 1e-9))
    assert torch.allclose(drawn(one), drawn(plain), atol=1e-4)


def test_guidance_without_what_it_needs_is_refused():
    with pytest.raises(UsageError, match="guidance 2 needs a condition"):
        fitted("p-diff", guidance=2.0)
    with pytest.raises(UsageError, match="guidance 2 needs states trained without their condition") as error:
        fitted("flow", guidance=2.0)
    assert error.value.hint == "set drop = 0.1"
    with pytest.raises(UnknownName):
        fitted("flow", steeps=3)
    with pytest.raises(UsageError, match="objective"):
        fitted("flow", objective="score")


def test_a_network_untrained_draws_from_the_states_own_normal_distribution():
    world = World()
    flow, facts = FLOWS["p-diff"].fit(world.material(), {**QUICK, "learning_rate": 0.0, "steps": 100})
    made = flow.generate(world.prior(0), 4000, 0, 1.0)
    states = world.states_TMP.flatten(0, 1)
    own, other = (flow.scaling.inward(rows) for rows in (made, states))
    assert torch.allclose(own.mean(0), other.mean(0), atol=0.1 * float(other.std(0).max()))
    assert torch.allclose(own.std(0), other.std(0), rtol=0.1, atol=0.02 * float(other.std(0).max()))
    assert facts["loss"] < facts["loss_of_constant"]


def test_the_loss_of_a_constant_is_what_the_mean_errs():
    world = World()
    for name in FLOWS:
        flow, facts = FLOWS[name].fit(world.material(), {**QUICK, "epochs": 1})
        x = flow.coordinate.inward(flow.scaling.inward(world.states_TMP.flatten(0, 1)))
        rng = torch.Generator().manual_seed(0)
        noise = torch.randn(x.shape, generator=rng)
        _, way = path_of(flow.config).at(torch.rand(len(x), generator=rng), x, noise)
        assert facts["loss_of_constant"] == pytest.approx(float((way - way.mean(0)).square().mean()), rel=0.05)


def test_a_training_that_diverged_is_seen_in_its_numbers():
    _, facts = fitted("flow", learning_rate=1e3)
    assert not facts["loss"] < facts["loss_of_constant"]


@pytest.mark.parametrize("name", FLOWS)
def test_of_one_task_it_draws_that_tasks_adapters_for_every_sentence(name):
    made = material(ToyExperts())
    one = replace(made, tasks=made.tasks[:1], priors=made.priors[:1])
    flow, _ = FLOWS[name].fit(one, QUICK)
    states = made.states(0)
    for row in (7, 8):
        away = (drawn(flow, row) - states.mean(0)).norm(dim=1)
        assert float(away.max()) < 10 * float((states - states.mean(0)).norm(dim=1).max())


def test_what_a_pack_keeps_draws_the_same_bit_for_bit():
    for name in FLOWS:
        flow, _ = fitted(name)
        again = FLOWS[name].restore(ToyExperts(), flow.tensors())
        assert torch.equal(drawn(flow), drawn(again))


@pytest.mark.parametrize(
    "damage",
    [
        {"config": None},
        {"basis": None},
        {"network.leave.weight": None},
        {"centre": torch.zeros(3)},
        {"coordinate.centre": torch.zeros(3)},
        {"variance": torch.zeros(1)},
        {"condition.centre": torch.zeros(5)},
        {"config": torch.tensor(list(b"[]"), dtype=torch.uint8)},
        {"config": torch.tensor(list(b'{"width": 1000000000}'), dtype=torch.uint8)},
        {"config": torch.tensor([255], dtype=torch.uint8)},
    ],
    ids=lambda damage: f"{next(iter(damage))}",
)
def test_tensors_that_do_not_fit_are_refused(damage):
    flow, _ = fitted("flow")
    tensors = {k: v for k, v in {**flow.tensors(), **damage}.items() if v is not None}
    with pytest.raises(BadFile, match="not the tensors of a flow for this pack"):
        FLOWS["flow"].restore(ToyExperts(), tensors)


def test_a_killed_training_goes_on_with_the_same_bytes(tmp_path):
    checkpoint = Killer(tmp_path / "x.checkpoint", (1, 11))
    for _ in range(2):
        with pytest.raises(Kill):
            fitted("d2nwg", checkpoint)
    resumed, whole = fitted("d2nwg", checkpoint), fitted("d2nwg")
    assert resumed[1] == whole[1]
    for name, tensor in whole[0].tensors().items():
        assert torch.equal(tensor, resumed[0].tensors()[name]), name


@pytest.mark.parametrize("name", FLOWS)
def test_what_it_will_need_is_its_size(name):
    cost = FLOWS[name].cost(LAYOUT, 6, 5, {**QUICK, "projection": 9})
    flow, facts = fitted(name, projection=9)
    if name in ("flow", "p-diff"):  # of an embedding the width is a guess
        assert cost["parameters"] == facts["parameters"]
        stored = sum(x.numel() * x.element_size() for key, x in flow.tensors().items() if key != "config")
        assert cost["stored_bytes"] == pytest.approx(stored, abs=64)
    assert cost["bytes"] > 16 * cost["parameters"]
    assert cost["seconds"] > 0


def test_the_time_is_told_by_sines_and_cosines():
    numbers = time_numbers(torch.tensor([0.0, 0.5]))
    assert torch.equal(numbers[0], torch.cat([torch.zeros(32), torch.ones(32)]))
    assert float(numbers[1, 0]) == pytest.approx(float(torch.tensor(500.0).sin()), abs=1e-4)


def test_at_the_start_a_network_says_nothing():
    network = Network(size=4, condition=3, width=8, blocks=2)
    assert torch.equal(network(torch.randn(2, 4), torch.rand(2), torch.randn(2, 3)), torch.zeros(2, 4))


@pytest.mark.slow
def test_a_pack_with_it_is_built_and_asked(run, tiny, toys, recipe, tmp_path):
    table = "[generators.d2nwg]\nwidth = 16\nblocks = 1\nepochs = 50\nsteps = 10\nheld_out = 2\n[[source]]"
    recipe.write_text(recipe.read_text().replace("[[source]]", table))
    planned = run("pack", "build", recipe, "--data", toys, "--dry-run").stdout
    line = next(line for line in planned.splitlines() if line.startswith("d2nwg"))
    assert " parameters, " in line
    built = run("pack", "build", recipe, "--data", toys)
    assert built.exit_code == 0, built.stderr
    shown = json.loads(run("pack", "show", "toys", "--json").stdout)
    facts = shown["generators"]["d2nwg"]
    assert facts["held_out"]["folds"] == 2
    assert facts["trained_on"] == {"tasks": 3, "states": 4}
    assert shown["health"]["d2nwg"]["faults"] == []
    made = run("generate", "a red mug", "--pack", "toys", "--generator", "d2nwg", "-o", tmp_path / "x.safetensors")
    assert made.exit_code == 0
