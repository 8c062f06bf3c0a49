"""Merged checkpoints: the backbone's state with the update added, for programs without adapter support.

Shapes: O out_features, I in_features of a site.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglora_cli.adapter.file import FORMAT, AdapterFile
from sglora_cli.adapter.foreign import ForeignAdapter, checked_parts
from sglora_cli.adapter.state_dict import pickled_tensors, plain_name, plain_names
from sglora_cli.adapter.torch_files import CHECKPOINT_LIMIT, check_size, is_pickle, load_pickle
from sglora_cli.errors import BadFile, Mismatch, Unavailable
from sglora_cli.files.tensors import KEY, load_tensors, packed_metadata, read_tensors
from sglora_cli.lora.algebra import approximate
from sglora_cli.plugin.contracts import MergesCheckpoints, Model

TOLERANCE = 1e-3
"""Relative error above which the difference of two checkpoints is not a low-rank update."""
_RANKS = (1, 2, 4, 8, 16, 32, 64)


def write(path: Path, adapter: AdapterFile, model: Model) -> None:
    """Write the backbone's checkpoint with the update added. Raises Mismatch if the backbone has no checkpoint."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if not isinstance(model, MergesCheckpoints):
        raise Mismatch("this backbone has no checkpoint to merge into", "use --format peft")
    state = model.merged(adapter.layout, adapter.flat_P)
    metadata = {**adapter.metadata, "kind": "merged", "format": FORMAT, "layout": adapter.layout.to_json()}
    tensors = {name: x.detach().cpu().contiguous() for name, x in state.items()}
    try:
        # Write directly to the file, because a checkpoint is too large for a second copy in memory.
        save_file(tensors, path, metadata={KEY: packed_metadata(metadata)})
    except (OSError, SafetensorError) as error:
        raise Unavailable(
            f"cannot write {path}: {error}", "free some space there, or choose another path with -o"
        ) from error


def read_state(
    path: Path, content: Any = None, wanted: Callable[[str], bool] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a complete checkpoint: its tensors by their plain names, and its metadata. Raises BadFile.

    content: the content of a PyTorch file, if it is already loaded.  wanted: selects the tensors to read by name. Then
    the tensors are copies and the metadata is empty. Without it, the tensors may be views of the file.
    """
    check_size(path, CHECKPOINT_LIMIT)
    if content is None and not is_pickle(path):
        if wanted:
            return plain_names(path, read_tensors(path, lambda name: wanted(plain_name(name)))), {}
        tensors, metadata = load_tensors(path)
        return plain_names(path, tensors), metadata
    state = pickled_tensors(path, load_pickle(path) if content is None else content)
    return {name: tensor for name, tensor in state.items() if wanted is None or wanted(name)}, {}


def read(path: Path, model: Model, rank: int | None = None, content: Any = None) -> ForeignAdapter:
    """Read the difference between a checkpoint and the backbone, as an update of `rank` or of the smallest rank.

    content: as for `read_state`. Raises Mismatch if it is not a low-rank update, or if anything else differs.
    """
    if not isinstance(model, MergesCheckpoints):
        raise Mismatch(
            "this backbone cannot be compared with a checkpoint", "import the adapter's own file, before it was merged"
        )
    tensors, metadata = read_state(path, content)
    differences = model.unmerged(tensors)
    for name, dense_OI in differences.items():
        if not bool(torch.isfinite(dense_OI).all()):
            raise BadFile(f"{path}: the weights of {name} contain numbers that are not finite", "it cannot be used")
    differences = {name: dense_OI for name, dense_OI in differences.items() if bool(dense_OI.any())}
    if not differences:
        raise Mismatch(f"{path} is identical to the backbone and has no update", "check that it is the right file")
    narrowest = min(min(dense_OI.shape) for dense_OI in differences.values())
    ranks = (rank,) if rank else tuple(r for r in _RANKS if 2 * r <= narrowest)  # every matrix has some rank
    for r in ranks:
        parts, error = _factored(differences, r)
        if error <= TOLERANCE:
            return ForeignAdapter(checked_parts(parts, str(path)), "open_clip", 1.0, metadata, lost=error)
    raise Mismatch(
        f"{path} differs from the backbone by more than an update of rank {ranks[-1]} (relative error {error:.2g})",
        "it was fully fine-tuned, or merged with a higher rank" + ("; raise --rank" if rank else ""),
    )


def _factored(differences: Mapping[str, Tensor], rank: int) -> tuple[dict[str, tuple[Tensor, Tensor]], float]:
    parts, lost, whole = {}, 0.0, 0.0
    for name, dense_OI in differences.items():
        b_OR, a_RI, error = approximate(dense_OI, rank)
        size = float(dense_OI.double().square().sum())
        parts[name], lost, whole = (b_OR, a_RI), lost + float(error) ** 2 * size, whole + size
    return parts, (lost / whole) ** 0.5
