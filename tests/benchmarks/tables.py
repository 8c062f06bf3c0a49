"""The tables of docs/results-appendix.md from rows files of several builds:

    python tests/benchmarks/tables.py seed-0.jsonl seed-1.jsonl --halves half-0.jsonl half-1.jsonl

Each file is one build, as `sglora bench --rows FILE` wrote it. `--halves` are the same builds with training and test
photos of the unseen tasks exchanged: these count as further tasks. For all tasks and for each data set: recall at 1,
differences to zero-shot and to top-k, and the sentence gain, with 95 % intervals (bootstrap over tasks, queries,
builds and draws), bold where clear of zero.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sglora_cli.bench.bootstrap import Interval, bootstrap, is_clear
from sglora_cli.bench.rows_file import read_rows
from sglora_cli.bench.sentences import apart, sentence_gains
from sglora_cli.plugin.values import Row

RESAMPLES = 4000
WAYS = ("I2T", "T2I")


def main() -> None:
    parser = argparse.ArgumentParser(description="the tables of docs/results-appendix.md")
    parser.add_argument("builds", nargs="+", type=Path)
    parser.add_argument("--halves", nargs="*", type=Path, default=[])
    parser.add_argument("--methods", default="", help="only these, in this order; else all")
    parser.add_argument("--against", default="zero-shot,top-k")
    options = parser.parse_args()
    labels: dict[str, str] = {}
    rows = [row for n, path in enumerate(options.builds) for row in of_build(path, n, "", labels)]
    rows += [row for n, path in enumerate(options.halves) for row in of_build(path, n, ", other half", labels)]
    methods = options.methods.split(",") if options.methods else [name for name in labels if name != "chance"]
    wanted = {*methods, *options.against.split(",")}
    rows = [row for row in rows if row.k == 1 and row.method in wanted]
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    for dataset in ["", *datasets] if len(datasets) > 1 else datasets:
        some = [row for row in rows if dataset in ("", row.dataset)]
        tasks = {(row.dataset, row.task) for row in some}
        print(f"\n**{dataset or 'all'}: {len(tasks)} unseen tasks, {len(options.builds)} builds**\n")
        table(some, methods, options.against.split(","), labels)


def of_build(path: Path, number: int, suffix: str, labels: dict[str, str]) -> list[Row]:
    """Its rows, as those of a seed."""
    found = []
    for run in read_rows(path):
        labels.update(run.header.labels)
        found += [replace(row, seed=number, task=row.task + suffix) for row in run.rows]
    return found


def table(rows: Sequence[Row], methods: Sequence[str], against: Sequence[str], labels: dict[str, str]) -> None:
    own, others = apart(rows)
    intervals = bootstrap(own, RESAMPLES)
    gains = sentence_gains(own, others, RESAMPLES)
    heads = ["method", "I2T", "T2I", *(f"- {labels[name]}" for name in against), "sentence gain"]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for name in methods:
        cells = [f"{intervals.measured[name, way, 1]:.1f}" for way in WAYS]
        for other in against:
            gaps = [intervals.difference((name, way, 1), other) for way in WAYS] if name != other else []
            cells.append(" / ".join(map(written, gaps)))
        cells.append(" / ".join(written(gains[key]) for way in WAYS if (key := ("same", name, way, 1)) in gains))
        print(f"| {labels[name]} | " + " | ".join(cells) + " |")


def written(gap: Interval) -> str:
    text = f"{gap[0]:+.1f} [{gap[1]:+.1f}, {gap[2]:+.1f}]"
    return f"**{text}**" if is_clear(gap) else text


if __name__ == "__main__":
    main()
