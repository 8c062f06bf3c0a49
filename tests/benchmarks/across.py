"""Within and across families, over builds: `python tests/benchmarks/across.py FOLDER --packs mixed,birds,flowers,pets`.

FOLDER has a rows file of `sglora bench --on PACK --rows` for every pack and training seed, all on the same unseen
tasks: `birds-0.jsonl`, `birds-1.jsonl`, ..., and with their photos' halves exchanged `birds-0-second.jsonl`, ...
(see over_seeds.py). Whatever pack is measured, the Oracle and the unseen tasks are those of the pack named with --on.

Prints a row for each pack on each family; then every method of a pack against itself in the first pack.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from over_seeds import CELLS, both, builds

from sglora_cli.bench.bootstrap import bootstrap
from sglora_cli.bench.rows import averages, recovery
from sglora_cli.plugin.values import Row

FIXED = ("zero-shot", "oracle")
"""Methods that do not depend on the pack that is measured."""
COMPARED = (("top-k", "zero-shot"), ("cvae", "top-k"), ("cvae", "joint"))


def rows_of(folder: Path, pack: str) -> tuple[list[Row], dict[str, str]]:
    """All builds of one pack."""
    first = sorted(path for path in folder.glob(f"{pack}-*.jsonl") if not path.stem.endswith("-second"))
    second = [path.with_name(f"{path.stem}-second.jsonl") for path in first]
    return builds(first, second if all(path.exists() for path in second) else [])


def named(rows: Sequence[Row], pack: str) -> list[Row]:
    return [row if row.method in FIXED else replace(row, method=f"{row.method}@{pack}") for row in rows]


def measured(rows: dict[str, list[Row]], labels: dict[str, str], family: str) -> None:
    """A line for each pack: averages, recovery, differences between methods."""
    heads = [*labels.values(), f"recovery of {labels['cvae']}"]
    heads += [f"{labels[a]} - {labels[b]}" for a, b in COMPARED]
    print(f"\n**{family}**\n\n| pack | {' | '.join(heads)} |\n{'|---' * (len(heads) + 1)}|")
    for pack, found in rows.items():
        average, result = averages(found), bootstrap(found)
        cells = [" / ".join(f"{average[method][cell]:.1f}" for cell in CELLS) for method in labels]
        shares = [recovery(average, "cvae", cell) for cell in CELLS]
        cells.append(" / ".join("-" if share is None else f"{share:.2f}" for share in shares))
        cells += [both(result, a, b) for a, b in COMPARED]
        print(f"| {pack} | {' | '.join(cells)} |", flush=True)


def against_first(rows: dict[str, list[Row]], labels: dict[str, str], family: str) -> None:
    """Methods of each pack against themselves in the first one, paired over tasks, queries and builds."""
    first, *others = rows
    learned = [m for m in labels if m not in FIXED]
    print(f"\n| {family}: pack - {first} | {' | '.join(labels[m] for m in learned)} |\n{'|---' * (len(learned) + 1)}|")
    for pack in others:
        pair = [*named(rows[first], first), *named([r for r in rows[pack] if r.method not in FIXED], pack)]
        result = bootstrap(pair)
        print(f"| {pack} | {' | '.join(both(result, f'{m}@{pack}', f'{m}@{first}') for m in learned)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--packs", default="mixed,birds,flowers,pets", help="names with commas, the first to compare to"
    )
    options = parser.parse_args()
    found = {pack: rows_of(options.folder, pack) for pack in options.packs.split(",")}
    labels = {name: label for _, known in found.values() for name, label in known.items()}
    least = set.intersection(*({row.method for row in rows} for rows, _ in found.values()))
    labels = {name: label for name, label in labels.items() if name in least}
    every = {pack: [row for row in rows if row.method in least] for pack, (rows, _) in found.items()}
    families = list(dict.fromkeys(row.dataset for rows in every.values() for row in rows))
    for family in ("all", *families):
        rows = {pack: [row for row in own if family in ("all", row.dataset)] for pack, own in every.items()}
        measured(rows, labels, family)
        against_first(rows, labels, family)


if __name__ == "__main__":
    main()
