"""What a shell is offered."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.shell_completion import BashComplete

from sglora_cli.cli.main import main


def completed(*words: str) -> list[str]:
    """What bash is offered for the last word."""
    return [item.value for item in BashComplete(main, {}, "sglora", "_X").get_completions(list(words[:-1]), words[-1])]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("comp",), ["completion"]),
        (("pack", "ver"), ["verify"]),
        (("pack", "verify", "sta"), ["starter"]),
        (("generate", "--pack", "s"), ["starter"]),
        (("generate", "--generator", "tie"), ["ties"]),
        (("generate", "--precision", "f"), ["fp32", "fp16"]),
        (("bench", "--baselines", "top-k,nea"), ["top-k,nearest"]),
        (("bench", "--table", "ablation-t"), ["ablation-tau"]),
        (("bench", "--tasks", "pets/pug"), ["pets/pug"]),
        (("plugins", "check", "star"), ["starter"]),
        (("pack", "remove", "starter", "flowers/desert"), ["flowers/desert-rose"]),
        (("export", "a.safetensors", "--format", "peft-"), ["peft-flat"]),
        (("cache", "clean", "fea"), ["features"]),
        (("settings", "set", "gen"), ["generator"]),
        (("settings", "set", "pack", "st"), ["starter"]),
        (("generate", "--sam"), ["--samples"]),
        (("settings", "set", "device", "c"), ["cpu", "cuda"]),
        (("diff", "a.safetensors", "b.saf"), ["b.saf"]),  # a file
        (
            ("inspect", "starte"),
            ["starter", "starter-coco", "starter-flowers", "starter-learned", "starter-pets", "starte"],
        ),  # or a file
        (("pack", "build", "flow"), ["flowers", "flow"]),
        (("bench", "--as", "mark"), ["markdown"]),
        (("docs", "tut"), ["tutorial"]),
        (("nope", "x"), []),
    ],
)
def test_names_are_completed(words, offered):
    assert completed(*words) == offered


def test_completion_survives_a_broken_settings_file(own_home):
    (own_home / "settings.toml").write_text("pack = ]")
    assert completed("bench", "--tasks", "pets/pug") == []
    assert completed("generate", "--pack", "s") == ["starter"]


def test_completion_does_not_load_torch():
    code = (
        "import sys; from click.shell_completion import BashComplete; from sglora_cli.cli.main import main\n"
        "found = BashComplete(main, {}, 'sglora', '_X').get_completions(['generate', '--generator'], 'ti')\n"
        "assert [item.value for item in found] == ['ties']\n"
        "BashComplete(main, {}, 'sglora', '_X').get_completions([], '')\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_names_the_program(run, shell):
    script = run("completion", shell).stdout
    assert f"_SGLORA_COMPLETE={shell}_complete" in script
