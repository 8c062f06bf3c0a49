"""Data sets: where tasks come from. folder.py reads captions.jsonl beside images."""

from __future__ import annotations

from sglora_cli.api import hookimpl

from .folder import Folder


@hookimpl
def sglora_datasets() -> list[Folder]:
    return [Folder()]
