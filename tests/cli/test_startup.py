"""What a command imports: a refusal no torch, and a sentence's adapter none of what would take longer than itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sglora_packs

from sglora_cli.pack.content.manifest import MANIFEST

STARTER = str(Path(sglora_packs.__file__).parent / "starter")
CODE = """
import json, sys
from sglora_cli.cli.main import main
code = 0
try:
    main()
except SystemExit as left:
    code = left.code or 0
print(json.dumps([code, sorted(sys.modules)]), file=open("modules.json", "w"))
"""
STAY_OUT = {
    "torch._dynamo": "torch's compiler, with a thousand modules: a draw on the meta device imports it",
    "sympy": "part of that",
    "triton": "part of that",
    "torchvision": "for photos",
    "timm": "the stem, for photos",
    "PIL": "photos",
    "open_clip": "another backbone",
    "transformers": "only a test compares with it",
    "peft": "likewise",
    "matplotlib": "figures",
    "jinja2": "pages",
    "sklearn": "figures",
    "regex": "PEFT's configurations",
    "sglora_cli.bench.measure": "measuring",
    "sglora_cli.data.features": "building",
    "sglora_cli.adapter.read": "other programs' adapters",
}


def imported(folder: Path, *arguments: str) -> tuple[int, set[str]]:
    """The exit code of a command in a process of its own, and what it imported."""
    environment = {**os.environ, "SGLORA_HOME": str(folder / "home")}
    command = [sys.executable, "-c", CODE, *arguments]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, timeout=300)
    code, modules = json.loads((folder / "modules.json").read_text())
    return code, set(modules)


@pytest.mark.slow
def test_generate_imports_no_more_than_it_needs(tmp_path):
    for _ in range(2):  # the first measures how much adapters depend on the sentence
        code, modules = imported(tmp_path, "generate", "a photo of a pug", "--force", "-o", "pug.safetensors")
        assert code == 0
        assert {name: why for name, why in STAY_OUT.items() if name in modules} == {}


@pytest.mark.parametrize(
    ("code", "command"),
    [
        (2, "generate x -o there.safetensors"),
        (2, "generate x -o pug.txt"),
        (3, "generate x -o pug.safetensors --space nope"),
        (3, "generate x --generator nope"),
        (3, "generate x --generator flow"),
        (3, "generate x --pack nope"),
        (2, "generate x --backbone clip-vit-b-16 --pack starter"),
        (2, "export there.safetensors -o there.safetensors"),
        (4, "export nope.safetensors -o x.pt"),
        (2, "import nope -o there.safetensors"),
        (4, "import nope -o x.safetensors"),
        (4, "diff nope there.safetensors"),
        (4, "try nope.safetensors --images . --text x"),
        (4, "inspect nope.safetensors"),
        (3, "inspect nope"),
        (4, "bench --adapter nope.safetensors"),
        (3, "bench --pack nope"),
        (3, "bench --as nope"),
        (4, "report nope.jsonl"),
        (3, "reproduce nope"),
        (6, "reproduce table5"),
        (3, "reproduce table1 --with nope"),
        (3, "pack show nope"),
        (3, "pack verify nope"),
        (3, "pack build nope"),
        (4, "pack build nope.toml"),
        (6, "pack build starter --data ."),
        (3, "pack export nope"),
        (4, "pack import nope"),
        (2, "pack pull nope"),
        (3, "pack push nope hf:ann/nope"),
        (3, "pack migrate nope"),
        (3, "pack update nope"),
        (2, "pack remove starter"),
        (3, "pack add nope there.safetensors --text x"),
        (4, "pack add starter nope.safetensors --text x"),
    ],
)
@pytest.mark.slow
def test_a_refusal_comes_before_torch(tmp_path, code, command):
    (tmp_path / "there.safetensors").write_text("an adapter")
    refused, modules = imported(tmp_path, *command.split())
    assert (refused, "torch" in modules) == (code, False)


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "pack list",
        f"pack verify {STARTER}",
        "inspect starter-pets",
        "cache info",
        "plugins list",
        "reproduce --list",
    ],
)
@pytest.mark.slow
def test_what_needs_no_numbers_needs_no_torch(tmp_path, command):
    code, modules = imported(tmp_path, *command.split())
    assert (code, "torch" in modules) == (0, False)


@pytest.mark.slow
def test_show_measures_a_pack_once(tmp_path):
    assert "torch" in imported(tmp_path, "pack", "show", STARTER)[1]
    assert (Path(STARTER) / MANIFEST).is_file()
    code, modules = imported(tmp_path, "pack", "show", STARTER)
    assert (code, "torch" in modules) == (0, False)
