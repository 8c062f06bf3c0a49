"""Editing the experts of a pack: adding one that was trained elsewhere, removing one.

Shapes: E experts, M states, D embedding width, W width of meaning, P numbers of an adapter.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglora_cli.adapter.convert import import_lines, origin, weights_hash
from sglora_cli.adapter.read import Found, read_adapter, recognise
from sglora_cli.config import RuntimeConfig
from sglora_cli.data.description import cleaned_sentence
from sglora_cli.data.encode import check_text
from sglora_cli.errors import Mismatch, UnknownName, UsageError
from sglora_cli.files.tensors import load_tensors, save_tensors
from sglora_cli.lora.gauge import join_gauge
from sglora_cli.pack.library import Library, PackLocation
from sglora_cli.pack.loaded import LoadedPack
from sglora_cli.pack.pack import Pack, file_name
from sglora_cli.pack.writer import edited
from sglora_cli.plugin.contracts import Model
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.sentences import meaning
from sglora_cli.plugin.values import EXPERT, UNSEEN
from sglora_cli.system import settings
from sglora_cli.system.locks import pack_lock

_NAME = re.compile(r"[^/\\\x00-\x1f]*[^\W_][^/\\\x00-\x1f]*/[^/\\\x00-\x1f]*[^\W_][^/\\\x00-\x1f]*")
_TEMPLATE = re.compile(r"^an? photo of (an?|the)?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Added:
    """A new expert of a pack, with lines for a person."""

    folder: Path
    task: dict[str, Any]
    lines: tuple[str, ...]


@dataclass(frozen=True)
class ForeignStates:
    """Adapters from elsewhere in the pack's layout and gauge: (M, P)."""

    states_MP: Tensor
    origin: dict[str, Any]
    lines: tuple[str, ...]


def add_expert(
    host: Host,
    location: PackLocation,
    adapters: Sequence[Path],
    text: str,
    name: str = "",
    runtime: RuntimeConfig | None = None,
    *,
    alpha: float | None = None,
    visual_only: bool = False,
) -> Added:
    """Make one expert of foreign adapters and add it to a pack. Several adapters are several states of one expert.

    Raises UsageError for an empty sentence or a bad name, Mismatch for a name that exists or
    adapters that do not fit; the pack is unchanged then. Its trained generators are not trained again.
    """
    text = cleaned_sentence(text)
    key = _key(name, text)
    found = [recognise(path) for path in adapters]  # refuses a file that is no adapter before waiting for the lock
    with pack_lock(Library(host.recipe_folders).own_folder(location.folder)):
        return _add(host, location, found, text, key, runtime, alpha, visual_only)


def _add(
    host: Host,
    location: PackLocation,
    adapters: Sequence[Found],
    text: str,
    key: str,
    runtime: RuntimeConfig | None,
    alpha: float | None,
    visual_only: bool,
) -> Added:
    """Add the expert. The caller holds the lock of the pack."""
    pack, target = Pack(location.folder), Library(host.recipe_folders).own_folder(location.folder)
    _check_new(pack, key)
    runtime = settings.runtime(runtime or RuntimeConfig(), pack.backbone, exact=True)
    model = LoadedPack(host, pack, runtime).model
    check_text(model, text)
    states = foreign_states(pack, model, adapters, alpha, visual_only)
    dataset, short = key.split("/")
    task = {
        "key": key,
        "dataset": dataset,
        "name": short,
        "role": EXPERT,
        "description": text,
        "train_photos": 0,
        "test_photos": 0,
        "origin": states.origin,
    }
    no_photos = ["note: it has no photos: the pack does not know any more what its experts look like"] * pack.has_visual
    with edited(pack, target) as (folder, manifest):  # without `visual`: it has a row for every expert
        _write_expert(folder, pack, model, task, states.states_MP)
        manifest["tasks"].append(task)
        manifest["edits"] = [*manifest.get("edits", []), f"added expert {key}"]
    copied = f"note: pack {target.name!r} is bundled and stays as it is: this copy of it hides it"
    lines = [*states.lines, f"expert     {key}: {text!r}", *([copied] if target != location.folder else [])]
    if pack.manifest["generators"]:
        lines.append(f"note: {', '.join(pack.manifest['generators'])}: trained without the new expert")
    lines += no_photos
    lines += [
        f"note: unseen task {other['key']} has the same sentence: what is measured there is not unseen any more"
        for other in pack.manifest["tasks"]
        if other["role"] == UNSEEN and other["description"].casefold() == text.casefold()
    ]
    return Added(target, task, tuple(lines))


def foreign_states(
    pack: Pack, model: Model, adapters: Sequence[Found], alpha: float | None, visual_only: bool
) -> ForeignStates:
    """Read adapters in any format, compress them to the pack's rank and bring them into its gauge."""
    flat, sources, lines = [], [], []
    for found in adapters:
        path, sha256 = found.path, weights_hash(found.path)
        foreign = read_adapter(found, model, backbone=pack.backbone, alpha=alpha, visual_only=visual_only)
        if beside := sorted(set(foreign.parts) - {site.name for site in pack.layout.sites}):
            raise Mismatch(
                f"{path} has an update of {beside[0]}, and the experts of pack {pack.name!r} have none",
                "train it without; `sglora import`, `try` and `bench --adapter` take it as it is",
            )
        flat_P, error = foreign.fitted(pack.layout)
        flat.append(flat_P)
        sources.append(origin(path, foreign, error, sha256))
        lines += import_lines(path, foreign, pack.layout.rank, error, model)
    gauged = join_gauge(pack.layout, torch.stack(flat), pack.experts.means())
    if float(pack.layout.update_norm(gauged.states_MP.double().mean(dim=0).float())) == 0:
        raise Mismatch("the mean of the adapters is an update of zero", "name adapters of one task")
    moved = f"moved from {gauged.before:.3f} to " if gauged.before != gauged.after else ""
    lines += [
        f"states     {len(flat)}" + (" (one state: its variance is 0)" if len(flat) == 1 else ""),
        f"gauge      {moved}{gauged.after:.3f} from the experts' mean, the farthest expert is {gauged.reach:.3f} away",
    ]
    if gauged.after > gauged.reach:
        lines.append(
            "note: it has less in common with the experts than they have: rules that mix factors lose part of it"
        )
    gauge = {key: round(getattr(gauged, key), 6) for key in ("before", "after", "reach")}
    return ForeignStates(gauged.states_MP, {"adapters": sources, "gauge": gauge}, tuple(lines))


def _write_expert(folder: Path, pack: Pack, model: Model, task: dict[str, Any], states_MP: Tensor) -> None:
    metadata = {"kind": "expert", "task": task["key"], "description": task["description"], "states": len(states_MP)}
    states_MP = states_MP.double()
    tensors = {"mu": states_MP.mean(dim=0).float(), "var": states_MP.var(dim=0, correction=0).float()}
    save_tensors(folder / "experts" / file_name(task["key"]), tensors, {**metadata, "origin": task["origin"]})
    index_ED = torch.cat([pack.index_ED, model.encode_text([task["description"]]).float()])
    meaning_EW = torch.cat([pack.meaning_EW, meaning(model, [task["description"]])])
    names = [*pack.experts.names, task["key"]]
    save_tensors(
        folder / "index.safetensors", {"index": index_ED, "meaning": meaning_EW}, {"kind": "index", "tasks": names}
    )


def _key(name: str, text: str) -> str:
    """The key `group/name` of an expert; without a name, `added/` and what the sentence is a photo of."""
    key = name or "added/" + re.sub(r"[/\\]", " ", _TEMPLATE.sub("", text).strip(" ."))[:60].lower()
    if not _NAME.fullmatch(key):
        raise UsageError(f"{key!r} is no name of an expert", "name it with --name GROUP/NAME, as in pets/pug")
    return key


def _check_new(pack: Pack, key: str) -> None:
    for task in pack.manifest["tasks"]:
        # A pack of an older version may have the file under another task.
        if _alike(task["key"]) == _alike(key) or pack.file_of("experts", task["key"]) == f"experts/{file_name(key)}":
            raise Mismatch(
                f"pack {pack.name!r} has a task {task['key']!r} already, its role is {task['role']}",
                "choose another name with --name GROUP/NAME",
            )


def _alike(key: str) -> str:
    """A key without what nobody sees in a list: capital letters, doubled spaces, ways to store an accent."""
    return unicodedata.normalize("NFC", " ".join(key.split())).casefold()


@dataclass(frozen=True)
class Removed:
    """A pack after an expert was removed, with notes for the user."""

    pack: Pack
    notes: tuple[str, ...]


def check_expert(pack: Pack, expert: str) -> None:
    """Raises UnknownName if the pack has no such expert, Mismatch if too few experts would be left."""
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


def remove_expert(pack: Pack, expert: str, library: Library) -> Removed:
    """Remove an expert from a pack. A bundled pack is not changed: a copy without the expert is made among those built.

    Generators and the joint adapter are not trained again. Raises UnknownName, Mismatch, BadFile for a
    damaged pack, or UsageError if a pack is where the copy would go.
    """
    target = library.own_folder(pack.folder)
    with pack_lock(target):
        library.own_folder(pack.folder)  # another process may have made the copy meanwhile
        pack = Pack(pack.folder)  # or may have changed the pack
        check_expert(pack, expert)
        with edited(pack, target) as (folder, manifest):
            _without(folder, pack, expert, manifest)
    notes = [f"pack {target.name!r} is bundled and stays as it is: this copy of it hides it"]
    notes = [] if target == pack.folder else notes
    learned = [*pack.manifest["generators"], *(["joint"] if (target / "joint.safetensors").exists() else [])]
    task = next(task for task in pack.manifest["tasks"] if task["key"] == expert)
    if learned and "origin" not in task:  # an expert that was added later was not part of their training
        notes.append(f"{', '.join(learned)}: trained with the expert, not trained again")
    return Removed(Pack(target), tuple(notes))


def _without(folder: Path, pack: Pack, expert: str, manifest: dict[str, Any]) -> None:
    """Remove an expert's file, its row of the index and its entry in the manifest from a copy of the pack."""
    (folder / pack.file_of("experts", expert)).unlink()
    row = pack.experts.names.index(expert)
    kept = [r for r in range(len(pack.experts.names)) if r != row]
    tensors, metadata = load_tensors(folder / "index.safetensors")
    rows = {name: tensor_ED[kept] for name, tensor_ED in tensors.items()}
    names = [pack.experts.names[r] for r in kept]
    save_tensors(folder / "index.safetensors", rows, {**metadata, "tasks": names})
    manifest["tasks"] = [task for task in manifest["tasks"] if task["key"] != expert]
    manifest["edits"] = [*manifest.get("edits", []), f"removed expert {expert}"]
