"""Train a generator's network with AdamW and one learning-rate cycle, from a seed, with checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sglora_cli.files.tensors import Checkpoint


class Learning:
    """The state of a training: network, optimiser, completed epochs and random generator. It resumes from a checkpoint.

    `rng` is on the CPU, so that its random numbers do not depend on the device.
    """

    def __init__(
        self, network: nn.Module, steps: int, learning_rate: float, weight_decay: float, seed: int, clip: float = 100.0
    ) -> None:
        self.network, self.clip, self.epoch = network, clip, 0
        self.losses: Sequence[float] = ()
        """Mean losses of the last epoch, set by the caller."""
        self.rng = torch.Generator().manual_seed(seed)
        self.optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimiser, learning_rate, total_steps=steps)

    def step(self, loss: Tensor) -> None:
        """Take one optimiser step on a scalar loss."""
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        self.optimiser.step()
        self.schedule.step()

    def save(self, checkpoint: Checkpoint) -> None:
        tensors = {f"network.{name}": value.cpu() for name, value in self.network.state_dict().items()}
        state = self.optimiser.state_dict()
        for n, moments in state["state"].items():
            tensors.update({f"adam.{n}.{name}": value.cpu() for name, value in moments.items()})
        metadata = {
            "epoch": self.epoch,
            "losses": list(self.losses),
            "groups": state["param_groups"],
            "schedule": {k: v for k, v in self.schedule.state_dict().items() if isinstance(v, (int, float, list))},
        }
        checkpoint.save({**tensors, "dice": self.rng.get_state()}, metadata)

    def resume(self, checkpoint: Checkpoint | None) -> None:
        """Resume from a checkpoint if there is one."""
        if checkpoint and (state := checkpoint.load()):
            self._restore(*state)

    def _restore(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        self.epoch, self.losses = metadata["epoch"], metadata["losses"]
        self.network.load_state_dict({n.removeprefix("network."): v for n, v in tensors.items() if n[:8] == "network."})
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("adam."):
                _, n, moment = name.split(".")
                moments.setdefault(int(n), {})[moment] = value
        self.optimiser.load_state_dict({"state": moments, "param_groups": metadata["groups"]})
        self.schedule.load_state_dict(dict(metadata["schedule"]))
        self.rng.set_state(tensors["dice"])
