"""Adapter files of many programs: one module a format, one function that reads, one that writes."""

from sglora_cli.formats.loose import LooseAdapter
from sglora_cli.formats.native import AdapterFile, load_adapter, save_adapter
from sglora_cli.formats.reading import read_adapter, recognise
from sglora_cli.formats.writing import FORMATS, Format, check_target, format_of, write_adapter

__all__ = [
    "FORMATS",
    "AdapterFile",
    "Format",
    "LooseAdapter",
    "check_target",
    "format_of",
    "load_adapter",
    "read_adapter",
    "recognise",
    "save_adapter",
    "write_adapter",
]
