"""The CVAE: Eq. 9 against torch's own distributions, and that it learns, conditions and survives being stored."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from killers import Kill, Killer

from sglora_cli.errors import BadFile
from sglora_cli.lora.layout import Layout, Site
from sglora_cli.lora.prior import Prior
from sglora_cli.plugin.testing.toys import ToyExperts, ToyPool
from sglora_cli.plugin.values import Material
from sglora_cvae import CvaeConfig, sglora_generators
from sglora_cvae.network import Network, restore
from sglora_cvae.training import fit

LAYOUT = Layout((Site("q", 6, 5),), rank=2, alpha=2.0)
CVAE, OWN, ICM = sglora_generators()


class Experts:
    names = ("a", "b")
    layout = LAYOUT

    def __init__(self):
        rng = torch.Generator().manual_seed(3)
        self.mu, self.var = torch.randn(2, LAYOUT.size, generator=rng), torch.full((2, LAYOUT.size), 0.01)

    def means(self, rows=None):
        return self.mu if rows is None else self.mu[list(rows)]

    def variances(self, rows=None):
        return self.var if rows is None else self.var[list(rows)]


def condition(mean_P: torch.Tensor) -> Prior:
    variance = torch.full_like(mean_P, 0.01)
    return Prior(torch.zeros(2), (0, 1), torch.tensor([0.5, 0.5]), mean_P, variance, variance, torch.zeros(4))


def material_of(experts, states, priors, checkpoint=None) -> Material:
    """Two training tasks with their states (M, P) each and a prior each."""
    return Material(
        experts,
        ("a", "b"),
        states=lambda t: states[t],
        rows=lambda t, rows: states[t][list(rows)],
        states_of_task=len(states[0]),
        priors=priors,
        joint_P=experts.mu[0],
        pool=ToyPool(ToyExperts()),
        start_P=None,
        recall=lambda t, adapters_SP: torch.zeros(len(adapters_SP)),
        seed=0,
        note=lambda text: None,
        checkpoint=checkpoint,
    )


@pytest.fixture(scope="module")
def trained():
    return train()


def train(checkpoint=None, **settings):
    """Two tasks whose adapters are the two experts, told apart by their conditions."""
    experts = Experts()
    rng = torch.Generator().manual_seed(4)
    states = [experts.mu[t] + 0.1 * torch.randn(20, LAYOUT.size, generator=rng) for t in range(2)]
    priors = [condition(experts.mu[t]) for t in range(2)]
    material = material_of(experts, states, priors, checkpoint)
    given = {"hidden": 32, "latent": 4, "epochs": 150, "batch": 16, "learning_rate": 5e-3, **settings}
    config = CvaeConfig(**given)
    return (experts, priors, *fit(material, config))


def test_the_divergence_is_that_of_two_gaussians():
    network = Network(size=6, hidden=5, latent=3)
    x, c, noise = torch.randn(4, 6), torch.randn(4, 12), torch.randn(4, 3)
    _, kl = network(x, c, noise)
    q_mean, q_log = network.encoder(torch.cat([x, c], 1)).chunk(2, 1)
    p_mean, p_log = network.prior(c).chunk(2, 1)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(
        normal(q_mean, (q_log / 2).exp()), normal(p_mean, (p_log / 2).exp())
    ).sum(1)
    assert torch.allclose(kl, expected, atol=1e-5)


def test_it_generates_what_its_condition_asks_for(trained):
    experts, priors, fitted, health = trained
    for t in range(2):
        drawn = fitted.generate(priors[t], samples=8, seed=0, temperature=1.0)
        own, other = ((drawn - experts.mu[u]).square().mean() for u in (t, 1 - t))
        assert own < 0.2 * other
    assert health["error_per_number"] < 0.3 * health["spread_per_number"]


def test_it_survives_being_stored(trained):
    experts, priors, fitted, _ = trained
    again = restore(experts, fitted.tensors())
    one, two = (f.generate(priors[0], 2, 5, 1.0) for f in (fitted, again))
    assert torch.allclose(one, two, atol=0.02)
    assert torch.equal(two, restore(experts, fitted.tensors()).generate(priors[0], 2, 5, 1.0))


def test_tensors_of_another_pack_are_refused(trained):
    experts, _, fitted, _ = trained
    tensors = fitted.tensors()
    with pytest.raises(BadFile, match="not the tensors of a CVAE"):
        restore(experts, {k: v for k, v in tensors.items() if "decoder" not in k})
    with pytest.raises(BadFile, match="CVAE"):
        restore(experts, {**tensors, "centre": torch.zeros(3)})


def test_a_killed_training_goes_on_with_the_same_bytes(trained, tmp_path, monkeypatch):
    checkpoint = Killer(tmp_path / "x.checkpoint", (1, 70))
    for _ in range(2):
        with pytest.raises(Kill):
            train(checkpoint)
    _, _, fitted, health = train(checkpoint)
    assert health == trained[3]
    for name, tensor in trained[2].tensors().items():
        assert torch.equal(tensor, fitted.tensors()[name]), name


def test_what_it_will_need_is_its_size():
    settings = {"hidden": 7, "latent": 3, "epochs": 2, "batch": 4}
    cost = CVAE.cost(LAYOUT, 2, 20, settings)
    network = Network(LAYOUT.size, 7, 3)
    assert cost["parameters"] == sum(p.numel() for p in network.parameters())
    assert cost["bytes"] > 16 * cost["parameters"]
    assert cost["seconds"] > 0


def test_with_a_projection_it_generates_what_its_condition_asks_for(tmp_path):
    experts, priors, fitted, health = train(projection=8)
    for t in range(2):
        drawn = fitted.generate(priors[t], samples=8, seed=0, temperature=1.0)
        own, other = ((drawn - experts.mu[u]).square().mean() for u in (t, 1 - t))
        assert own < 0.2 * other
    assert health["projection"]["numbers"] == 8
    assert 0 < health["dropped_per_number"] < health["error_per_number"] < 0.3 * health["spread_per_number"]
    again = restore(experts, fitted.tensors())
    assert torch.allclose(again.generate(priors[1], 2, 5, 1.0), fitted.generate(priors[1], 2, 5, 1.0), atol=0.02)
    with pytest.raises(BadFile, match=r"has shapes .*\(8, 3\), .*the pack.s adapters have 22 parameters"):
        restore(experts, {**fitted.tensors(), "basis": torch.zeros(8, 3)})


def test_a_killed_training_with_a_projection_goes_on_with_the_same_bytes(tmp_path):
    with pytest.raises(Kill):
        train(Killer(tmp_path / "x.checkpoint", (60,)), projection=8)
    resumed, whole = train(Killer(tmp_path / "x.checkpoint", (60,)), projection=8), train(projection=8)
    assert resumed[3] == whole[3]
    for name, tensor in whole[2].tensors().items():
        assert torch.equal(tensor, resumed[2].tensors()[name]), name


def test_what_a_projection_will_need_does_not_grow_with_all_numbers_of_the_networks():
    settings = {"hidden": 7, "latent": 3, "epochs": 2, "batch": 4, "projection": 5}
    cost = CVAE.cost(LAYOUT, 2, 20, settings)
    assert cost["parameters"] == sum(p.numel() for p in Network(5, 7, 3).parameters())
    _, _, fitted, _ = train(projection=5, hidden=7, latent=3)
    stored = sum(x.numel() * x.element_size() for x in fitted.tensors().values())
    assert stored - 4 == cost["stored_bytes"]  # but for one number
    assert cost["seconds"] > 0


def test_a_pack_with_a_projection_is_built_and_asked(run, tiny, toys, recipe, tmp_path):
    recipe.write_text(recipe.read_text().replace("hidden = 8\n", "hidden = 8\nprojection = 5\n"))
    planned = run("pack", "build", recipe, "--data", toys, "--dry-run").stdout
    line = next(line for line in planned.splitlines() if line.startswith("cvae"))
    parameters = sum(p.numel() for p in Network(5, 8, 3).parameters())
    assert f"{parameters:,} parameters, " in line
    assert " of memory" in line
    assert run("pack", "build", recipe, "--data", toys).exit_code == 0
    facts = json.loads(run("pack", "show", "toys", "--json").stdout)["generators"]["cvae"]
    assert facts["projection"]["numbers"] == 5
    assert 0 < facts["projection"]["kept_share"] < 1
    assert run("generate", "a red mug", "--pack", "toys", "-o", tmp_path / "x.safetensors").exit_code == 0


@pytest.mark.parametrize("projection", [0, 6])
def test_icm_lora_is_told_the_tasks_embedding_and_nothing_else(projection):
    """Two tasks told apart by their embeddings: each comes back, whatever the prior's mean says."""
    experts = Experts()
    rng = torch.Generator().manual_seed(4)
    states = [experts.mu[t] + 0.1 * torch.randn(20, LAYOUT.size, generator=rng) for t in range(2)]
    priors = [replace(condition(experts.mu[0]), embedding_D=torch.eye(4)[t]) for t in range(2)]
    material = material_of(experts, states, priors)
    settings = {"hidden": 32, "latent": 2, "epochs": 200, "learning_rate": 0.01, "projection": projection}
    fitted, facts = ICM.fit(material, settings)
    again = ICM.restore(experts, fitted.tensors())
    for t in range(2):
        asked = replace(priors[t], mean_P=experts.mu[1], variance_P=torch.zeros(LAYOUT.size))
        (flat_P,) = again.generate(asked, 1, 0, 0.0)
        assert float((flat_P - experts.mu[t]).norm()) < 0.2 * float((experts.mu[0] - experts.mu[1]).norm())
        assert torch.allclose(flat_P, fitted.generate(asked, 1, 0, 0.0)[0], atol=0.02)
    assert facts["error_per_number"] < facts["spread_per_number"]
    with pytest.raises(BadFile, match="not the tensors of a CVAE"):
        ICM.restore(experts, {})
    with pytest.raises(BadFile):
        CVAE.restore(experts, fitted.tensors())


def test_what_icm_lora_will_need_has_the_width_of_its_condition():
    settings = {"hidden": 7, "latent": 3, "epochs": 2, "batch": 4}
    cost = ICM.cost(LAYOUT, 2, 20, settings)
    assert cost["parameters"] == sum(p.numel() for p in Network(LAYOUT.size, 7, 3, 5).parameters())
    assert cost["parameters"] < CVAE.cost(LAYOUT, 2, 20, settings)["parameters"]
    assert cost["seconds"] > 0


@pytest.mark.parametrize("room", ["enough", "too little"])
def test_a_gpu_with_room_gets_all_states_once_and_learns_the_same(room, monkeypatch):
    from sglora_cvae import training

    read: list[int] = []
    experts, rng = Experts(), torch.Generator().manual_seed(4)
    states = [experts.mu[t] + 0.1 * torch.randn(20, LAYOUT.size, generator=rng) for t in range(2)]
    material = material_of(experts, states, [condition(experts.mu[t]) for t in range(2)])
    material = replace(material, rows=lambda t, rows: read.append(len(rows)) or states[t][list(rows)])
    config = CvaeConfig(hidden=8, latent=2, epochs=3, batch=8)
    plain, facts = fit(material, config)
    before, needed = len(read), 4 * 4 * 2 * 20 * LAYOUT.size
    monkeypatch.setattr(training, "free_device_memory", lambda device: needed + (room == "enough"))
    again, same_facts = fit(material, config)
    assert facts == same_facts
    assert all(torch.equal(tensor, again.tensors()[name]) for name, tensor in plain.tensors().items())
    assert sum(read[:before]) == 40 * (3 + 1)  # every epoch, and once to measure the spread
    assert sum(read[before:]) == 40 * ((1 if room == "enough" else 3) + 1)
