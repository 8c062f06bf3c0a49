"""Generators that learn how to mix a pack's experts for a sentence, by retrieval on the tasks that the pack has seen.

A mixture has a coefficient for each expert at each site and makes one adapter:

    update at site s  =  sum over experts e of  c_se (B A)_se                                   (1)

Updates are added, not factors, as both papers below define it: [c_1 B_1 ... c_n B_n] and [A_1; ...; A_n] are the exact
factors, of rank n r. Training uses them as they are; what is handed out is compressed to a rank (mixture.py). The loss
is the contrastive one on photos of seen tasks that no expert has learned.

`mole`: MoLE (Wu, Huang, Wei 2024, "Mixture of LoRA Experts", arXiv 2404.13628). A gate at every site, a softmax over
all experts (Eq. 10-12), with a loss that balances them (Eq. 14-16).
`lora-rar`: LoRA.rar (Shenaj et al. 2024, ICCV 2025, arXiv 2412.05148). A network sees the parameters of the experts to
be merged, here the K of the sentence's prior, and gives their coefficients at every site.

What the sources say, and what is taken: MoLE's from its public code, LoRA.rar's from descriptions of it by others.
Its learning rate, steps and width were not to be found.

| MoLE | source | here |
|---|---|---|
| a gate sees | what all experts output for x | d* (a): one adapter a sentence, before any image |
| gates are at | blocks, layers or matrices | sites, which are matrices |
| temperature | learned, in [1, 3] (code) | the same, from 1 |
| balance | 0.5 x sum over N = 3 of -log of a gate's mean over sites | 0.5 x mean over E of the same (b) |
| steps | 400 (vision and language) | 400 |
| learning rate | 1e-5, constant | 3e-3 at its peak, one cycle (c) |

| LoRA.rar | source | here |
|---|---|---|
| sees | every column of two LoRAs, a layer for each width | alpha, similarities, and a sketch of each update (d) |
| network | one hidden layer that all sites share, ReLU | the same, of 128; a bias for each site (e) |
| coefficients | a column of q and the output; k, v averaged | a site: q, k and v |
| they start at | not said | alpha of Eq. 6 (f) |
| loss | both images kept, columns orthogonal | retrieval: one task, not two to keep apart |

(a) Centred on the mean of the seen sentences: most of an embedding is common to all.
(b) The mean is over a step's sentences, too, else every sentence would want every expert; a sum over 36 experts would
    drown the loss.
(c) A gate has D inputs here in place of N L d, so that 400 steps of 1e-5 would leave it where it starts.
(d) A fixed random projection: its size does not grow with the width, and no choice of factors changes it.
(e) The width of the hidden layer was not to be found; the network has 0.5 million weights at SDXL's size.
(f) So that learning leaves Eq. 7 for a reason; `shrink` is the price of leaving it.

Nothing is drawn: all samples of a sentence are equal.

Shapes: E experts, K selected, n mixed, S sites, T sentences, D embedding, P numbers of an expert, Q of a mixture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sglora_cli.api import Experts, Material, Mismatch, from_mapping, held_out_knob, hookimpl, knob

if TYPE_CHECKING:
    from torch import Tensor

    from sglora_cli.api import Layout

    from .mixture import FittedMixture

SGLORA_API = "1.0"

_K, _SAID = 4, 4
"""Experts of a prior, unless a recipe says otherwise; numbers that LoRA.rar's network is told beside sketches."""


@dataclass(frozen=True)
class MixtureConfig:
    """Training and size of what is made, of both."""

    steps: int = knob(400, "Training steps.", least=1, most=10**6)
    tasks: int = knob(8, "Seen tasks in a step.", least=1, most=4096)
    photos: int = knob(16, "Photos of each, at most.", least=2, most=4096)
    phrases: float = knob(0.5, "Share of phrases of captions in the tasks of a step.", least=0, most=1)
    learning_rate: float = knob(3e-3, "Peak learning rate of AdamW.", least=0, most=1e3)
    weight_decay: float = knob(0.0, "Weight decay of AdamW.", least=0, most=1e3)
    rank: int = knob(8, "Rank of the adapter; 0 keeps the exact mixture.", least=0, most=4096)
    held_out: int = held_out_knob()


@dataclass(frozen=True)
class MoleConfig(MixtureConfig):
    """Its table in a recipe."""

    balance: float = knob(0.5, "Weight of the loss that balances the gates.", least=0, most=1e6)


@dataclass(frozen=True)
class RarConfig(MixtureConfig):
    """Its table in a recipe."""

    learning_rate: float = knob(1e-3, "Peak learning rate of AdamW.", least=0, most=1e3)
    hidden: int = knob(128, "Width of the hidden layers.", least=1, most=65536)
    sketch: int = knob(8, "An update is seen as so many times so many numbers.", least=1, most=64)
    shrink: float = knob(0.01, "Weight of the squared distance of coefficients to alpha.", least=0, most=1e6)


@dataclass(frozen=True)
class Mixtures:
    """One of the methods, by its name."""

    name: str
    label: str
    summary: str
    config: type[MixtureConfig]
    learns: bool = True
    draws: bool = False
    needs: str = ""

    def fit(self, material: Material, settings: Mapping[str, Any]) -> tuple[FittedMixture, dict[str, Any]]:
        """Raises Mismatch if there is too little to learn from or to mix."""
        from . import mole, rar
        from .training import fit

        config = from_mapping(self.config, settings, f"generators.{self.name}")
        if (experts := len(material.experts.names)) < 2:
            raise Mismatch(f"{self.name!r} mixes experts: {experts} is too few", "name more as `expert` in the recipe")
        if isinstance(config, MoleConfig):
            return fit(self.name, material, config, mole.untrained(material, config))
        assert isinstance(config, RarConfig)
        return fit(self.name, material, config, rar.untrained(material, config))

    def restore(self, experts: Experts, tensors: Mapping[str, Tensor]) -> FittedMixture:
        """Raises BadFile if the tensors do not fit the experts."""
        from . import mole, rar
        from .mixture import restored

        empty = mole.empty if self.config is MoleConfig else rar.empty
        return restored(self.name, experts, tensors, empty)

    def cost(
        self, layout: Layout, tasks: int, states: int, settings: Mapping[str, Any], device: str = "cpu"
    ) -> dict[str, Any]:
        config = from_mapping(self.config, settings, f"generators.{self.name}")
        return estimated(layout, tasks, config)


def estimated(layout: Layout, tasks: int, config: MixtureConfig) -> dict[str, Any]:
    """Parameters, peak bytes, the file's bytes of a fit, and passes through the backbone, where its time goes.

    Neither the layout nor a recipe's table says how many experts there are, or how wide an embedding is. As many
    experts as training tasks are taken, as in the packs that come with sglora, and an embedding as wide as the encoder.
    """
    width, sites, experts = layout.sites[0].in_features, len(layout.sites), max(2, tasks)
    if isinstance(config, MoleConfig):
        parameters, kept, mixed = sites * (experts * (width + 1) + 1), width, experts
    else:
        assert isinstance(config, RarConfig)
        seen, hidden = 2 * config.sketch**2 + _SAID, config.hidden
        parameters = hidden * (seen + sites + hidden + 3) + 1
        kept, mixed = experts * sites * config.sketch**2, min(_K, experts)
    # The experts; factors of a step's mixtures and their gradients; weights, their gradients and Adam's moments.
    numbers = experts * layout.size + 4 * config.tasks * mixed * layout.size + 4 * parameters
    return {
        "parameters": parameters,
        "bytes": 4 * numbers,
        "seconds": 0.0,
        "passes": config.steps * config.tasks * config.photos,
        "stored_bytes": 4 * (parameters + kept),
    }


@hookimpl
def sglora_generators() -> list[Mixtures]:
    gates, network = (
        "gates at every site mix all experts, as the sentence says",
        "a network that sees the sentence's experts says how much of each, at every site",
    )
    return [
        Mixtures("mole", "MoLE", f"MoLE: {gates}", MoleConfig),
        Mixtures("lora-rar", "LoRA.rar", f"LoRA.rar: {network}", RarConfig),
    ]
