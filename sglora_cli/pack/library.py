"""Which packs and recipes this machine has, which one is meant, and packs that are not wanted any more."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglora_cli.errors import BadFile, SgloraError, UnknownName, UsageError
from sglora_cli.files.atomic import drop_folder
from sglora_cli.files.text import read_json
from sglora_cli.pack.manifest import MANIFEST
from sglora_cli.system import settings as user_settings
from sglora_cli.system.locks import changing
from sglora_cli.system.paths import built_folder
from sglora_cli.system.settings import Settings

_DAY = 86_400.0


@dataclass(frozen=True)
class Place:
    """A pack folder, and how we came by it: "built" here or "bundled" with a plugin."""

    name: str
    folder: Path
    origin: str

    def summary(self) -> Mapping[str, Any]:
        """The manifest, unchecked; {} when it cannot be read."""
        try:
            content = read_json(self.folder / MANIFEST)
        except BadFile:
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def built_at(self) -> float:
        """When it was built, in seconds; 0, the oldest, for a time in the future: the clock was wrong then."""
        try:
            seconds = (self.folder / MANIFEST).stat().st_mtime
        except OSError:  # removed since it was listed
            return 0.0
        return seconds if seconds < time.time() + _DAY else 0.0


def _settle_all(root: Path) -> None:
    """Bring back packs that a kill caught between their old version and the new one."""
    with suppress(OSError):
        for old in root.glob(".*.old"):
            target = root / old.name[1:].removesuffix(".old")
            if not target.exists():
                with suppress(SgloraError), changing(target, wait=False):  # its process lives, or we may not write
                    pass


def places(recipe_folders: Sequence[Path]) -> list[Place]:
    """All packs; one built here hides a bundled one of the same name."""
    found: dict[str, Place] = {}
    _settle_all(built_folder())
    for root, origin in [*((folder, "bundled") for folder in recipe_folders), (built_folder(), "built")]:
        if root.is_dir():
            for manifest in sorted(root.glob(f"*/{MANIFEST}")):
                if not manifest.parent.name.startswith("."):
                    found[manifest.parent.name] = Place(manifest.parent.name, manifest.parent, origin)
    return sorted(found.values(), key=lambda place: place.name)


def find(name: str, recipe_folders: Sequence[Path], settings: Settings, backbone: str = "") -> tuple[Place, str]:
    """The pack called `name` (or a folder's path), and why it was taken.

    With no name: the newest pack of `backbone` if one is given; else the settings' pack, else the
    newest pack built for the default backbone, else the newest built, else the bundled starter.
    Raises UnknownName, and UsageError if the named pack is of another backbone.
    """
    known = {place.name: place for place in places(recipe_folders)}
    if name:
        place = _named(name, known)
        if backbone and (its := place.summary().get("backbone")) != backbone:
            raise UsageError(
                f"pack {place.name!r} is for backbone {its!r}, not {backbone!r}", "leave out one of the two"
            )
        return place, "named on the command line"
    if backbone:
        return _of_backbone(backbone, known), f"the pack of {backbone}"
    if settings.pack:
        return _named(settings.pack, known), "set in the settings"
    built = [place for place in known.values() if place.origin == "built"]
    built.sort(key=lambda place: place.built_at, reverse=True)
    for place in built:
        if place.summary().get("backbone") == settings.backbone:
            return place, f"newest built pack of {settings.backbone}"
    if built:
        return built[0], "newest built pack"
    return _named("starter", known), "bundled; no pack is built yet"


def _of_backbone(backbone: str, known: Mapping[str, Place]) -> Place:
    """The newest built pack of a backbone, else a bundled one."""
    of = {name: str(place.summary().get("backbone", "")) for name, place in known.items()}
    found = [place for name, place in known.items() if of[name] == backbone]
    if not found:
        error = UnknownName.of("pack for a backbone", backbone, set(of.values()))
        raise UnknownName(error.message, f"{error.hint}; `sglora pack build RECIPE --backbone {backbone}` builds one")
    return max(found, key=lambda place: (place.origin == "built", place.built_at))


def _named(name: str, known: Mapping[str, Place]) -> Place:
    if name in known:
        return known[name]
    if (Path(name) / MANIFEST).is_file():
        return Place(Path(name).resolve().name, Path(name), "folder")
    raise UnknownName.of("pack", name, known)


def recipes(recipe_folders: Sequence[Path]) -> dict[str, Path]:
    """Recipe files by name."""
    return {path.stem: path for folder in recipe_folders if folder.is_dir() for path in sorted(folder.glob("*.toml"))}


def recipe_file(name: str, recipe_folders: Sequence[Path]) -> Path:
    """The file of a recipe: a .toml file is itself, another name is looked up. Raises UnknownName."""
    known = recipes(recipe_folders)
    if name.endswith(".toml"):
        return Path(name)
    if name not in known:
        raise UnknownName.of("recipe", name, known)
    return known[name]


def is_bundled(folder: Path, recipe_folders: Sequence[Path]) -> bool:
    """Whether a pack lies in a plugin's folder, whatever name or path led to it."""
    return any(folder.resolve().is_relative_to(root.resolve()) for root in recipe_folders)


def own_folder(folder: Path, recipe_folders: Sequence[Path]) -> Path:
    """Where a changed version of a pack goes: its own folder, or the user cache for a bundled one.

    A bundled pack belongs to an installed package and is never modified; a built pack hides a
    bundled one of the same name. Raises UsageError if another built pack has that name.
    """
    if not is_bundled(folder, recipe_folders):
        return folder
    target = built_folder() / folder.resolve().name
    if target.exists():
        raise UsageError(f"there is a pack {target.name!r} in {target}", f"name it instead: {target.name}")
    return target


def check_removable(folder: Path, recipe_folders: Sequence[Path]) -> None:
    """Raises UsageError unless the pack was built or imported here."""
    if is_bundled(folder, recipe_folders):
        raise UsageError(
            f"pack {folder.name!r} is bundled with a plugin and cannot be removed",
            "uninstall the plugin that brings it, or leave it: a pack built under its name hides it",
        )
    if folder.resolve().parent != built_folder().resolve():
        raise UsageError(
            f"{folder} is a folder of your own, not one of the packs in {built_folder()}", "remove it yourself"
        )


def remove_pack(folder: Path, recipe_folders: Sequence[Path]) -> tuple[str, ...]:
    """Remove a pack that was built or imported here; returns what follows. Raises UsageError for any other."""
    check_removable(folder, recipe_folders)
    with changing(folder):
        if not folder.exists():
            raise UnknownName(f"pack {folder.name!r} was removed by another process", "see `sglora pack list`")
        drop_folder(folder)
    if any((root / folder.name / MANIFEST).is_file() for root in recipe_folders):
        return (f"the bundled pack {folder.name!r} is no longer hidden",)
    if user_settings.load().pack == folder.name:
        return (f"the settings still name {folder.name!r} as the pack to use",)
    return ()
