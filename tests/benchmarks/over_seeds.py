"""What several builds say together: `python tests/benchmarks/over_seeds.py SEED0.json SEED1.json ...`.

Each file is the output of `sglora bench --baselines all --json` on a pack built with another training
seed. Tasks, builds and draws are resampled; queries are not, as the JSON output has no hits.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from sglora_cli.benchmarking import differences
from sglora_cli.configs import BenchConfig
from sglora_cli.contracts import Row
from sglora_cli.rows import averages, recovery

GENERATOR, MERGES = "cvae", ("model-soups", "adapter-soup", "top-k")
CELLS = (("I2T", 1), ("T2I", 1))


def spread(values: list[float]) -> str:
    return f"{sum(values) / len(values):.1f} ({min(values):.1f} ... {max(values):.1f})"


def both(gaps: dict, method: str) -> str:
    """Difference and interval at R@1, I2T / T2I."""
    found = [gaps[(method, *cell)] for cell in CELLS]
    return " / ".join(f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]" for mean, low, high in found)


def main(paths: list[str]) -> None:
    contents = [json.loads(Path(path).read_text()) for path in paths]
    runs = [[Row(**row) for row in content["rows"]] for content in contents]
    found = [averages(rows) for rows in runs]
    # A build is a seed: drawn in common for all methods. Every build has the same number of draws.
    together = [replace(row, seed=n) for n, rows in enumerate(runs) for row in rows]
    pooled, config = averages(together), BenchConfig()
    gaps = {against: differences(together, config, against=against) for against in ("zero-shot", "top-k")}
    print(f"| method | I2T R@1 | T2I R@1 | recovery | R@1 - zero-shot | R@1 - top-k |\n{'|---' * 6}|")
    for method, label in contents[0]["methods"].items():
        scores = [spread([one[method][cell] for one in found]) for cell in CELLS]
        shares = [recovery(pooled, method, cell) for cell in CELLS]
        share = " / ".join("-" if value is None else f"{value:.2f}" for value in shares)
        compared = [both(gaps[a], method) if method != a else "" for a in gaps]
        print(f"| {label} | {' | '.join([*scores, share, *compared])} |")
    print(f"\n{GENERATOR} - oracle: {both(differences(together, config, against='oracle'), GENERATOR)}")
    for cell in CELLS:
        above = sum(all(one[GENERATOR][cell] > one[merge][cell] for merge in MERGES) for one in found)
        least = sum(one[GENERATOR][cell] >= one["oracle"][cell] for one in found)
        print(f"{cell[0]} R@{cell[1]}: above every merge in {above} of {len(found)} builds, Oracle reached in {least}")


if __name__ == "__main__":
    main(sys.argv[1:])
