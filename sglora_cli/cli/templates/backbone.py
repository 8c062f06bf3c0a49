"""The backbone `example`. model.py imports torch, so it is loaded only when the model is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sglora_cli.api import RuntimeConfig, hookimpl

if TYPE_CHECKING:
    from .model import ExampleModel

SGLORA_API = "1.0"
"""Version of the plugin API this is written for. sglora reports an incompatible version."""


class Example:
    """The backbone that `sglora plugins list` shows."""

    name = "example"
    summary = "a small vision transformer with random weights"

    def load(self, runtime: RuntimeConfig) -> ExampleModel:
        """Load the model. `runtime` has the device, the precision and the file of weights, if the user passed one."""
        from sglora_cli.api import pick_device

        from .model import ExampleModel

        return ExampleModel(pick_device(runtime.device))


@hookimpl
def sglora_backbones() -> list[Example]:
    return [Example()]
