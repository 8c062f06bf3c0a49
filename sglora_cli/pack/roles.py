"""Assign roles to the tasks of a data set for a recipe, and give the reasons.

The rules, in order:

1. A task is left out if it has fewer than FEWEST photos, an unprintable name, or the name of a larger task up to case.
2. One task in five is unseen. The candidates are sorted by size and split into as many equal parts as needed. From each
   part, the task with the most test photos is chosen. A candidate has at least TESTED photos for testing and as many
   for training, and shares no photo with another task. If there are too few of these, tasks that share photos are
   candidates, too.
3. The larger half of the others are experts, at least K of them.
4. The remaining tasks are training tasks.

Sizes are compared by the number of photos, and then by name, so the same tasks always get the same roles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sglora_cli.config import PriorConfig
from sglora_cli.errors import BadFile, Mismatch
from sglora_cli.pack.content.manifest import check_printable
from sglora_cli.plugin.values import EXPERT, TRAINING, UNSEEN
from sglora_cli.system.display import counted

K = PriorConfig().k
FEWEST = 5
"""The fewest photos of a task. Chosen, not measured: with fewer, a batch has few wrong answers."""
TESTED = 2
"""The fewest test photos of an unseen task. With fewer, every recall is 100 by definition. A build needs two training
photos, too."""
NEEDED = K + 2
"""The fewest tasks of a pack: K experts, one training task and one unseen task."""
TO_LEARN = 10
"""The fewest training tasks for which a trained generator is worth its time; see `sglora docs how-to-data`."""


@dataclass(frozen=True)
class TaskPhotos:
    """The numbers of photos of a task, by split."""

    name: str
    train: int
    test: int
    shared: int = 0
    """Photos that also belong to another task."""

    @property
    def photos(self) -> int:
        return self.train + self.test


@dataclass(frozen=True)
class DealtRoles:
    """The tasks of each role, the largest task first."""

    roles: Mapping[str, Sequence[TaskPhotos]]
    left_out: Mapping[str, str]
    """Maps each task without a role to the reason."""

    def of(self, name: str) -> str:
        """Return the role of a task; "" if it is left out."""
        return next((role for role, tasks in self.roles.items() for task in tasks if task.name == name), "")

    @property
    def has_trained_generator(self) -> bool:
        """Whether there are enough training tasks for the recipe to train a generator, cvae."""
        return len(self.roles[TRAINING]) >= TO_LEARN

    def reasons(self) -> list[str]:
        """Explain the roles, with a line for each role and for each task that is left out."""
        experts, training, unseen = (self.roles[role] for role in (EXPERT, TRAINING, UNSEEN))
        tests = sorted(task.test for task in unseen)
        shared = sum(task.shared for task in unseen)
        learner = (
            "The generator cvae is trained on them."
            if self.has_trained_generator
            else "The default generator uses the photos and captions of all experts and training tasks."
        )
        few = " R@10 is meaningless with 10 photos or fewer." if tests[0] <= 10 else ""
        lines = [
            f"expert: {_tasks(experts)}, the larger half of the seen tasks, at least K = {K}. The pack stores their "
            "adapters.",
            f"training: {_tasks(training)}, the smaller half. {learner}",
            f"unseen: {_tasks(unseen)}, one in five, of all sizes. The pack is evaluated on them, with {_range(tests)} "
            f"test photos each.{few}",
        ]
        if shared:
            lines.append(
                f"unseen tasks share {counted(shared, 'photo')} with other tasks. "
                "The build does not train on their test photos."
            )
        return lines + [f"left out: {name!r}: {reason}" for name, reason in self.left_out.items()]


def deal_roles(tasks: Sequence[TaskPhotos]) -> DealtRoles:
    """Assign the roles. Raises Mismatch if there are too few tasks for all roles, or no candidate for an unseen task.

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
            f"no task has {TESTED} photos for testing and {TESTED} for training, so the pack cannot be evaluated",
            'add photos, or set "split": "test" for some of them in captions.jsonl',
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
    """Return why a task gets no role; "" if it gets one. larger: names of larger tasks, by their case-folded name."""
    try:
        check_printable(task.name, "")
    except BadFile:
        return "its name has an unprintable character; rename it"
    if (other := larger.get(task.name.casefold())) is not None:
        return f"its name differs from {other!r} only in case; merge the two"
    if task.photos < FEWEST:
        return f"{counted(task.photos, 'photo')}, fewer than {FEWEST}"
    return ""


def _too_few(usable: Sequence[TaskPhotos], left_out: Mapping[str, str]) -> Mismatch:
    more = [f"{name!r} is left out: {reason}" for name, reason in left_out.items()]
    listed = "; ".join([*more[:3], *([f"and {len(more) - 3} more"] if len(more) > 3 else [])])
    lacking = NEEDED - len(usable)
    mend = f"add photos to {lacking} of these" if len(left_out) >= lacking else f"add {_more(lacking)} of photos"
    return Mismatch(
        f"found {_tasks(usable)} with at least {FEWEST} photos, but a pack needs {NEEDED}: {K} experts, one training "
        f"task and one unseen task{f' ({listed})' if listed else ''}",
        f'{mend}, or use the starter pack, which needs no photos: sglora generate "a photo of a mug"',
    )


def _tasks(some: Sequence[TaskPhotos]) -> str:
    return counted(len(some), "task")


def _more(count: int) -> str:
    return counted(count, "more folder")


def _range(numbers: Sequence[int]) -> str:
    """Format sorted numbers as a range.

    >>> _range([2, 3, 9]), _range([4, 4])
    ('2 to 9', '4')
    """
    return str(numbers[0]) if numbers[0] == numbers[-1] else f"{numbers[0]} to {numbers[-1]}"
