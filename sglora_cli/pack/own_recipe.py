"""A recipe of one's own as a file to change: an example, a copy of a known one, or one for the photos of a folder."""

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
from sglora_cli.files.hashes import first_copies
from sglora_cli.files.images import printable_name
from sglora_cli.files.untrusted import TOML_LIMIT, read_bytes
from sglora_cli.pack import recipe_parser
from sglora_cli.pack.content.manifest import check_printable
from sglora_cli.pack.roles import NEEDED, DealtRoles, TaskPhotos, deal_roles
from sglora_cli.plugin.contracts import Dataset, ListsImages
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import EXPERT, SPLITS, TEST, TRAIN, TRAINING, UNSEEN

EXAMPLE = """\
# sglora pack build FILE --data DIR   builds a pack from this recipe. Names in [[source]] are examples: change them.
backbone = "starter"                  # `sglora plugins list` has others; clip-vit-b-16 is the paper's
template = "a photo of a {name}"      # the sentence that stands for a task
[train]
epochs = 70                           # `sglora inspect FILE` shows all such numbers
states = 30
[generators.cvae]                     # the generator to train; without this table there are merging rules only
[[source]]                            # a data set; there may be several
name = "toys"                         # its tasks are called toys/ball, toys/box, ...
dataset = "folder"                    # `sglora data list` has others
path = "toys"                         # here DIR/toys, with captions.jsonl and the images it names
expert = ["ball", "box", "cup", "hat"]   # tasks whose adapters the pack holds, at least K = 4
training = ["jar", "kite", "lamp"]       # tasks that teach the generator
unseen = ["mug", "nest"]                 # tasks that measure it; no task has two roles
"""
DEFAULT_DATASET = "folder"
_BATCH, _EPOCHS, _LEAST_EPOCHS, _TYPICAL = 16, 60, 20, 60
"""The starter's batch and epochs; no fewer epochs than so many; photos of a task up to which it has all of them."""


def copied(name: str, path: Path) -> bytes:
    """The bytes of a known recipe, below a comment that names it. Raises BadFile and UnknownName, as `read` does."""
    recipe_parser.read(path)
    source = f"recipe {name}" if path.stem == name else printable_name(Path(name))
    return f"# A copy of {source}, to be changed.\n".encode() + read_bytes(path, TOML_LIMIT)


@dataclass(frozen=True)
class OwnData:
    """A data set in a folder, as a recipe for it sees it."""

    dataset: str
    root: Path
    tasks: Sequence[TaskPhotos]
    captioned: int
    """Photos with captions, or with classes."""
    waiting: int
    """Photos without."""

    @property
    def caption_command(self) -> str:
        """The command that writes the captions that are missing; "" if none are."""
        return shlex.join(["sglora", "data", "caption", self.dataset, "--path", str(self.root)]) if self.waiting else ""

    def build_command(self, file: Path) -> str:
        """The command that builds the pack of a recipe for it."""
        return shlex.join(["sglora", "pack", "build", str(file), "--data", str(self.root.parent)])


def read_data(host: Host, folder: Path, dataset: str = "") -> OwnData:
    """The tasks of a folder: those with captions, and if there are no captions, those that images can be found of.

    dataset: by default the only data set besides `folder` that recognises the folder, else `folder`.
    Raises UnknownName, UsageError for a folder that a recipe cannot name, and whatever the data set raises.
    """
    root = Path(os.path.abspath(folder.expanduser()))
    hint = "pass --data FOLDER, the folder that holds a folder of photos for each task"
    if not root.is_dir():
        raise UsageError(f"there is no folder {folder}", hint)
    if not root.name:
        raise UsageError(f"{root} is no folder of photos", hint)
    try:
        check_printable(str(root), "")
    except BadFile:
        raise UsageError(f"a recipe cannot name the folder {printable_name(root)}", "rename it") from None
    if dataset:
        return _read(host.datasets[dataset], dataset, root)
    known = []
    for name in sorted(host.datasets):
        if name != DEFAULT_DATASET:
            with suppress(SgloraError):  # it is not of this kind
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
        raise BadFile(f"data set {dataset!r} finds no task in {root}")
    return OwnData(dataset, root, _counted(photos), len(captioned), len(waiting))


def _counted(photos: Mapping[str, Mapping[str, Sequence[Path]]]) -> list[TaskPhotos]:
    """The tasks with their numbers of photos. A photo is its bytes, whatever it is called."""
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
    """The roles of its tasks. Raises Mismatch if they are too few, with a hint where a folder within has more."""
    try:
        return deal_roles(data.tasks)
    except Mismatch as error:
        if inner := _folder_of_folders(data.root):
            raise Mismatch(error.message, f"did you mean --data {shlex.quote(str(inner))}?") from None
        if data.captioned and data.waiting:
            what = f"{data.waiting} more photos have no captions yet"
            raise Mismatch(f"{error.message}; {what}", f"write them first: {data.caption_command}") from None
        raise


def _folder_of_folders(root: Path) -> Path | None:
    """The only folder in a folder, if it holds folders for all roles."""
    inner = _visible_folders(root)
    return inner[0] if len(inner) == 1 and len(_visible_folders(inner[0])) >= NEEDED else None


def _visible_folders(root: Path) -> list[Path]:
    try:
        return [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError:
        return []


def recipe_text(data: OwnData, dealt: DealtRoles, file: Path) -> str:
    """The recipe of a data set with dealt roles, commented. Its numbers are the starter pack's, fitted to the sizes."""
    seen = [task.photos for role in (EXPERT, TRAINING) for task in dealt.roles[role]]
    batch = _BATCH
    while batch > min(seen):
        batch //= 2
    typical = int(median(seen))
    epochs = max(_LEAST_EPOCHS, round(_EPOCHS * min(1.0, _TYPICAL / typical)))
    name = re.sub(r"[^\w.-]+", "-", data.root.name).strip("-.") or "photos"
    roles = "\n".join(_role(role, dealt.roles[role], f"# {_MEANING[role]}") for role in (EXPERT, TRAINING, UNSEEN))
    command = data.build_command(file)
    return f"""\
# Written by `sglora pack init` for {_quoted(data.root.name)}. Change what you like, then build the pack:
#   {command if command.isprintable() else "sglora pack build FILE --data DIR"}
summary = {_quoted(f"{data.root.name}: {len(seen) + len(dealt.roles[UNSEEN])} tasks")}
backbone = "starter"                  # `sglora plugins list` has others; clip-vit-b-16 is the paper's
template = "a photo of a {{name}}"      # the sentence that stands for a task; {{name}} is the task's name
default_generator = "all-but-the-task"

[lora]
rank = 2
alpha = 2.0

[train]                               # `sglora inspect FILE` shows all such numbers
epochs = {epochs:<3}                          # seen tasks have {min(seen)} to {max(seen)} photos, typically {typical}
states = {epochs // 3:<3}                          # adapters of the last epochs, for their mean and variance
batch = {batch:<3}                           # photos of one task in a step
learning_rate = 1e-3
joint_learning_rate = 3e-3
joint_epochs = 40
tasks_at_once = 4
hide = 0.5                            # half of a photo's tokens hidden, if the backbone can; against overfitting,
mirror = 0.5                          # as are photos mirrored, half of them

[prior]
k = 4                                 # K: experts that a sentence leans on
tau = 0.02
space = "meaning"

{_CVAE if len(dealt.roles[TRAINING]) >= _TO_LEARN else _NO_CVAE}

[[source]]
name = {_quoted(name)}
dataset = {_quoted(data.dataset)}
path = {_quoted(data.root.name)}
whole = true                          # seen tasks learn from their test photos, too: nothing is measured on them
{roles}
"""


_TO_LEARN = 10
"""Training tasks from which a trained generator is worth its time; see `sglora docs how-to-data`."""
_CVAE = """\
[generators.cvae]                     # the paper's generator, small
hidden = 32
latent = 8
epochs = 20"""
_NO_CVAE = f"""\
# The paper's generator, [generators.cvae], is left out: it wants {_TO_LEARN} training tasks or more.
# The default generator learns from the photos and captions of all experts and training tasks."""
_MEANING = {
    EXPERT: "tasks whose adapters the pack keeps, at least K of them",
    TRAINING: "tasks that teach the generator",
    UNSEEN: "tasks that measure the pack; no task has two roles",
}
_WIDTH = 112
"""Letters of a line of names."""


def _role(role: str, tasks: Sequence[TaskPhotos], comment: str) -> str:
    """A role's names as a list of TOML, in lines."""
    lines, line = [f"{role} = [  {comment}"], "   "
    for name in (f"{_quoted(task.name)}," for task in tasks):
        if len(line) + len(name) > _WIDTH and line.strip():
            lines.append(line)
            line = "   "
        line += f" {name}"
    return "\n".join([*lines, line, "]"])


def _quoted(text: str) -> str:
    """A string of TOML; JSON's escapes are TOML's. Control characters are refused before."""
    return json.dumps(text, ensure_ascii=False)
