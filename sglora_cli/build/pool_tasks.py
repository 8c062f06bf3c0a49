"""The tasks of a pool: the seen tasks of a build, and the phrases that its recipe takes from their captions.

If several tasks share a photo, phrases read it from the first of them.
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
"""A photo: the index of the seen task that has it, and its row in that task."""


@dataclass(frozen=True)
class PoolTask:
    """A seen task or a phrase."""

    name: str
    role: str
    words: str
    """Its name, sentence and classes. A phrase that shares a word with a left-out task is also left out."""
    description: str
    photos: tuple[Place, ...]


def pool_tasks(recipe: Recipe, tasks: Sequence[BuildTask], apart: Sequence[Task] = ()) -> list[PoolTask]:
    """Return the seen tasks of a build, then the phrases that its recipe takes from captions.

    Phrases that share a word with an unseen task or one of `apart` are excluded, because they would reveal that task.
    Raises BadFile if a recipe requests phrases and there is none.
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
    """Raise the errors of `pool_tasks`, given tasks with their roles and the hashes of their photos."""
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
    """Return the photos of each phrase.

    seen: tasks, the photos that they learn from, and the hashes of these photos.
    """
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
            "use another source in from_captions of [tasks], or remove the table",
        )
    kept = chosen(allowed, len(of_photo), config.least_photos, config.largest_share, config.most)
    if not kept:
        most = max(map(len, allowed.values()), default=0)
        raise BadFile(
            f"no phrase in the captions of {', '.join(recipe.from_captions)} has at least {config.least_photos} photos "
            f"and at most {config.largest_share:g} of all {len(of_photo)}; the most common phrase has {most}",
            "lower least_photos or raise largest_share in [tasks], or remove from_captions",
        )
    return {phrase: [of_photo[n] for n in photos] for phrase, photos in kept.items()}


def _places(n: int, t: BuildTask) -> tuple[Place, ...]:
    return tuple((n, row) for row in range(len(t.photos)))


def _words(task: Task) -> str:
    return " ".join((task.name, task.description, *task.classes))


def phrase_key(tasks: Sequence[PoolTask]) -> list[Any]:
    """Return what the fit of a generator depends on in a pool's phrases."""
    return [[t.name, t.description, list(t.photos)] for t in tasks if t.role == PHRASE]


def phrase_lines(tasks: Sequence[PoolTask]) -> list[str]:
    """Describe the phrases that captions add to the seen tasks, in a sentence. Returns nothing without phrases."""
    found = [t for t in tasks if t.role == PHRASE]
    if not found:
        return []
    most, fewest = len(found[0].photos), len(found[-1].photos)
    named = ", ".join(t.name for t in found[:5]) + (", ..." if len(found) > 5 else "")
    return [f"{len(found)} phrases from captions as seen tasks, with {fewest} to {most} photos each: {named}"]
