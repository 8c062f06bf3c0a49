"""Write a recipe file for the user to edit: an example, a copy of a known recipe, or one for the photos of a folder."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from sglora_cli.errors import BadFile, Mismatch, SgloraError, Unavailable, UsageError
from sglora_cli.files.escape import shell_word
from sglora_cli.files.hashes import first_copies
from sglora_cli.files.images import printable_name
from sglora_cli.files.untrusted import TOML_LIMIT, read_bytes
from sglora_cli.pack import recipe_parser
from sglora_cli.pack.content.manifest import check_printable
from sglora_cli.pack.roles import NEEDED, TO_LEARN, DealtRoles, TaskPhotos, deal_roles
from sglora_cli.plugin.contracts import Dataset, ListsImages
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import EXPERT, SPLITS, TEST, TRAIN, TRAINING, UNSEEN
from sglora_cli.system.paths import expanded

EXAMPLE = """\
# sglora pack build FILE --data DIR   builds a pack from this recipe. Replace the example names in [[source]].
backbone = "starter"                  # `sglora plugins list` shows others; the paper uses clip-vit-b-16
template = "a photo of a {name}"      # the sentence that describes a task
[train]
epochs = 70                           # `sglora inspect FILE` shows all such settings
states = 30
[generators.cvae]                     # the generator to train; without this table the pack has merging rules only
[[source]]                            # a data set; a recipe may have several
name = "toys"                         # its tasks are called toys/ball, toys/box, ...
dataset = "folder"                    # `sglora data list` shows others
path = "toys"                         # here DIR/toys, with captions.jsonl and the images that it lists
expert = ["ball", "box", "cup", "hat"]   # tasks whose adapters the pack stores, at least K = 4
training = ["jar", "kite", "lamp"]       # tasks that the generator is trained on
unseen = ["mug", "nest"]                 # tasks that the pack is evaluated on; a task has one role
"""
DEFAULT_DATASET = "folder"
_BATCH, _EPOCHS, _LEAST_EPOCHS, _TYPICAL = 16, 60, 20, 60
"""The starter's batch and epochs, the fewest epochs, and the typical photos per task up to which it uses all epochs."""


def copied(name: str, path: Path) -> bytes:
    """Return a copy of a known recipe, below a comment that names it. Raises BadFile and UnknownName as `read`."""
    recipe_parser.read(path)
    source = f"recipe {name}" if path.stem == name else printable_name(Path(name))
    return f"# A copy of {source} to edit.\n".encode() + read_bytes(path, TOML_LIMIT)


@dataclass(frozen=True)
class OwnData:
    """A data set in a folder, as input for a recipe."""

    dataset: str
    root: Path
    tasks: Sequence[TaskPhotos]
    captioned: int
    """Photos with captions or classes."""
    waiting: int
    """Photos without captions or classes."""

    @property
    def caption_command(self) -> str:
        """The command that writes the missing captions; "" if none are missing."""
        return shlex.join(["sglora", "data", "caption", self.dataset, "--path", str(self.root)]) if self.waiting else ""

    def build_command(self, file: Path) -> str:
        """Return the command that builds a pack from the recipe file."""
        return shlex.join(["sglora", "pack", "build", str(file), "--data", str(self.root.parent)])


def read_data(host: Host, folder: Path, dataset: str = "") -> OwnData:
    """Read the tasks of a folder: those with captions, or all tasks with images if there are no captions.

    dataset: by default the only data set besides `folder` that recognises the folder, or else `folder`.
    Raises UnknownName, UsageError for a folder that a recipe cannot name, and the errors of the data set.
    """
    root = Path(os.path.abspath(expanded(folder)))
    hint = "pass a folder that contains a subfolder of photos for each task"
    if not root.is_dir():
        raise UsageError.no_folder(folder, "the folder ", hint)
    if not root.name:
        raise UsageError(f"{root} is not a folder of photos", hint)
    try:
        check_printable(str(root), "")
    except BadFile:
        raise UsageError(f"a recipe cannot contain the folder name {printable_name(root)}", "rename it") from None
    if dataset:
        return _read(host.datasets[dataset], dataset, root)
    known = []
    for name in sorted(host.datasets):
        if name != DEFAULT_DATASET:
            with suppress(SgloraError):  # the folder has another layout
                known.append(_read(host.datasets[name], name, root))
    return known[0] if len(known) == 1 else _read(host.datasets[DEFAULT_DATASET], DEFAULT_DATASET, root)


def _read(plugin: Dataset, dataset: str, root: Path) -> OwnData:
    photos: dict[str, dict[str, list[Path]]] = {}
    try:
        photos = {t.name: {s: [p.path for p in t.photos.get(s, ())] for s in SPLITS} for t in plugin.tasks(root)}
    except Unavailable:
        if not isinstance(plugin, ListsImages):
            raise
    captioned = {path for splits in photos.values() for paths in splits.values() for path in paths}
    listed = {one.path: one for one in plugin.images(root)} if isinstance(plugin, ListsImages) else {}
    waiting = [one for path, one in listed.items() if path not in captioned]
    if not photos:
        for one in waiting:
            for task in one.tasks:
                photos.setdefault(task, {split: [] for split in SPLITS})[one.split].append(one.path)
    if not photos:
        raise BadFile(f"data set {dataset!r} found no tasks in {root}")
    return OwnData(dataset, root, _counted(photos), len(captioned), len(waiting))


def _counted(photos: Mapping[str, Mapping[str, Sequence[Path]]]) -> list[TaskPhotos]:
    """Count the photos of each task. Photos with the same bytes are the same photo, whatever their names."""
    first_of = first_copies(sorted({path for splits in photos.values() for paths in splits.values() for path in paths}))
    owners: dict[Path, set[str]] = defaultdict(set)
    for name, splits in photos.items():
        for paths in splits.values():
            for path in paths:
                owners[first_of[path]].add(name)
    of_several = {photo for photo, names in owners.items() if len(names) > 1}
    return [
        TaskPhotos(
            name,
            train=len(splits[TRAIN]),
            test=len(splits[TEST]),
            shared=len({first_of[path] for paths in splits.values() for path in paths} & of_several),
        )
        for name, splits in photos.items()
    ]


def roles_of(data: OwnData) -> DealtRoles:
    """Assign roles to the tasks. Raises Mismatch if there are too few, with a hint if a subfolder has more."""
    try:
        return deal_roles(data.tasks)
    except Mismatch as error:
        if inner := _folder_of_folders(data.root):
            raise Mismatch(error.message, f"did you mean --data {shell_word(inner)}?") from None
        if data.captioned and data.waiting:
            what = f"{data.waiting} more photos have no captions yet"
            raise Mismatch(f"{error.message}. {what}", f"write them first: {data.caption_command}") from None
        raise


def _folder_of_folders(root: Path) -> Path | None:
    """Return the only subfolder of a folder, if it has enough subfolders for all roles."""
    inner = _visible_folders(root)
    return inner[0] if len(inner) == 1 and len(_visible_folders(inner[0])) >= NEEDED else None


def _visible_folders(root: Path) -> list[Path]:
    try:
        return [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError:
        return []


def recipe_text(data: OwnData, dealt: DealtRoles, file: Path) -> str:
    """Return a commented recipe for a data set with assigned roles. Numbers are the starter's, adapted to the sizes."""
    seen = [task.photos for role in (EXPERT, TRAINING) for task in dealt.roles[role]]
    batch = _BATCH
    while batch > min(seen):
        batch //= 2
    typical = int(median(seen))
    epochs = max(_LEAST_EPOCHS, round(_EPOCHS * min(1.0, _TYPICAL / typical)))
    name = re.sub(r"[^\w.-]+", "-", data.root.name).strip("-.") or "photos"
    meaning = _MEANING if dealt.has_trained_generator else _MEANING | {TRAINING: _UNTRAINED}
    roles = "\n".join(_role(role, dealt.roles[role], f"# {meaning[role]}") for role in (EXPERT, TRAINING, UNSEEN))
    command = data.build_command(file)
    return f"""\
# Written by `sglora pack init` for {_quoted(data.root.name)}. Edit it as you like, then build the pack:
#   {command if command.isprintable() else "sglora pack build FILE --data DIR"}
summary = {_quoted(f"{data.root.name}: {len(seen) + len(dealt.roles[UNSEEN])} tasks")}
backbone = "starter"                  # `sglora plugins list` shows others; the paper uses clip-vit-b-16
template = "a photo of a {{name}}"      # the sentence that describes a task; {{name}} is the task's name
default_generator = "all-but-the-task"

[lora]
rank = 2
alpha = 2.0

[train]                               # `sglora inspect FILE` shows all such settings
epochs = {epochs:<3}                          # seen tasks have {min(seen)} to {max(seen)} photos, typically {typical}
states = {epochs // 3:<3}                          # adapters of the last epochs, for their mean and variance
batch = {batch:<3}                           # photos of one task per step
learning_rate = 1e-3
joint_learning_rate = 3e-3
joint_epochs = 40
tasks_at_once = 4
hide = 0.5                            # share of a photo's tokens to hide against overfitting, if the backbone can
mirror = 0.5                          # share of photos to mirror against overfitting

[prior]
k = 4                                 # K: the number of experts that a sentence selects
tau = 0.02
space = "meaning"

{_CVAE if dealt.has_trained_generator else _NO_CVAE}

[[source]]
name = {_quoted(name)}
dataset = {_quoted(data.dataset)}
path = {_quoted(data.root.name)}
whole = true                          # train seen tasks on their test photos, too, as nothing is tested on them
{roles}
"""


_CVAE = """\
[generators.cvae]                     # the paper's generator, small
hidden = 32
latent = 8
epochs = 20"""
_NO_CVAE = f"""\
# The paper's generator, [generators.cvae], is left out because it needs {TO_LEARN} training tasks or more.
# The default generator uses the photos and captions of all experts and training tasks."""
_MEANING = {
    EXPERT: "tasks whose adapters the pack stores, at least K of them",
    TRAINING: "tasks that the generator is trained on",
    UNSEEN: "tasks that the pack is evaluated on; a task has one role",
}
_UNTRAINED = "tasks whose photos and captions the default generator uses, too"
"""What training tasks are for if no generator is trained."""
_WIDTH = 112
"""The most characters in a line of names."""


def _role(role: str, tasks: Sequence[TaskPhotos], comment: str) -> str:
    """Return a role's task names as a TOML array, wrapped into lines."""
    lines, line = [f"{role} = [  {comment}"], "   "
    for name in (f"{_quoted(task.name)}," for task in tasks):
        if len(line) + len(name) > _WIDTH and line.strip():
            lines.append(line)
            line = "   "
        line += f" {name}"
    return "\n".join([*lines, line, "]"])


def _quoted(text: str) -> str:
    """Return a TOML string. JSON's escapes are valid in TOML. Control characters are refused before."""
    return json.dumps(text, ensure_ascii=False)
