"""Adapter files of many programs: one module a format, one function that reads, one that writes.

native.py     ours: one safetensors file      loose.py    an adapter before it has a layout
peft.py       PEFT's folders                  reading.py  which format it is, and its updates
clip_lora.py  CLIP-LoRA's file                writing.py  written, read back, compared, put in place
merged.py     the backbone's own checkpoint   pickles.py  PyTorch files: plain tensors or nothing
"""

from sglora_cli.formats.loose import LooseAdapter
from sglora_cli.formats.merged import read_state
from sglora_cli.formats.native import AdapterFile, load_adapter, save_adapter
from sglora_cli.formats.reading import provenance, read_adapter, recognise
from sglora_cli.formats.writing import FORMATS, Format, check_target, format_of, write_adapter

__all__ = [
    "FORMATS",
    "AdapterFile",
    "Format",
    "LooseAdapter",
    "check_target",
    "format_of",
    "load_adapter",
    "provenance",
    "read_adapter",
    "read_state",
    "recognise",
    "save_adapter",
    "write_adapter",
]
