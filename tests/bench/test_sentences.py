"""The sentence gain, against its definition written out, and which other sentences a task is asked with."""

from __future__ import annotations

import pytest

from sglora_cli.bench.sentences import (
    ACROSS,
    SAME,
    UNRELATED,
    Sentence,
    kind_of,
    not_reading,
    other_sentences,
    sentence_gains,
)
from sglora_cli.plugin.values import Row

POOL = [Sentence(f"{d}/{n}", d, f"a photo of {d} {n}") for d in ("pets", "flowers") for n in range(8)]


def hits(count: int, of: int) -> str:
    from sglora_cli.bench.rows_file import pack_hits

    return pack_hits([n < count for n in range(of)])


def row(task: str, right: int, sentence: str = "", method: str = "x", sample: int = 0, dataset: str = "pets") -> Row:
    """Of ten queries."""
    return Row(method, dataset, task, sample, "T2I", 1, 10.0 * right, 0, hits(right, 10), sentence)


def test_a_gain_is_the_mean_over_tasks_of_own_minus_the_mean_of_others():
    own = [row("a", 6), row("a", 8, sample=1), row("b", 3)]
    others = [row("a", 1, "pets/b"), row("a", 3, "pets/c"), row("b", 5, "pets/a"), row("a", 2, "flowers/z")]
    gains = sentence_gains(own, [*others, row("b", 0, UNRELATED)], 200)
    assert gains["same", "x", "T2I", 1][0] == pytest.approx(((70 - 20) + (30 - 50)) / 2)
    assert gains["across", "x", "T2I", 1][0] == pytest.approx(70 - 20)
    assert gains["unrelated", "x", "T2I", 1][0] == pytest.approx(30)
    for mean, low, high in gains.values():
        assert low <= mean <= high


def test_a_method_that_is_equal_for_all_sentences_gains_nothing_in_any_resample():
    own, others = [row("a", 6), row("b", 3)], [row("a", 6, "pets/b"), row("b", 3, "pets/a")]
    assert sentence_gains(own, others, 200) == {("same", "x", "T2I", 1): (0.0, 0.0, 0.0)}


def test_methods_without_other_sentences_have_no_gain():
    own = [row("a", 6), row("a", 4, method="joint")]
    gains = sentence_gains(own, [row("a", 5, UNRELATED)], 200)
    assert {method for _, method, *_ in gains} == {"x"}
    assert not_reading({"x": "X", "joint": "Joint"}, [row("a", 5, UNRELATED)]) == ["joint"]
    assert not_reading({"x": "X"}, []) == []
    assert sentence_gains(own, []) == {}


def test_others_are_drawn_by_task_and_never_say_the_same():
    task = POOL[0]
    keys = other_sentences(task, POOL, 5, 0)
    assert [key.split("/")[0] for key in keys] == ["pets"] * 5 + ["flowers"] * 3 + ["unrelated"]
    assert len(set(keys)) == 9
    assert task.key not in keys
    assert keys == other_sentences(task, POOL[::-1], 5, 0)
    assert keys != other_sentences(task, POOL, 5, 1)
    alike = Sentence("pets/twin", "pets", task.text.upper())
    assert "pets/twin" not in other_sentences(task, [*POOL, alike], 100, 0)
    assert other_sentences(task, [task], 5, 0) == [UNRELATED]


@pytest.mark.parametrize(
    ("sentence", "kind"), [("pets/b", SAME), ("flowers/b", ACROSS), ("pets-2/b", ACROSS), (UNRELATED, UNRELATED)]
)
def test_kinds_of_other_sentences(sentence, kind):
    assert kind_of(row("a", 1, sentence)) == kind
