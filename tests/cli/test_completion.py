"""What a shell is offered."""

from __future__ import annotations

import os
import pty
import select
import shlex
import shutil
import subprocess
import sys
import time

import click
import pytest
from click.shell_completion import BashComplete, get_completion_class

from sglora_cli.cli.completion import Bash, names
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


RUNS = "x$(touch pwned)"
OFFERED = [RUNS, "x;touch pwned", "x`touch pwned`", "x'$(touch pwned)'", 'x"$(touch pwned)"', "x y", "x*", "x\\y"]
OFFERED.append("plain")


@click.command()
@click.argument("name", shell_complete=names(lambda context: OFFERED))
def one_name(name: str) -> None:
    """A program whose argument may be any of the names."""


def answered(monkeypatch, typed: str) -> list[str]:
    """What the script in bash gets for a word as it was typed."""
    monkeypatch.setenv("COMP_WORDS", f"program\n{typed}")
    monkeypatch.setenv("COMP_CWORD", "1")
    lines = Bash(one_name, {}, "program", "_X").complete().split("\n")
    return [line.removeprefix("plain,") for line in lines if line]


def test_names_are_quoted_for_bash(monkeypatch):
    assert get_completion_class("bash") is Bash
    answers = answered(monkeypatch, "")
    assert [shlex.split(answer) for answer in answers] == [[name] for name in sorted(OFFERED)]
    assert answered(monkeypatch, "pl") == ["plain"]


@pytest.mark.parametrize("typed", ['"x', 'x"', '"pl'])
def test_inside_double_quotes_only_plain_names_are_offered(monkeypatch, typed):
    assert answered(monkeypatch, typed) == (["plain"] if "pl" in typed else [])


def test_a_name_of_several_lines_is_not_offered(monkeypatch):
    several = click.Argument(["name"], shell_complete=names(lambda context: ["x\nplain,$(touch y)", "x\x1b[2J"]))
    program = click.Command("program", params=[several])
    monkeypatch.setenv("COMP_WORDS", "program\nx")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert Bash(program, {}, "program", "_X").complete() == ""


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
@pytest.mark.parametrize(
    ("script", "typed"), [("own", "x"), ("own", "'x"), ("own", '"x'), ("own", 'x"'), ("of click", "x")]
)
def test_a_name_that_is_completed_is_never_run(own_home, tmp_path, run, script, typed):
    """In a real bash: Tab completes the name of a pack, and Enter runs the line."""
    pack = own_home / "cache/packs" / RUNS
    pack.mkdir(parents=True)
    (pack / "pack.json").write_text("{}")
    program = tmp_path / "bin/sglora"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom sglora_cli.cli.main import main\nmain()\n")
    program.chmod(0o755)
    (tmp_path / "own.sh").write_text(run("completion", "bash").stdout)
    click_script = BashComplete(main, {}, "sglora", "_SGLORA_COMPLETE")
    (tmp_path / "of click.sh").write_text(click_script.source_template % click_script.source_vars())
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "TERM": "dumb", "PS1": "ready> "}
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.execvpe("bash", ["bash", "--norc", "-i"], environment)
    try:
        expect(terminal, "ready> ")
        os.write(terminal, f"source '{script}.sh'\n".encode())
        expect(terminal, "ready> ")
        os.write(terminal, f"sglora pack show {typed}\t\n".encode())
        if '"' in typed:
            os.write(terminal, b'"\n')  # close the quote
        written = expect(terminal, "error: ", "ready> ")
    finally:
        os.close(terminal)
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert not (tmp_path / "pwned").exists()
    if '"' not in typed:
        assert f"{RUNS}/pack.json has format None" in " ".join(written.split())  # the terminal wraps lines


def expect(terminal: int, *texts: str, seconds: float = 60) -> str:
    """Read until the texts are written, one after the other."""
    end, written = time.monotonic() + seconds, ""
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            written += os.read(terminal, 65536).decode(errors="replace")
            at = 0
            for text in texts:
                at = written.find(text, at) + 1 if at >= 0 and text in written[at:] else -1
            if at > 0:
                return written
    raise AssertionError(written)
