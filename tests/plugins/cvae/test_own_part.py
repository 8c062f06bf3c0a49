"""The CVAE that keeps apart what tasks have in common: on a world whose unseen adapters are known, and its parts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from killers import Kill, Killer

from sglora_cli.errors import BadFile, UsageError
from sglora_cli.files.tensors import Checkpoint
from sglora_cli.lora.algebra import inner_products
from sglora_cli.lora.layout import Layout, Site
from sglora_cli.lora.prior import Prior, cosines, prior
from sglora_cli.pack.dependence import of_products
from sglora_cli.plugin.testing.toys import ToyExperts, ToyPool
from sglora_cli.plugin.values import Material
from sglora_cvae import CvaeConfig, sglora_generators
from sglora_cvae.condition import of_tasks, variants
from sglora_cvae.network import Network
from sglora_cvae.training import fit

LAYOUT = Layout((Site("q", 9, 8), Site("k", 7, 8)), rank=2, alpha=2.0)
GENERATORS = {one.name: one for one in sglora_generators()}
WIDTH, EXPERTS, TRAINING, UNSEEN, STATES = 6, 8, 24, 8, 10
SMALL = {"hidden": 64, "latent": 8, "projection": 8}


class Experts:
    layout = LAYOUT
    names = tuple(f"e{n}" for n in range(EXPERTS))

    def __init__(self, states: torch.Tensor) -> None:
        self.mu, self.var = states.mean(dim=1), states.var(dim=1, unbiased=False)

    def means(self, rows=None):
        return self.mu if rows is None else self.mu[list(rows)]

    def variances(self, rows=None):
        return self.var if rows is None else self.var[list(rows)]


@dataclass
class World:
    """Adapters that are a common part, a linear function of the sentence, and noise."""

    material: Material
    priors: list[Prior]
    """Of the unseen sentences."""
    true: torch.Tensor
    """Their adapters."""

    @classmethod
    def of(cls, seed: int, checkpoint: Checkpoint | None = None) -> World:
        rng = torch.Generator().manual_seed(seed)
        count = EXPERTS + TRAINING + UNSEEN
        embedding = torch.randn(count, WIDTH, generator=rng) + 0.6  # all sentences have the template in common
        embedding = torch.nn.functional.normalize(embedding, dim=1)
        own = embedding @ torch.randn(WIDTH, LAYOUT.size, generator=rng)
        true = torch.randn(LAYOUT.size, generator=rng) + own - own.mean(dim=0)
        states = true[:, None] + 0.1 * torch.randn(count, STATES, LAYOUT.size, generator=rng)
        experts, learned = Experts(states[:EXPERTS]), states[EXPERTS : EXPERTS + TRAINING]
        priors = [prior(d, cosines(d, embedding[:EXPERTS], 4), experts, 4, 0.1) for d in embedding[EXPERTS:]]
        material = Material(
            experts,
            tuple(f"t{n}" for n in range(TRAINING)),
            states=lambda t: learned[t],
            rows=lambda t, rows: learned[t, list(rows)],
            states_of_task=STATES,
            priors=priors[:TRAINING],
            joint_P=learned.mean(dim=(0, 1)),
            pool=ToyPool(ToyExperts()),
            start_P=None,
            recall=lambda t, adapters_SP: torch.zeros(len(adapters_SP)),
            seed=0,
            note=lambda text: None,
            checkpoint=checkpoint,
        )
        return cls(material, priors[TRAINING:], true[EXPERTS + TRAINING :])

    def drawn(self, name: str) -> torch.Tensor:
        """One draw for each unseen sentence."""
        fitted, _ = GENERATORS[name].fit(self.material, SMALL)
        return torch.cat([fitted.generate(one, 1, 7, 1.0) for one in self.priors])

    def error(self, adapters: torch.Tensor) -> float:
        """Mean squared, as a share of what the mean of all seen tasks errs."""
        seen = torch.cat([self.material.experts.mu, *(self.material.states(t)[:1] for t in range(TRAINING))]).mean(0)
        return float((adapters - self.true).square().sum() / (seen - self.true).square().sum())


def likeness(adapters: torch.Tensor) -> float:
    return of_products(inner_products(LAYOUT, adapters)).cosine


@pytest.mark.slow
def test_draws_for_unseen_sentences_differ_as_the_true_adapters_do_and_are_closest_to_them():
    rows = []
    for seed in range(4):
        world = World.of(seed)
        own, old = world.drawn("cvae-own"), world.drawn("cvae")
        star = torch.stack([one.mean_P for one in world.priors])
        errors = [world.error(x) for x in (own, old, star)]
        assert errors[0] < 0.25 * min(errors[1:]), errors
        assert errors[0] < 0.2  # 1 is the mean of all seen tasks
        rows.append([likeness(x) for x in (own, old, world.true)])
    own, old, true = torch.tensor(rows).mean(dim=0).tolist()
    assert own < old - 0.05
    assert own == pytest.approx(true, abs=0.05)


def test_what_is_common_is_the_mean_of_the_training_tasks_states():
    material = World.of(0).material
    scaling = of_tasks(material)
    states = torch.stack([material.states(t) for t in range(TRAINING)])
    left = scaling.inward(states)
    assert torch.allclose(left.mean(dim=(0, 1)), torch.zeros(LAYOUT.size), atol=1e-4)
    for part in (LAYOUT.b_mask(), ~LAYOUT.b_mask()):
        assert float(left[..., part].square().mean()) == pytest.approx(1.0, rel=1e-4)
    assert torch.allclose(scaling.outward(left), states, atol=1e-5)


def test_a_variant_is_the_prior_of_a_pack_without_that_expert():
    material = World.of(0).material
    known = material.priors[3]
    made = list(variants(material, known))
    assert len(made) == 4
    for row, variant in zip(known.rows, made, strict=True):
        others = [n for n in range(EXPERTS) if n != row]
        smaller = Experts(torch.stack([material.experts.mu[others]] * 2, dim=1))
        smaller.var = material.experts.var[others]
        expected = prior(known.embedding_D, known.similarity_E[others], smaller, 4, 0.1)
        assert [others[n] for n in expected.rows] == list(variant.rows)
        assert torch.allclose(variant.mean_P, expected.mean_P)
        assert torch.allclose(variant.variance_P, expected.variance_P)


def test_a_pack_of_one_expert_has_no_variants():
    material = World.of(0).material
    one = replace(material, experts=type("One", (), {"names": ("a",), "layout": LAYOUT})())
    assert list(variants(one, material.priors[0])) == []


@pytest.mark.parametrize(
    "settings", [{"sentence": True}, {"common": "training"}, {"projection": 8}, {"leave_out": 1.0}]
)
def test_every_form_comes_back_from_its_tensors(settings):
    world, quick = World.of(1), {"hidden": 8, "latent": 3, "epochs": 3, **settings}
    fitted, _ = GENERATORS["cvae"].fit(world.material, quick)
    again = GENERATORS["cvae"].restore(world.material.experts, fitted.tensors())
    for one in world.priors:
        assert torch.allclose(again.generate(one, 2, 0, 1.0), fitted.generate(one, 2, 0, 1.0), atol=0.01)


def test_damaged_conditions_are_refused():
    world, generator = World.of(1), GENERATORS["cvae-own"]
    fitted, _ = generator.fit(world.material, {"hidden": 8, "latent": 3, "epochs": 2, "projection": 8})
    tensors, experts = fitted.tensors(), world.material.experts
    for name in ("condition.sentence", "condition.mean", "network.prior.0.weight", "basis"):
        with pytest.raises(BadFile):
            generator.restore(experts, {k: v for k, v in tensors.items() if k != name})
    for name, size in (("mean", 9), ("sentence", 5), ("sentence", 7)):
        with pytest.raises(BadFile):
            generator.restore(experts, {**tensors, f"condition.{name}": torch.zeros(size)})
    with pytest.raises(BadFile, match=r"'deviation' has shape \[2, 4\], expected \[8\]"):
        generator.restore(experts, {**tensors, "condition.deviation": torch.zeros(2, 4)})
    other = replace(world.priors[0], embedding_D=torch.ones(5))
    with pytest.raises(BadFile, match="made for embeddings of 6 numbers, got 5"):
        generator.restore(experts, tensors).generate(other, 1, 0, 1.0)


def test_a_killed_training_resumes_with_the_same_bytes(tmp_path):
    config = CvaeConfig(hidden=8, latent=3, epochs=6, common="training", sentence=True, leave_out=0.5)
    with pytest.raises(Kill):
        fit(World.of(2, Killer(tmp_path / "x.checkpoint", (3,))).material, config)
    resumed = fit(World.of(2, Killer(tmp_path / "x.checkpoint", (3,))).material, config)
    whole = fit(World.of(2).material, config)
    assert resumed[1] == whole[1]
    for name, tensor in whole[0].tensors().items():
        assert torch.equal(tensor, resumed[0].tensors()[name]), name


@pytest.mark.parametrize("projection", [0, 5])
@pytest.mark.parametrize(
    ("name", "settings"), [("cvae-own", {}), ("cvae", {"sentence": True}), ("icm-lora", {"common": "training"})]
)
def test_what_it_will_need_has_the_width_of_its_condition(name, settings, projection):
    world, generator = World.of(0), GENERATORS[name]
    settings = {**settings, "hidden": 7, "latent": 3, "epochs": 1, "projection": projection}
    cost = generator.cost(LAYOUT, TRAINING, STATES, settings)
    numbers, embedding = projection or LAYOUT.size, 8  # the layout's encoder has 8 numbers, and stands for d*
    width = embedding if name == "icm-lora" else 2 * numbers + embedding
    assert cost["parameters"] == sum(p.numel() for p in Network(numbers, 7, 3, width).parameters())

    def widened(one):
        return replace(one, embedding_D=torch.cat([one.embedding_D, torch.zeros(2)]))

    material = replace(world.material, priors=[widened(one) for one in world.material.priors])
    fitted, _ = generator.fit(material, settings)
    stored = sum(x.numel() * x.element_size() for x in fitted.tensors().values())
    assert stored - 4 * bool(projection) == cost["stored_bytes"]
    without = generator.cost(LAYOUT, TRAINING, STATES, {**settings, "leave_out": 0.0})["bytes"]
    assert cost["bytes"] - without == (4 * 4 * TRAINING * width if name == "cvae-own" else 0)


def test_icm_lora_has_no_experts_to_leave_out():
    for settings in ({"leave_out": 0.5}, {"sentence": True}):
        with pytest.raises(UsageError, match=r"generators\.icm-lora: sentence and leave_out"):
            GENERATORS["icm-lora"].fit(World.of(0).material, settings)
