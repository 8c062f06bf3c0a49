"""Data sets, the sources of tasks. There is one file per data set, and tasks.py has what they share."""

from __future__ import annotations

from sglora_cli.api import hookimpl

from .cifar100 import Cifar100
from .coco import Coco
from .flickr30k import Flickr30k
from .flowers import Flowers
from .folder import Folder
from .pets import Pets
from .webdataset import WebDataset

SGLORA_API = "1.0"


@hookimpl
def sglora_datasets() -> list[object]:
    return [Cifar100(), Coco(), Flickr30k(), Flowers(), Folder(), Pets(), WebDataset()]
