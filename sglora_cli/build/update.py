"""Adds to a built pack the photo-derived content that packs of later versions have. Nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch.nn.functional as F

from sglora_cli.build.pipeline import Build, save_learned_of
from sglora_cli.build.tasks import BuildTask
from sglora_cli.config import RuntimeConfig
from sglora_cli.errors import Mismatch
from sglora_cli.pack.content.learned import LEARNED
from sglora_cli.pack.content.moments import MOMENTS, save_moments
from sglora_cli.pack.library import Library, PackLocation
from sglora_cli.pack.pack import Pack
from sglora_cli.pack.recipe_parser import parse
from sglora_cli.pack.writer import edited
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import Moments
from sglora_cli.system.locks import pack_lock

_REMEDY = "pass the data that the pack was built from with --data"
_SAME = 0.999
"""Least cosine between an expert's mean photo embedding now and at build time. Below it, the photos have changed."""


def lacking(pack: Pack) -> dict[str, str]:
    """Return files that packs of later versions have and this one lacks, with their descriptions."""
    kept = {MOMENTS: "moments of its tasks", LEARNED: "hashes of the photos it learned from"}
    return {file: words for file, words in kept.items() if file not in pack.manifest["files"]}


def update(host: Host, location: PackLocation, data: Path, runtime: RuntimeConfig | None = None) -> Path:
    """Add what a pack lacks, computed from the photos that it was built from.

    Returns the pack's folder, which is a copy for a bundled pack.
    Raises Mismatch if the photos in `data` are not those, and errors of reading and encoding them.
    """
    pack, library = Pack(location.folder), Library(host.recipe_folders)
    target = library.own_folder(location.folder)
    build = Build.prepare(host, parse(pack.name, pack.manifest["recipe"]), data, runtime=runtime)
    pack.check_model(build.model)
    _check_tasks(pack, build.tasks)
    found = build.moments()
    _check_photos(pack, found)
    with pack_lock(target):
        pack = Pack(library.copied(pack.folder))  # another process may have changed it
        with edited(pack, target) as draft:
            if MOMENTS in lacking(pack):
                save_moments(draft.folder, found)
            if LEARNED in lacking(pack):
                save_learned_of(draft.folder, build.tasks)
    return target


def _check_tasks(pack: Pack, tasks: Sequence[BuildTask]) -> None:
    """Raise Mismatch unless the data has the pack's tasks with the same numbers of photos."""
    now = {t.task.key: (t.role, len(t.photos)) for t in tasks}
    built = [task for task in pack.tasks if "origin" not in task]  # without experts added from elsewhere
    for task in built:
        role, photos = now.get(task["key"], ("", 0))
        if role != task["role"]:
            raise Mismatch(f"the recipe of pack {pack.name!r} has no {task['role']} task {task['key']}", _REMEDY)
        if photos != task["train_photos"]:
            raise Mismatch(
                f"{task['key']} has {photos} training photos here, but {task['train_photos']} in the pack", _REMEDY
            )


def _check_photos(pack: Pack, found: Moments) -> None:
    """Raise Mismatch if the experts' photos look different than when the pack was built."""
    if not pack.has_visual:
        return
    row_of = {key: row for row, key in enumerate(pack.experts.names)}
    for key, image_D in zip(found.tasks, F.normalize(found.images_TD, dim=1), strict=True):
        if key in row_of and float(image_D @ pack.visual_ED[row_of[key]]) < _SAME:
            raise Mismatch(
                f"the photos of {key} differ from those that pack {pack.name!r} was built from",
                _REMEDY,
            )
