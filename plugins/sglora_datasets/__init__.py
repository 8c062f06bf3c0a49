"""Data sets: where tasks come from. One file a data set; captions.py and gathering.py are what they share."""

from __future__ import annotations

from sglora_cli.api import hookimpl

from .coco import Coco
from .flowers import Flowers
from .folder import Folder
from .pets import Pets


@hookimpl
def sglora_datasets() -> list[object]:
    return [Coco(), Flowers(), Folder(), Pets()]
