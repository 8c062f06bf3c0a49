"""The networks of the CVAE and sampling from them. See the package's docstring for the mathematics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sglora_cli.api import AnyScaling, BadFile, Experts, Prior, Scaling, restored_projection

from .condition import Condition


class Network(nn.Module):
    """Encoder, prior and decoder. P parameters (R with a projection), C of the condition (2 P by default), Z latent."""

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
        """Return mean and log variance, each (..., Z). The log variance is clamped so that exp is safe."""
        mean, log_variance = net(x).chunk(2, dim=-1)
        return mean, log_variance.clamp(-8, 8)

    def forward(self, x_BP: Tensor, c_BC: Tensor, noise_BZ: Tensor) -> tuple[Tensor, Tensor]:
        """Return squared error and KL(q || p) of each row: (B,), (B,)."""
        q_mean, q_log = self.gaussian(self.encoder, torch.cat([x_BP, c_BC], dim=1))
        p_mean, p_log = self.gaussian(self.prior, c_BC)
        z_BZ = q_mean + noise_BZ * (q_log / 2).exp()
        error_B = ((self.decoder(torch.cat([z_BZ, c_BC], dim=1)) - x_BP) ** 2).sum(dim=1)
        kl_BZ = (p_log - q_log + (q_log.exp() + (q_mean - p_mean) ** 2) / p_log.exp() - 1) / 2
        return error_B, kl_BZ.sum(dim=1)


@dataclass(frozen=True)
class FittedCvae:
    """A trained prior and decoder. The encoder is only needed for training and is not stored."""

    scaling: AnyScaling
    network: Network
    condition: Condition

    @property
    def ignores_experts(self) -> bool:
        return tuple(self.condition.blocks) == ("sentence",)

    @torch.no_grad()
    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        """Generate (S, P): decode z ~ p(z | c), with its standard deviation multiplied by the temperature."""
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
    """Recreate a CVAE from `tensors()`. Raises BadFile if they do not match the pack's layout."""
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
    except (KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise BadFile(f"these are not the tensors of a CVAE for this pack: {error}", "build the pack again") from None
    return FittedCvae(scaling, network.requires_grad_(False).eval(), condition)


def _scaling(tensors: Mapping[str, Tensor], size: int) -> AnyScaling:
    """Return the scaling. Raises ValueError for wrong shapes, KeyError if a tensor is missing."""
    if "basis" in tensors:
        return restored_projection(tensors, size)
    whole = Scaling(tensors["centre"].float(), tensors["unit"].float())
    if whole.centre_P.shape != (size,) or whole.unit_P.shape != (size,):
        raise ValueError(f"it has {len(whole.centre_P)} numbers, but the pack's adapters have {size}")
    return whole
