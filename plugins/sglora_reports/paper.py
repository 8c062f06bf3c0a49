"""The paper's numbers, where what was measured follows the paper's protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sglora_cli.api import Report, paper_numbers

Cell = tuple[str, int]
KS = (1, 5, 10)


def published(report: Report, dataset: str) -> Mapping[tuple[str, Cell], float]:
    """(method, cell) -> the paper's percent, for the tasks of one data set; {} where the protocol is another."""
    paper = paper_numbers()
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
    """What a reader must know of the paper's numbers, or why there are none."""
    if not report.paper:
        return []
    paper = paper_numbers()
    if reason := _why_not(report, paper):
        return [f"the paper's numbers are not shown: {reason}"]
    datasets = dict.fromkeys(row.dataset for row in report.rows)
    without = [name for name in datasets if not published(report, name)]
    lines = [f"in brackets: the paper's number and the difference to it; {paper['source']}"]
    lines += [f"the paper has no table of experts from {_experts(report)} on {name}" for name in without]
    return [*lines, "the paper's captions and splits are not public: the same data set is not the same tasks"]


def _experts(report: Report) -> str:
    return " + ".join(report.protocol.get("experts", ()))


def _why_not(report: Report, paper: Mapping[str, Any]) -> str:
    if not report.protocol:
        return "its methods need a pack"
    if report.role != "unseen":
        return f"its tasks are unseen, these are {report.role} tasks"
    for name in ("backbone", "rank", "k"):
        if (own := report.protocol.get(name)) != paper[name]:
            return f"{name} {own!r} is not the paper's {paper[name]!r}"
    return ""
