"""Checks what a pack has already seen of the tasks it is to be measured on."""

from __future__ import annotations

from collections.abc import Sequence

from sglora_cli.errors import Mismatch
from sglora_cli.pack.content.evaluation import UnseenTask
from sglora_cli.pack.content.learned import short
from sglora_cli.pack.content.tasks import Task as PackTask
from sglora_cli.pack.pack import Pack
from sglora_cli.plugin.values import EXPERT, TRAINING, UNSEEN


def _photo_leaks(pack: Pack, tasks: Sequence[UnseenTask], role: str) -> list[str]:
    """Return the tasks with test photos that the pack or the task's Oracle learned from, with counts."""
    learned = pack.learned or {}
    seen = frozenset().union(*(learned.get(one, ()) for one in _seen_roles(role)))
    leaking = []
    for t in tasks:
        oracle = learned.get(UNSEEN, frozenset()) if t.oracle_P is not None else frozenset()
        count = sum(short(photo) in seen or short(photo) in oracle for photo in t.hashes)
        if count:
            leaking.append(f"{count} of {len(t.hashes)} photos of {t.key}")
    return leaking


def photos_unknown(pack: Pack, tasks: Sequence[UnseenTask]) -> str:
    """Return a note on why leaked photos cannot be checked, or "" if they can."""
    if pack.learned is None:
        why = f"pack {pack.name!r} has no hashes of its photos (rebuild it to add them)"
    elif bare := [t.key for t in tasks if not t.hashes]:
        why = f"there are no hashes of the test photos of {', '.join(bare[:3])}"
    elif added := [task["key"] for task in pack.tasks if "origin" in task]:
        why = f"the training photos of these experts are not recorded: {', '.join(added[:3])}"
    else:
        return ""
    return f"unknown whether the pack learned from the tested photos: {why}"


def _seen_roles(role: str) -> tuple[str, ...]:
    """Return the roles whose tasks must not overlap with the measured tasks of `role`."""
    return (EXPERT,) if role == TRAINING else (EXPERT, TRAINING)


def leaks(pack: Pack, tasks: Sequence[UnseenTask], role: str = UNSEEN) -> list[str]:
    """Return what the pack has seen of the tasks: first leaked tasks, then leaked test photos.

    A task leaks if its key or its sentence is that of an expert or training task of the pack. If the measured tasks
    are themselves training tasks, only expert tasks count.
    """
    roles = _seen_roles(role)
    seen: dict[str, PackTask] = {}
    for task in (task for one in roles for task in pack.tasks.of(one)):
        seen[task["key"].casefold()] = seen[task["description"].casefold()] = task
    leaking = []
    for t in tasks:
        known = seen.get(t.key.casefold()) or seen.get(t.description.casefold())
        if known:
            leaking.append(f"{t.key} ({known['role']} {known['key']})")
    return [*leaking, *_photo_leaks(pack, tasks, role)]


def check_leaks(pack: Pack, tasks: Sequence[UnseenTask], role: str = UNSEEN) -> None:
    """Raise Mismatch if the pack has seen a task or a test photo."""
    if leaking := leaks(pack, tasks, role):
        more = f" and {len(leaking) - 3} more" if len(leaking) > 3 else ""
        raise Mismatch(
            f"pack {pack.name!r} has already seen test data: {', '.join(leaking[:3])}{more}",
            "select other tasks with --tasks, or pass --own-expert to measure with this leak",
        )
