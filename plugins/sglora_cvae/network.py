"""The networks of the CVAE, their training, and drawing from them. See the package's docstring for the mathematics."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sglora_cli.api import BadFile, Checkpoint, Experts, Material, Prior

from . import CvaeConfig
from .condition import BLOCKS, Condition, of_tasks, variants
from .scaling import AnyScaling, Projection, Scaling, blocks, projection


class Network(nn.Module):
    """Encoder, prior and decoder. P numbers (R with a projection), C of the condition (else 2 P), Z latent."""

    def __init__(self, size: int, hidden: int, latent: int, condition: int = 0) -> None:
        super().__init__()
        condition = condition or 2 * size
        self.encoder = nn.Sequential(nn.Linear(size + condition, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent))
        self.prior = nn.Sequential(nn.Linear(condition, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent))
        self.decoder = nn.Sequential(
            nn.Linear(latent + condition, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, size),
        )

    def gaussian(self, net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance, each (..., Z); the log variance is kept where exp is harmless."""
        mean, log_variance = net(x).chunk(2, dim=-1)
        return mean, log_variance.clamp(-8, 8)

    def forward(self, x_BP: Tensor, c_BC: Tensor, noise_BZ: Tensor) -> tuple[Tensor, Tensor]:
        """Squared error and KL(q || p) of each row: (B,), (B,)."""
        q_mean, q_log = self.gaussian(self.encoder, torch.cat([x_BP, c_BC], dim=1))
        p_mean, p_log = self.gaussian(self.prior, c_BC)
        z_BZ = q_mean + noise_BZ * (q_log / 2).exp()
        error_B = ((self.decoder(torch.cat([z_BZ, c_BC], dim=1)) - x_BP) ** 2).sum(dim=1)
        kl_BZ = (p_log - q_log + (q_log.exp() + (q_mean - p_mean) ** 2) / p_log.exp() - 1) / 2
        return error_B, kl_BZ.sum(dim=1)


@dataclass(frozen=True)
class FittedCvae:
    """Prior and decoder; the encoder is needed for training only and is not kept."""

    scaling: AnyScaling
    network: Network
    condition: Condition

    @torch.no_grad()
    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        """(S, P): z ~ p(z | c) with its standard deviation times the temperature, then the decoder."""
        c_C = self.condition(prior)
        mean_Z, log_Z = self.network.gaussian(self.network.prior, c_C)
        generator = torch.Generator().manual_seed(seed)
        noise_SZ = torch.randn(samples, len(mean_Z), generator=generator)
        z_SZ = mean_Z + temperature * noise_SZ * (log_Z / 2).exp()
        return self.scaling.outward(self.network.decoder(torch.cat([z_SZ, c_C.expand(samples, -1)], dim=1)))

    def tensors(self) -> dict[str, Tensor]:
        kept = {f"network.{k}": v.half() for k, v in self.network.state_dict().items() if not k.startswith("encoder.")}
        return {**self.scaling.tensors(), **self.condition.tensors(), **kept}


def restore(experts: Experts, tensors: Mapping[str, Tensor], kind: str = "prior") -> FittedCvae:
    """From `tensors()`. Raises BadFile if they do not fit the pack's layout."""
    try:
        scaling = _scaling(tensors, experts.layout.size)
        condition = Condition.restored(tensors, scaling, kind)
        hidden = len(tensors["network.prior.0.bias"])
        latent = len(tensors["network.prior.2.bias"]) // 2
        with torch.device("meta"):
            width = condition.width or tensors["network.prior.0.weight"].shape[-1]
            network = Network(scaling.size, hidden, latent, width)
        del network.encoder
        state = {k.removeprefix("network."): v.float() for k, v in tensors.items() if k.startswith("network.")}
        network.load_state_dict(state, assign=True)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise BadFile(f"these are not the tensors of a CVAE for this pack: {error}", "build the pack again") from None
    return FittedCvae(scaling, network.requires_grad_(False).eval(), condition)


def _scaling(tensors: Mapping[str, Tensor], size: int) -> AnyScaling:
    """Raises BadFile, or KeyError where a tensor is missing."""
    whole = Scaling(tensors["centre"].float(), tensors["unit"].float())
    if whole.centre_P.shape != (size,) or whole.unit_P.shape != (size,):
        raise BadFile(f"the CVAE was made for {len(whole.centre_P)} numbers, the pack's adapters have {size}")
    if "basis" not in tensors:
        return whole
    basis_RP, unit = tensors["basis"].float(), tensors["coordinate_unit"].float()
    if basis_RP.dim() != 2 or basis_RP.shape[1] != size or unit.shape != (1,):
        raise BadFile(f"the CVAE's basis has the shape {list(basis_RP.shape)}, the pack's adapters {size} numbers")
    return Projection(whole, basis_RP, float(unit))


class _Training:
    """Mini-batches of states, read from disk, until the last epoch; goes on from `checkpoint()`.

    The networks, what they are shown and their noise are on the material's device; noise is drawn on the CPU, so that
    it does not depend on the device.
    """

    def __init__(self, material: Material, config: CvaeConfig, scaling: AnyScaling, condition: Condition) -> None:
        self.material, self.config, self.scaling, self.epoch = material, config, scaling, 0
        self.error = self.kl = 0.0
        self.count = len(material.tasks) * material.states_of_task
        self.device = torch.device(material.device)
        known_NR = _coordinates(material, scaling) if isinstance(scaling, Projection) else None
        self.known_NR = None if known_NR is None else known_NR.to(self.device)
        self.condition_VTC = self._conditions(condition).to(self.device)
        with torch.random.fork_rng():
            torch.manual_seed(material.seed)
            width = self.condition_VTC.shape[2]
            self.network = Network(scaling.size, config.hidden, config.latent, width).to(self.device)
        self.rng = torch.Generator().manual_seed(material.seed)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        steps = -(-self.count // config.batch) * config.epochs
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimiser, config.learning_rate, total_steps=steps)

    def advance(self) -> None:
        """One epoch; `error` and `kl` are its means over states."""
        self.error = self.kl = 0.0
        for chosen_B in torch.randperm(self.count, generator=self.rng).split(self.config.batch):
            # Sorted by task, so that a batch opens each task's file once.
            task_B, state_B = (n.tolist() for n in self._sorted(chosen_B))
            noise_BZ = torch.randn(len(task_B), self.config.latent, generator=self.rng).to(self.device)
            told_BC = self.condition_VTC[self._variants(len(task_B)), task_B]
            error_B, kl_B = self.network(self._numbers(task_B, state_B), told_BC, noise_BZ)
            error_B = error_B * self.scaling.weight
            self.optimiser.zero_grad()
            (error_B + self.config.kl_weight * kl_B).mean().backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 100.0)
            self.optimiser.step()
            self.schedule.step()
            self.error += float(error_B.detach().sum()) / self.count
            self.kl += float(kl_B.detach().sum()) / self.count
        self.epoch += 1

    def _conditions(self, condition: Condition) -> Tensor:
        """(V, T, C): the tasks' conditions and, where experts are left out, the variants that lack one, in turn."""
        rows = [[condition(prior)] for prior in self.material.priors]
        if self.config.leave_out:
            for row, prior in zip(rows, self.material.priors, strict=True):
                row += [condition(variant) for variant in variants(self.material, prior)]
        return torch.stack([torch.stack(row) for row in rows], dim=1)

    def _variants(self, count: int) -> Tensor | int:
        """Which variant each state is shown with: 0, the prior itself, but for the share of `leave_out`."""
        if (known := len(self.condition_VTC)) == 1:
            return 0
        lacks_B = torch.rand(count, generator=self.rng) < self.config.leave_out
        return lacks_B * torch.randint(1, known, (count,), generator=self.rng)

    def _numbers(self, task_B: Sequence[int], state_B: Sequence[int]) -> Tensor:
        if self.known_NR is None:
            return self.scaling.inward(draw(self.material, task_B, state_B)).to(self.device)
        return self.known_NR[torch.tensor(task_B) * self.material.states_of_task + torch.tensor(state_B)]

    def _sorted(self, chosen_B: Tensor) -> tuple[Tensor, Tensor]:
        chosen_B = chosen_B.sort().values
        return chosen_B // self.material.states_of_task, chosen_B % self.material.states_of_task

    def save(self, checkpoint: Checkpoint) -> None:
        tensors = {f"network.{name}": value.cpu() for name, value in self.network.state_dict().items()}
        state = self.optimiser.state_dict()
        for n, moments in state["state"].items():
            tensors.update({f"adam.{n}.{name}": value.cpu() for name, value in moments.items()})
        metadata = {
            "epoch": self.epoch,
            "losses": [self.error, self.kl],
            "groups": state["param_groups"],
            "schedule": {k: v for k, v in self.schedule.state_dict().items() if isinstance(v, (int, float, list))},
        }
        checkpoint.save({**tensors, "dice": self.rng.get_state()}, metadata)

    def restore(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        self.epoch, (self.error, self.kl) = metadata["epoch"], metadata["losses"]
        self.network.load_state_dict({n.removeprefix("network."): v for n, v in tensors.items() if n[:8] == "network."})
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("adam."):
                _, n, moment = name.split(".")
                moments.setdefault(int(n), {})[moment] = value
        self.optimiser.load_state_dict({"state": moments, "param_groups": metadata["groups"]})
        self.schedule.load_state_dict(dict(metadata["schedule"]))
        self.rng.set_state(tensors["dice"])


def draw(material: Material, task_B: Sequence[int], state_B: Sequence[int]) -> Tensor:
    """(B, P): states of tasks, in an order with equal tasks side by side."""
    parts = []
    for task, pairs in itertools.groupby(zip(task_B, state_B, strict=True), key=lambda pair: pair[0]):
        parts.append(material.rows(task, [state for _, state in pairs]))
    return torch.cat(parts)


def fit(material: Material, config: CvaeConfig, kind: str = "prior") -> tuple[FittedCvae, dict[str, Any]]:
    """Train on the saved states of the training tasks; also returns the last epoch's losses."""
    whole = of_tasks(material) if config.common == "training" else Scaling.of(material.experts)
    scaling, kept = projection(material, whole, config.projection, config.energy) if config.projection else (whole, 1.0)
    condition = _condition(material, config, scaling, kind)
    training, size = _Training(material, config, scaling, condition), whole.size
    if material.checkpoint and (state := material.checkpoint.load()):
        training.restore(*state)
    while training.epoch < config.epochs:
        training.advance()
        if training.epoch % 10 == 0:
            error = training.error / size
            material.note(
                f"cvae: epoch {training.epoch} of {config.epochs}, error {error:.4f} a number, KL {training.kl:.1f}"
            )
        if material.checkpoint and material.checkpoint.due:
            training.save(material.checkpoint)
    fitted = FittedCvae(scaling, training.network.cpu().requires_grad_(False).eval(), condition)
    return fitted, {
        "parameters": sum(p.numel() for p in training.network.parameters()),
        "trained_on": {"tasks": len(material.tasks), "states": material.states_of_task},
        **_errors(material, whole, scaling, training.error / size),
        "kl": training.kl,
        **({"projection": {"numbers": scaling.size, "kept_share": kept}} if scaling.size < size else {}),
    }


def _condition(material: Material, config: CvaeConfig, scaling: AnyScaling, kind: str) -> Condition:
    blocks = (*BLOCKS[kind], "sentence") if config.sentence else BLOCKS[kind]
    # A sentence beside mu* is always centred: most of an embedding is its template's.
    centred = blocks if config.common == "training" else [name for name in blocks if name not in BLOCKS[kind]]
    return Condition(scaling, blocks).centred(material.priors, centred)


def _errors(material: Material, whole: Scaling, scaling: AnyScaling, error: float) -> dict[str, float]:
    """Means over states and numbers. Spread: squared distance to the mean of all states, what a constant would err.

    Error: the networks' own and, with a projection, what it dropped of each state beside it.
    """
    total_P = torch.zeros(whole.size, dtype=torch.float64)
    square_P, outside = torch.zeros_like(total_P), 0.0
    count = len(material.tasks) * material.states_of_task
    for x_BP in blocks(material, whole):
        if isinstance(scaling, Projection):
            outside += float(scaling.outside(x_BP).double().square().sum()) / (count * whole.size)
        total_P, square_P = total_P + x_BP.sum(dim=0).double(), square_P + (x_BP**2).sum(dim=0).double()
    spread = float((square_P / count - (total_P / count) ** 2).mean())
    errors = {"error_per_number": error + outside, "spread_per_number": spread}
    return errors if scaling is whole else {**errors, "dropped_per_number": outside}


def _coordinates(material: Material, scaling: Projection) -> Tensor:
    """(T M, R) of all states: 4 R bytes a state, so all stay in memory and epochs read nothing."""
    return torch.cat([scaling.coordinates(x_BP) for x_BP in blocks(material, scaling.whole)])


__all__ = ["FittedCvae", "Network", "Scaling", "fit", "restore"]
