"""What several builds say together: `python tests/benchmarks/over_seeds.py BUILD0.jsonl BUILD1.jsonl ...`.

Each file is the rows file of `sglora bench --rows` on a pack built with another training seed. `--second` names, in
the same order, those of packs whose unseen tasks have train and test photos exchanged: every photo of an unseen task
is then a query once, beside the others of its half, and the Oracle never saw it. A build is a seed of the bootstrap,
drawn in common for all methods; tasks, queries and draws are resampled, too (sglora_cli/bench/bootstrap.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sglora_cli.bench.bootstrap import Bootstrap, bootstrap, is_clear
from sglora_cli.bench.rows import averages, recovery
from sglora_cli.bench.rows_file import pack_hits, read_rows, unpack_hits
from sglora_cli.plugin.values import Row

CELLS = (("I2T", 1), ("T2I", 1))
AGAINST = ("zero-shot", "top-k", "cvae")


def joined(first: Sequence[Row], second: Sequence[Row]) -> list[Row]:
    """Rows whose queries are those of both halves; what only one half has is left out."""

    def key(row: Row) -> tuple[object, ...]:
        return row.method, row.dataset, row.task, row.seed, row.sample, row.direction, row.k

    other = {key(row): row for row in second}
    found = []
    for row in first:
        if row.hits and key(row) in other:  # chance has none
            hits = [*unpack_hits(row.hits), *unpack_hits(other[key(row)].hits)]
            found.append(replace(row, hits=pack_hits(hits), value=100 * sum(hits) / len(hits)))
    return found


def builds(paths: Sequence[Path], second: Sequence[Path]) -> tuple[list[Row], dict[str, str]]:
    """All rows, a build's number in place of the draws' seed, and the methods' labels."""
    rows: list[Row] = []
    labels: dict[str, str] = {}
    for n, path in enumerate(paths):
        runs = read_rows(path)
        own = [row for run in runs for row in run.rows]
        if second:
            own = joined(own, [row for run in read_rows(second[n]) for row in run.rows])
        rows += [replace(row, seed=n, sample=1000 * row.seed + row.sample) for row in own]
        labels |= {name: label for run in runs for name, label in run.header.labels.items()}
    return rows, labels


def both(result: Bootstrap, method: str, against: str) -> str:
    """Difference and interval at R@1, I2T / T2I; bold where it is clear of zero."""
    gaps = [result.difference((method, *cell), against) for cell in CELLS]
    cells = [f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]" for mean, low, high in gaps]
    return " / ".join(f"**{cell}**" if is_clear(gap) else cell for cell, gap in zip(cells, gaps, strict=True))


def table(title: str, rows: Sequence[Row], labels: dict[str, str]) -> None:
    """Averages with the lowest and highest build, and paired differences."""
    result, pooled = bootstrap(rows), averages(rows)
    by_build = [averages([row for row in rows if row.seed == n]) for n in sorted({row.seed for row in rows})]
    tasks = len({(row.dataset, row.task) for row in rows})
    print(f"\n**{title}: {tasks} unseen tasks**\n")
    print(f"| method | I2T R@1 | T2I R@1 | recovery | {' | '.join(f'R@1 - {one}' for one in AGAINST)} |")
    print("|---" * (4 + len(AGAINST)) + "|")
    for method, label in labels.items():
        if method not in pooled:
            continue
        scores = []
        for cell in CELLS:
            values = [one[method][cell] for one in by_build]
            scores.append(f"{pooled[method][cell]:.1f} ({min(values):.1f} ... {max(values):.1f})")
        shares = [recovery(pooled, method, cell) for cell in CELLS]
        share = " / ".join("-" if value is None else f"{value:.2f}" for value in shares)
        gaps = [both(result, method, one) if method != one else "" for one in AGAINST]
        print(f"| {label} | {' | '.join([*scores, share, *gaps])} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path, nargs="+", help="rows files, one a build")
    parser.add_argument("--second", type=Path, nargs="*", default=[], help="the same with halves exchanged")
    options = parser.parse_args()
    rows, labels = builds(options.rows, options.second)
    table("all", rows, labels)
    for family in dict.fromkeys(row.dataset for row in rows):
        table(family, [row for row in rows if row.dataset == family], labels)


if __name__ == "__main__":
    main()
