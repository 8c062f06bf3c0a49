"""The order in which steps start, and how many can run. Without Ray."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Any

from sglora_cli.api import Resources, Step


class Queue:
    """Steps that have not started.

    Steps that follow finished ones start before all others. The files between them may be large, and should not wait.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        keys = {step.key for step in steps}
        self._awaited = {step.key: keys & set(step.after) for step in steps}
        """Step that has not started -> the unfinished steps that it names."""
        self._first = deque(step for step in steps if not self._awaited[step.key])
        self._following: deque[Step] = deque()
        self._followers: dict[str, list[Step]] = defaultdict(list)
        for step in steps:
            for key in self._awaited[step.key]:
                self._followers[key].append(step)

    def __len__(self) -> int:
        return len(self._awaited)

    def next(self) -> Step | None:
        """Remove and return the next step, or return None if all others wait for steps that are not finished."""
        some = self._following or self._first
        if not some:
            return None
        step = some.popleft()
        del self._awaited[step.key]
        return step

    def finish(self, step: Step) -> None:
        """Let the steps start that waited only for this one."""
        for follower in self._followers.pop(step.key, ()):
            self._awaited[follower.key].discard(step.key)
            if not self._awaited[follower.key]:
                self._following.append(follower)


def at_once(size: Resources, nodes: Sequence[Mapping[str, Any]]) -> int:
    """Return how many steps of a size can run at the same time on Ray's nodes."""
    needs = {"CPU": size.cpus or 1, "GPU": size.gpus, "memory": size.memory}
    return sum(
        min(int(node["Resources"].get(name, 0) / least) for name, least in needs.items() if least) for node in nodes
    )
