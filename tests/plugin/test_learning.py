"""Training with checkpoints: interrupted or not, a network ends the same."""

from __future__ import annotations

import torch
from torch import nn

from sglora_cli.files.tensors import Checkpoint
from sglora_cli.plugin.learning import Learning


def trained(epochs: int, checkpoint: Checkpoint | None = None) -> Learning:
    """A linear map that learns to double, on rows that it draws itself."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Linear(3, 3)
    learning = Learning(network, steps=400, learning_rate=0.1, weight_decay=0.01, seed=1)
    learning.resume(checkpoint)
    while learning.epoch < epochs:
        x = torch.randn(16, 3, generator=learning.rng)
        loss = (network(x) - 2 * x).square().mean()
        learning.step(loss)
        learning.losses, learning.epoch = [float(loss.detach())], learning.epoch + 1
    return learning


def test_a_network_learns():
    learning = trained(400)
    assert torch.allclose(learning.network.weight, 2 * torch.eye(3), atol=0.1)
    assert learning.losses[0] < 0.05


def test_training_goes_on_from_a_checkpoint_with_the_same_numbers(tmp_path):
    checkpoint = Checkpoint(tmp_path / "x.checkpoint")
    trained(17).save(checkpoint)
    whole, resumed = trained(40), trained(40, checkpoint)
    assert resumed.losses == whole.losses
    assert torch.equal(resumed.network.weight, whole.network.weight)
    assert trained(17, checkpoint).losses == trained(17).losses  # nothing left to do


def test_without_a_checkpoint_it_starts(tmp_path):
    assert trained(3, Checkpoint(tmp_path / "none")).losses == trained(3).losses
