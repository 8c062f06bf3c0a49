"""A changed copy of a pack, before it replaces the old one. It has format 2, whatever format the pack has.

Unchanged files are hard links, not copies. Their hashes are known, so the cost of a change depends only on the files
that it writes. Shapes: N new experts, P parameters of an adapter.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglora_cli.errors import BadFile
from sglora_cli.files.atomic import copy_files, link_files, write_bytes
from sglora_cli.files.hashes import file_hash
from sglora_cli.pack.content.format_two import save_visual
from sglora_cli.pack.content.gauge import save_gauge
from sglora_cli.pack.content.manifest import FORMAT
from sglora_cli.pack.content.names import file_name
from sglora_cli.pack.content.shards import EXPERTS, ExpertShards, save_shard, shard_file, shard_rows
from sglora_cli.pack.content.tasks import TASKS, Keys, Task, TaskLines, parts, tasks_file, write_task_lines, write_tasks
from sglora_cli.pack.pack import Pack
from sglora_cli.plugin.values import EXPERT, ROLES, UNSEEN

if TYPE_CHECKING:
    from torch import Tensor

_MOST_EDITS = 100
"""The most changes that a manifest lists, so that it does not grow without limit."""
_NOT_CARRIED = (f"{EXPERTS}/", "evaluation/", "index.safetensors", "README.md")
"""Files of format 1 that are rewritten, or written under another name."""


class PackDraft:
    """The folder of a new version of a pack, and its manifest."""

    def __init__(self, pack: Pack, folder: Path, target: Path) -> None:
        """Fill the folder. Raises BadFile for a damaged pack, because new hashes would hide the damage.

        If a pack is changed in place, unchanged files of experts and tasks are not read. They keep their hashes, which
        still reveal damage. Files that are rewritten are compared with their hashes first.
        """
        self.folder, self._layout = folder, pack.layout
        self.manifest: dict[str, Any] = {key: value for key, value in pack.manifest.items() if key != "tasks"}
        self._known: dict[tuple[int, int], str] = {}
        """Hashes of files by device and inode."""
        if pack.format == 1:
            pack.check_whole()
            self._convert(pack)
        elif target == pack.folder:
            pack.check_whole(lambda name: not name.startswith((f"{EXPERTS}/", f"{TASKS}/")))
            copied = link_files(pack.folder, folder, listed := pack.manifest["files"])
            for name in copied:
                self._compare(name, listed[name])
            # An inode identifies a file as long as the old folder has the file as well.
            self._known = {_inode(folder / name): listed[name] for name in set(listed) - set(copied)}
        else:
            pack.check_whole()
            copy_files(pack.folder, folder, pack.manifest["files"])

    def add(self, tasks: Sequence[Task], tensors: Mapping[str, Tensor]) -> None:
        """Append experts. Of the existing files only the last one is rewritten. tensors: as for `save_shard`."""
        import torch

        rows, shards = shard_rows(self._layout), list(self.manifest["shards"])
        done = 0
        if shards and shards[-1] < rows:
            last = len(shards) - 1
            done = min(rows - shards[-1], len(tasks))
            old_tasks, old = self._read(last)
            new = {name: torch.cat([old[name], tensor[:done]]) for name, tensor in tensors.items()}
            self._write(last, [*old_tasks, *tasks[:done]], new)
            shards[-1] += done
        while done < len(tasks):
            end = min(done + rows, len(tasks))
            self._write(len(shards), tasks[done:end], {name: tensor[done:end] for name, tensor in tensors.items()})
            shards.append(end - done)
            done = end
        self._count(shards)

    def remove(self, row: int) -> None:
        """Remove an expert. Only its file is rewritten. An empty file is removed and later files are renumbered."""
        shards = list(self.manifest["shards"])
        shard = next(n for n in range(len(shards)) if row < sum(shards[: n + 1]))
        row -= sum(shards[:shard])
        tasks, tensors = self._read(shard)
        kept = [n for n in range(shards[shard]) if n != row]
        if kept:
            self._write(shard, [tasks[n] for n in kept], {name: tensor[kept] for name, tensor in tensors.items()})
            shards[shard] -= 1
        else:
            for behind in range(shard + 1, len(shards)):
                for name, new in zip(_files(behind), _files(behind - 1), strict=True):
                    os.replace(self.folder / name, self.folder / new)
            for name in _files(len(shards) - 1):
                (self.folder / name).unlink(missing_ok=True)
            del shards[shard]
        self._count(shards)

    def note(self, edit: str) -> None:
        """Record a change in the manifest."""
        self.manifest["edits"] = [*self.manifest.get("edits", []), edit][-_MOST_EDITS:]

    def drop(self, name: str) -> None:
        """Remove a file, if it exists."""
        (self.folder / name).unlink(missing_ok=True)

    def known(self) -> dict[str, str]:
        """Return the hashes of the unchanged files."""
        found = {}
        for path in self.folder.rglob("*"):
            if path.is_file() and (sha256 := self._known.get(_inode(path))):
                found[path.relative_to(self.folder).as_posix()] = sha256
        return found

    def _count(self, shards: Sequence[int]) -> None:
        self.manifest |= {"shards": list(shards), "counts": {**self.manifest["counts"], EXPERT: sum(shards)}}

    def _compare(self, name: str, sha256: str) -> None:
        """Raise BadFile if a file of the old version has another hash than when it was built."""
        if file_hash(self.folder / name) != sha256:
            raise BadFile(
                f"pack {self.manifest['name']!r} is damaged: {name} has changed since the pack was built",
                "build or fetch it again",
            )

    def _read(self, shard: int) -> tuple[list[Task], dict[str, Tensor]]:
        for name in _files(shard):
            if sha256 := self._known.get(_inode(self.folder / name)):
                self._compare(name, sha256)
        counts = self.manifest["shards"]
        lines = TaskLines(self.folder, EXPERT, counts)
        first = sum(counts[:shard])
        experts = ExpertShards(self.folder, counts, Keys(lines), self._layout)
        return list(lines[first : first + counts[shard]]), experts.read_shard(shard)

    def _write(self, shard: int, tasks: Sequence[Task], tensors: Mapping[str, Tensor]) -> None:
        save_shard(self.folder, shard, tensors)
        write_task_lines(self.folder, EXPERT, shard, tasks)

    def _convert(self, pack: Pack) -> None:
        """Fill the folder with the content of a pack of format 1. No numbers change."""
        copy_files(pack.folder, self.folder, (n for n in pack.manifest["files"] if not n.startswith(_NOT_CARRIED)))
        for task in pack.tasks.of(UNSEEN):
            source = pack.folder / pack.content.evaluation_file(task["key"])
            if source.exists():
                write_bytes(self.folder / "evaluation" / file_name(task["key"]), source.read_bytes())
        for role in ROLES[1:]:
            write_tasks(self.folder, role, pack.tasks.of(role), parts(len(pack.tasks.of(role))))
        self.manifest |= {"format": FORMAT, "shards": [], "counts": {role: len(pack.tasks.of(role)) for role in ROLES}}
        first = 0
        for mean_NP, variance_NP in pack.content.experts.chunks():
            rows = range(first, first := first + len(mean_NP))
            tasks = [{**pack.tasks.of(EXPERT)[row], **_states(pack, row)} for row in rows]
            own = {"index": pack.index_ED[list(rows)], "meaning": pack.meaning_EW[list(rows)]}
            self.add(tasks, {"mu": mean_NP, "var": variance_NP, **own})
        save_gauge(self.folder, pack.gauge)
        if pack.has_visual:
            save_visual(self.folder, pack.visual_ED)


def _states(pack: Pack, row: int) -> dict[str, Any]:
    states = pack.content.states(row)
    return {"states": states} if type(states) is int else {}


def _files(shard: int) -> Iterator[str]:
    yield shard_file(shard)
    yield tasks_file(EXPERT, shard)


def _inode(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino
