"""Train the network on the training tasks' states, whose coordinates are kept in memory.

Shapes: N states, R coordinates, C of the condition, T training tasks, B batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sglora_cli.api import Learning, Material, Scaling, state_coordinates, state_projection

from .config import FlowConfig
from .fitted import FittedFlow, Standard, restore, told
from .network import Network
from .paths import Path, path_of


def fit(material: Material, config: FlowConfig, name: str) -> tuple[FittedFlow, dict[str, Any]]:
    """Train on the saved states of the training tasks. Also returns measurements."""
    whole = Scaling.of(material.experts)
    scaling, kept = state_projection(material, whole, config.projection, config.energy)
    known_NR, spread, dropped = state_coordinates(material, scaling)
    coordinate = Standard.of(known_NR)
    variance_R = coordinate.inward(known_NR).square().mean(dim=0)
    known_TC = torch.stack([told(config, scaling, prior) for prior in material.priors])
    condition = Standard.of(known_TC)
    with torch.random.fork_rng():
        torch.manual_seed(material.seed)
        network = Network(scaling.size, known_TC.shape[1], config.width, config.blocks).to(material.device)
    steps = -(-len(known_NR) // config.batch) * config.epochs
    learning = Learning(network, steps, config.learning_rate, config.weight_decay, material.seed, clip=1.0)
    learning.resume(material.checkpoint)
    rows = coordinate.inward(known_NR), condition.inward(known_TC), variance_R
    x_NR, c_TC, v_R = (row.to(material.device) for row in rows)
    path = path_of(config)
    while learning.epoch < config.epochs:
        learning.losses = [_epoch(learning, config, path, x_NR, c_TC, v_R)]
        learning.epoch += 1
        if learning.epoch % 10 == 0:
            material.note(f"{name}: epoch {learning.epoch} of {config.epochs}, loss {learning.losses[0]:.4f}")
        if material.checkpoint and material.checkpoint.due:
            learning.save(material.checkpoint)
    fitted = FittedFlow(config, scaling, coordinate, variance_R, condition, network.cpu())
    # Restore from float16 as a pack does, so that the generator samples the same now and after loading.
    return restore(material.experts, fitted.tensors()), {
        "parameters": sum(p.numel() for p in network.parameters()),
        "trained_on": {"tasks": len(material.tasks), "states": material.states_of_task},
        "loss": learning.losses[0],
        "loss_of_constant": path.constant(),
        "spread_per_number": spread,
        "dropped_per_number": dropped,
        "projection": {"numbers": scaling.size, "kept_share": kept},
    }


def _epoch(learning: Learning, config: FlowConfig, path: Path, x_NR: Tensor, c_TC: Tensor, v_R: Tensor) -> float:
    """Run one pass over the states and return its mean squared error per coordinate."""
    device, states, errors = x_NR.device, len(x_NR) // len(c_TC), list[Tensor]()
    batches = torch.randperm(len(x_NR), generator=learning.rng).split(config.batch)
    for chosen_B in batches:
        time_B = path.times(len(chosen_B), learning.rng)
        noise_BR = torch.randn(len(chosen_B), x_NR.shape[1], generator=learning.rng)
        dropped_B = torch.rand(len(chosen_B), generator=learning.rng) < config.drop
        # Nothing is read back from the device before the end, so no step has to wait for it.
        drawn = (rows.to(device, non_blocking=True) for rows in (chosen_B, time_B, noise_BR, dropped_B))
        chosen_B, time_B, noise_BR, dropped_B = drawn
        point_BR, way_BR = path.at(time_B, x_NR[chosen_B], noise_BR)
        said_BR = learning.network(point_BR, time_B, c_TC[chosen_B // states], dropped_B if config.drop else None)
        loss = (path.normal(time_B[:, None], point_BR, v_R) + said_BR - way_BR).square().mean()
        learning.step(loss)
        errors.append(loss.detach())
    total = 0.0
    for error, chosen_B in zip(torch.stack(errors).tolist(), batches, strict=True):
        total += error * len(chosen_B)
    return total / len(x_NR)
