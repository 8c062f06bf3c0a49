"""Generators that learn how to mix a pack's experts for a sentence, by retrieval on the seen tasks of the pack.

A mixture has a coefficient for each expert at each site and forms one adapter:

    update at site s  =  sum over experts e of  c_se (B A)_se                                   (1)

Both papers below sum updates instead of factors. [c_1 B_1 ... c_n B_n] and [A_1; ...; A_n] are the exact factors of
the sum, with rank n r. Training uses these exact factors, and generated adapters are compressed to a lower rank
(mixture.py). The loss is the contrastive loss on photos of seen tasks that no expert was trained on.

`mole`: MoLE (Wu, Huang, Wei 2024, "Mixture of LoRA Experts", arXiv 2404.13628). Each site has a gate, a softmax over
all experts (Eq. 10-12), and a loss balances the experts (Eq. 14-16).
`lora-rar`: LoRA.rar (Shenaj et al. 2024, ICCV 2025, arXiv 2412.05148). A network reads the parameters of the experts
to merge, here the K experts of the sentence's prior, and outputs their coefficients at every site.

The tables compare the sources with this implementation. MoLE's values are from its public code. LoRA.rar's are from
descriptions by others, and its learning rate, steps and width are unknown.

| MoLE | source | here |
|---|---|---|
| input of a gate | the outputs of all experts for x | d* (a): one adapter per sentence, before any image |
| position of gates | blocks, layers or matrices | sites, which are matrices |
| temperature | learned, in [1, 3] (code) | the same, from 1 |
| balance | 0.5 x sum over N = 3 of -log of a gate's mean over sites | 0.5 x mean over E of the same (b) |
| steps | 400 (vision and language) | 400 |
| learning rate | 1e-5, constant | 3e-3 at its peak, one cycle (c) |

| LoRA.rar | source | here |
|---|---|---|
| input | every column of two LoRAs, one layer per width | alpha, similarities, and a sketch of each update (d) |
| network | one hidden layer shared by all sites, ReLU | the same, 128 wide, with a bias per site (e) |
| coefficients | per column of q and output; k, v averaged | per site: q, k and v |
| initial coefficients | not stated | alpha of Eq. 6 (f) |
| loss | keep both images, orthogonal columns | retrieval: there is one task, not two to keep apart |

(a) Centred on the mean of the seen sentences, because most of an embedding is common to all sentences.
(b) The mean is also over the sentences of a step. Otherwise every sentence would need every expert, and a sum over
    36 experts would dominate the loss.
(c) A gate has D inputs here instead of N L d, so 400 steps of 1e-5 would leave it at its initial value.
(d) A fixed random projection. Its size does not depend on the width, and it is the same for all factorisations.
(e) The source's hidden width is unknown. Its network has 0.5 million weights at SDXL's size.
(f) The coefficients then differ from Eq. 7 only where learning improves the loss. `shrink` penalises the difference.

The generators are deterministic: all samples of a sentence are equal.

Shapes: E experts, K selected, n mixed, S sites, T sentences, D embedding, P parameters of an expert, Q of a mixture.
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
"""Experts of a prior unless a recipe sets another number, and inputs of LoRA.rar's network besides sketches."""


@dataclass(frozen=True)
class MixtureConfig:
    """Settings for training and output size, shared by both methods."""

    steps: int = knob(400, "Training steps.", least=1, most=10**6)
    tasks: int = knob(8, "Seen tasks per step.", least=1, most=4096)
    photos: int = knob(16, "Most photos per task and step.", least=2, most=4096)
    phrases: float = knob(0.5, "Share of caption phrases among the tasks of a step.", least=0, most=1)
    learning_rate: float = knob(3e-3, "Peak learning rate of AdamW.", least=0, most=1e3)
    weight_decay: float = knob(0.0, "Weight decay of AdamW.", least=0, most=1e3)
    rank: int = knob(8, "Rank of the adapter; 0 keeps the exact mixture.", least=0, most=4096)
    held_out: int = held_out_knob()


@dataclass(frozen=True)
class MoleConfig(MixtureConfig):
    """Settings of `mole` in a recipe."""

    balance: float = knob(0.5, "Weight of the loss that balances the gates.", least=0, most=1e6)


@dataclass(frozen=True)
class RarConfig(MixtureConfig):
    """Settings of `lora-rar` in a recipe."""

    learning_rate: float = knob(1e-3, "Peak learning rate of AdamW.", least=0, most=1e3)
    hidden: int = knob(128, "Width of the hidden layers.", least=1, most=65536)
    sketch: int = knob(8, "Side length of the square sketch of an update.", least=1, most=64)
    shrink: float = knob(0.01, "Weight of the squared distance between coefficients and alpha.", least=0, most=1e6)


@dataclass(frozen=True)
class Mixtures:
    """One of the two methods."""

    name: str
    label: str
    summary: str
    config: type[MixtureConfig]
    learns: bool = True
    draws: bool = False
    needs: str = ""

    def fit(self, material: Material, settings: Mapping[str, Any]) -> tuple[FittedMixture, dict[str, Any]]:
        """Train the network. Raises Mismatch if there are too few tasks to learn from or experts to mix."""
        from . import mole, rar
        from .training import fit

        config = from_mapping(self.config, settings, f"generators.{self.name}")
        if (experts := len(material.experts.names)) < 2:
            raise Mismatch(
                f"{self.name!r} needs at least 2 experts to mix, got {experts}", "add `expert` tasks to the recipe"
            )
        if isinstance(config, MoleConfig):
            return fit(self.name, material, config, mole.untrained(material, config))
        assert isinstance(config, RarConfig)
        return fit(self.name, material, config, rar.untrained(material, config))

    def restore(self, experts: Experts, tensors: Mapping[str, Tensor]) -> FittedMixture:
        """Raises BadFile if the tensors do not match the experts."""
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
    """Estimate parameters, peak bytes, file size, and passes through the backbone, which take most of the time.

    The number of experts and the width of an embedding are unknown here. The estimate assumes as many experts as
    training tasks, as in the packs shipped with sglora, and an embedding as wide as the encoder.
    """
    width, sites, experts = layout.sites[0].in_features, len(layout.sites), max(2, tasks)
    if isinstance(config, MoleConfig):
        parameters, kept, mixed = sites * (experts * (width + 1) + 1), width, experts
    else:
        assert isinstance(config, RarConfig)
        seen, hidden = 2 * config.sketch**2 + _SAID, config.hidden
        parameters = hidden * (seen + sites + hidden + 3) + 1
        kept, mixed = experts * sites * config.sketch**2, min(_K, experts)
    # The experts; the factors of a step's mixtures with their gradients; weights, gradients and Adam's moments.
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
        "gates at every site mix all experts, given the sentence",
        "a network mixes the sentence's experts, with its own coefficients at every site",
    )
    return [
        Mixtures("mole", "MoLE", f"MoLE: {gates}", MoleConfig),
        Mixtures("lora-rar", "LoRA.rar", f"LoRA.rar: {network}", RarConfig),
    ]
