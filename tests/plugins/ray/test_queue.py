"""The order in which steps start, and how many of them."""

from __future__ import annotations

import random

import pytest

from sglora_cli.plugin.values import Resources, Step
from sglora_ray.queue import Queue, at_once


def step(key: str, *after: str) -> Step:
    return Step(key, "test", key, key, after)


def taken(queue: Queue) -> list[str]:
    """The keys of all steps that may start now."""
    keys = []
    while one := queue.next():
        keys.append(one.key)
    return keys


def test_a_step_waits_for_all_steps_that_it_names():
    a, b, c = step("a"), step("b"), step("c", "a", "b", "elsewhere")
    queue = Queue([a, b, c])
    assert (len(queue), taken(queue), len(queue)) == (3, ["a", "b"], 1)
    queue.finish(b)
    assert taken(queue) == []
    queue.finish(a)
    assert (taken(queue), len(queue)) == (["c"], 0)


def test_a_step_that_follows_a_finished_one_is_next():
    some = [step("a1"), step("a2", "a1"), step("b1"), step("b2", "b1"), step("c1")]
    queue, order = Queue(some), []
    while one := queue.next():
        order.append(one.key)
        queue.finish(one)
    assert order == ["a1", "a2", "b1", "b2", "c1"]


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_finishing_starts_every_step_once_and_after_its_own(seed):
    rng = random.Random(seed)
    some = [step(str(n), *(str(m) for m in range(n) if rng.random() < 0.2)) for n in range(30)]
    queue, running, finished = Queue(some), [], []
    while queue or running:
        while len(running) < 4 and (one := queue.next()):
            assert set(one.after) <= set(finished)
            running.append(one)
        one = running.pop(rng.randrange(len(running)))
        queue.finish(one)
        finished.append(one.key)
    assert sorted(finished, key=int) == [one.key for one in some]


@pytest.mark.parametrize(
    ("size", "count"),
    [
        (Resources(), 8 + 2),
        (Resources(4), 2),
        (Resources(1, 0.5), 2),
        (Resources(1, 0.0, 3 * 10**9), 2),
        (Resources(16), 0),
    ],
)
def test_as_many_steps_run_at_once_as_fit_into_the_nodes(size, count):
    nodes = [{"Resources": {"CPU": 8.0, "GPU": 1.0, "memory": 7e9}}, {"Resources": {"CPU": 2.0, "memory": 1e9}}]
    assert at_once(size, nodes) == count
