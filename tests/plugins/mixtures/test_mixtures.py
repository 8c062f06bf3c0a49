"""Mixtures of experts: folding is exact, learning finds the mixture of a known world, and too little is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from mixture_world import SITES, World, by_experts, by_sentence, dense, flattened, randn

from sglora_cli.api import BadFile, Mismatch
from sglora_cli.plugin.testing.toys import EXPERTS, LAYOUT, TASKS, ToyExperts, ToyPool, material
from sglora_mixtures import sglora_generators
from sglora_mixtures.mixture import Asked, exact, exact_layout, fold, folded_layout
from sglora_mixtures.mole import Gates
from sglora_mixtures.rar import Coefficients, sketches

MOLE, RAR = sglora_generators()
BOTH = pytest.mark.parametrize("method", [MOLE, RAR], ids=lambda m: m.name)
QUICK = {"steps": 16, "tasks": 4, "photos": 4}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "truth", "rate"), [(MOLE, by_sentence, 0.02), (RAR, by_experts, 3e-3)], ids=["mole", "lora-rar"]
)
def test_in_a_world_of_mixtures_it_finds_those_of_unseen_sentences(method, truth, rate):
    world = World(truth)
    fitted, facts = method.fit(world.material(), {"learning_rate": rate, "steps": 250})
    errors = world.errors(fitted)
    learned = errors.pop("learned")
    assert learned < 0.6 * min(errors.values())
    assert facts["loss"] < 0.25 * facts["loss_at_start"]


def some(count, experts=5, seed=6):
    """Random experts, and which are mixed and how for two sentences."""
    layout, rng = World.layout, torch.Generator().manual_seed(seed)
    rows_Tn = torch.stack([torch.randperm(experts, generator=rng)[:count] for _ in range(2)])
    return layout, randn(experts, layout.size, seed=seed), rows_Tn, randn(2, len(SITES), count, seed=seed + 1)


def test_factors_are_exactly_the_sum_of_updates():
    layout, means_EP, rows_Tn, coefficient_TSn = some(3)
    mixed_TQ = exact(layout, means_EP, rows_Tn, coefficient_TSn)
    for t in range(2):
        for s, made in enumerate(dense(exact_layout(layout, 3), mixed_TQ[t])):
            updates = [dense(layout, means_EP[row])[s] for row in rows_Tn[t]]
            summed = sum(float(c) * update for c, update in zip(coefficient_TSn[t, s], updates, strict=True))
            torch.testing.assert_close(made, summed, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 3, 6, 0], ids=lambda rank: f"rank {rank}")
def test_folding_gives_the_nearest_update_of_its_rank(rank):
    layout, *given = some(3)
    whole = exact_layout(layout, 3)
    mixed_TQ = exact(layout, *given)
    folded = folded_layout(layout, 3, rank)
    assert folded.rank == (rank or 6)
    folded_TQ, error = fold(whole, mixed_TQ, folded)
    errors = []
    for mixed_Q, made_Q in zip(mixed_TQ, folded_TQ, strict=True):
        lost = total = 0.0
        for before, after in zip(dense(whole, mixed_Q), dense(folded, made_Q), strict=True):
            u, s, vh = torch.linalg.svd(before, full_matrices=False)
            kept = (u * s)[:, : folded.rank] @ vh[: folded.rank]
            torch.testing.assert_close(after, kept, rtol=1e-4, atol=1e-4)
            lost, total = lost + float((before - after).square().sum()), total + float(before.square().sum())
        errors.append(math.sqrt(lost / total))
    assert error == pytest.approx(max(errors), rel=1e-3, abs=1e-5)


def test_what_is_made_has_no_higher_rank_than_the_exact_mixture_or_a_site():
    assert folded_layout(World.layout, 2, 8).rank == 4
    assert folded_layout(World.layout, 50, 0).rank == 6  # the widest site is 6 x 7
    assert folded_layout(World.layout, 4, 5).scaling == World.layout.scaling


def networks():
    """Both, with parameters that are nowhere 0, and the same at every call."""
    gates = Gates(len(SITES), World.experts, World.width, balance=0.5)
    layout, means_EP = World.layout, randn(World.experts, World.layout.size, seed=2)
    found = gates, Coefficients(sketches(layout, means_EP, 3), 16, shrink=0.01)
    for network in found:
        for n, parameter in enumerate(network.parameters()):
            parameter.data = 0.2 * randn(*parameter.shape, seed=n)
    gates.temperature_S.data = torch.linspace(1.0, 2.0, len(SITES))
    return found


def asked_of(world, rows):
    return Asked.of(world.asked(row) for row in rows)


def test_the_gradient_reaches_every_number_of_every_site():
    world = World(by_sentence)
    for network in networks():
        rows_Tn, coefficient_TSn = network(asked_of(world, range(8)))
        mixed_TQ = exact(world.layout, world.mean_EP, rows_Tn, coefficient_TSn)
        layout = exact_layout(world.layout, rows_Tn.shape[1])
        (to_coefficients,) = torch.autograd.grad(
            world.losses(layout, mixed_TQ, range(8), 2, None).sum(), coefficient_TSn, retain_graph=True
        )
        assert bool((to_coefficients != 0).all())
        world.losses(layout, mixed_TQ, range(8), 2, None).sum().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None
            reached = parameter.grad != 0
            if name == "site_SH":  # a hidden unit may be off for all that was asked
                reached = reached.any(dim=1)
            assert bool(reached.all()) or name.startswith(("seen", "hidden", "last")), name


def test_gates_are_a_softmax_of_the_sentence():
    world, (gates, _) = World(by_sentence), networks()
    asked = asked_of(world, [0, 1])
    rows_Tn, gate_TSE = gates.requires_grad_(False)(asked)
    assert rows_Tn.tolist() == [list(range(World.experts))] * 2
    for t, s in ((0, 1), (1, 3)):
        x_D = (world.unit_TD[t] - gates.centre_D) / gates.unit
        logit_E = (gates.weight_SED[s] @ x_D + gates.bias_SE[s]) / gates.temperature_S[s]
        kept = [math.exp(float(logit)) for logit in logit_E]
        torch.testing.assert_close(gate_TSE[t, s], torch.tensor(kept) / sum(kept))


def test_the_balance_loss_is_that_of_the_paper_over_sites_and_sentences_and_least_where_gates_are_even():
    world, (gates, _) = World(by_sentence), networks()
    asked = asked_of(world, range(5))
    _, gate_TSE = gates.requires_grad_(False)(asked)
    use = [float(gate_TSE[..., e].sum()) / (5 * len(SITES)) for e in range(World.experts)]
    said = -0.5 * sum(math.log(World.experts * u) for u in use) / World.experts
    assert float(gates.penalty(asked)) == pytest.approx(said, rel=1e-4)
    even = Gates(4, World.experts, World.width, balance=0.5).requires_grad_(False)
    assert said > float(even.penalty(asked)) == pytest.approx(0.0, abs=1e-6)


def test_temperatures_act_where_the_sources_code_keeps_them_and_learn_beyond():
    gates = Gates(3, 2, 4)
    gates.weight_SED.data = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(1))
    embedding_TD = torch.randn(5, 4, generator=torch.Generator().manual_seed(2))
    gates.temperature_S.data = torch.tensor([0.2, 2.0, 9.0])
    found_TSE = gates.logits(embedding_TD)
    gates.temperature_S.data = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(found_TSE, gates.logits(embedding_TD))
    found_TSE.square().sum().backward()
    assert bool((gates.temperature_S.grad != 0).all())


def test_lora_rar_starts_from_the_weights_of_the_prior():
    world = World(by_experts)
    fitted, facts = RAR.fit(world.material(), {"learning_rate": 0, "steps": 1, "rank": 0})
    (made_Q,) = fitted.generate(asked := world.asked(85), 1, 0, 1.0)
    updates = [flattened(world.layout, world.mean_EP[row]) for row in asked.rows]
    summed = sum(float(a) * update for a, update in zip(asked.alpha_K, updates, strict=True))
    torch.testing.assert_close(flattened(fitted.own_layout, made_Q), summed, rtol=1e-4, atol=1e-4)
    assert facts["loss"] == facts["loss_at_start"]


def test_a_sketch_does_not_depend_on_the_choice_of_factors():
    layout, means_EP = World.layout, randn(3, World.layout.size, seed=2)
    turn_RR = torch.tensor([[2.0, 1.0], [0.5, 3.0]])
    turned = {n: (b @ turn_RR, turn_RR.inverse() @ a) for n, (b, a) in layout.split(means_EP).items()}
    torch.testing.assert_close(sketches(layout, means_EP, 4), sketches(layout, layout.join(turned), 4))


def test_experts_in_another_order_get_the_same_coefficients():
    world, (_, network) = World(by_experts), networks()
    asked = asked_of(world, [0, 1])
    other = Asked(asked.embedding_TD, *(x.flip(1) for x in (asked.rows_TK, asked.alpha_TK, asked.similarity_TK)))
    torch.testing.assert_close(network(asked)[1], network(other)[1].flip(-1))


@BOTH
def test_an_interrupted_fit_goes_on_as_if_nothing_had_happened(method):
    class Interrupted(Exception):
        pass

    class Kept:
        """A checkpoint after every step; the tenth is the last one before the machine stops."""

        state, due, left = None, True, 10

        def load(self):
            return self.state

        def save(self, tensors, metadata):
            self.state, self.left = ({k: v.clone() for k, v in tensors.items()}, dict(metadata)), self.left - 1
            if not self.left:
                raise Interrupted

    given, kept = material(ToyExperts()), Kept()
    with pytest.raises(Interrupted):
        method.fit(replace(given, checkpoint=kept), QUICK)
    resumed, _ = method.fit(replace(given, checkpoint=kept), QUICK)
    whole, _ = method.fit(given, QUICK)
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, resumed.tensors()[name]), name


@BOTH
def test_a_fit_that_diverges_is_refused_with_the_knob_to_turn(method):
    class Broken(ToyPool):
        calls = 0

        def losses(self, *args):
            Broken.calls += 1
            return super().losses(*args) * (math.nan if Broken.calls > 9 else 1.0)

    experts = ToyExperts()
    with pytest.raises(Mismatch, match=f"the training of {method.name} diverged: the loss is nan in step") as raised:
        method.fit(replace(material(experts), pool=Broken(experts)), QUICK)
    assert raised.value.hint.startswith("lower learning_rate, now ")


@BOTH
def test_too_few_tasks_or_experts_are_refused(method):
    given = material(experts := ToyExperts())
    with pytest.raises(Mismatch, match=f"{method.name} needs at least 2 seen tasks, got 0"):
        method.fit(replace(given, pool=ToyPool(experts, range(1))), QUICK)
    lonely = SimpleNamespace(names=["toys/0"], layout=LAYOUT)
    with pytest.raises(Mismatch, match=rf"'{method.name}' needs at least 2 experts to mix, got 1"):
        method.fit(replace(given, experts=lonely), QUICK)


@BOTH
def test_tensors_of_another_pack_are_refused(method):
    experts = ToyExperts()
    tensors = method.fit(material(experts), QUICK)[0].tensors()
    fewer = ToyExperts()
    fewer.names, fewer.mean_EP = fewer.names[:-1], fewer.mean_EP[:-1]
    with pytest.raises(Mismatch, match=f"experts have changed since '{method.name}' was trained") as raised:
        method.restore(fewer, tensors)
    assert raised.value.hint == "use another generator, or build the pack again"
    renamed = ToyExperts()
    renamed.names = ["toys/other", *renamed.names[1:]]  # one removed and another added: as many as before
    with pytest.raises(Mismatch, match="the pack's experts have changed since"):
        method.restore(renamed, tensors)
    with pytest.raises(BadFile, match=f"'{method.name}' has rank 9000"):
        method.restore(experts, {**tensors, "rank": torch.tensor([9000])})
    with pytest.raises(BadFile, match="these are not the tensors"):
        method.restore(experts, {"rank": tensors["rank"]})


@BOTH
def test_its_cost_has_the_parameters_of_what_is_fitted(method):
    experts = ToyExperts()
    _, facts = method.fit(material(experts), QUICK)
    said = method.cost(LAYOUT, EXPERTS, 5, QUICK, "cpu")
    if method is MOLE:  # the embedding is taken to be as wide as the encoder, 7 here in place of 8
        facts["parameters"] -= len(LAYOUT.sites) * EXPERTS
    assert said["parameters"] == facts["parameters"]
    assert facts["trained_on"]["tasks"] == TASKS  # what no expert has learned
    assert said["passes"] == QUICK["steps"] * QUICK["tasks"] * QUICK["photos"]
    assert said["bytes"] > 16 * said["parameters"]
