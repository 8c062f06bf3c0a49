"""All conformance checks by kind of plugin, and their arguments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sglora_cli.config import RuntimeConfig
from sglora_cli.errors import UsageError
from sglora_cli.plugin.contracts import CountsTokens
from sglora_cli.plugin.testing.backbone import BACKBONE_CHECKS
from sglora_cli.plugin.testing.captioner import CAPTIONER_CHECKS
from sglora_cli.plugin.testing.dataset import DATASET_CHECKS
from sglora_cli.plugin.testing.executor import EXECUTOR_CHECKS
from sglora_cli.plugin.testing.generator import GENERATOR_CHECKS, GeneratorTrial
from sglora_cli.plugin.testing.reporter import REPORTER_CHECKS
from sglora_cli.plugin.testing.tokens import TOKEN_CHECKS
from sglora_cli.plugin.testing.toys import ConformanceCheck

KITS: Mapping[str, tuple[ConformanceCheck, ...]] = {
    "backbone": BACKBONE_CHECKS,
    "dataset": DATASET_CHECKS,
    "captioner": CAPTIONER_CHECKS,
    "generator": GENERATOR_CHECKS,
    "reporter": REPORTER_CHECKS,
    "executor": EXECUTOR_CHECKS,
}
"""Kind of plugin -> its checks. `subject` creates their arguments."""


def subject(kind: str, value: Any, runtime: RuntimeConfig, root: Path | None) -> tuple[Any, ...]:
    """Return the arguments of the checks for a plugin's value. Raises UsageError for a data set without a folder."""
    if kind in ("backbone", "captioner"):
        return (value.load(runtime),)
    if kind == "dataset":
        if root is None:
            raise UsageError(f"checking data set {value.name!r} needs its folder", "pass --path DIR")
        return (value, root)
    return (GeneratorTrial(value),) if kind == "generator" else (value,)


def trials(
    kind: str, value: Any, runtime: RuntimeConfig, root: Path | None
) -> list[tuple[ConformanceCheck, tuple[Any, ...]]]:
    """Return every check of a plugin's value with its arguments: its kit, and checks of its optional protocols.

    Raises UsageError for a data set without a folder.
    """
    arguments = subject(kind, value, runtime, root)
    asked = [(check, arguments) for check in KITS[kind]]
    if kind == "backbone" and isinstance(value, CountsTokens):
        asked += [(check, (value, *arguments)) for check in TOKEN_CHECKS]
    return asked
