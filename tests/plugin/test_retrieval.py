"""Learning by retrieval: which tasks a step has, and that an interrupted training resumes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from killers import Kill, Killer

from sglora_cli.files.tensors import Checkpoint
from sglora_cli.plugin.retrieval import learn_by_retrieval, task_weights
from sglora_cli.plugin.testing.toys import LAYOUT, ToyExperts, ToyPool, material


@dataclass(frozen=True)
class Config:
    steps: int = 30
    tasks: int = 4
    photos: int = 3
    phrases: float = 0.5
    learning_rate: float = 0.01
    weight_decay: float = 0.0


@dataclass
class Spoken:
    roles: list[str]


def one_adapter():
    network = torch.nn.Module()
    network.flat_P = torch.nn.Parameter(LAYOUT.initial(0))
    return network


def learn(given, network, config):
    return learn_by_retrieval(
        given, network, config, lambda tasks, step: (LAYOUT, network.flat_P.expand(len(tasks), -1)), "it"
    )


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_phrases_have_their_share_of_a_step(share):
    weight_T = task_weights(Spoken(["phrase"] * 30 + ["training"] * 6 + ["expert"] * 4), share)
    assert float(weight_T[:30].sum() / weight_T.sum()) == pytest.approx(share)
    assert len(set(weight_T[:30].tolist())) == len(set(weight_T[30:].tolist())) == 1


@pytest.mark.parametrize("role", ["phrase", "training"])
def test_where_there_is_one_kind_of_task_all_count_alike(role):
    for share in (0.0, 0.3, 1.0):
        assert task_weights(Spoken([role] * 7), share).tolist() == [1.0] * 7


def test_it_finds_the_adapter_that_is_best_on_average():
    given, network = material(ToyExperts()), one_adapter()
    facts = learn(given, network, Config(steps=300))
    pool, rng = ToyPool(given.experts), torch.Generator()
    losses = [
        float(pool.losses(LAYOUT, flat_P.expand(10, -1), range(10), 3, rng).mean())
        for flat_P in (LAYOUT.initial(0), network.flat_P.detach())
    ]
    assert losses[1] < 0.9 * losses[0]
    assert facts["loss"] < facts["loss_at_start"]
    assert facts["trained_on"] == {"tasks": 10, "phrases": 0}
    assert facts["parameters"] == LAYOUT.size


def test_a_penalty_is_part_of_what_is_lowered():
    given, free, held = material(ToyExperts()), one_adapter(), one_adapter()
    learn(given, free, Config(steps=100))
    start_P = LAYOUT.initial(0)

    def adapters(tasks, step):
        return LAYOUT, held.flat_P.expand(len(tasks), -1)

    learn_by_retrieval(
        given, held, Config(steps=100), adapters, "it", lambda tasks: 1e3 * (held.flat_P - start_P).square().sum()
    )
    assert float((held.flat_P - start_P).detach().norm()) < 0.1 * float((free.flat_P - start_P).detach().norm())


def test_a_killed_training_resumes_with_the_same_bytes(tmp_path):
    whole, parts = one_adapter(), one_adapter()
    facts = learn(material(ToyExperts()), whole, Config())
    with pytest.raises(Kill):
        learn(replace(material(ToyExperts()), checkpoint=Killer(tmp_path / "x", (11,))), one_adapter(), Config())
    assert learn(replace(material(ToyExperts()), checkpoint=Checkpoint(tmp_path / "x")), parts, Config()) == facts
    assert torch.equal(parts.flat_P, whole.flat_P)
