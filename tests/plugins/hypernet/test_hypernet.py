"""Hypernetworks in a world where the sentence says all: there they must win, so that a loss elsewhere is no bug."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from worlds import EXPERTS, TASKS, UNSEEN, World

from sglora_allbut import sglora_generators as closed_forms
from sglora_cli.errors import BadFile, Mismatch, Unavailable
from sglora_cli.lora.layout import Layout
from sglora_cli.plugin.testing.toys import LAYOUT, ToyExperts, ToyPool, material
from sglora_cli.plugin.values import Moments
from sglora_hypernet import sglora_generators

RETRIEVAL, RECONSTRUCTION = sglora_generators()
QUICK = {"sites": "experts", "rank": 2, "steps": 400, "tasks": 8, "learning_rate": 0.02, "weight_decay": 0.0}


@pytest.fixture(scope="module")
def world():
    return World()


def dense(layout: Layout, flat_SP: torch.Tensor) -> torch.Tensor:
    """All updates of each adapter in a row: (S, numbers)."""
    return torch.cat([(b @ a * layout.scaling).flatten(1) for b, a in layout.split(flat_SP).values()], dim=1)


def distance(layout, flat_SP, best_SP) -> float:
    """Mean squared distance of updates to the best ones."""
    return float((dense(layout, flat_SP) - dense(LAYOUT, best_SP)).square().sum(dim=1).mean())


def test_by_retrieval_it_finds_the_adapters_of_tasks_that_nobody_has_seen(world):
    fitted, facts = RETRIEVAL.fit(world.material(), QUICK)
    rows = range(EXPERTS + TASKS, EXPERTS + TASKS + UNSEEN)
    best_SP, seen_TP = world.best(rows), world.best(range(EXPERTS + TASKS))
    found_SP = torch.cat([fitted.generate(world.prior(row), 1, 0, 1.0) for row in rows])
    top_SP = torch.stack([world.prior(row).mean_P for row in rows])
    nearest = (world.sentence_TD[rows[0] :] @ world.sentence_TD[: rows[0]].T).argmax(dim=1)
    others = [distance(LAYOUT, x, best_SP) for x in (top_SP, seen_TP.mean(dim=0).expand_as(best_SP), seen_TP[nearest])]
    assert distance(fitted.own_layout, found_SP, best_SP) < 0.1 * min(others)
    assert facts["loss"] < 0.1 * facts["loss_at_start"]
    assert facts["trained_on"] == {"tasks": EXPERTS + TASKS, "phrases": 0}


def test_by_reconstruction_it_finds_the_adapters_of_training_tasks_left_out():
    experts = ToyExperts()
    toy = material(experts)
    asked = len(toy.tasks) - 1  # its adapter follows from its sentence, but it is not learned from
    left = replace(toy, tasks=toy.tasks[:asked], priors=toy.priors[:asked])
    settings = {"steps": 600, "learning_rate": 0.03, "weight_decay": 0.0}
    fitted, facts = RECONSTRUCTION.fit(left, settings)
    whole, _ = RECONSTRUCTION.fit(toy, settings)
    best_SP = toy.states(asked).mean(dim=0)[None]
    found, seen = (distance(LAYOUT, one.generate(toy.priors[asked], 1, 0, 1.0), best_SP) for one in (fitted, whole))
    mean = distance(LAYOUT, experts.means().mean(dim=0)[None], best_SP)
    assert seen < 0.05 * mean
    assert found < mean
    assert facts["trained_on"] == {"tasks": asked, "states": 5}
    assert facts["error_per_number"] < 0.5 * facts["spread_per_number"]


def test_untrained_it_is_the_closed_form():
    experts = ToyExperts()
    toy = material(experts)
    fitted, _ = RETRIEVAL.fit(toy, {"steps": 1, "learning_rate": 0.0})
    experts.moments = Moments(
        *(getattr(toy.pool.moments, name) for name in ("tasks", "sentences_TD", "images_TD", "captions_TD")),
        toy.pool.moments.projection,
        toy.pool.moments.projection_DI,
        toy.pool.moments.length_I,
    )
    closed = closed_forms()[0].restore(experts, {})
    prior = experts.prior(7)
    found, expected = fitted.generate(prior, 2, 0, 1.0), closed.generate(prior, 2, 0, 1.0)
    torch.testing.assert_close(
        dense(fitted.own_layout, found), dense(closed.own_layout, expected), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("settings", "sites", "rank"),
    [
        ({}, ["head"], 6),
        ({"closed_form": False}, ["head"], 4),
        ({"sites": "experts"}, [site.name for site in LAYOUT.sites], 4),
        ({"sites": "both", "rank": 3}, [*(site.name for site in LAYOUT.sites), "head"], 5),
        ({"hidden": 5}, ["head"], 6),
    ],
)
def test_adapters_have_the_sites_that_are_asked_for_and_are_the_same_from_a_file(settings, sites, rank):
    toy = material(ToyExperts())
    fitted, _ = RETRIEVAL.fit(toy, {"steps": 3, "learning_rate": 0.1, **settings})
    assert [site.name for site in fitted.own_layout.sites] == sites
    assert fitted.own_layout.rank == rank
    again = RETRIEVAL.restore(toy.experts, fitted.tensors())
    assert again.own_layout == fitted.own_layout
    one, other = (dense(f.own_layout, f.generate(toy.priors[0], 1, 0, 1.0)) for f in (fitted, again))
    torch.testing.assert_close(one, other, rtol=5e-3, atol=5e-3)


def test_training_that_diverges_is_refused_with_the_knob_to_turn():
    toy = material(ToyExperts())
    with pytest.raises(Mismatch, match=r"of hypernet diverged: the loss is (inf|nan) in step") as raised:
        RETRIEVAL.fit(toy, {"sites": "experts", "learning_rate": 1e3, "steps": 400})
    assert raised.value.hint == "lower learning_rate, now 1000"


def test_too_few_tasks_are_refused():
    toy = material(ToyExperts())
    with pytest.raises(Mismatch, match="hypernet needs at least 2 seen tasks, got 1"):
        RETRIEVAL.fit(replace(toy, pool=ToyPool(toy.experts, [0])), {})
    with pytest.raises(Mismatch, match="needs at least 2 training tasks, got 1"):
        RECONSTRUCTION.fit(replace(toy, tasks=toy.tasks[:1], priors=toy.priors[:1]), {})


def test_a_backbone_without_a_projection_is_named():
    class Bare(ToyPool):
        @property
        def moments(self):
            return replace(super().moments, projection=None, projection_DI=None, length_I=None)

    toy = material(ToyExperts())
    with pytest.raises(Unavailable, match="this backbone has none") as raised:
        RETRIEVAL.fit(replace(toy, pool=Bare(toy.experts)), {})
    assert raised.value.hint == 'set sites = "experts" in its table'


@pytest.mark.parametrize(
    "missing", ["layout", "network.common_P", "network.last.weight", "start.images_TD", "start.length_I"]
)
def test_a_damaged_file_is_refused(missing):
    toy = material(ToyExperts())
    fitted, _ = RETRIEVAL.fit(toy, {"steps": 1})
    tensors = {name: tensor for name, tensor in fitted.tensors().items() if name != missing}
    with pytest.raises(BadFile):
        RETRIEVAL.restore(toy.experts, tensors)
    with pytest.raises(BadFile):
        RETRIEVAL.restore(toy.experts, {**fitted.tensors(), "network.common_P": torch.zeros(3)})


def test_a_file_that_asks_for_more_memory_than_it_has_is_refused():
    toy = material(ToyExperts())
    tensors = RETRIEVAL.fit(toy, {"steps": 1, "closed_form": False})[0].tensors()
    for damage in (
        {"network.first.bias": torch.zeros(10**5)},
        {"site": torch.tensor(10**10)},
        {"layout": torch.tensor([torch.inf, 1.0])},
        {"network.last.weight": torch.zeros(3)},
    ):
        with pytest.raises(BadFile):
            RETRIEVAL.restore(toy.experts, {**tensors, **damage})


@pytest.mark.parametrize(
    "settings", [{}, {"sites": "both"}, {"sites": "experts", "hidden": 9}, {"sites": "experts", "rank": 5}]
)
def test_the_estimate_counts_the_parameters_and_the_photos(settings):
    """Of a backbone whose embedding and projection are as wide as its encoder, which the estimate takes for granted."""
    toy = material(ToyExperts())
    fitted, facts = RETRIEVAL.fit(toy, {"steps": 2, "closed_form": False, **settings})
    needs = RETRIEVAL.cost(LAYOUT, 6, 5, {"steps": 2, **settings})
    widest = max(site.in_features for site in LAYOUT.sites)  # 7, where the toys have an embedding of 8 and 8 x 6
    sizes = {site.name: site.in_features + site.out_features for site in fitted.own_layout.sites}
    assumed = fitted.own_layout.rank * sum(2 * widest if name == "head" else both for name, both in sizes.items())
    hidden = settings.get("hidden", 0)
    assert needs["parameters"] == assumed * (1 + (hidden or widest)) + hidden * (widest + 1)
    assert needs["parameters"] == pytest.approx(facts["parameters"], rel=0.2)
    assert needs["passes"] == (0 if not settings else 2 * 16 * 16)
    assert needs["seconds"] > 0
