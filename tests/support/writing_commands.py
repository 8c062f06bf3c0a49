"""Commands that write, and what they wrote. `{}` stands for the folder of the fixture `stage`."""

from __future__ import annotations

from pathlib import Path

COMMANDS = {
    "generate": ["generate", "a photo of a jar", "--pack", "toys", "--samples", "2"],
    "generate -o": ["generate", "a photo of a jar", "--pack", "toys", "-o", "{}/out/jar/", "--force"],
    "import": ["import", "{}/mug-peft", "--backbone", "tiny", "-o", "{}/out/x.safetensors", "--force"],
    "add": ["pack", "add", "toys", "{}/mug-peft", "--text", "a teapot", "--name", "toys/teapot"],
    "pack import": ["pack", "import", "{}/toys.sglora.zip", "--name", "toys", "--force"],
    "export": ["pack", "export", "toys", "-o", "{}/out/y.zip", "--force"],
    "remove an expert": ["pack", "remove", "toys", "toys/ball", "--yes"],
    "remove": ["pack", "remove", "toys", "--yes"],
    "bench": ["bench", "--pack", "toys", "--baselines", "top-k,nearest", "--rows", "{}/out/rows.jsonl"],
}


def content(folder: Path) -> dict[str, bytes]:
    """Files by name; no locks."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".lock")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def lasting(folder: Path) -> dict:
    """All but what is named after the times of files, which every copy has others of."""
    return {name: data for name, data in content(folder).items() if "measured/made/" not in name}
