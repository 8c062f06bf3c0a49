"""Write a pack's folder: replace it by a changed copy, write its manifest with hashes and its model card."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from sglora_cli.config import PriorConfig
from sglora_cli.errors import SgloraError, UsageError
from sglora_cli.files.atomic import put_folder, scratch_folder, write_bytes
from sglora_cli.files.escape import markdown_code, markdown_text, shell_word
from sglora_cli.files.hashes import file_hash
from sglora_cli.files.text import write_json
from sglora_cli.pack.content.manifest import MANIFEST
from sglora_cli.pack.content.tasks import Tasks, tasks_of
from sglora_cli.pack.draft import PackDraft
from sglora_cli.pack.pack import Pack
from sglora_cli.plugin.values import ROLES
from sglora_cli.system.display import counted

_LISTED = 100
"""The most tasks of each role in a model card."""


@contextmanager
def edited(pack: Pack, target: Path | None = None) -> Iterator[PackDraft]:
    """Yield a copy of the pack for the block to change, then replace the pack by it, or write it to `target`.

    The new version gets a manifest, and its new files are checked, before it is moved into place. The caller must hold
    the lock of the destination (`pack_lock`). Raises BadFile for a damaged pack.
    """
    target = target or pack.folder
    with scratch_folder(target) as folder:
        draft = PackDraft(pack, folder, target)
        yield draft
        known = draft.known()
        write_manifest(folder, draft.manifest, known)
        new = Pack(folder)
        new.check_content(set(new.manifest["files"]) - set(known))
        put_folder(folder, target)


def check_replaceable(folder: Path) -> None:
    """Raise UsageError if a pack written to `folder` would replace anything but an unmodified pack."""
    if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / MANIFEST).is_file():
        raise UsageError(f"{folder} exists and is not a pack", "choose another name with -o")
    try:
        manifest = Pack(folder).manifest
    except SgloraError:  # a damaged pack may be replaced
        return
    if edits := manifest.get("edits"):
        raise UsageError(
            f"pack {folder.name!r} was changed after it was built, and a build would undo this change: {edits[-1]}",
            f"remove it (sglora pack remove {shell_word(folder.name)}), or choose another name with -o",
        )
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if strangers := names - {MANIFEST, *manifest["files"]}:
        raise UsageError(f"{folder} has files that do not belong to the pack: {min(strangers)}", "move them elsewhere")


def write_manifest(folder: Path, manifest: dict[str, Any], known: Mapping[str, str] | None = None) -> None:
    """Write the model card and a manifest with the hashes of all files. This makes the folder a pack.

    known: hashes of files that need not be read.
    """
    write_bytes(folder / "README.md", pack_card(manifest, tasks_of(folder, manifest)).encode())
    (folder / MANIFEST).unlink(missing_ok=True)
    known = {name: sha256 for name, sha256 in (known or {}).items() if name != "README.md"}
    names = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    manifest["files"] = {name: known.get(name) or file_hash(path) for name, path in names.items()}
    write_json(folder / MANIFEST, manifest)


def pack_card(manifest: Mapping[str, Any], tasks: Tasks) -> str:
    """Return the README.md of a pack: its purpose, origin and use."""
    prior = {**asdict(PriorConfig()), **manifest["prior"]}
    name, layout = shell_word(manifest["name"]), manifest["layout"]
    lines = [
        f"# {markdown_text(manifest['name'])}",
        "",
        markdown_text(str(manifest["recipe"].get("summary", "A pack of LoRA experts for sglora."))),
        "",
        f"* backbone {markdown_code(manifest['backbone'])}, fingerprint {markdown_code(manifest['fingerprint'])}",
        f"* LoRA of rank {layout['rank']}, alpha {float(layout['alpha']):g}, {counted(len(layout['sites']), 'site')}",
        f"* K = {prior['k']}, tau = {prior['tau']:g}, experts compared by {markdown_text(str(prior['space']))}",
        f"* generators: {markdown_text(', '.join(manifest['generators'])) or 'merging rules only'}",
        f"* made by {markdown_text(manifest['made_by'])}",
        "",
        "```sh",  # indented lines after a list would be part of it
        f'sglora generate "a photo of a ..." --pack {name} -o adapter.safetensors',
        "```",
        "",
        "| task | role | description | photos |",
        "|---|---|---|---|",
    ]
    left = 0
    for some in (tasks.of(role) for role in ROLES):
        lines += ["| " + " | ".join(map(markdown_text, _cells(task))) + " |" for task in islice(some, _LISTED)]
        left += max(0, len(some) - _LISTED)
    if left:
        command = markdown_code(f"sglora pack show {name}")
        lines += ["", f"{left} more tasks are not shown here. {command} lists all of them."]
    return "\n".join(lines) + "\n"


def _cells(task: Mapping[str, Any]) -> list[str]:
    photos = f"{task.get('train_photos', 'unknown')} + {task.get('test_photos', 'unknown')}"
    return [task["key"], task["role"], task["description"], photos]
