"""Conformance kits: checks of what every plugin must do, for plugin authors.

Run `sglora plugins check NAME` on the command line, or a test:

    @pytest.mark.parametrize("check", BACKBONE_CHECKS, ids=lambda check: check.__name__)
    def test_my_backbone(check):
        check(MyBackbone().load(RuntimeConfig()))

For other plugins call `check_dataset(dataset, root)`, `check_generator(generator)`,
`check_captioner(captioner.load(...))`, `check_reporter(reporter)` or `check_executor(executor)`. For a backbone that
counts tokens also call `check_tokens(backbone, model)`. A failing check raises PluginError, and its docstring states
the requirement. The built-in plugins pass the same checks.
"""

from __future__ import annotations

from sglora_cli.plugin.testing.backbone import BACKBONE_CHECKS, adapters, check_backbone, layout_of
from sglora_cli.plugin.testing.captioner import CAPTIONER_CHECKS, check_captioner
from sglora_cli.plugin.testing.dataset import DATASET_CHECKS, check_dataset
from sglora_cli.plugin.testing.executor import EXECUTOR_CHECKS, check_executor
from sglora_cli.plugin.testing.generator import GENERATOR_CHECKS, GeneratorTrial, check_generator
from sglora_cli.plugin.testing.kits import KITS, subject, trials
from sglora_cli.plugin.testing.reporter import REPORTER_CHECKS, check_reporter
from sglora_cli.plugin.testing.tokens import TOKEN_CHECKS, check_tokens
from sglora_cli.plugin.testing.toys import ConformanceCheck, images, run_check

__all__ = [
    "BACKBONE_CHECKS",
    "CAPTIONER_CHECKS",
    "DATASET_CHECKS",
    "EXECUTOR_CHECKS",
    "GENERATOR_CHECKS",
    "KITS",
    "REPORTER_CHECKS",
    "TOKEN_CHECKS",
    "ConformanceCheck",
    "GeneratorTrial",
    "adapters",
    "check_backbone",
    "check_captioner",
    "check_dataset",
    "check_executor",
    "check_generator",
    "check_reporter",
    "check_tokens",
    "images",
    "layout_of",
    "run_check",
    "subject",
    "trials",
]
