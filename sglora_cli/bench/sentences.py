"""Measures whether the sentence matters: a method gets sentences of other tasks and is measured on the same task.

The sentence gain of a task is the recall of the adapter made from its own sentence, minus the mean recall of adapters
made from other sentences, on the task's photos. A method that ignores the sentence has a gain of zero by definition
and is not measured. For the Oracle, adapters trained on other tasks' photos replace other sentences, so its gain is
what can be gained by knowing the task.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sglora_cli.bench.bootstrap import Interval, bootstrap
from sglora_cli.plugin.values import Row

UNRELATED = "unrelated"
UNRELATED_SENTENCE = "a quarterly tax report"
SAME, ACROSS = "same", "across"
KINDS = (SAME, ACROSS, UNRELATED)
"""Where other sentences come from: tasks of the same data set, tasks of other data sets, or no task at all."""
GainCell = tuple[str, str, str, int]
"""(kind, method, direction, k)"""


@dataclass(frozen=True)
class Sentence:
    """The description of a task, used as a sentence for other tasks."""

    key: str
    dataset: str
    text: str


def other_sentences(task: Sentence, pool: Sequence[Sentence], count: int, seed: int) -> list[str]:
    """Return the keys of the other tasks whose sentences a task is measured with.

    Up to `count` come from its own data set and half as many from other data sets, drawn by seed and task. UNRELATED
    comes last. Sentences equal to the task's own are left out.
    """
    rng = random.Random(f"{seed} {task.key}")
    keys: list[str] = []
    for same, most in ((True, count), (False, -(-count // 2))):
        others = sorted(
            one.key
            for one in pool
            if (one.dataset == task.dataset) == same
            and one.key != task.key
            and one.text.casefold() != task.text.casefold()
        )
        keys += rng.sample(others, min(most, len(others)))
    return [*keys, UNRELATED]


def apart(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Split rows into those of the tasks' own sentences and those of other sentences."""
    return [row for row in rows if not row.sentence], [row for row in rows if row.sentence]


def kind_of(row: Row) -> str:
    """Return the kind of the other sentence that made a row, one of KINDS."""
    if row.sentence == UNRELATED:
        return UNRELATED
    return SAME if row.sentence.startswith(f"{row.dataset}/") else ACROSS


def sentence_gains(
    rows: Sequence[Row], controls: Sequence[Row], resamples: int = 2000, seed: int = 0
) -> dict[GainCell, Interval]:
    """Return the mean gain in points with its 95 % interval at k = 1, for each method measured with other sentences.

    rows: measured with the tasks' own sentences.  controls: measured with other sentences.
    The intervals come from `bootstrap`, where own and other sentences share the drawn tasks and queries.
    """
    gains: dict[GainCell, Interval] = {}
    for kind in KINDS:
        others = [row for row in controls if row.k == 1 and kind_of(row) == kind]
        asked = {(row.method, row.dataset, row.task) for row in others}
        own = [row for row in rows if row.k == 1 and (row.method, row.dataset, row.task) in asked]
        if not own:
            continue
        intervals = bootstrap([*own, *_as_draws(others)], resamples, seed)
        for method, direction, k in intervals.measured:
            if (_other(method), direction, k) in intervals.measured:
                gains[kind, method, direction, k] = intervals.difference((method, direction, k), _other(method))
    return gains


def _other(method: str) -> str:
    return f"{method}\0other sentences"


def _as_draws(others: Sequence[Row]) -> list[Row]:
    """Return rows of other sentences as rows of another method whose draws are the sentences."""
    place: dict[tuple[str, str, str, str], int] = {}
    counts: dict[tuple[str, str, str], int] = {}
    draws = []
    for row in others:
        of = (row.method, row.dataset, row.task)
        if (*of, row.sentence) not in place:
            place[*of, row.sentence] = counts.get(of, 0)
            counts[of] = counts.get(of, 0) + 1
        draws.append(replace(row, method=_other(row.method), sample=place[*of, row.sentence]))
    return draws


def not_reading(methods: Mapping[str, str], controls: Sequence[Row]) -> list[str]:
    """Return the methods that were not measured with other sentences, or none if no method was."""
    asked = {row.method for row in controls}
    return [method for method in methods if method not in asked] if controls else []
