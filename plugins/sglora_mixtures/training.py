"""How a network that mixes learns by retrieval: the loss of its mixtures on photos of the tasks that the pack has seen.

See the package's docstring for letters.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sglora_cli.api import Layout, Material

from . import MixtureConfig
from .mixture import NOBODY, Asked, FittedMixture, Mixer, exact, exact_layout, fold, folded_layout

LEAST_TASKS = 4
"""Seen tasks without which nothing is learned about others."""
_PROBED = 32
"""Seen tasks whose loss is measured before and after, on the same photos."""


class Training:
    """Adam on the mean loss of a few seen tasks a step. Every step's draws follow from its number, so it resumes."""

    def __init__(self, material: Material, config: MixtureConfig, network: Mixer) -> None:
        self.material, self.config, self.pool = material, config, material.pool
        self.layout, self.step, self.diverged = material.experts.layout, 0, False
        self.recent: list[float] = []
        device = torch.device(material.device)
        self.network, self.means_EP = network.to(device), material.experts.means().to(device)
        row_of = {name: row for row, name in enumerate(material.experts.names)}
        own = [row_of.get(name, NOBODY) for name in self.pool.names]
        self.asked = Asked.of((self.pool.prior(t) for t in range(len(own))), own).to(device)
        self.adam = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
        rng = torch.Generator().manual_seed(material.seed)
        self.seeds = torch.randint(2**62, (config.steps + 1,), generator=rng).tolist()
        self.loss_at_start = self.probe()

    def losses(self, tasks: Sequence[int], rng: torch.Generator) -> Tensor:
        """(T,)"""
        mixed_TQ, count = self.mixed(tasks)
        return self.pool.losses(exact_layout(self.layout, count), mixed_TQ, tasks, self.config.photos, rng)

    def mixed(self, tasks: Sequence[int]) -> tuple[Tensor, int]:
        """Exact mixtures (T, Q), and how many experts are in each."""
        rows_Tn, coefficient_TSn = self.network(self.asked.only(tasks))
        return exact(self.layout, self.means_EP, rows_Tn, coefficient_TSn), rows_Tn.shape[1]

    def advance(self) -> None:
        """One step. What is not finite is not learned: `diverged` is set, and the parameters stay."""
        rng = torch.Generator().manual_seed(self.seeds[self.step])
        tasks = torch.randperm(len(self.pool.names), generator=rng)[: self.config.tasks].tolist()
        of_tasks = self.losses(tasks, rng).mean()
        loss = of_tasks + self.network.penalty(self.asked.only(tasks))
        self.adam.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 100.0)
        if not math.isfinite(float(loss.detach() + norm)):
            self.diverged = True
            return
        for group in self.adam.param_groups:
            group["lr"] = self.config.learning_rate * (1 + math.cos(math.pi * self.step / self.config.steps)) / 2
        self.adam.step()
        self.network.settle()
        self.recent.append(float(of_tasks.detach()))
        self.step += 1

    def probed(self) -> list[list[int]]:
        """Seen tasks, spread evenly, a step's at a time."""
        count = len(self.pool.names)
        tasks = sorted({n * count // _PROBED for n in range(_PROBED)})
        return [tasks[n : n + self.config.tasks] for n in range(0, len(tasks), self.config.tasks)]

    @torch.no_grad()
    def probe(self) -> float:
        """Mean loss of these tasks, each time on the same photos."""
        rng = torch.Generator().manual_seed(self.seeds[-1])
        return float(torch.cat([self.losses(tasks, rng) for tasks in self.probed()]).mean())

    def save(self) -> None:
        tensors = {f"network.{name}": value.cpu() for name, value in self.network.state_dict().items()}
        for n, moments in self.adam.state_dict()["state"].items():
            tensors.update({f"adam.{n}.{name}": value.cpu() for name, value in moments.items()})
        assert self.material.checkpoint is not None
        self.material.checkpoint.save(tensors, {"step": self.step, "loss_at_start": self.loss_at_start})

    def restore(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        self.step, self.loss_at_start = metadata["step"], metadata["loss_at_start"]
        own = {n.removeprefix("network."): value for n, value in tensors.items() if n.startswith("network.")}
        self.network.load_state_dict(own)
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("adam."):
                _, n, moment = name.split(".")
                moments.setdefault(int(n), {})[moment] = value
        self.adam.load_state_dict({"state": moments, "param_groups": self.adam.state_dict()["param_groups"]})


def _folded(training: Training, rank: int) -> tuple[int, Layout, float]:
    """How many experts are mixed, the layout of what is made, and what folding drops on the average."""
    count, errors = 0, []
    for task in itertools.chain(*training.probed()):
        with torch.no_grad():
            mixed_1Q, count = training.mixed([task])
        folded = folded_layout(training.layout, count, rank)
        errors.append(fold(exact_layout(training.layout, count), mixed_1Q.cpu(), folded)[1])
    return count, folded, sum(errors) / len(errors)


def fit(name: str, material: Material, config: MixtureConfig, network: Mixer) -> tuple[FittedMixture, dict[str, Any]]:
    """Train a network from where it starts; also returns measurements for the manifest."""
    training, checkpoint = Training(material, config, network), material.checkpoint
    if checkpoint and (state := checkpoint.load()):
        training.restore(*state)
    while training.step < config.steps and not training.diverged:
        training.advance()
        if training.step % max(1, config.steps // 4) == 0:
            recent = sum(training.recent) / max(1, len(training.recent))
            material.note(f"{name}: step {training.step} of {config.steps}, loss {recent:.4f}")
            training.recent.clear()
        if checkpoint and checkpoint.due:
            training.save()
    loss, (count, folded, dropped) = training.probe(), _folded(training, config.rank)
    fitted = FittedMixture(material.experts, network.cpu().requires_grad_(False).eval(), folded)
    return fitted, {
        "parameters": sum(p.numel() for p in network.parameters()),
        "trained_on": {"tasks": len(material.pool.names), "steps": training.step},
        "loss_at_start": training.loss_at_start,
        "loss": loss,
        "experts_mixed": count,
        "rank": folded.rank,
        "dropped": dropped,
        **({"diverged_at_step": training.step} if training.diverged else {}),
    }
