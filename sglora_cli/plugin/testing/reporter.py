"""Conformance checks of reporters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sglora_cli.plugin.contracts import Reporter
from sglora_cli.plugin.testing.toys import ask, run_all
from sglora_cli.plugin.values import ZERO, Report, Row


def every_method_is_named(reporter: Reporter) -> None:
    """render returns text that ends with a line break and contains each method's name or label."""
    report = sample_report()
    text = reporter.render(report)
    ask(isinstance(text, str) and text.endswith("\n"), "render must return a string that ends with a line break")
    for name, label in report.labels.items():
        ask(name in text or label in text, f"method {name!r} is missing from the output")


def reports_of_any_kind(reporter: Reporter) -> None:
    """render handles reports without rows, with one row, of classification, and with unusual names, reproducibly."""
    whole = sample_report()
    strange = [replace(row, task='a "b", <c> | & \\d_e% \u00e9\u4e2d') for row in whole.rows]
    accuracy = [Row(ZERO, "toys", "cup", 0, "ACC", 1, 50.0)]
    for rows in (whole.rows, strange, whole.rows[:1], accuracy, ()):
        report = replace(whole, rows=rows, differences={} if len(rows) < 2 else whole.differences)
        ask(reporter.render(report) == reporter.render(report), "the same report rendered differently the second time")


def sample_report() -> Report:
    """Return a report of two methods on two tasks."""
    rows = [
        Row(method, "toys", task, sample, direction, k, 12.5 * (k % 4) + 10 * m + sample)
        for m, (method, samples) in enumerate(((ZERO, 1), ("cvae", 2)))
        for task in ("cup", "hat")
        for sample in range(samples)
        for direction in ("I2T", "T2I")
        for k in (1, 5, 10)
    ]
    labels = {ZERO: "Zero-shot", "cvae": "SG-LoRA"}
    differences = {("cvae", d, k): (10.5, -1.0, 22.0) for d in ("I2T", "T2I") for k in (1, 5, 10)}
    return Report("toys", rows, labels, differences, ZERO, notes=("a note",))


REPORTER_CHECKS: tuple[Callable[[Reporter], None], ...] = (every_method_is_named, reports_of_any_kind)


def check_reporter(reporter: Reporter) -> None:
    """Raise PluginError listing everything that is wrong with a reporter."""
    run_all(REPORTER_CHECKS, reporter)
