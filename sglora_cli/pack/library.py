"""Find, choose and remove the packs and recipes of this machine."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglora_cli.errors import BadFile, SgloraError, Unavailable, UnknownName, UsageError
from sglora_cli.files.atomic import drop_folder
from sglora_cli.files.escape import shell_word
from sglora_cli.files.text import read_json
from sglora_cli.pack.content.manifest import MANIFEST, checked_manifest
from sglora_cli.pack.content.tasks import Tasks, tasks_of
from sglora_cli.pack.origin import PREFIX, Origin, Reference, origins
from sglora_cli.plugin.values import EXPERT
from sglora_cli.system import settings
from sglora_cli.system.locks import pack_lock
from sglora_cli.system.paths import built_folder

_DAY = 86_400.0


@dataclass(frozen=True)
class PackLocation:
    """A pack folder and its origin: "built" on this machine, "bundled" with a plugin, or a "folder" of the user."""

    name: str
    folder: Path
    origin: str

    def summary(self) -> Mapping[str, Any]:
        """Return the manifest without checks; {} if it cannot be read."""
        try:
            content = read_json(self.folder / MANIFEST)
        except BadFile:
            return {}
        return content if isinstance(content, dict) else {}

    def experts(self) -> int:
        """Return the number of experts in the manifest; 0 if it cannot be read."""
        summary = self.summary()
        tasks, counts = summary.get("tasks"), summary.get("counts")
        if isinstance(counts, dict):
            return counts[EXPERT] if type(counts.get(EXPERT)) is int else 0
        return sum(isinstance(task, dict) and task.get("role") == EXPERT for task in tasks or ())

    def tasks(self) -> Tasks:
        """Return the tasks of the pack. Raises BadFile."""
        path = self.folder / MANIFEST
        return tasks_of(self.folder, checked_manifest(read_json(path), path))

    @property
    def pulled_from(self) -> Origin | None:
        """Where on the hub it was pulled from, if it was and is unchanged."""
        found = origins(self.folder) if self.origin == "built" else []
        return found[0] if found else None

    @property
    def built_at(self) -> float:
        """When the pack was built, in seconds. A time in the future, from a wrong clock, counts as 0, the oldest."""
        try:
            seconds = (self.folder / MANIFEST).stat().st_mtime
        except OSError:  # removed after it was listed
            return 0.0
        return seconds if seconds < time.time() + _DAY else 0.0


class Library:
    """The packs and recipes of this machine: those bundled with plugins, and the packs in the user's cache.

    folders: folders with the plugins' recipes and bundled packs (`Host.recipe_folders`).
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(folders)

    def packs(self) -> list[PackLocation]:
        """Return all packs, sorted by name. A built pack hides a bundled one of the same name."""
        by_name: dict[str, PackLocation] = {}
        _recover_all(built_folder())
        for root, origin in [*((folder, "bundled") for folder in self._folders), (built_folder(), "built")]:
            if root.is_dir():
                for manifest in sorted(root.glob(f"*/{MANIFEST}")):
                    if not manifest.parent.name.startswith("."):
                        by_name[manifest.parent.name] = PackLocation(manifest.parent.name, manifest.parent, origin)
        return sorted(by_name.values(), key=lambda location: location.name)

    def find(self, name: str = "", backbone: str = "") -> tuple[PackLocation, str]:
        """Return the pack with this name (or folder path, or hf:OWNER/NAME if it was pulled), and the reason.

        Without a name, the first of these that exists is chosen: the newest pack of `backbone`, if one is given; the
        pack in the settings; the newest pack built for the default backbone; the newest built pack; the bundled
        starter. Raises UnknownName, UsageError if the named pack has another backbone, and Unavailable for a pack of
        the hub that was not pulled.
        """
        known = {location.name: location for location in self.packs()}
        if name:
            location = _named(name, known)
            if backbone and (its := location.summary().get("backbone")) != backbone:
                raise UsageError(
                    f"pack {location.name!r} is for backbone {its!r}, not {backbone!r}",
                    "omit one of the two",
                )
            return location, "given on the command line"
        if backbone:
            return _of_backbone(backbone, known), f"the pack for {backbone}"
        defaults = settings.load()
        if defaults.pack:
            return _named(defaults.pack, known), "set in the settings"
        built = [location for location in known.values() if location.origin == "built"]
        built.sort(key=lambda location: location.built_at, reverse=True)
        for location in built:
            if location.summary().get("backbone") == defaults.backbone:
                return location, f"newest built pack for {defaults.backbone}"
        if built:
            return built[0], "newest built pack"
        return _named("starter", known), "bundled; no pack is built yet"

    def pulled(self, reference: Reference) -> PackLocation | None:
        """The pack here that a reference to the hub means, the one that was pulled last; None if there is none."""
        return _pulled(reference, self.packs())

    def recipes(self) -> dict[str, Path]:
        """Return recipe files by name."""
        folders = [folder for folder in self._folders if folder.is_dir()]
        return {path.stem: path for folder in folders for path in sorted(folder.glob("*.toml"))}

    def recipe_file(self, name: str) -> Path:
        """Return the file of a recipe, given its name or the path of a .toml file. Raises UnknownName."""
        known = self.recipes()
        if name.endswith(".toml"):
            return Path(name)
        if name not in known:
            raise UnknownName.of("recipe", name, known, "sglora pack recipes")
        return known[name]

    def has_bundled(self, name: str) -> bool:
        """Whether a plugin provides a pack of this name."""
        return any((folder / name / MANIFEST).is_file() for folder in self._folders)

    def is_bundled(self, folder: Path) -> bool:
        """Whether a pack is in a plugin's folder, after resolving links."""
        return any(folder.resolve().is_relative_to(root.resolve()) for root in self._folders)

    def own_folder(self, folder: Path) -> Path:
        """Return the folder for a changed version of a pack: its own folder, or the user cache for a bundled pack.

        A bundled pack belongs to an installed package and is never modified. The changed version in the cache hides it.
        Raises UsageError if the cache already has a pack of that name.
        """
        if not self.is_bundled(folder):
            return folder
        target = built_folder() / folder.resolve().name
        if target.exists():
            raise UsageError(f"pack {target.name!r} already exists in {target}", f"use that pack: {target.name}")
        return target

    def copied(self, folder: Path) -> Path:
        """Return the copy of a bundled pack that another process created after `own_folder` was called, or `folder`."""
        target = built_folder() / folder.resolve().name
        return target if self.is_bundled(folder) and (target / MANIFEST).is_file() else folder

    def check_removable(self, folder: Path) -> None:
        """Raise UsageError unless the pack was built or imported on this machine."""
        if self.is_bundled(folder):
            raise UsageError(
                f"pack {folder.name!r} is bundled with a plugin and cannot be removed",
                "uninstall the plugin, or build a pack with the same name to hide it",
            )
        if folder.resolve().parent != built_folder().resolve():
            raise UsageError(f"{folder} is not one of the packs in {built_folder()}", "delete the folder yourself")

    def remove(self, folder: Path) -> tuple[str, ...]:
        """Remove a pack that was built or imported on this machine. Returns remarks. Raises UsageError for others."""
        self.check_removable(folder)
        with pack_lock(folder):
            if not folder.exists():
                raise UnknownName(f"pack {folder.name!r} was removed by another process", "run `sglora pack list`")
            drop_folder(folder)
        if self.has_bundled(folder.name):
            return (f"the bundled pack {folder.name!r} is no longer hidden",)
        if settings.load().pack == folder.name:
            return (f"the default pack in the settings is still {folder.name!r}",)
        return ()


def _recover_all(root: Path) -> None:
    """Recover packs whose process was killed between removing the old version and moving the new one into place."""
    with suppress(OSError):
        for old in root.glob(".*.old"):
            target = root / old.name[1:].removesuffix(".old")
            if not target.exists():
                with (
                    suppress(SgloraError),
                    pack_lock(target, wait=False),
                ):  # in use, or read-only
                    pass


def _of_backbone(backbone: str, known: Mapping[str, PackLocation]) -> PackLocation:
    """Return the newest built pack of a backbone, or else a bundled one."""
    backbone_of = {name: str(location.summary().get("backbone", "")) for name, location in known.items()}
    fitting = [location for name, location in known.items() if backbone_of[name] == backbone]
    if not fitting:
        error = UnknownName.of("pack for a backbone", backbone, set(backbone_of.values()))
        raise UnknownName(
            error.message, f"{error.hint}; build one with `sglora pack build RECIPE --backbone {shell_word(backbone)}`"
        )
    return max(fitting, key=lambda location: (location.origin == "built", location.built_at))


def _named(name: str, known: Mapping[str, PackLocation]) -> PackLocation:
    if name in known:
        return known[name]
    if name.startswith(PREFIX):
        reference = Reference.parse(name)
        if location := _pulled(reference, known.values()):
            return location
        raise Unavailable(f"{reference} is not on this machine", f"get it: sglora pack pull {reference}")
    if (Path(name) / MANIFEST).is_file():
        return PackLocation(Path(name).resolve().name, Path(name), "folder")
    if Path(name).is_file():
        hint = f"import an exported pack first: sglora pack import {shell_word(name)}"
        raise UnknownName(f"{name} is a file, not a pack", hint)
    raise UnknownName.of("pack", name, known, "sglora pack list")


def _pulled(reference: Reference, locations: Iterable[PackLocation]) -> PackLocation | None:
    fitting = [
        (origin.pulled, location.name, location)
        for location in locations
        if location.origin == "built"
        for origin in origins(location.folder)
        if origin.fits(reference)
    ]
    return max(fitting, key=lambda one: one[:2])[2] if fitting else None
