"""The backbone `example`. The model is in model.py, which brings torch: loaded when it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sglora_cli.api import RuntimeConfig, hookimpl

if TYPE_CHECKING:
    from .model import ExampleModel

SGLORA_API = "1.0"
"""The plugin API this is written for; sglora says so where it does not fit."""


class Example:
    """What sglora lists."""

    name = "example"
    summary = "a small vision transformer with random weights"

    def load(self, runtime: RuntimeConfig) -> ExampleModel:
        """`runtime` says device, precision and a file of weights, if the user named one."""
        from sglora_cli.api import pick_device

        from .model import ExampleModel

        return ExampleModel(pick_device(runtime.device))


@hookimpl
def sglora_backbones() -> list[Example]:
    return [Example()]
