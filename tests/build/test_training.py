"""Batched training is training alone, done at once; Adam is torch's Adam."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from in_memory import train_joint, train_tasks, training_of
from tiny_tasks import LAYOUT, MODEL, task

from sglora_cli.build import training as build_training
from sglora_cli.build.losses import contrastive_loss
from sglora_cli.build.task_stack import TaskStack, bytes_of
from sglora_cli.build.training import JointTraining, RowAdam, groups
from sglora_cli.config import TrainConfig
from sglora_cli.errors import Mismatch
from sglora_cli.plugin.values import TaskTensors


def trained(tasks: list[TaskTensors], **settings: int) -> dict[str, torch.Tensor]:
    config = TrainConfig(epochs=4, states=3, batch=4, learning_rate=0.01, **settings)
    return {t.name: states for t, states in train_tasks(MODEL, LAYOUT, tasks, config)}


def test_tasks_trained_together_are_as_if_trained_alone():
    tasks = [task("a", 3), task("b", 9), task("c", 4), task("d", 10)]  # one, three, one and three steps an epoch
    together = trained(tasks, tasks_at_once=4)
    for one in tasks:
        alone = trained([one], tasks_at_once=1)[one.name]
        assert alone.shape == (3, LAYOUT.size)
        assert torch.allclose(together[one.name], alone, atol=1e-5)
        assert not torch.allclose(alone[0], alone[2], atol=1e-3)


def test_training_lowers_the_loss_of_its_own_task():
    one = task("a", 4)
    first = torch.tensor([0, 2, 4, 6])
    real = torch.ones(1, 4, dtype=torch.bool)

    def loss(flat: torch.Tensor) -> float:
        image = MODEL.encode_image(one.stem_N[None], LAYOUT, flat[None])
        return float(contrastive_loss(image, one.text_CD[first][None], real, MODEL.scale))

    config = TrainConfig(epochs=60, states=1, batch=4, learning_rate=0.02)
    ((_, states),) = train_tasks(MODEL, LAYOUT, [one], config)
    assert loss(states[-1]) < 0.8 * loss(LAYOUT.initial(0))


def test_the_loss_is_cross_entropy_both_ways():
    rng = torch.Generator().manual_seed(0)
    image, text = (torch.nn.functional.normalize(torch.randn(1, 3, 8, generator=rng), dim=-1) for _ in "it")
    logits = 5 * image[0] @ text[0].T
    target = torch.arange(3)
    expected = (
        torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.T, target)
    ) / 2
    assert float(contrastive_loss(image, text, torch.ones(1, 3, dtype=torch.bool), 5.0)) == pytest.approx(
        float(expected)
    )


def test_padding_and_repeated_captions_are_no_negatives():
    rng = torch.Generator().manual_seed(0)
    image, text = (torch.nn.functional.normalize(torch.randn(1, 3, 8, generator=rng), dim=-1) for _ in "it")
    padded = contrastive_loss(image, text, torch.tensor([[True, True, False]]), 5.0)
    assert float(padded) == pytest.approx(
        float(contrastive_loss(image[:, :2], text[:, :2], torch.ones(1, 2).bool(), 5.0))
    )
    same = text[:, [0, 0]]
    assert float(contrastive_loss(image[:, :2], same, torch.ones(1, 2).bool(), 5.0)) == pytest.approx(0.0, abs=1e-6)


def test_row_adam_is_adam():
    start = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    ours, theirs = start.clone(), start[:1].clone().requires_grad_()
    adam = RowAdam(ours, TrainConfig(learning_rate=0.1))
    reference = torch.optim.Adam([theirs], lr=0.1)
    for step in range(5):
        gradient = torch.randn(2, 5, generator=torch.Generator().manual_seed(step))
        adam.step(gradient, torch.tensor([True, False]))
        theirs.grad = gradient[:1]
        reference.step()
    assert torch.allclose(ours[:1], theirs.detach(), atol=1e-6)
    assert torch.equal(ours[1], start[1])  # it sat every step out


def test_the_joint_adapter_is_one_that_moved():
    joint = train_joint(
        MODEL, LAYOUT, [task("a", 3), task("b", 5)], TrainConfig(joint_epochs=3, joint_learning_rate=0.01)
    )
    assert joint.shape == (LAYOUT.size,)
    assert float(LAYOUT.update_norm(joint)) > 0


def test_the_mean_of_a_joint_training_is_over_the_last_half_of_its_epochs():
    tasks = [task("a", 3), task("b", 9)]
    config = TrainConfig(joint_learning_rate=0.02, learning_rate=9.0)
    training, after = JointTraining(MODEL, LAYOUT, tasks, config, epochs=3), []
    for _ in range(3):
        training.advance()
        after.append(training.last_P)
    assert torch.allclose(training.mean_P, (after[1] + after[2]) / 2, atol=1e-6)
    assert torch.equal(training.mean_P, train_joint(MODEL, LAYOUT, tasks, replace(config, joint_epochs=3)))


@pytest.mark.parametrize("kind", ["own", "joint"])
def test_photos_that_stay_on_the_device_train_the_same_adapters(kind, monkeypatch):
    tasks, config = [task("a", 3), task("b", 9), task("c", 10)], TrainConfig(batch=4, learning_rate=0.01)

    def trained(*, resident):
        monkeypatch.setattr(build_training, "TaskStack", lambda tasks, device, _: TaskStack(tasks, device, resident))
        training = training_of(kind, MODEL, LAYOUT, tasks, config, epochs=2)
        assert training.stack.resident == resident
        return [training.advance() for _ in range(2)], training.tensors()

    (losses, here), (same_losses, there) = trained(resident=False), trained(resident=True)
    assert losses == same_losses
    assert all(torch.equal(here[name], there[name]) for name in here)


@pytest.mark.parametrize(("free", "resident"), [(0, False), (2e4, False), (3e4, True)])
def test_photos_of_all_tasks_stay_on_the_device_if_it_has_room_for_four_times_as_many(free, resident, monkeypatch):
    monkeypatch.setattr(build_training, "free_device_memory", lambda device: free)
    tasks = [task("a", 20), task("b", 20)]  # 2 bytes of 48 numbers a photo, 4 bytes of 8 numbers for each of 2 texts
    assert JointTraining(MODEL, LAYOUT, tasks, TrainConfig(), 1).stack.resident == resident
    assert bytes_of(tasks) == 2 * 20 * (2 * 48 + 2 * 4 * 8)


@pytest.mark.parametrize("stop", [1, 2])
@pytest.mark.parametrize("kind", ["own", "joint"])
def test_training_that_goes_on_elsewhere_ends_with_the_same_numbers(kind, stop):
    tasks = [task("a", 3), task("b", 9), task("c", 10)]
    config = TrainConfig(batch=4, learning_rate=0.01, tasks_at_once=2)

    def fresh():
        return training_of(kind, MODEL, LAYOUT, tasks, config, epochs=3)

    whole, first, second = fresh(), fresh(), fresh()
    losses = [whole.advance() for _ in range(3)]
    for _ in range(stop):
        first.advance()
    second.restore({name: tensor.clone() for name, tensor in first.tensors().items()})
    assert [second.advance() for _ in range(3 - stop)] == losses[stop:]
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, second.tensors()[name]), name


def test_tasks_train_in_the_company_of_those_with_as_many_steps():
    config = TrainConfig(batch=4, tasks_at_once=2)
    assert groups([9, 3, 4, 12, 1], config) == [[1, 2], [4, 0], [3]]


def test_a_task_of_one_photo_is_refused():
    with pytest.raises(Mismatch, match=r"task 'a' has 1 photo, but training needs two"):
        list(train_tasks(MODEL, LAYOUT, [task("a", 1)], TrainConfig()))
