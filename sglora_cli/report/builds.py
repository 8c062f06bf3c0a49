"""Combines the rows files of several builds of one recipe into one table. No torch.

A build takes the place of a seed in the bootstrap. Builds are drawn with replacement, the same ones for all tasks and
methods, and each drawn build contributes as many draws as it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path

from sglora_cli.bench.rows import row_key
from sglora_cli.bench.rows_file import Run
from sglora_cli.errors import BadFile, Mismatch, UsageError
from sglora_cli.plugin.values import Row


@dataclass(frozen=True)
class BuildRows:
    """The rows file of one build."""

    path: Path
    runs: Sequence[Run]

    def texts(self, key: str) -> set[str]:
        """Return the values of an optional key in the file's headers."""
        values = [run.header.more.get(key) for run in self.runs]
        return {value for value in values if isinstance(value, str)}

    @cached_property
    def rows(self) -> Mapping[tuple[object, ...], Row]:
        """The measured rows by key. If a number was measured twice, the last one counts."""
        return {row_key(row): row for run in self.runs for row in run.rows}


def rows_of_builds(builds: Sequence[BuildRows]) -> list[Row]:
    """Return the rows of all builds. A row's `seed` is its build, from 0, and its `sample` counts the build's draws.

    Raises UsageError for fewer than two builds, BadFile for a file without rows, and Mismatch for files that are not
    from different builds of one recipe or were not measured in the same way.
    """
    if len(builds) < 2:
        raise UsageError(
            f"--over builds needs the rows files of at least two builds, got only {builds[0].path}",
            "change seed in [train] of the recipe, rebuild the pack, measure it with `sglora bench --rows FILE`, "
            "and pass that file too",
        )
    for build in builds:
        _check_recipe(builds[0], build)
    for first, second in combinations(builds, 2):
        _check_different(first, second)
    for build in builds:
        if not build.rows:
            raise BadFile(f"{build.path} has no rows", "run `sglora bench --rows FILE` until it finishes")
        _check_alike(builds[0], build)
    draws = sorted({(row.seed, row.sample) for row in builds[0].rows.values()})
    place = {draw: n for n, draw in enumerate(draws)}
    return [
        replace(row, seed=n, sample=place[row.seed, row.sample])
        for n, build in enumerate(builds)
        for row in build.rows.values()
    ]


def names_of(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return the names of the builds: file names, with folders if two files have the same name."""
    names = tuple(path.name for path in paths)
    return names if len(set(names)) == len(names) else tuple(map(str, paths))


def _check_recipe(first: BuildRows, build: BuildRows) -> None:
    """Raise Mismatch if the pack or backbone differs from the first file's."""
    own = first.runs[0].header
    for other in (run.header for run in build.runs):
        if (other.pack, other.backbone) != (own.pack, own.backbone):
            raise Mismatch(
                f"{build.path} has rows of pack {other.pack!r} on {other.backbone!r}, "
                f"but {first.path} of pack {own.pack!r} on {own.backbone!r}",
                "make one report per pack, because --over builds combines builds of one recipe",
            )
    prints = first.texts("fingerprint") | build.texts("fingerprint")
    if len(prints) > 1:
        raise Mismatch(
            f"{first.path} and {build.path} have rows of backbones with fingerprints {' and '.join(sorted(prints))}",
            "measure all builds with the same backbone",
        )


def _check_different(first: BuildRows, second: BuildRows) -> None:
    """Raise Mismatch if two files have rows of the same pack, identified by the hash of its manifest or bench plan."""
    if any(first.texts(key) & second.texts(key) for key in ("build", "plan")):
        raise Mismatch(
            f"{first.path} and {second.path} have rows of the same build",
            "change seed in [train] of the recipe, rebuild the pack, and measure the new pack",
        )


def _check_alike(first: BuildRows, build: BuildRows) -> None:
    """Raise Mismatch unless two builds have the same methods, tasks and draws."""
    sides = ((first, build), (build, first))
    for noun, names in (("method", _methods), ("task", _tasks)):
        for has, lacks in sides:
            if missing := sorted(names(has) - names(lacks)):
                more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
                raise Mismatch(
                    f"{lacks.path} has no {noun} {missing[0]!r}{more}, which {has.path} has",
                    "measure all builds with the same `sglora bench` command",
                )
    for has, lacks in sides:
        if row := next((row for key, row in has.rows.items() if key not in lacks.rows), None):
            raise Mismatch(
                f"{lacks.path} and {has.path} differ in draws of method {row.method!r} on {row.dataset}/{row.task}",
                "measure all builds with the same --seeds, --seed and --samples",
            )


def _methods(build: BuildRows) -> set[str]:
    return {row.method for row in build.rows.values()}


def _tasks(build: BuildRows) -> set[str]:
    return {f"{row.dataset}/{row.task}" for row in build.rows.values()}
