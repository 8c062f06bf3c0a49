"""Commands that write: `{}` stands for the folder of the fixture `stage`."""

from __future__ import annotations

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
