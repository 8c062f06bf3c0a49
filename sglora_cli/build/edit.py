"""Editing the experts of a pack: adding some that were trained elsewhere, removing one.

Shapes: E experts, M states, P numbers of an adapter.
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
_LINE = 'a line is {"adapter": FILE or [FILE, ...], "text": SENTENCE}, and may have a "name"'
_TEMPLATE = re.compile(r"^an? photo of (an?|the)?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class NewExpert:
    """Adapters from elsewhere, which are states of one expert, and what it is for."""

    adapters: Sequence[Path]
    text: str
    name: str = ""
    """GROUP/NAME; without one, it is called after its sentence."""
    where: str = ""
    """The line of a list that names it, for errors."""

    @property
    def rename(self) -> str:
        """How to give it another name, for hints."""
        return 'give the line another "name"' if self.where else "choose another name with --name GROUP/NAME"


@dataclass(frozen=True)
class Added:
    """New experts of a pack, with lines for a person."""

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
    """The experts that a file of JSON lines names: {"adapter": FILE or [FILE, ...], "text": ..., "name": ...} a line.

    FILE is looked for beside the list. Raises BadFile with path and line.
    """
    found = []
    for number, _, row in jsonl_rows(path):
        where = f"{path}, line {number}"
        if unknown := sorted(set(row) - {"adapter", "text", "name"}):
            raise BadFile(f"{where}: {unknown[0]!r} is unknown", _LINE)
        names = texts_field(row, "adapter", where) if isinstance(row.get("adapter"), list) else ()
        names = names or (text_field(row, "adapter", where),)
        name = text_field(row, "name", where) if "name" in row else ""
        found.append(NewExpert([path.parent / one for one in names], text_field(row, "text", where), name, where))
    if not found:
        raise BadFile(f"{path} names no adapter", _LINE)
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
    """Make experts of foreign adapters and add them to a pack, all or none: it is one new version.

    Raises UsageError for an empty sentence or a bad name, Mismatch for a name that exists or
    adapters that do not fit; the pack is unchanged then. Its trained generators are not trained again.
    """
    wanted = []
    for expert in experts:
        with _saying(expert.where):  # refuses a file that is no adapter before waiting for the lock
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
    """Add the experts. The caller holds the lock of `target`, where the new version goes."""
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
    notes = _notes(pack, target, sentences)  # the old version is not there to be asked when the new one is
    with edited(pack, target) as draft:  # without photos: `visual` has a row for every expert
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
    """What a person should know about a pack with new experts."""
    many = len(sentences) > 1
    lines = []
    if target != pack.folder:
        lines.append(f"note: pack {target.name!r} is bundled and stays as it is: this copy of it hides it")
    if pack.manifest["generators"]:
        new = "experts" if many else "expert"
        lines.append(f"note: {', '.join(pack.manifest['generators'])}: trained without the new {new}")
    if pack.has_visual:
        they = "they have" if many else "it has"
        lines.append(f"note: {they} no photos: the pack does not know any more what its experts look like")
    said = {text.casefold() for text in sentences}
    lines += [
        f"note: unseen task {other['key']} has the same sentence: what is measured there is not unseen any more"
        for other in pack.tasks.of(UNSEEN)
        if other["description"].casefold() in said
    ]
    return lines


@contextmanager
def _saying(where: str) -> Iterator[None]:
    """Errors of the block begin with the line of a list, if there is one, which is a bad file then."""
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
    """Read adapters in any format, compress them to the pack's rank and bring them into its gauge."""
    flat, sources, lines = [], [], []
    for found in adapters:
        path, sha256 = found.path, weights_hash(found.path)
        foreign = read_adapter(found, model, backbone=pack.backbone, alpha=alpha, visual_only=visual_only)
        if beside := sorted(set(foreign.parts) - {site.name for site in pack.layout.sites}):
            raise Mismatch(
                f"{path} has an update of {beside[0]}, and the experts of pack {pack.name!r} have none",
                "train it without, or generate it with --generator cvae; `import`, `try` and `bench --adapter` take it",
            )
        flat_P, error = foreign.fitted(pack.layout)
        flat.append(flat_P)
        sources.append(origin(path, foreign, error, sha256))
        lines += import_lines(path, foreign, pack.layout.rank, error, model)
    gauged = join_gauge(pack.layout, torch.stack(flat), pack.gauge)
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


def _key(expert: NewExpert, text: str) -> str:
    """The key `group/name` of an expert; without a name, `added/` and what the sentence is a photo of."""
    key = expert.name or "added/" + re.sub(r"[/\\]", " ", _TEMPLATE.sub("", text).strip(" ."))[:60].lower()
    if not _NAME.fullmatch(key):
        raise UsageError(f"{key!r} is no name of an expert", f"{expert.rename}, as in pets/pug")
    return key


def _check_new(pack: Pack, experts: Sequence[NewExpert]) -> None:
    """Raises Mismatch for an expert whose name the pack has already, or another new expert."""
    known = {_alike(key): (key, role) for role in ROLES for key in Keys(pack.tasks.of(role))}
    new: dict[str, str] = {}
    for expert in experts:
        alike = _alike(expert.name)
        with _saying(expert.where):
            if alike in new:
                raise Mismatch(f"{expert.name!r} is the name of {new[alike]} already", expert.rename)
            if alike in known:
                key, role = known[alike]
                raise Mismatch(
                    f"pack {pack.name!r} has a task {key!r} already, its role is {role}",
                    expert.rename,
                )
        new[alike] = expert.where


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
        roles = {task["key"]: task["role"] for task in pack.tasks}
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
        pack = Pack(library.copied(pack.folder))  # another process may have changed the pack
        check_expert(pack, expert)
        row = pack.experts.names.index(expert)
        task = pack.tasks.of(EXPERT)[row]  # the old version is not there to be asked when the new one is
        with edited(pack, target) as draft:
            draft.remove(row)
            _remove_kept(draft.folder, pack, row)
            draft.note(f"removed expert {expert}")
    notes = [f"pack {target.name!r} is bundled and stays as it is: this copy of it hides it"]
    notes = [] if target == pack.folder else notes
    learned = [*pack.manifest["generators"], *(["joint"] if (target / "joint.safetensors").exists() else [])]
    if learned and "origin" not in task:  # one added later was not part of their training
        notes.append(f"{', '.join(learned)}: trained with the expert, not trained again")
    return Removed(Pack(target), tuple(notes))


def _remove_kept(folder: Path, pack: Pack, row: int) -> None:
    """Remove an expert from what a copy of the pack keeps beside the experts."""
    if pack.has_visual:
        save_visual(folder, torch.cat([pack.visual_ED[:row], pack.visual_ED[row + 1 :]]))
    if seen := load_coverage(pack):
        seen.removed(pack.experts.names[row]).save(folder)
