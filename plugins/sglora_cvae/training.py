"""Train the networks of the CVAE on mini-batches of the training tasks' states, with the conditions of their priors.

Shapes: T training tasks, V variants of a prior, N states, B batch, P parameters of an adapter, R coordinates, Z latent.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sglora_cli.api import (
    AnyScaling,
    Learning,
    Material,
    Scaling,
    free_device_memory,
    state_coordinates,
    state_projection,
    state_spread,
)

from . import CvaeConfig
from .condition import BLOCKS, Condition, of_tasks, variants
from .network import FittedCvae, Network


def fit(material: Material, config: CvaeConfig, kind: str = "prior") -> tuple[FittedCvae, dict[str, Any]]:
    """Train on the saved states of the training tasks. Also returns the last epoch's losses."""
    whole = of_tasks(material) if config.common == "training" else Scaling.of(material.experts)
    scaling: AnyScaling = whole
    known_NR, kept, dropped = None, 1.0, 0.0
    if config.projection:
        scaling, kept = state_projection(material, whole, config.projection, config.energy)
        known_NR, spread, dropped = state_coordinates(material, scaling)
    condition = _condition(material, config, scaling, kind)
    training, size = _Training(material, config, scaling, condition, known_NR), whole.size
    training.learning.resume(material.checkpoint)
    while training.learning.epoch < config.epochs:
        training.advance()
        error, kl = training.learning.losses
        if (epoch := training.learning.epoch) % 10 == 0:
            material.note(
                f"cvae: epoch {epoch} of {config.epochs}, error {error / size:.4f} per parameter, KL {kl:.1f}"
            )
        if material.checkpoint and material.checkpoint.due:
            training.learning.save(material.checkpoint)
    if known_NR is None:
        spread = state_spread(material, whole)
    error, kl = training.learning.losses
    network = training.network.cpu().requires_grad_(False).eval()
    # With a projection, the error also includes what the projection dropped.
    return FittedCvae(scaling, network, condition), {
        "parameters": sum(p.numel() for p in network.parameters()),
        "trained_on": {"tasks": len(material.tasks), "states": material.states_of_task},
        "error_per_number": error / size + dropped,
        "spread_per_number": spread,
        **({"dropped_per_number": dropped} if config.projection else {}),
        "kl": kl,
        **({"projection": {"numbers": scaling.size, "kept_share": kept}} if scaling.size < size else {}),
    }


def _condition(material: Material, config: CvaeConfig, scaling: AnyScaling, kind: str) -> Condition:
    blocks = (*BLOCKS[kind], "sentence") if config.sentence else BLOCKS[kind]
    # A sentence beside mu* is always centred, because the template dominates an embedding.
    centred = blocks if config.common == "training" else [name for name in blocks if name not in BLOCKS[kind]]
    return Condition(scaling, blocks).centred(material.priors, centred)


class _Training:
    """Epochs of mini-batches. States are read from disk, or known_NR has their coordinates.

    The networks, their inputs and noise are on the material's device. Noise is drawn on the CPU, so that it does not
    depend on the device. A GPU with memory for four times the states gets all of them once, so that training steps
    need no reads or synchronisation.
    """

    def __init__(
        self, material: Material, config: CvaeConfig, scaling: AnyScaling, condition: Condition, known_NR: Tensor | None
    ) -> None:
        self.material, self.config, self.scaling = material, config, scaling
        self.states = material.states_of_task
        self.count = len(material.tasks) * self.states
        self.device = torch.device(material.device)
        if known_NR is None and 4 * 4 * self.count * scaling.size < free_device_memory(self.device):
            known_NR = self._all_numbers()
        self.known_NR = None if known_NR is None else known_NR.to(self.device)
        self.condition_VTC = self._conditions(condition).to(self.device)
        with torch.random.fork_rng():
            torch.manual_seed(material.seed)
            width = self.condition_VTC.shape[2]
            self.network = Network(scaling.size, config.hidden, config.latent, width).to(self.device)
        steps = -(-self.count // config.batch) * config.epochs
        self.learning = Learning(self.network, steps, config.learning_rate, config.weight_decay, material.seed)

    def advance(self) -> None:
        """Run one epoch. `learning.losses` become its means over states: squared error and KL."""
        sums: list[Tensor] = []
        for chosen_B in torch.randperm(self.count, generator=self.learning.rng).split(self.config.batch):
            chosen_B = chosen_B.sort().values  # by task, so that a batch opens each task's file once
            noise_BZ = torch.randn(len(chosen_B), self.config.latent, generator=self.learning.rng)
            variant_B = self._variants(len(chosen_B))
            told_BC = self.condition_VTC[self._placed(variant_B), self._placed(chosen_B // self.states)]
            error_B, kl_B = self.network(self._numbers(chosen_B), told_BC, self._placed(noise_BZ))
            error_B = error_B * self.scaling.weight
            self.learning.step((error_B + self.config.kl_weight * kl_B).mean())
            sums.append(torch.stack([error_B.detach().sum(), kl_B.detach().sum()]))
        error = kl = 0.0
        for error_sum, kl_sum in torch.stack(sums).tolist():  # read at the end, because reads wait for the device
            error, kl = error + error_sum / self.count, kl + kl_sum / self.count
        self.learning.losses = [error, kl]
        self.learning.epoch += 1

    def _placed(self, rows: Tensor) -> Tensor:
        """Move rows to the device without waiting for it."""
        return rows.to(self.device, non_blocking=True)

    def _conditions(self, condition: Condition) -> Tensor:
        """Return (V, T, C): the tasks' conditions and, with `leave_out`, the variants that lack an expert."""
        rows = [[condition(prior)] for prior in self.material.priors]
        if self.config.leave_out:
            for row, prior in zip(rows, self.material.priors, strict=True):
                row += [condition(variant) for variant in variants(self.material, prior)]
        return torch.stack([torch.stack(row) for row in rows], dim=1)

    def _variants(self, count: int) -> Tensor:
        """Choose the variant of each state. It is 0, the prior itself, except for the share of `leave_out`."""
        if (known := len(self.condition_VTC)) == 1:
            return torch.zeros(count, dtype=torch.long)
        lacks_B = torch.rand(count, generator=self.learning.rng) < self.config.leave_out
        return lacks_B * torch.randint(1, known, (count,), generator=self.learning.rng)

    def _numbers(self, chosen_B: Tensor) -> Tensor:
        """Return (B, R) of states by their sorted indices."""
        if self.known_NR is not None:
            return self.known_NR[self._placed(chosen_B)]
        task_B, state_B = (chosen_B // self.states).tolist(), (chosen_B % self.states).tolist()
        return self.scaling.inward(draw(self.material, task_B, state_B)).to(self.device)

    def _all_numbers(self) -> Tensor:
        """Return (N, P) of all states on the device, reading one task at a time."""
        whole_NP = torch.empty(self.count, self.scaling.size, device=self.device)
        for task in range(len(self.material.tasks)):
            rows_MP = self.material.rows(task, list(range(self.states)))
            whole_NP[task * self.states : (task + 1) * self.states] = self.scaling.inward(rows_MP).to(self.device)
        return whole_NP


def draw(material: Material, task_B: Sequence[int], state_B: Sequence[int]) -> Tensor:
    """Read states of tasks, (B, P). Equal tasks must be adjacent."""
    parts = []
    for task, pairs in itertools.groupby(zip(task_B, state_B, strict=True), key=lambda pair: pair[0]):
        parts.append(material.rows(task, [state for _, state in pairs]))
    return torch.cat(parts)
