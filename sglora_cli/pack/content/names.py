"""The files of tasks in a pack, by the tasks' keys."""

from __future__ import annotations

from sglora_cli.files.names import file_stem


def file_name(key: str) -> str:
    """The file of a task, of no other task on any system: `flowers--king-protea.safetensors`."""
    dataset, _, name = key.partition("/")
    return f"{file_stem(dataset)}--{file_stem(name)}.safetensors"
