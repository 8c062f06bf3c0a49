"""Diffusion and flow matching over adapters, as settings of one algorithm.

An adapter is represented by R coordinates in the span of the experts and the training tasks' states, with mean 0 and
mean square 1 over the states. A path leads from noise to these coordinates (paths.py). A network learns the direction
of the path from states, noise and a condition (network.py, training.py). Following it generates an adapter (fitted.py).

| name | path | condition | guidance | source |
|---|---|---|---|---|
| flow | flow matching | {mu*, sigma*^2} | 1 | Lipman et al. 2023, arXiv 2210.02747; for adapters, this project |
| p-diff | diffusion | none | 1 | Wang et al. 2024, arXiv 2402.13144 |
| cond-p-diff | diffusion | d* | 1 | Jin et al. 2024, arXiv 2408.01415 |
| d2nwg | diffusion | d* | 1.5 | Soro et al. 2025, arXiv 2402.18153, guidance of Ho and Salimans 2022 |

The diffusion settings are p-diff's, from its authors' code for a ResNet-18 on CIFAR-100. A pack has hundreds of
adapters of tens of tasks, whereas these works have hundreds or thousands of a few tasks. Some values are therefore
adapted:

| what | source | here | reason |
|---|---|---|---|
| latent | a convolutional autoencoder's, 128 numbers | linear, at most 128 | exact on the span; few states |
| network | 1D convolutional U-Net | MLP of residual blocks | coordinates have no order for convolutions |
| output | the noise | the noise minus its value for normal states | see paths.py |
| training steps | 2000 of 50 states at 1e-4 | `epochs` at 1e-3 | a small MLP allows larger steps |
| weight decay | 0 | 1e-2 | otherwise tens of conditions are memorised |
| sampling steps | 1000 | 100 | as good on toy data, and ten times as fast |
| condition | features of the task's data | d*, of mean 0 and mean square 1 | nothing else is known of an unseen task |
| z-score | per task | one mean and unit for all tasks | an unseen task has no statistics |
| guidance | not stated in the available text | 1.5, with a tenth of the conditions dropped | Ho and Salimans' range |

Shapes: P parameters of an adapter, R coordinates, C of the condition, N states, B batch, S samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sglora_cli.api import Experts, Material, from_mapping, hookimpl

from .config import CondPDiffConfig, D2nwgConfig, FlowConfig, PDiffConfig

if TYPE_CHECKING:
    from torch import Tensor

    from sglora_cli.api import Layout

SGLORA_API = "1.0"


@dataclass(frozen=True)
class Flow:
    """A named variant of the method. Variants differ only in the defaults of their config."""

    name: str
    label: str
    summary: str
    config: type[FlowConfig]
    learns: bool = True
    draws: bool = True
    needs: str = ""

    def fit(self, material: Material, settings: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        from .training import fit

        return fit(material, self._config(settings), self.name)

    def cost(
        self, layout: Layout, tasks: int, states: int, settings: Mapping[str, Any], device: str = "cpu"
    ) -> dict[str, Any]:
        from .cost import cost

        return cost(layout, tasks, states, self._config(settings), device)

    def restore(self, experts: Experts, tensors: Mapping[str, Tensor]) -> Any:
        from .fitted import restore

        return restore(experts, tensors)

    def _config(self, settings: Mapping[str, Any]) -> FlowConfig:
        return from_mapping(self.config, settings, f"generators.{self.name}")


@hookimpl
def sglora_generators() -> list[Flow]:
    return [
        Flow("flow", "Flow matching", "flow matching over adapters, conditioned on the prior", FlowConfig),
        Flow("p-diff", "P-Diff", "latent diffusion over adapters, without a condition", PDiffConfig),
        Flow(
            "cond-p-diff",
            "Cond P-Diff",
            "latent diffusion over adapters, conditioned on d* (the sentence)",
            CondPDiffConfig,
        ),
        Flow("d2nwg", "D2NWG", "latent diffusion on d*, with classifier-free guidance", D2nwgConfig),
    ]
