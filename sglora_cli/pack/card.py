"""The model card of a pack on the Hugging Face hub, made from the pack's own README.md."""

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
    """Return the model card: YAML front matter, usage, training data, and the contents of the pack's README.md.

    reference: hf:OWNER/NAME.
    licence: an identifier of the hub, or "".
    """
    heading, _, rest = pack_card(pack.manifest, pack.tasks).partition("\n")
    summary, star, rest = rest.partition("\n* ")
    signed = ["", "The archive is signed. Pass `--signers FILE` as well to check who signed it."] if is_signed else []
    lines = [
        "---",
        "library_name: sglora",
        *([f"license: {licence}"] if licence else []),
        "tags:",
        *(f"- {tag}" for tag in _TAGS),
        f"- {json.dumps(pack.backbone, ensure_ascii=False)}",  # a JSON string is a valid YAML string
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
    """Yield a line per data set with the number of tasks in each role and the number of training photos."""
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
