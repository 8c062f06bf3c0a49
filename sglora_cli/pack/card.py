"""The README.md of a pack's repository on the Hugging Face hub: the pack's own card, with metadata of the hub."""

from __future__ import annotations

import json
from collections.abc import Iterator

from sglora_cli.files.escape import markdown_code
from sglora_cli.pack.pack import Pack
from sglora_cli.pack.writer import pack_card
from sglora_cli.plugin.values import ROLES, UNSEEN
from sglora_cli.system.display import counted

_TAGS = ("sglora", "sg-lora", "lora", "vision-language")


def hub_card(pack: Pack, reference: str, licence: str, is_signed: bool) -> str:
    """The model card of a pack: YAML front matter, how to use it, what it was trained on, and its own card.

    reference: hf:OWNER/NAME.  licence: its identifier on the hub, or "".
    """
    heading, _, rest = pack_card(pack.manifest, pack.tasks).partition("\n")
    summary, star, rest = rest.partition("\n* ")
    signed = ["", "The archive is signed: add `--signers FILE` to check who signed it."] if is_signed else []
    lines = [
        "---",
        "library_name: sglora",
        *([f"license: {licence}"] if licence else []),
        "tags:",
        *(f"- {tag}" for tag in _TAGS),
        f"- {json.dumps(pack.backbone, ensure_ascii=False)}",  # a string of JSON is one of YAML
        "---",
        "",
        heading,
        *(["", summary.strip()] if summary.strip() else []),
        "",
        "## How to use it",
        "",
        f"    sglora pack pull {reference}",
        f'    sglora generate "a photo of a ..." --pack {reference} -o adapter.safetensors',
        *signed,
        "",
        "## Training data",
        "",
        *_data_lines(pack),
        "",
        "## Contents",
        "",
        (star + rest).strip(),
    ]
    return "\n".join(lines) + "\n"


def _data_lines(pack: Pack) -> Iterator[str]:
    """A line for each data set: its tasks in each role, and the photos that they were trained on."""
    counts: dict[str, dict[str, int]] = {}
    photos: dict[str, int] = {}
    for role in ROLES:
        for task in pack.tasks.of(role):
            name, trained = task["dataset"], task.get("train_photos")
            of_role = counts.setdefault(name, {})
            of_role[role] = of_role.get(role, 0) + 1
            if role != UNSEEN and type(trained) is int:
                photos[name] = photos.get(name, 0) + trained
    for name, of_role in counts.items():
        facts = [counted(count, f"{role} task") for role, count in of_role.items()]
        facts += [counted(photos[name], "training photo")] if name in photos else []
        yield f"* {markdown_code(name)}: {', '.join(facts)}"
