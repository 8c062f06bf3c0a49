"""What a pack has seen of the tasks that it is to be measured on."""

from __future__ import annotations

from collections.abc import Sequence

from sglora_cli.errors import Mismatch
from sglora_cli.pack.content.evaluation import UnseenTask
from sglora_cli.pack.content.learned import short
from sglora_cli.pack.content.tasks import Task as PackTask
from sglora_cli.pack.pack import Pack
from sglora_cli.plugin.values import EXPERT, TRAINING, UNSEEN


def _photo_leaks(pack: Pack, tasks: Sequence[UnseenTask], role: str) -> list[str]:
    """The tasks with test photos that the pack learned from, and how many. A task's Oracle is asked, too."""
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
    """Why nobody can say whether the pack learned from the tested photos, as a note; "" if it is known."""
    if pack.learned is None:
        why = f"pack {pack.name!r} keeps no hashes of its photos; build it again to know"
    elif bare := [t.key for t in tasks if not t.hashes]:
        why = f"what is tested on keeps no hashes of its photos: {', '.join(bare[:3])}"
    elif added := [task["key"] for task in pack.tasks if "origin" in task]:
        why = f"nothing says which photos these experts were trained on: {', '.join(added[:3])}"
    else:
        return ""
    return f"unknown whether the pack learned from the tested photos: {why}"


def _seen_roles(role: str) -> tuple[str, ...]:
    """The roles whose tasks a pack may not have in common with tasks of `role` that it is measured on."""
    return (EXPERT,) if role == TRAINING else (EXPERT, TRAINING)


def leaks(pack: Pack, tasks: Sequence[UnseenTask], role: str = UNSEEN) -> list[str]:
    """What the pack has seen of tasks: those that are, by their key or their sentence, an expert or training task of
    the pack (of training tasks, which of course the pack has, those that are an expert, too), then tested photos."""
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
    """Raises Mismatch if there is a leak: of a task, or of photos."""
    if leaking := leaks(pack, tasks, role):
        more = f" and {len(leaking) - 3} more" if len(leaking) > 3 else ""
        raise Mismatch(
            f"pack {pack.name!r} has seen what it would be measured on: {', '.join(leaking[:3])}{more}",
            "choose others with --tasks, or measure the leak knowingly with --own-expert",
        )
