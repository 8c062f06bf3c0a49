"""The tasks of a pool: the seen tasks of a build, and the phrases that its recipe takes from their captions.

A phrase reads each photo from the first task that has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglora_cli.build.tasks import BuildTask
from sglora_cli.data.phrases import chosen, phrases, share_a_word
from sglora_cli.data.refusals import Planned
from sglora_cli.errors import BadFile
from sglora_cli.pack.recipe import Recipe
from sglora_cli.plugin.values import PHRASE, TEST, TRAIN, UNSEEN, Photo, Task

Place = tuple[int, int]
"""A photo: the build's seen task that has it, and its row there."""


@dataclass(frozen=True)
class PoolTask:
    """A seen task, or a phrase."""

    name: str
    role: str
    words: str
    """Its name, sentence and classes: phrases with a word of a task that is left out are left out."""
    description: str
    photos: tuple[Place, ...]


def pool_tasks(recipe: Recipe, tasks: Sequence[BuildTask], apart: Sequence[Task] = ()) -> list[PoolTask]:
    """The seen tasks of a build, then the phrases that its recipe takes from captions.

    No phrase has a word of an unseen task, or of one of `apart`: that task would be seen. Raises BadFile if a recipe
    asks for phrases and there is none.
    """
    seen = [t for t in tasks if t.role != UNSEEN]
    whole = [
        PoolTask(t.task.key, t.role, _words(t.task), t.task.description, _places(n, t)) for n, t in enumerate(seen)
    ]
    if not recipe.from_captions:
        return whole
    unseen = [*(t.task for t in tasks if t.role == UNSEEN), *apart]
    kept = _phrases(recipe, [(t.task, t.photos, t.train.hashes) for t in seen], unseen)
    return whole + [
        PoolTask(phrase, PHRASE, phrase, recipe.template.format(name=phrase, classes=""), tuple(places))
        for phrase, places in kept.items()
    ]


def check_phrases(recipe: Recipe, planned: Planned, hash_of: Mapping[Path, str]) -> None:
    """Raises as `pool_tasks` does for tasks with their roles and the hashes of their photos."""
    unseen = [task for role, task in planned if role == UNSEEN]
    tested = {hash_of[photo.path] for task in unseen for photo in task.photos[TEST]}
    seen = []
    for role, task in planned:
        if role != UNSEEN:
            photos = [photo for photo in task.photos[TRAIN] if hash_of[photo.path] not in tested]
            seen.append((task, photos, [hash_of[photo.path] for photo in photos]))
    _phrases(recipe, seen, unseen)


def _phrases(
    recipe: Recipe, seen: Sequence[tuple[Task, Sequence[Photo], Sequence[str]]], unseen: Sequence[Task]
) -> dict[str, list[Place]]:
    """Phrase -> its photos. seen: tasks with the photos that they learn from, and the hashes of these."""
    places: dict[str, Place] = {}
    for n, (task, _, hashes) in enumerate(seen):
        if task.dataset in recipe.from_captions and not task.classes:
            for row, photo in enumerate(hashes):
                places.setdefault(photo, (n, row))
    of_photo = list(places.values())
    config, found = recipe.phrases, phrases([seen[n][1][row].captions for n, row in of_photo])
    names = [_words(task) for task in unseen]
    allowed = {phrase: photos for phrase, photos in found.items() if not share_a_word(phrase, names)}
    if not of_photo:
        raise BadFile(
            f"the seen tasks of {', '.join(recipe.from_captions)} have no captions to take phrases from",
            "name another source in from_captions of [tasks], or leave the table out",
        )
    kept = chosen(allowed, len(of_photo), config.least_photos, config.largest_share, config.most)
    if not kept:
        most = max(map(len, allowed.values()), default=0)
        raise BadFile(
            f"no phrase in the captions of {', '.join(recipe.from_captions)} has {config.least_photos} photos and at "
            f"most {config.largest_share:g} of all {len(of_photo)}; the most common has {most}",
            "lower least_photos or raise largest_share in [tasks], or leave from_captions out",
        )
    return {phrase: [of_photo[n] for n in photos] for phrase, photos in kept.items()}


def _places(n: int, t: BuildTask) -> tuple[Place, ...]:
    return tuple((n, row) for row in range(len(t.photos)))


def _words(task: Task) -> str:
    return " ".join((task.name, task.description, *task.classes))


def phrase_key(tasks: Sequence[PoolTask]) -> list[Any]:
    """What of a pool's phrases a fit follows from."""
    return [[t.name, t.description, list(t.photos)] for t in tasks if t.role == PHRASE]


def phrase_lines(tasks: Sequence[PoolTask]) -> list[str]:
    """What captions add to the seen tasks, in a sentence; nothing without phrases."""
    found = [t for t in tasks if t.role == PHRASE]
    if not found:
        return []
    most, fewest = len(found[0].photos), len(found[-1].photos)
    named = ", ".join(t.name for t in found[:5]) + (", ..." if len(found) > 5 else "")
    return [f"phrases of captions as seen tasks: {len(found)}, with {fewest} to {most} photos: {named}"]
