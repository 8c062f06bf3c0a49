"""The conformance kits: what every plugin must do, as checks that its author can run.

    @pytest.mark.parametrize("check", BACKBONE_CHECKS, ids=lambda check: check.__name__)
    def test_my_backbone(check):
        check(MyBackbone().load(RuntimeConfig()))

or `sglora plugins check NAME` on the command line; for the others `check_dataset(dataset, root)`,
`check_generator(generator)`, `check_captioner(captioner.load(...))` and `check_reporter(reporter)`. A check raises
PluginError with what is wrong; its docstring says what is asked. Built-ins pass the same checks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sglora_cli.config import RuntimeConfig
from sglora_cli.errors import UsageError
from sglora_cli.plugin.contracts import CaptionModel, Dataset, Generator, Model, Reporter
from sglora_cli.plugin.testing.backbone import (
    BACKBONE_CHECKS,
    adapters,
    layout_of,
)
from sglora_cli.plugin.testing.captioner import CAPTIONER_CHECKS
from sglora_cli.plugin.testing.dataset import DATASET_CHECKS
from sglora_cli.plugin.testing.generator import GENERATOR_CHECKS, Trial
from sglora_cli.plugin.testing.reporter import REPORTER_CHECKS
from sglora_cli.plugin.testing.toys import images, run_all, run_check

KITS: Mapping[str, tuple[Callable[..., None], ...]] = {
    "backbone": BACKBONE_CHECKS,
    "dataset": DATASET_CHECKS,
    "captioner": CAPTIONER_CHECKS,
    "generator": GENERATOR_CHECKS,
    "reporter": REPORTER_CHECKS,
}
"""Kind of plugin to its checks; `subject` makes what they take."""


def subject(kind: str, value: Any, runtime: RuntimeConfig, root: Path | None) -> tuple[Any, ...]:
    """The arguments of a kit's checks for a plugin's value. Raises UsageError for a data set without its folder."""
    if kind in ("backbone", "captioner"):
        return (value.load(runtime),)
    if kind == "dataset":
        if root is None:
            raise UsageError(f"data set {value.name!r} is checked on its folder", "pass --path DIR")
        return (value, root)
    return (Trial(value),) if kind == "generator" else (value,)


def check_backbone(model: Model) -> None:
    """Raises PluginError with everything that is wrong with a loaded backbone."""
    run_all(BACKBONE_CHECKS, model)


def check_dataset(dataset: Dataset, root: Path) -> None:
    """Raises PluginError with everything that is wrong with a data set in its folder."""
    run_all(DATASET_CHECKS, dataset, root)


def check_generator(generator: Generator, settings: Mapping[str, Any] | None = None) -> None:
    """Raises PluginError with everything that is wrong; `settings` is its table of a recipe, to keep it short."""
    run_all(GENERATOR_CHECKS, Trial(generator, settings or {}))


def check_captioner(model: CaptionModel) -> None:
    """Raises PluginError with everything that is wrong with a loaded captioner."""
    run_all(CAPTIONER_CHECKS, model)


def check_reporter(reporter: Reporter) -> None:
    """Raises PluginError with everything that is wrong with a reporter."""
    run_all(REPORTER_CHECKS, reporter)


__all__ = [
    "BACKBONE_CHECKS",
    "CAPTIONER_CHECKS",
    "DATASET_CHECKS",
    "GENERATOR_CHECKS",
    "KITS",
    "REPORTER_CHECKS",
    "Trial",
    "adapters",
    "check_backbone",
    "check_captioner",
    "check_dataset",
    "check_generator",
    "check_reporter",
    "images",
    "layout_of",
    "run_check",
    "subject",
]
