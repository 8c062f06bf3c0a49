"""Model cards: what a pack says about itself in Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sglora_cli.configs import PriorConfig


def pack_card(manifest: Mapping[str, Any]) -> str:
    """The README.md of a pack: what it is for, made from what, and how to use it."""
    prior = {**asdict(PriorConfig()), **manifest["prior"]}
    lines = [
        f"# {manifest['name']}",
        "",
        str(manifest["recipe"].get("summary", "A pack of LoRA experts for sglora.")),
        "",
        f"* backbone `{manifest['backbone']}`, fingerprint `{manifest['fingerprint']}`",
        f"* LoRA of rank {manifest['layout']['rank']}, alpha {float(manifest['layout']['alpha']):g}, "
        f"{len(manifest['layout']['sites'])} sites",
        f"* K = {prior['k']}, tau = {prior['tau']:g}",
        f"* generators: {', '.join(manifest['generators']) or 'merging rules only'}",
        f"* made by {manifest['made_by']}",
        "",
        f'    sglora generate "a photo of a ..." --pack {manifest["name"]} -o adapter.safetensors',
        "",
        "| task | role | description | photos |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {_cell(task['key'])} | {_cell(task['role'])} | {_cell(task['description'])} | {_photos(task)} |"
        for task in manifest["tasks"]
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """A text that stays in its cell of a Markdown table, and is no HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _photos(task: Mapping[str, Any]) -> str:
    return f"{task.get('train_photos', 'unknown')} + {task.get('test_photos', 'unknown')}"


def adapter_card(about: Mapping[str, Any], base: str, used_with: str) -> str:
    """The README.md of a PEFT folder; `used_with` is the class of transformers it loads into."""
    name = about.get("description", "an unknown task")
    lines = [
        "---",
        "library_name: peft",
        "tags: [lora, sglora]",
        "---",
        f"# LoRA adapter for {json.dumps(name, ensure_ascii=False)}",
        "",
        "An update of the image encoder; the text encoder stays as it is.",
        "",
        *(f"* {key}: {about[key]}" for key in ("backbone", "fingerprint", "pack", "generator") if key in about),
        "",
        "```python",
        "from peft import PeftModel",
        f"from transformers import {used_with}",
        "",
        f"model = PeftModel.from_pretrained({used_with}.from_pretrained({base}), FOLDER)",
        "```",
    ]
    return "\n".join(lines) + "\n"
