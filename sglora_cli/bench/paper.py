"""The numbers that the paper prints. They are in paper.json and nowhere else. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from sglora_cli.files.text import read_json
from sglora_cli.plugin.values import AGAINST, ORACLE, ZERO

PAPER = (ZERO, ORACLE, "model-soups", "adapter-soup", AGAINST, "cvae")
"""The methods of the paper's tables, in their order."""


@cache
def paper_numbers() -> Mapping[str, Any]:
    """Everything that is known of the paper's tables: SG-LoRA (arXiv 2509.10535).

    `tables`, "EXPERTS on TASKS" -> method -> direction -> values in percent, of R@1, R@5, R@10 or of accuracy;
    `conditions`, `descriptions` and `related expert` in the same way, and `contributions`, task -> expert -> weight.
    `backbone`, `rank` and `k` are what they were measured with.

    >>> paper_numbers()["tables"]["coco on coco"]["zero-shot"]["I2T"]
    [66.43, 84.31, 89.14]
    """
    content: Mapping[str, Any] = read_json(Path(__file__).with_name("paper.json"))
    return content
