"""The paper's numbers, for measurements that follow the paper's protocol."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sglora_cli.api import Report, read_json

Cell = tuple[str, int]
KS = (1, 5, 10)
FILE = Path(__file__).with_name("paper.json")


def published(report: Report, dataset: str) -> Mapping[tuple[str, Cell], float]:
    """Return (method, cell) -> the paper's percentage for one data set, or {} if the protocol differs."""
    paper = read_json(FILE)
    if not report.paper or _why_not(report, paper):
        return {}
    table = paper["tables"].get(f"{_experts(report)} on {dataset}", {})
    return {
        (method, (direction, k)): value
        for method, by_direction in table.items()
        for direction, values in by_direction.items()
        for k, value in zip(KS, values, strict=False)
    }


def remarks(report: Report) -> list[str]:
    """Return notes on the paper's numbers, or the reason why they are not shown."""
    if not report.paper:
        return []
    paper = read_json(FILE)
    if reason := _why_not(report, paper):
        return [f"the paper's numbers are not shown: {reason}"]
    datasets = dict.fromkeys(row.dataset for row in report.rows)
    without = [name for name in datasets if not published(report, name)]
    lines = [f"brackets show the paper's number and the difference to it. Source: {paper['source']}"]
    lines += [f"the paper has no table for experts from {_experts(report)} on {name}" for name in without]
    return [*lines, "the paper's captions and splits are not public, so the tasks differ even on the same data set"]


def _experts(report: Report) -> str:
    return " + ".join(report.protocol.get("experts", ()))


def _why_not(report: Report, paper: Mapping[str, Any]) -> str:
    if not report.protocol:
        return "the paper's methods need a pack"
    if report.role != "unseen":
        return f"the paper measures unseen tasks, and these are {report.role} tasks"
    for name in ("backbone", "rank", "k"):
        if (own := report.protocol.get(name)) != paper[name]:
            return f"{name} is {own!r}, not {paper[name]!r} as in the paper"
    return ""
