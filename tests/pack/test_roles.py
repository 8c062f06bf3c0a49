"""Roles that are dealt out: held to a slow, obvious definition, and to what a person is told."""

from __future__ import annotations

import random

import pytest

from sglora_cli.errors import Mismatch
from sglora_cli.pack.roles import FEWEST, NEEDED, TaskPhotos, deal_roles

SIX = [TaskPhotos(name, 8, 4) for name in "abcdef"]


def names(dealt):
    return {role: [task.name for task in tasks] for role, tasks in dealt.roles.items()}


def obvious(tasks):
    """The rule as it is told: one task after the other is taken off a list."""
    left, seen = [], set()
    for task in sorted(tasks, key=lambda task: task.name):
        twins = [other for other in tasks if other.name.casefold() == task.name.casefold()]
        first = max(twins, key=lambda other: (other.photos, [-ord(c) for c in other.name]))
        if task is first and task.photos >= FEWEST:
            left.append(task)
    left = [task for size in range(500, 0, -1) for task in left if task.photos == size]
    able = [task for task in left if task.train >= 2 and task.test >= 2]
    apart = [task for task in able if task.shared == 0]
    wanted = (2 * len(left) + 5) // 10
    drawn, unseen = (apart if len(apart) >= wanted else able), []
    parts = min(wanted, len(drawn))
    for part in range(parts):
        best = None
        for place, task in enumerate(drawn):
            if part * len(drawn) // parts <= place < (part + 1) * len(drawn) // parts:
                best = task if best is None or task.test > best.test else best
        unseen.append(best.name)
    seen = [task.name for task in left if task.name not in unseen]
    experts = [name for place, name in enumerate(seen) if place < 4 or place < len(seen) / 2]
    return {"expert": experts, "training": [name for name in seen if name not in experts], "unseen": unseen}


@pytest.mark.parametrize("seed", range(40))
def test_roles_are_those_of_the_obvious_rule_in_any_order_of_tasks(seed):
    rng = random.Random(seed)
    letters = [chr(97 + n) for n in range(26)]
    pool = [*letters, *(x.upper() for x in letters), *(x + y for x in letters for y in "xy")]
    tasks = [
        TaskPhotos(name, rng.randrange(2, 30), rng.randrange(0, 9), rng.choice((0, 0, 0, 3)))
        for name in rng.sample(pool, rng.randrange(20, 60))
    ]
    dealt = deal_roles(tasks)
    assert names(dealt) == obvious(tasks)
    assert names(deal_roles(rng.sample(tasks, len(tasks)))) == names(dealt)
    named = [name for some in names(dealt).values() for name in some]
    assert sorted([*named, *dealt.left_out]) == sorted(task.name for task in tasks)


def test_as_few_tasks_as_a_pack_needs_have_all_roles():
    assert len(SIX) == NEEDED
    assert {role: len(some) for role, some in names(deal_roles(SIX)).items()} == {
        "expert": 4,
        "training": 1,
        "unseen": 1,
    }


def test_one_task_too_few_is_said_with_what_is_needed():
    with pytest.raises(Mismatch) as error:
        deal_roles([*SIX[:5], TaskPhotos("kite", 3, 1)])
    assert error.value.message == (
        "found 5 tasks with at least 5 photos, but a pack needs 6: 4 experts, one training task and one unseen task "
        "('kite' is left out: 4 photos, fewer than 5)"
    )
    assert error.value.hint.startswith("add photos to 1 of these, ")
    with pytest.raises(Mismatch) as error:
        deal_roles(SIX[:5])
    assert error.value.hint.startswith("add 1 more folder of photos, ")


def test_a_task_that_shares_photos_is_not_unseen_while_others_can_measure():
    tasks = [TaskPhotos(name, 8, 4, shared=name != "f") for name in "abcdef"]
    assert names(deal_roles(tasks))["unseen"] == ["f"]
    dealt = deal_roles([TaskPhotos(name, 8, 4, shared=2) for name in "abcdef"])
    assert len(dealt.roles["unseen"]) == 1
    assert dealt.reasons()[-1] == (
        "unseen tasks share 2 photos with other tasks. The build does not train on their test photos."
    )


def test_without_test_photos_nothing_can_measure():
    with pytest.raises(Mismatch, match="no task has 2 photos for testing") as error:
        deal_roles([TaskPhotos(name, 12, 1) for name in "abcdef"])
    assert '"split": "test"' in error.value.hint


def test_every_role_and_every_task_that_is_left_out_has_its_reason():
    dealt = deal_roles([*SIX, TaskPhotos("A", 6, 4), TaskPhotos("few", 1, 0), TaskPhotos("bell\a", 8, 8)])
    assert dealt.reasons() == [
        "expert: 4 tasks, the larger half of the seen tasks, at least K = 4. The pack stores their adapters.",
        "training: 1 task, the smaller half. The default generator uses the photos and captions of all experts and "
        "training tasks.",
        "unseen: 1 task, one in five, of all sizes. The pack is evaluated on them, with 4 test photos each. R@10 is "
        "meaningless with 10 photos or fewer.",
        "left out: 'bell\\x07': its name has an unprintable character; rename it",
        "left out: 'A': its name differs from 'a' only in case; merge the two",
        "left out: 'few': 1 photo, fewer than 5",
    ]
