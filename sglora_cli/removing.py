"""Packs, and single experts of a pack, that are not wanted any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglora_cli import settings
from sglora_cli.drafts import drop_folder
from sglora_cli.errors import Mismatch, UnknownName, UsageError
from sglora_cli.files import load_tensors, save_tensors
from sglora_cli.packs import Pack, edited, file_name
from sglora_cli.shelves import MANIFEST, built_folder, changing, is_bundled, own_folder


@dataclass(frozen=True)
class Removed:
    """A pack without an expert that it had, and what the user should know about it."""

    pack: Pack
    notes: tuple[str, ...]


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
    if settings.load().pack == folder.name:
        return (f"the settings still name {folder.name!r} as the pack to use",)
    return ()


def check_expert(pack: Pack, expert: str) -> None:
    """Raises UnknownName if the pack has no such expert, Mismatch if it cannot do without one."""
    if expert not in pack.experts.names:
        roles = {task["key"]: task["role"] for task in pack.manifest["tasks"]}
        if expert in roles:
            raise Mismatch(f"{expert!r} is no expert of pack {pack.name!r}: its role is {roles[expert]}")
        raise UnknownName.of("expert in this pack", expert, pack.experts.names)
    if len(pack.experts.names) <= pack.prior_config.k:
        raise Mismatch(
            f"pack {pack.name!r} has {len(pack.experts.names)} experts and leans on K = {pack.prior_config.k} of them: "
            "it cannot do with fewer",
            "build it again with a smaller k in [prior] of its recipe, or remove the whole pack",
        )


def remove_expert(pack: Pack, expert: str, recipe_folders: Sequence[Path]) -> Removed:
    """Replace a pack by one without an expert; of a bundled pack make a copy, among those built here.

    Generators and the joint adapter stay as they are. Raises UnknownName, Mismatch, BadFile for a
    damaged pack, or UsageError if a pack is where the copy would go.
    """
    target = own_folder(pack.folder, recipe_folders)
    with changing(target):
        own_folder(pack.folder, recipe_folders)  # another process may have made the copy while we waited
        pack = Pack(pack.folder)  # or have changed the pack
        check_expert(pack, expert)
        with edited(pack, target) as (folder, manifest):
            _without(folder, pack, expert, manifest)
    notes = [f"pack {target.name!r} is bundled and stays as it is: this copy of it hides it"]
    notes = [] if target == pack.folder else notes
    learned = [*pack.manifest["generators"], *(["joint"] if (target / "joint.safetensors").exists() else [])]
    task = next(task for task in pack.manifest["tasks"] if task["key"] == expert)
    if learned and "origin" not in task:  # one that was added later taught them nothing
        notes.append(f"{', '.join(learned)}: trained with the expert, not trained again")
    return Removed(Pack(target), tuple(notes))


def _without(folder: Path, pack: Pack, expert: str, manifest: dict[str, Any]) -> None:
    """Take an expert's file, its row of the index and its line of the manifest out of a copy of the pack."""
    (folder / "experts" / file_name(expert)).unlink()
    row = pack.experts.names.index(expert)
    kept = [r for r in range(len(pack.experts.names)) if r != row]
    tensors, about = load_tensors(folder / "index.safetensors")
    rows = {name: tensor_ED[kept] for name, tensor_ED in tensors.items()}
    names = [pack.experts.names[r] for r in kept]
    save_tensors(folder / "index.safetensors", rows, {**about, "tasks": names})
    manifest["tasks"] = [task for task in manifest["tasks"] if task["key"] != expert]
    manifest["edits"] = [*manifest.get("edits", []), f"removed expert {expert}"]
