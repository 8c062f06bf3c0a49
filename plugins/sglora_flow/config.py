"""The settings and the defaults of each variant. The package's docstring names their sources."""

from __future__ import annotations

from dataclasses import dataclass

from sglora_cli.api import UsageError, held_out_knob, knob

OBJECTIVES = FLOW, NOISE = "flow", "noise"
CONDITIONS = PRIOR, EMBEDDING, NONE = "prior", "embedding", "none"


@dataclass(frozen=True)
class FlowConfig:
    """Settings for path, network and training, with the defaults of `flow`."""

    objective: str = knob(FLOW, "Training target: flow (the velocity of flow matching) or noise.", choices=OBJECTIVES)
    condition: str = knob(PRIOR, "Condition: prior ({mu*, sigma*^2}), embedding (d*) or none.", choices=CONDITIONS)
    projection: int = knob(128, "Largest number R of coordinates in the adapters' span.", least=1, most=65536)
    energy: float = knob(1.0, "Share of squared norm at which fewer coordinates suffice.", least=1e-6, most=1)
    width: int = knob(128, "Width of the network.", least=1, most=65536)
    blocks: int = knob(3, "Residual blocks.", least=0, most=100)
    epochs: int = knob(200, "Passes over the training tasks' states.", least=1, most=10**6)
    batch: int = knob(64, "States per step.", least=1, most=10**6)
    learning_rate: float = knob(1e-3, "Peak learning rate of AdamW.", least=0)
    weight_decay: float = knob(1e-2, "Weight decay of AdamW.", least=0)
    drop: float = knob(0.0, "Share of states trained without their condition.", least=0, most=1)
    guidance: float = knob(1.0, "Guidance scale. 1 means no guidance.", least=0, most=100)
    steps: int = knob(50, "Steps to sample an adapter.", least=1, most=10**5)
    least_noise: float = knob(1e-4, "Noise at the end of the path of flow matching (sigma_min).", least=0, most=1)
    noise_steps: int = knob(1000, "Number T of diffusion steps.", least=2, most=10**5)
    first_noise: float = knob(1e-4, "Variance added in the first step (beta_1).", least=1e-8, most=0.999)
    last_noise: float = knob(0.02, "Variance added in the last step (beta_T).", least=1e-8, most=0.999)
    fresh_noise: float = knob(1.0, "Noise of each diffusion step (eta). 1 is DDPM, 0 is DDIM.", least=0, most=1)
    held_out: int = held_out_knob()

    def __post_init__(self) -> None:
        """Raises UsageError for guidance without a condition or without dropped conditions."""
        if self.guidance != 1 and self.condition == NONE:
            raise UsageError(f"guidance {self.guidance:g} needs a condition", f'set condition = "{EMBEDDING}"')
        if self.guidance != 1 and not self.drop:
            raise UsageError(
                f"guidance {self.guidance:g} needs states trained without their condition", "set drop = 0.1"
            )


@dataclass(frozen=True)
class PDiffConfig(FlowConfig):
    """Settings of `p-diff` in a recipe, with the defaults of unconditional diffusion."""

    objective: str = knob(NOISE, "Training target: flow (the velocity of flow matching) or noise.", choices=OBJECTIVES)
    condition: str = knob(NONE, "Condition: prior ({mu*, sigma*^2}), embedding (d*) or none.", choices=CONDITIONS)
    steps: int = knob(100, "Steps to sample an adapter.", least=1, most=10**5)


@dataclass(frozen=True)
class CondPDiffConfig(PDiffConfig):
    """Settings of `cond-p-diff` in a recipe, with the defaults of diffusion on the sentence's embedding."""

    condition: str = knob(EMBEDDING, "Condition: prior ({mu*, sigma*^2}), embedding (d*) or none.", choices=CONDITIONS)


@dataclass(frozen=True)
class D2nwgConfig(CondPDiffConfig):
    """Settings of `d2nwg` in a recipe, with the defaults of guided diffusion on the sentence's embedding."""

    drop: float = knob(0.1, "Share of states trained without their condition.", least=0, most=1)
    guidance: float = knob(1.5, "Guidance scale. 1 means no guidance.", least=0, most=100)
