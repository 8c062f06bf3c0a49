"""What can be turned, and the defaults of each name. The package's docstring says where they are from."""

from __future__ import annotations

from dataclasses import dataclass

from sglora_cli.api import UsageError, held_out_knob, knob

OBJECTIVES = FLOW, NOISE = "flow", "noise"
CONDITIONS = PRIOR, EMBEDDING, NONE = "prior", "embedding", "none"


@dataclass(frozen=True)
class FlowConfig:
    """Path, network and training. The defaults are those of flow matching on the prior."""

    objective: str = knob(FLOW, "What is learned: the velocity of flow matching, or the noise.", choices=OBJECTIVES)
    condition: str = knob(PRIOR, "Condition of the network: {mu*, sigma*^2}, d*, or none.", choices=CONDITIONS)
    projection: int = knob(128, "R, coordinates in the adapters' span at most.", least=1, most=65536)
    energy: float = knob(1.0, "Fewer coordinates if they hold this share of squared norm.", least=1e-6, most=1)
    width: int = knob(128, "Width of the network.", least=1, most=65536)
    blocks: int = knob(3, "Residual blocks.", least=0, most=100)
    epochs: int = knob(200, "Passes over the training tasks' states.", least=1, most=10**6)
    batch: int = knob(64, "States in a step.", least=1, most=10**6)
    learning_rate: float = knob(1e-3, "Peak learning rate of AdamW.", least=0)
    weight_decay: float = knob(1e-2, "Weight decay of AdamW.", least=0)
    drop: float = knob(0.0, "Share of states that are learned without their condition.", least=0, most=1)
    guidance: float = knob(1.0, "Guidance scale; 1 is no guidance.", least=0, most=100)
    steps: int = knob(50, "Steps in which an adapter is drawn.", least=1, most=10**5)
    least_noise: float = knob(1e-4, "Noise at the end of flow matching's path, sigma_min.", least=0, most=1)
    noise_steps: int = knob(1000, "T, steps of the diffusion.", least=2, most=10**5)
    first_noise: float = knob(1e-4, "Variance added in the first step, beta_1.", least=1e-8, most=0.999)
    last_noise: float = knob(0.02, "Variance added in the last step, beta_T.", least=1e-8, most=0.999)
    fresh_noise: float = knob(1.0, "eta: noise of each diffusion step; 1: DDPM, 0: DDIM.", least=0, most=1)
    held_out: int = held_out_knob()

    def __post_init__(self) -> None:
        """Raises UsageError for guidance without what it needs."""
        if self.guidance != 1 and self.condition == NONE:
            raise UsageError(f"guidance {self.guidance:g} needs a condition", f'try condition = "{EMBEDDING}"')
        if self.guidance != 1 and not self.drop:
            raise UsageError(f"guidance {self.guidance:g} needs states without their condition", "try drop = 0.1")


@dataclass(frozen=True)
class PDiffConfig(FlowConfig):
    """The same, with the defaults of diffusion without a condition."""

    objective: str = knob(NOISE, "What is learned: the velocity of flow matching, or the noise.", choices=OBJECTIVES)
    condition: str = knob(NONE, "Condition of the network: {mu*, sigma*^2}, d*, or none.", choices=CONDITIONS)
    steps: int = knob(100, "Steps in which an adapter is drawn.", least=1, most=10**5)


@dataclass(frozen=True)
class CondPDiffConfig(PDiffConfig):
    """The same, with the defaults of diffusion on the sentence's embedding."""

    condition: str = knob(EMBEDDING, "Condition of the network: {mu*, sigma*^2}, d*, or none.", choices=CONDITIONS)


@dataclass(frozen=True)
class D2nwgConfig(CondPDiffConfig):
    """The same, with the defaults of guided diffusion on the sentence's embedding."""

    drop: float = knob(0.1, "Share of states that are learned without their condition.", least=0, most=1)
    guidance: float = knob(1.5, "Guidance scale; 1 is no guidance.", least=0, most=100)
