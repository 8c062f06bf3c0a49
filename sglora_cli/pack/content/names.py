"""File names of tasks in a pack."""

from __future__ import annotations

from sglora_cli.files.names import file_stem


def file_name(key: str) -> str:
    """Return the file name of a task, unique on every system: `flowers--king-protea.safetensors`."""
    dataset, _, name = key.partition("/")
    return f"{file_stem(dataset)}--{file_stem(name)}.safetensors"
