"""Whether the sentence matters: a method asked with sentences of other tasks, measured on the same task.

The sentence gain of a task is the recall of the adapter made from its own sentence, minus the mean recall of adapters
made from other sentences, on the task's photos. A method that ignores the sentence has a gain of zero by definition,
and is not asked. For the Oracle, the adapters trained on other tasks' photos take the place of other sentences: its
gain says how much there is to win by knowing the task.
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
"""Whose other sentences: of tasks of the same data set, of other data sets, or one about no photo at all."""
GainCell = tuple[str, str, str, int]
"""(kind, method, direction, k)"""


@dataclass(frozen=True)
class Sentence:
    """The description of a task, as a sentence for other tasks."""

    key: str
    dataset: str
    text: str


def other_sentences(task: Sentence, pool: Sequence[Sentence], count: int, seed: int) -> list[str]:
    """Keys of other tasks whose sentences a task is measured with: up to `count` of its own data set and half as many
    of others, drawn by seed and task; then UNRELATED. Sentences that read like the task's own are left out."""
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
    """Rows of the tasks' own sentences, and those of others."""
    return [row for row in rows if not row.sentence], [row for row in rows if row.sentence]


def kind_of(row: Row) -> str:
    """One of KINDS, of a row that another sentence made."""
    if row.sentence == UNRELATED:
        return UNRELATED
    return SAME if row.sentence.startswith(f"{row.dataset}/") else ACROSS


def sentence_gains(
    rows: Sequence[Row], controls: Sequence[Row], resamples: int = 2000, seed: int = 0
) -> dict[GainCell, Interval]:
    """Mean gain in points and its 95 % interval, of every method that was asked with other sentences, at k = 1.

    rows: measured with the tasks' own sentences.  controls: with others.  The bootstrap is that of `bootstrap`: own
    and other sentences meet the same drawn tasks and queries.
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
    """Rows of other sentences as those of one more method, whose draws are the sentences."""
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
    """The methods that were not asked with other sentences; none if nothing was."""
    asked = {row.method for row in controls}
    return [method for method in methods if method not in asked] if controls else []
