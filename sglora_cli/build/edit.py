"""Edits the experts of a pack: adds experts trained elsewhere, or removes one.

Shapes: E experts, M states, P parameters of an adapter.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglora_cli.adapter.convert import import_lines, origin, weights_hash
from sglora_cli.adapter.read import Found, read_adapter, recognise
from sglora_cli.config import RuntimeConfig
from sglora_cli.data.description import cleaned_sentence
from sglora_cli.data.encode import check_text
from sglora_cli.errors import BadFile, Mismatch, SgloraError, UnknownName, UsageError
from sglora_cli.files.text import jsonl_rows, text_field, texts_field
from sglora_cli.lora.gauge import join_gauge
from sglora_cli.pack.content.format_two import VISUAL, save_visual
from sglora_cli.pack.content.tasks import Keys
from sglora_cli.pack.coverage import SeenTasks, load_coverage
from sglora_cli.pack.library import Library, PackLocation
from sglora_cli.pack.loaded import LoadedPack
from sglora_cli.pack.pack import Pack
from sglora_cli.pack.writer import edited
from sglora_cli.plugin.contracts import Model
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.sentences import meaning
from sglora_cli.plugin.values import EXPERT, ROLES, UNSEEN
from sglora_cli.system import settings
from sglora_cli.system.locks import pack_lock

_NAME = re.compile(r"[^/\\\x00-\x1f]*[^\W_][^/\\\x00-\x1f]*/[^/\\\x00-\x1f]*[^\W_][^/\\\x00-\x1f]*")
_LINE = 'each line must be {"adapter": FILE or [FILE, ...], "text": SENTENCE}, with an optional "name"'
_TEMPLATE = re.compile(r"^an? photo of (an?|the)?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class NewExpert:
    """Adapters from elsewhere that become the states of one expert, and its sentence."""

    adapters: Sequence[Path]
    text: str
    name: str = ""
    """GROUP/NAME. If empty, the name is derived from the sentence."""
    where: str = ""
    """The line of the list that defines it, for errors."""

    @property
    def rename(self) -> str:
        """A hint on how to give the expert another name."""
        return 'set another "name" in this line' if self.where else "choose another name with --name GROUP/NAME"


@dataclass(frozen=True)
class Added:
    """The tasks of new experts in a pack, with lines to print."""

    folder: Path
    tasks: tuple[dict[str, Any], ...]
    lines: tuple[str, ...]


@dataclass(frozen=True)
class ForeignStates:
    """Adapters from elsewhere in the pack's layout and gauge: (M, P)."""

    states_MP: Tensor
    origin: dict[str, Any]
    lines: tuple[str, ...]


def experts_of_list(path: Path) -> list[NewExpert]:
    """Read experts from JSON lines: {"adapter": FILE or [FILE, ...], "text": ..., "name": ...}.

    FILE is relative to the folder of the list. Raises BadFile with path and line.
    """
    found = []
    for number, _, row in jsonl_rows(path):
        where = f"{path}, line {number}"
        if unknown := sorted(set(row) - {"adapter", "text", "name"}):
            raise BadFile(f"{where}: unknown key {unknown[0]!r}", _LINE)
        names = texts_field(row, "adapter", where) if isinstance(row.get("adapter"), list) else ()
        names = names or (text_field(row, "adapter", where),)
        name = text_field(row, "name", where) if "name" in row else ""
        found.append(NewExpert([path.parent / one for one in names], text_field(row, "text", where), name, where))
    if not found:
        raise BadFile(f"{path} lists no adapters", _LINE)
    return found


def add_experts(
    host: Host,
    location: PackLocation,
    experts: Sequence[NewExpert],
    runtime: RuntimeConfig | None = None,
    *,
    alpha: float | None = None,
    visual_only: bool = False,
) -> Added:
    """Add foreign adapters to a pack as experts. Either all are added in one new version, or none.

    Trained generators are not trained again.
    Raises UsageError for an empty sentence or an invalid name, and Mismatch for a name that exists or adapters that do
    not fit. The pack is then unchanged.
    """
    wanted = []
    for expert in experts:
        with _saying(expert.where):  # reject invalid files before waiting for the lock
            text = cleaned_sentence(expert.text)
            found = [recognise(path) for path in expert.adapters]
            wanted.append((replace(expert, text=text, name=_key(expert, text)), found))
    library = Library(host.recipe_folders)
    with pack_lock(target := library.own_folder(location.folder)):
        return _add(host, Pack(library.copied(location.folder)), target, wanted, runtime, alpha, visual_only)


def _add(
    host: Host,
    pack: Pack,
    target: Path,
    wanted: Sequence[tuple[NewExpert, Sequence[Found]]],
    runtime: RuntimeConfig | None,
    alpha: float | None,
    visual_only: bool,
) -> Added:
    """Add the experts. The caller holds the lock of `target`, the folder of the new version."""
    _check_new(pack, [expert for expert, _ in wanted])
    runtime = settings.runtime(runtime or RuntimeConfig(), pack.backbone, exact=True)
    model = LoadedPack(host, pack, runtime).model
    tasks, means, variances, lines = [], [], [], []
    for expert, found in wanted:
        with _saying(expert.where):
            check_text(model, expert.text)
            states = foreign_states(pack, model, found, alpha, visual_only)
        tasks.append(_task(expert, states))
        states_MP = states.states_MP.double()
        means.append(states_MP.mean(dim=0).float())
        variances.append(states_MP.var(dim=0, correction=0).float())
        lines += [*states.lines, f"expert     {expert.name}: {expert.text!r}"]
    sentences, keys = [expert.text for expert, _ in wanted], [expert.name for expert, _ in wanted]
    seen = SeenTasks.of(pack, encode := partial(meaning, model)).added(keys, sentences, encode)
    notes = _notes(pack, target, sentences)  # before the new version replaces the old one
    with edited(pack, target) as draft:  # `visual` needs a row for every expert, but these have no photos
        described = {"index": model.encode_text(sentences).float(), "meaning": meaning(model, sentences)}
        draft.add(tasks, {"mu": torch.stack(means), "var": torch.stack(variances), **described})
        draft.drop(VISUAL)
        seen.save(draft.folder)
        more = f" and {len(keys) - 1} more, up to {keys[-1]}" if len(keys) > 1 else ""
        draft.note(f"added expert {keys[0]}{more}")
    return Added(target, tuple(tasks), (*lines, *notes))


def _task(expert: NewExpert, states: ForeignStates) -> dict[str, Any]:
    dataset, short = expert.name.split("/")
    return {
        "key": expert.name,
        "dataset": dataset,
        "name": short,
        "role": EXPERT,
        "description": expert.text,
        "train_photos": 0,
        "test_photos": 0,
        "states": len(states.states_MP),
        "origin": states.origin,
    }


def _notes(pack: Pack, target: Path, sentences: Sequence[str]) -> list[str]:
    """Return notes for the user about a pack with new experts."""
    many = len(sentences) > 1
    lines = []
    if target != pack.folder:
        lines.append(f"note: the bundled pack {target.name!r} is not changed, but this copy takes precedence over it")
    if pack.manifest["generators"]:
        new = "experts" if many else "expert"
        lines.append(
            f"note: these generators were trained without the new {new}: {', '.join(pack.manifest['generators'])}"
        )
    if pack.has_visual:
        they = "they have" if many else "it has"
        lines.append(f"note: {they} no photos, so the pack no longer has visual embeddings of its experts")
    said = {text.casefold() for text in sentences}
    lines += [
        f"note: unseen task {other['key']} has the same sentence, so results on it no longer count as unseen"
        for other in pack.tasks.of(UNSEEN)
        if other["description"].casefold() in said
    ]
    return lines


@contextmanager
def _saying(where: str) -> Iterator[None]:
    """Prefix errors of the block with the line of the list, if there is one. UsageError then becomes BadFile."""
    try:
        yield
    except SgloraError as error:
        if not where:
            raise
        kind = BadFile if isinstance(error, UsageError) else type(error)
        raise kind(f"{where}: {error.message}", error.hint) from error


def foreign_states(
    pack: Pack, model: Model, adapters: Sequence[Found], alpha: float | None, visual_only: bool
) -> ForeignStates:
    """Read adapters of any format, compress them to the pack's rank and move them into its gauge."""
    flat, sources, lines = [], [], []
    for found in adapters:
        path, sha256 = found.path, weights_hash(found.path)
        foreign = read_adapter(found, model, backbone=pack.backbone, alpha=alpha, visual_only=visual_only)
        if beside := sorted(set(foreign.parts) - {site.name for site in pack.layout.sites}):
            raise Mismatch(
                f"{path} has an update of {beside[0]}, but the experts of pack {pack.name!r} have none",
                "train it without this update, or use it with `import`, `try` or `bench --adapter` instead",
            )
        flat_P, error = foreign.fitted(pack.layout)
        flat.append(flat_P)
        sources.append(origin(path, foreign, error, sha256))
        lines += import_lines(path, foreign, pack.layout.rank, error, model)
    gauged = join_gauge(pack.layout, torch.stack(flat), pack.gauge)
    if float(pack.layout.update_norm(gauged.states_MP.double().mean(dim=0).float())) == 0:
        raise Mismatch("the mean update of the adapters is zero", "pass adapters that were trained for the same task")
    moved = f"moved from {gauged.before:.3f} to " if gauged.before != gauged.after else ""
    lines += [
        f"states     {len(flat)}" + (" (with one state, the variance is 0)" if len(flat) == 1 else ""),
        f"gauge      {moved}{gauged.after:.3f} from the experts' mean (farthest expert: {gauged.reach:.3f})",
    ]
    if gauged.after > gauged.reach:
        lines.append(
            "note: it is farther from the experts' mean than any expert, so methods that mix factors lose part of it"
        )
    gauge = {key: round(getattr(gauged, key), 6) for key in ("before", "after", "reach")}
    return ForeignStates(gauged.states_MP, {"adapters": sources, "gauge": gauge}, tuple(lines))


def _key(expert: NewExpert, text: str) -> str:
    """Return the key `group/name` of an expert. Without a name, it is `added/` and the object in the sentence."""
    key = expert.name or "added/" + re.sub(r"[/\\]", " ", _TEMPLATE.sub("", text).strip(" ."))[:60].lower()
    if not _NAME.fullmatch(key):
        raise UsageError(f"{key!r} is not a valid expert name", f"{expert.rename}, for example pets/pug")
    return key


def _check_new(pack: Pack, experts: Sequence[NewExpert]) -> None:
    """Raise Mismatch if the pack or another new expert already has an expert's name."""
    known = {_alike(key): (key, role) for role in ROLES for key in Keys(pack.tasks.of(role))}
    new: dict[str, str] = {}
    for expert in experts:
        alike = _alike(expert.name)
        with _saying(expert.where):
            if alike in new:
                raise Mismatch(f"the name {expert.name!r} is already used in {new[alike]}", expert.rename)
            if alike in known:
                key, role = known[alike]
                raise Mismatch(
                    f"pack {pack.name!r} already has a task {key!r} with role {role}",
                    expert.rename,
                )
        new[alike] = expert.where


def _alike(key: str) -> str:
    """Normalise a key: ignore case, repeated spaces and how accents are encoded."""
    return unicodedata.normalize("NFC", " ".join(key.split())).casefold()


@dataclass(frozen=True)
class Removed:
    """A pack after an expert was removed, with notes for the user."""

    pack: Pack
    notes: tuple[str, ...]


def check_expert(pack: Pack, expert: str) -> None:
    """Raise UnknownName if the pack has no such expert, and Mismatch if too few experts would remain."""
    if expert not in pack.experts.names:
        roles = {task["key"]: task["role"] for task in pack.tasks}
        if expert in roles:
            raise Mismatch(f"{expert!r} is not an expert of pack {pack.name!r}, its role is {roles[expert]}")
        raise UnknownName.of("expert in this pack", expert, pack.experts.names)
    if len(pack.experts.names) <= pack.prior_config.k:
        raise Mismatch(
            f"pack {pack.name!r} has {len(pack.experts.names)} experts and needs at least K = {pack.prior_config.k}",
            "rebuild it with a smaller k in [prior] of its recipe, or remove the pack",
        )


def remove_expert(pack: Pack, expert: str, library: Library) -> Removed:
    """Remove an expert from a pack. For a bundled pack, a copy without the expert is created instead.

    Generators and the joint adapter are not trained again. Raises UnknownName, Mismatch, BadFile for a damaged pack, or
    UsageError if another pack is in the place of the copy.
    """
    target = library.own_folder(pack.folder)
    with pack_lock(target):
        pack = Pack(library.copied(pack.folder))  # another process may have changed the pack
        check_expert(pack, expert)
        row = pack.experts.names.index(expert)
        task = pack.tasks.of(EXPERT)[row]  # before the new version replaces the old one
        with edited(pack, target) as draft:
            draft.remove(row)
            _remove_kept(draft.folder, pack, row)
            draft.note(f"removed expert {expert}")
    notes = [f"the bundled pack {target.name!r} is not changed, but this copy takes precedence over it"]
    notes = [] if target == pack.folder else notes
    learned = [*pack.manifest["generators"], *(["joint"] if (target / "joint.safetensors").exists() else [])]
    if learned and "origin" not in task:  # one added later was not part of their training
        notes.append(f"trained with this expert and not trained again: {', '.join(learned)}")
    return Removed(Pack(target), tuple(notes))


def _remove_kept(folder: Path, pack: Pack, row: int) -> None:
    """Remove an expert from other files in a copy of the pack."""
    if pack.has_visual:
        save_visual(folder, torch.cat([pack.visual_ED[:row], pack.visual_ED[row + 1 :]]))
    if seen := load_coverage(pack):
        seen.removed(pack.experts.names[row]).save(folder)
