"""Which roles the tasks of a data set get in a recipe of one's own, and why.

The rule, in the order in which it deals:

1. A task is left out if it has fewer than FEWEST photos, a name that cannot be printed, or a larger task's name
   but for upper case.
2. One task in five is unseen. Those that can measure are put in order of size and cut into as many equal parts, and of
   each part the task with the most test photos is drawn. A task can measure if it has TESTED photos for testing and as
   many for training, and shares no photo with another task. Where too few share none, all others may be drawn, too.
3. Of the others the larger half, and at least K, are experts.
4. All that remain are training tasks.

Sizes are compared by the number of photos, and by name where these are equal, so the same tasks get the same roles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sglora_cli.config import PriorConfig
from sglora_cli.errors import BadFile, Mismatch
from sglora_cli.pack.content.manifest import check_printable
from sglora_cli.plugin.values import EXPERT, TRAINING, UNSEEN

K = PriorConfig().k
FEWEST = 5
"""Photos of a task. Chosen, not measured: fewer make a batch in which there is little to tell apart."""
TESTED = 2
"""Test photos of an unseen task: among fewer, every recall is 100 by definition. A build wants two to train, too."""
NEEDED = K + 2
"""Tasks of a pack at least: K experts, one that teaches and one that measures."""


@dataclass(frozen=True)
class TaskPhotos:
    """How many photos a task has, by split."""

    name: str
    train: int
    test: int
    shared: int = 0
    """Photos that belong to another task, too."""

    @property
    def photos(self) -> int:
        return self.train + self.test


@dataclass(frozen=True)
class DealtRoles:
    """The roles of tasks, each role's largest task first."""

    roles: Mapping[str, Sequence[TaskPhotos]]
    left_out: Mapping[str, str]
    """Task -> why it has no role."""

    def of(self, name: str) -> str:
        """The role of a task; "" if it is left out."""
        return next((role for role, tasks in self.roles.items() for task in tasks if task.name == name), "")

    def reasons(self) -> list[str]:
        """Why the roles are as they are, a line for each role and for each task that is left out."""
        experts, training, unseen = (self.roles[role] for role in (EXPERT, TRAINING, UNSEEN))
        tests = sorted(task.test for task in unseen)
        shared = sum(task.shared for task in unseen)
        few = "; among 10 photos or fewer R@10 means nothing" if tests[0] <= 10 else ""
        lines = [
            f"expert: {_tasks(experts)}, the larger half of those that are not unseen, at least K = {K}: the pack "
            "keeps their adapters",
            f"training: {_tasks(training)}, the smaller half: they teach the generator",
            f"unseen: {_tasks(unseen)}, one in five, of all sizes: they measure the pack with {_range(tests)} test "
            f"photos each{few}",
        ]
        if shared:
            lines.append(
                f"unseen tasks share {shared} photos with other tasks: the build leaves those that are tested out of "
                "training"
            )
        return lines + [f"left out: {name!r}: {reason}" for name, reason in self.left_out.items()]


def deal_roles(tasks: Sequence[TaskPhotos]) -> DealtRoles:
    """Deal out the roles. Raises Mismatch if there are too few tasks for all of them, or none that can measure.

    >>> dealt = deal_roles([TaskPhotos(name, 8 - n, n) for n, name in enumerate("abcdef")])
    >>> {role: [task.name for task in tasks] for role, tasks in dealt.roles.items()}
    {'expert': ['a', 'b', 'c', 'd'], 'training': ['e'], 'unseen': ['f']}
    """
    left_out: dict[str, str] = {}
    usable: list[TaskPhotos] = []
    larger: dict[str, str] = {}
    for task in sorted(tasks, key=lambda task: (-task.photos, task.name)):
        if reason := _unusable(task, larger):
            left_out[task.name] = reason
        else:
            usable.append(task)
            larger[task.name.casefold()] = task.name
    if len(usable) < NEEDED:
        raise _too_few(usable, left_out)
    measuring = [task for task in usable if min(task.train, task.test) >= TESTED]
    apart = [task for task in measuring if not task.shared]
    wanted = round(len(usable) / 5)
    drawn = apart if len(apart) >= wanted else measuring
    if not drawn:
        raise Mismatch(
            f"no task has {TESTED} photos for testing and {TESTED} for training, so nothing can measure the pack",
            'add photos, or write "split": "test" for some of them into captions.jsonl',
        )
    parts = min(wanted, len(drawn))
    unseen = [
        max(drawn[n * len(drawn) // parts : (n + 1) * len(drawn) // parts], key=lambda task: task.test)
        for n in range(parts)
    ]
    seen = [task for task in usable if task not in unseen]
    experts = max(K, -(-len(seen) // 2))
    return DealtRoles({EXPERT: seen[:experts], TRAINING: seen[experts:], UNSEEN: unseen}, left_out)


def _unusable(task: TaskPhotos, larger: Mapping[str, str]) -> str:
    """Why a task gets no role; "" if it gets one. larger: names of larger tasks, by what upper case leaves of them."""
    try:
        check_printable(task.name, "")
    except BadFile:
        return "its name has a character that cannot be printed; rename it"
    if (other := larger.get(task.name.casefold())) is not None:
        return f"it has the name of {other!r} but for upper case; put both into one"
    if task.photos < FEWEST:
        return f"{task.photos} photo{'s' * (task.photos != 1)}, fewer than {FEWEST}"
    return ""


def _too_few(usable: Sequence[TaskPhotos], left_out: Mapping[str, str]) -> Mismatch:
    more = [f"{name!r} is left out: {reason}" for name, reason in left_out.items()]
    listed = "; ".join([*more[:3], *([f"and {len(more) - 3} more"] if len(more) > 3 else [])])
    lacking = NEEDED - len(usable)
    mend = f"add photos to {lacking} of these" if len(left_out) >= lacking else f"add {_more(lacking)} of photos"
    return Mismatch(
        f"{_tasks(usable)} with at least {FEWEST} photos, and a pack needs {NEEDED}: {K} experts, one training task "
        f"and one unseen task{f' ({listed})' if listed else ''}",
        f'{mend}, or use the starter pack, which needs no photos: sglora generate "a photo of a mug"',
    )


def _tasks(some: Sequence[TaskPhotos]) -> str:
    return f"{len(some)} task{'s' * (len(some) != 1)}"


def _more(count: int) -> str:
    return f"{count} more folder{'s' * (count != 1)}"


def _range(numbers: Sequence[int]) -> str:
    """
    >>> _range([2, 3, 9]), _range([4, 4])
    ('2 to 9', '4')
    """
    return str(numbers[0]) if numbers[0] == numbers[-1] else f"{numbers[0]} to {numbers[-1]}"
