"""Hashes of the photos that a pack was trained on, so that a test on one of them is detected.

learned.safetensors has one tensor (N, 16) of bytes per role: the first half of the SHA-256 of every photo that a task
of this role was trained on, sorted. The photos of experts and training tasks affect the experts, the joint adapter and
the generators. The photos of unseen tasks affect only their Oracles.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from sglora_cli.errors import BadFile
from sglora_cli.files.tensors import load_tensors, save_tensors
from sglora_cli.plugin.values import ROLES

LEARNED = "learned.safetensors"
_BYTES = 16


def save_learned(folder: Path, photos: Mapping[str, Iterable[str]]) -> None:
    """Write the file. photos: maps each role to the SHA-256 of its photos in hexadecimal."""
    import torch

    tensors = {}
    for role, hashes in photos.items():
        rows = [list(bytes.fromhex(photo)[:_BYTES]) for photo in sorted(set(hashes))]
        tensors[role] = torch.tensor(rows, dtype=torch.uint8).reshape(-1, _BYTES)
    save_tensors(folder / LEARNED, tensors, {"kind": "learned"})


def load_learned(folder: Path) -> dict[str, frozenset[str]]:
    """Map each role to the `short` hashes of its photos. Raises BadFile."""
    import torch

    path = folder / LEARNED
    tensors, _ = load_tensors(path, ROLES)
    for role, rows in tensors.items():
        if rows.dtype != torch.uint8 or rows.ndim != 2 or rows.shape[1] != _BYTES:
            raise BadFile(f"{path}: {role} does not contain photo hashes", "build the pack again")
    return {role: frozenset(bytes(row).hex() for row in rows.tolist()) for role, rows in tensors.items()}


def short(photo: str) -> str:
    """Return the part of a photo's SHA-256 that a pack stores."""
    return photo[: 2 * _BYTES]
