"""Adapter files of sglora: one safetensors file with PEFT's tensor names, and the provenance in one metadata key.

Shapes: P parameters of an adapter, R rank, O and I features of a site.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sglora_cli.adapter.provenance import line, table
from sglora_cli.errors import BadFile, Mismatch
from sglora_cli.files.atomic import write_bytes
from sglora_cli.files.escape import shell_word
from sglora_cli.files.tensors import load_tensors, packed_tensors
from sglora_cli.lora.layout import Layout, checked_flat
from sglora_cli.plugin.contracts import Model
from sglora_cli.plugin.fingerprint import check_fingerprint
from sglora_cli.plugin.sites import site_choices

FORMAT = 1
PREFIX = "base_model.model."


@dataclass(frozen=True)
class AdapterFile:
    """An adapter read from disk: its parameters, their layout and their provenance."""

    layout: Layout
    flat_P: Tensor
    metadata: Mapping[str, Any]

    def __repr__(self) -> str:
        return line("AdapterFile", self.metadata, self.layout.line)

    def _repr_html_(self) -> str:
        return table(self.metadata, {"layout": self.layout.line})

    @property
    def fingerprint(self) -> str:
        return str(self.metadata.get("fingerprint", ""))

    @property
    def backbone(self) -> str:
        """Name of the backbone that the adapter was made for. Raises Mismatch if it is not recorded."""
        if not isinstance(name := self.metadata.get("backbone"), str):
            raise Mismatch(
                "the adapter does not record its backbone", "add it with `sglora import FILE -o NEW.safetensors`"
            )
        return name

    def check_model(self, model: Model) -> None:
        """Raise Mismatch if the adapter was made for another backbone, or if its update is zero."""
        made = "the adapter was made for a backbone"
        check_fingerprint(model, self.fingerprint, made, "generate it again for this backbone")
        if self.layout.sites not in site_choices(model):
            raise Mismatch("the adapter's sites differ from the backbone's", "generate it again for this backbone")
        if float(self.layout.update_norm(self.flat_P)) == 0:
            raise Mismatch("the adapter's update is zero, so it would change nothing", "generate it again")


def save_adapter(path: Path, layout: Layout, flat_P: Tensor, metadata: Mapping[str, Any]) -> None:
    """Write one adapter. The file is also a valid PEFT state. Raises Mismatch for parameters that are not finite."""
    write_bytes(path, packed_adapter(layout, flat_P, metadata))


def packed_adapter(layout: Layout, flat_P: Tensor, metadata: Mapping[str, Any]) -> bytes:
    """Return the content of an adapter file. Equal adapters with equal metadata give equal bytes."""
    checked_flat(flat_P, "the adapter")
    tensors = {}
    for name, (b_OR, a_RI) in layout.split(flat_P).items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = a_RI
        tensors[f"{PREFIX}{name}.lora_B.weight"] = b_OR
    return packed_tensors(tensors, {"kind": "adapter", "format": FORMAT, "layout": layout.to_json(), **metadata})


def load_adapter(path: Path) -> AdapterFile:
    """Read an adapter file of sglora. Raises BadFile unless it is complete and its parameters are finite."""
    tensors, metadata = load_tensors(path)
    if metadata.get("kind") != "adapter":
        what = f"a {metadata['kind']}" if "kind" in metadata else "a file of another program"
        raise BadFile(
            f"{path} is {what}, not an adapter of sglora",
            "" if "kind" in metadata else f"convert it with: sglora import {shell_word(path)} -o NEW.safetensors",
        )
    if metadata.get("format") != FORMAT:
        raise BadFile(f"{path} has format {metadata.get('format')!r}, but this sglora reads {FORMAT}", "update sglora")
    try:
        layout = Layout.restore(metadata.get("layout", {}))
        parts = {}
        for site in layout.sites:
            b_OR = tensors.pop(f"{PREFIX}{site.name}.lora_B.weight").float()
            a_RI = tensors.pop(f"{PREFIX}{site.name}.lora_A.weight").float()
            if b_OR.shape != (site.out_features, layout.rank) or a_RI.shape != (layout.rank, site.in_features):
                raise BadFile(f"{path}: site {site.name} has shapes {tuple(b_OR.shape)} and {tuple(a_RI.shape)}")
            parts[site.name] = (b_OR, a_RI)
    except KeyError as error:
        raise BadFile(f"{path} has no tensor {error}") from None
    except Mismatch as error:
        raise BadFile(f"{path}: {error}") from None
    if tensors:
        raise BadFile(f"{path} has a tensor that belongs to no site: {sorted(tensors)[0]!r}")
    try:
        return AdapterFile(layout, checked_flat(layout.join(parts), str(path)), metadata)
    except Mismatch as error:
        raise BadFile(error.message, error.hint) from None
