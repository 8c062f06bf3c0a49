"""The generator that learns from pairs: what it computes, that sentences matter, that it survives being stored."""

from __future__ import annotations

import pytest
import torch
from test_cvae import Experts, material_of
from thirdparty.sglora_tiny import TinyModel

from sglora_cli.adapters import Layout
from sglora_cli.batches import TaskTensors
from sglora_cli.checkpoints import Checkpoint
from sglora_cli.configs import TrainConfig
from sglora_cli.contracts import Seen
from sglora_cli.errors import BadFile, Unavailable
from sglora_cli.semantics import Prior
from sglora_cli.training import train_joint
from sglora_plus import Plus, PlusConfig
from sglora_plus.directions import Coordinates, fit, restore

MODEL = TinyModel()
LAYOUT = Layout(MODEL.sites, 2, 2.0)
CONFIG = PlusConfig(epochs=12, batch=8, learning_rate=0.02, directions=2)


def task(name: str, seed: int) -> TaskTensors:
    dice = torch.Generator().manual_seed(seed)
    text = torch.nn.functional.normalize(torch.randn(12, 8, generator=dice), dim=-1)
    return TaskTensors(name, torch.rand(12, 4, 12, generator=dice).half(), text, tuple(range(12)))


TASKS = [task(str(n), n) for n in range(5)]
SENTENCES = torch.nn.functional.normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(9)), dim=-1)


def material(checkpoint=None, seen=True):
    experts = Experts()
    experts.layout = LAYOUT
    given = material_of(experts, [torch.zeros(1, LAYOUT.size)], [], checkpoint)
    from dataclasses import replace

    return replace(given, seen=Seen(MODEL, TrainConfig(), TASKS, SENTENCES) if seen else None)


def asked(embedding_D: torch.Tensor) -> Prior:
    nothing = torch.zeros(LAYOUT.size)
    return Prior(torch.zeros(2), (0, 1), torch.tensor([0.5, 0.5]), nothing, nothing, nothing, embedding_D)


@pytest.fixture(scope="module")
def trained():
    return fit(material(), CONFIG)


def test_coordinates_are_principal_and_in_deviations():
    found = Coordinates.of(SENTENCES, 2)
    weights = found.weights(SENTENCES, 1.0)
    assert torch.equal(weights[:, 0], torch.ones(5))
    assert torch.allclose(weights[:, 1:].mean(0), torch.zeros(2), atol=1e-5)
    assert torch.allclose(weights[:, 1:].std(0, correction=0), torch.ones(2), atol=1e-4)
    centred = (SENTENCES - SENTENCES.mean(0)).double()
    vectors = torch.linalg.eigh(centred.T @ centred).eigenvectors  # ascending
    along = centred @ vectors[:, -2:].flip(1)
    for ours, theirs in zip(weights[:, 1:].T.double(), along.T, strict=True):
        assert abs(float(torch.corrcoef(torch.stack([ours, theirs]))[0, 1])) == pytest.approx(1, abs=1e-5)
    assert len(Coordinates.of(SENTENCES, 99).axis_JD) == 4  # five sentences differ in four directions
    assert len(Coordinates.of(SENTENCES[:1].repeat(3, 1), 4).axis_JD) == 0


def test_a_far_sentence_goes_no_further_than_the_seen_ones_could():
    found = Coordinates.of(SENTENCES, 2)
    assert float(found.weights(100 * SENTENCES, 1.0)[:, 1:].abs().max()) == 2.5


def test_it_lowers_the_loss_and_more_than_one_adapter_for_all_does(trained):
    from sglora_cli.losses import contrastive_loss

    fitted, facts = trained
    config = TrainConfig(batch=8, tasks_at_once=4, joint_learning_rate=0.02, joint_epochs=12)
    joint = train_joint(MODEL, LAYOUT, TASKS, config)

    def loss(adapter_of) -> float:
        found = []
        for one, sentence in zip(TASKS, SENTENCES, strict=True):
            image = MODEL.encode_image(one.stem_N.float(), LAYOUT, adapter_of(sentence)[None])
            real = torch.ones(1, 12, dtype=torch.bool)
            found.append(float(contrastive_loss(image, one.text_CD[None], real, MODEL.scale).sum()))
        return sum(found) / len(found)

    ours = loss(lambda d: fitted.generate(asked(d), 1, 0, 1.0)[0])
    assert ours < loss(lambda d: joint) < loss(lambda d: torch.zeros(LAYOUT.size))
    assert facts["directions"] == 2
    assert facts["trained_on"] == {"tasks": 5, "photos": 60}


def test_the_adapter_is_theta_0_plus_weighted_directions(trained):
    fitted, _ = trained
    for sentence in SENTENCES:
        weight = fitted.coordinates.weights(sentence[None], CONFIG.spread)[0]
        expected = fitted.rows_JP[0] + weight[1] * fitted.rows_JP[1] + weight[2] * fitted.rows_JP[2]
        drawn = fitted.generate(asked(sentence), 3, seed=1, temperature=2.0)
        assert torch.allclose(drawn, expected.expand(3, -1), atol=1e-6)
    one, other = (fitted.generate(asked(d), 1, 0, 1.0) for d in SENTENCES[:2])
    assert float((one - other).norm()) > 0.01 * float(one.norm())


def test_it_survives_being_stored_and_refuses_what_is_not_its_own(trained):
    fitted, _ = trained
    experts = material().experts
    again = restore(experts, fitted.tensors())
    assert torch.equal(again.generate(asked(SENTENCES[0]), 1, 0, 1.0), fitted.generate(asked(SENTENCES[0]), 1, 0, 1.0))
    with pytest.raises(BadFile, match="not the tensors"):
        restore(experts, {})
    with pytest.raises(BadFile, match="another pack"):
        restore(Experts(), fitted.tensors())


def test_a_killed_training_goes_on_with_the_same_numbers(trained, tmp_path, monkeypatch):
    class Killer(Checkpoint):
        due = True

        def save(self, tensors, about=None):
            super().save(tensors, about)
            raise KeyboardInterrupt

    path, kills = tmp_path / "checkpoint.safetensors", 0
    while True:
        try:
            fitted, facts = fit(material(Killer(path)), CONFIG)
            break
        except KeyboardInterrupt:
            kills += 1
    assert kills == CONFIG.epochs
    assert torch.equal(fitted.rows_JP, trained[0].rows_JP)
    assert facts == trained[1]


def test_without_photos_it_says_where_it_can_learn():
    with pytest.raises(Unavailable, match="learns from photos"):
        fit(material(seen=False), CONFIG)


def test_its_cost_is_told_in_epochs():
    assert Plus().cost(LAYOUT, 3, 5, {"epochs": 7, "directions": 2}) == {
        "parameters": 3 * LAYOUT.size,
        "bytes": 72 * LAYOUT.size,
        "stored_bytes": 12 * LAYOUT.size,
        "epochs": 7,
    }
