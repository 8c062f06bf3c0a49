"""The networks of the CVAE, their training, and drawing from them. See the package's docstring for the mathematics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sglora_cli.api import BadFile, Experts, Material, Prior

from . import CvaeConfig


@dataclass(frozen=True)
class Scaling:
    """Adapters and conditions in the numbers the networks see."""

    centre_P: Tensor
    unit_P: Tensor

    @classmethod
    def of(cls, experts: Experts) -> Scaling:
        """Centre: the experts' mean. Unit: root mean square deviation of B's numbers and of A's, each."""
        mean_EP = experts.means()
        centre_P = mean_EP.mean(dim=0)
        square_P = ((mean_EP - centre_P) ** 2).mean(dim=0) + experts.variances().mean(dim=0)
        in_b_P = experts.layout.b_mask()
        unit_P = torch.empty_like(centre_P)
        for part_P in (in_b_P, ~in_b_P):
            unit_P[part_P] = square_P[part_P].mean().sqrt().clamp_min(1e-8)
        return cls(centre_P, unit_P)

    def inward(self, adapters: Tensor) -> Tensor:
        return (adapters - self.centre_P) / self.unit_P

    def outward(self, numbers: Tensor) -> Tensor:
        return numbers * self.unit_P + self.centre_P

    def condition(self, prior: Prior) -> Tensor:
        """c = {mu*, sigma*^2} as (2 P,)."""
        return torch.cat([self.inward(prior.mean_P), prior.variance_P.sqrt() / self.unit_P])


class Network(nn.Module):
    """Encoder, prior and decoder. P numbers, C = 2 P of the condition, Z latent."""

    def __init__(self, size: int, hidden: int, latent: int) -> None:
        super().__init__()
        condition = 2 * size
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

    scaling: Scaling
    network: Network

    @torch.no_grad()
    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        """(S, P): z ~ p(z | c) with its standard deviation times the temperature, then the decoder."""
        c_C = self.scaling.condition(prior)
        mean_Z, log_Z = self.network.gaussian(self.network.prior, c_C)
        generator = torch.Generator().manual_seed(seed)
        noise_SZ = torch.randn(samples, len(mean_Z), generator=generator)
        z_SZ = mean_Z + temperature * noise_SZ * (log_Z / 2).exp()
        return self.scaling.outward(self.network.decoder(torch.cat([z_SZ, c_C.expand(samples, -1)], dim=1)))

    def tensors(self) -> dict[str, Tensor]:
        kept = {f"network.{k}": v.half() for k, v in self.network.state_dict().items() if not k.startswith("encoder.")}
        return {"centre": self.scaling.centre_P, "unit": self.scaling.unit_P, **kept}


def restore(experts: Experts, tensors: Mapping[str, Tensor]) -> FittedCvae:
    """From `tensors()`. Raises BadFile if they do not fit the pack's layout."""
    try:
        size = experts.layout.size
        hidden = len(tensors["network.prior.0.bias"])
        latent = len(tensors["network.prior.2.bias"]) // 2
        with torch.device("meta"):
            network = Network(size, hidden, latent)
        del network.encoder
        state = {k.removeprefix("network."): v.float() for k, v in tensors.items() if k.startswith("network.")}
        network.load_state_dict(state, assign=True)
        scaling = Scaling(tensors["centre"].float(), tensors["unit"].float())
        if scaling.centre_P.shape != (size,) or scaling.unit_P.shape != (size,):
            raise BadFile(f"the CVAE was made for {len(scaling.centre_P)} numbers, the pack's adapters have {size}")
    except (KeyError, RuntimeError) as error:
        raise BadFile(f"these are not the tensors of a CVAE for this pack: {error}", "build the pack again") from None
    return FittedCvae(scaling, network.requires_grad_(False).eval())


def fit(material: Material, config: CvaeConfig) -> tuple[FittedCvae, dict[str, Any]]:
    """Train on the saved states of the training tasks; also returns the last epoch's losses."""
    scaling = Scaling.of(material.experts)
    c_TC = torch.stack([scaling.condition(prior) for prior in material.priors])
    x_TMP = torch.stack([scaling.inward(material.states(t)) for t in range(len(material.tasks))])
    tasks, states, size = x_TMP.shape
    with torch.random.fork_rng():
        torch.manual_seed(material.seed)
        network = Network(size, config.hidden, config.latent)
    dice = torch.Generator().manual_seed(material.seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    steps = -(-tasks * states // config.batch) * config.epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=steps)
    error = kl = 0.0
    for epoch in range(config.epochs):
        order = torch.randperm(tasks * states, generator=dice)
        error = kl = 0.0
        for rows in order.split(config.batch):
            t, m = rows // states, rows % states
            noise_BZ = torch.randn(len(rows), config.latent, generator=dice)
            error_B, kl_B = network(x_TMP[t, m], c_TC[t], noise_BZ)
            loss = (error_B + config.kl_weight * kl_B).mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 100.0)
            optimiser.step()
            schedule.step()
            error += float(error_B.detach().sum()) / (tasks * states)
            kl += float(kl_B.detach().sum()) / (tasks * states)
        if epoch % 10 == 9:
            material.note(f"cvae: epoch {epoch + 1} of {config.epochs}, error {error / size:.4f} a number, KL {kl:.1f}")
    spread = float((x_TMP - x_TMP.mean(dim=(0, 1))).square().mean())
    fitted = FittedCvae(scaling, network.requires_grad_(False).eval())
    return fitted, {
        "parameters": sum(p.numel() for p in network.parameters()),
        "trained_on": {"tasks": tasks, "states": states},
        "error_per_number": error / size,
        "spread_per_number": spread,
        "kl": kl,
    }


__all__ = ["FittedCvae", "Network", "Scaling", "fit", "restore"]
