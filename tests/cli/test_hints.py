"""Every command and option that a text of the program names exists and is complete, and hints lead on."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path

import pytest
from named_commands import HOLE, commands_in, faults
from PIL import Image
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for folder in ("sglora_cli", "plugins")
    for path in (ROOT / folder).rglob("*.py")
    if not path.is_relative_to(ROOT / "sglora_cli/docs") and path.name != "train.py"  # a program of its own
)


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and content of each string of a module but docstrings, with holes for what is filled in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            inside.add(node.value)
        elif isinstance(node, ast.JoinedStr):
            inside.update(ast.walk(node))
            inside.discard(node)
            parts = [part.value if isinstance(part, ast.Constant) else HOLE for part in node.values]
            yield node.lineno, "".join(map(str, parts))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside:
            yield node.lineno, node.value


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_commands_and_options_that_a_module_names_exist(path):
    wrong = [f"line {line}: {fault}" for line, text in texts(path) for fault in faults(text) if not begun(text, fault)]
    assert wrong == []


def begun(text: str, fault: str) -> bool:
    """Whether the text is the beginning of a command, to which more is added."""
    return text.startswith("sglora ") and fault.endswith(" is missing")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("run `sglora pack lsit`", ["pack lsit: no command 'lsit'"]),
        ("run: sglora expot FILE -o NEW", ["expot FILE -o NEW: no command 'expot'"]),
        ("sglora import FILE", ["import FILE: out is missing"]),
        ("`sglora pack`, or sglora cannot do it", []),
        ("`sglora pack --x`", ["pack --x: no command in the group"]),
        ("convert it: sglora import FILE --alfa 2 -o NEW", ["import FILE --alfa 2 -o NEW: No such option '--alfa'."]),
        ("pass --weigths FILE", ["--weigths: no such option of any"]),
        ("use `bench --folds`", []),
        ("use bench --adaptor FILE", ["--adaptor: no such option of bench"]),
        ("pip install --upgrade click, then hf download x --local-dir .", []),
        (f"sglora data fetch {HOLE}{HOLE}", []),
        ('sglora generate "a photo of a ..." --pack starter -o a.safetensors', []),
    ],
)
def test_what_cannot_be_followed_is_found(text, wrong):
    assert [fault.replace("Did you mean '--alpha'?", "").strip() for fault in faults(text)] == wrong


def test_an_option_is_looked_for_at_the_command_that_was_called():
    assert faults("pass --alpha", ["import", "x"]) == []
    assert faults("pass --alpha", ["pack", "list"]) == ["--alpha: no such option of pack list"]


def followed(arguments: list[str], hint: str, values: dict[str, str]) -> list[str]:
    """Return the command line that a hint leads to: its own, or the one that failed, changed as it says."""
    if commands := list(commands_in(hint)):
        return [values.get(word, word) for word in commands[0]]
    if match := re.match(r"did you mean '([^']*)'", hint):
        words = match[1].split()
        place = max(range(len(arguments)), key=lambda n: SequenceMatcher(None, arguments[n], words[-1]).ratio())
        if len(words) > 1:  # the words of a command
            return [*words, *arguments[len(words) if arguments[0] == words[0] else 1 :]]
        return replaced(arguments, place, words[0])
    if match := re.match(r"try (-o) (\S+)", hint):
        return replaced(arguments, arguments.index("-o") + 1, match[2])
    flag = re.search(r"(?:pass|with|or) (--[a-z-]+)(?: ([A-Z]+))?", hint)
    assert flag, hint
    return [*arguments, flag[1], *([values[flag[2]]] if flag[2] else [])]


def replaced(words: list[str], place: int, word: str) -> list[str]:
    return [*words[:place], word, *words[place + 1 :]]


LEADS_ON = {
    "a command": ["lsit"],
    "a command of a group": ["pack", "lsit"],
    "a command in a group": ["verify"],
    "a group": ["pack", "nonsense"],
    "a pack": ["pack", "show", "startre"],
    "a setting": ["settings", "set", "backbon", "starter"],
    "a generator": ["generate", "a pug", "--generator", "top-c"],
    "an option": ["pack", "list", "--jsom"],
    "no adapter": ["inspect", "nothing.safetensors"],
    "an ending": ["export", "pug.safetensors", "-o", "x.bin"],
    "a file that exists": ["generate", "a pug", "-o", "pug.safetensors"],
    "a state without alpha": ["import", "bare.safetensors", "-o", "x.safetensors"],
    "another program's adapter": ["export", "theirs.safetensors", "-o", "x"],
    "a pack as an adapter": ["diff", "starter pack", "pug.safetensors"],
    "no data": ["data", "check", "folder"],
    "a device in the settings": ["generate", "a pug"],
    "no confirmation": ["cache", "clean"],
    "a lone query": ["search", "photos"],
}
VALUES = {
    "ALPHA": "3",
    "FILE": "n.safetensors",
    "NEW.safetensors": "n.safetensors",
    "DIR": "photos",
    "PHOTO": "photos/a.png",
}


@pytest.mark.filterwarnings("ignore:.*does not record which model:sglora_cli.errors.SgloraWarning")
@pytest.mark.parametrize("case", LEADS_ON)
def test_a_hint_leads_on(run, tmp_path, monkeypatch, own_home, case):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SGLORA_BACKBONE", "starter")
    (tmp_path / "photos").mkdir()
    for n, name in enumerate(("a", "b")):
        Image.new("RGB", (32, 32), (99 * n, 99, 99)).save(tmp_path / f"photos/{name}.png")
    pug = run("generate", "a photo of a pug", "-o", "pug.safetensors")
    assert pug.exit_code == 0, pug.output
    tensors = load_file("pug.safetensors")
    for name in ("bare", "theirs"):
        save_file(tensors, f"{name}.safetensors")
    shutil.copytree(ROOT / "packs/starter", tmp_path / "starter pack")
    if case == "a device in the settings":
        (own_home / "settings.toml").write_text('device = "cuda:x"\n')
    arguments, steps = LEADS_ON[case], 0
    while (result := run(*arguments)).exit_code:
        assert result.exit_code != 1, result.output
        steps += 1
        assert steps <= 2, result.stderr
        hint = result.stderr.splitlines()[-1]
        assert hint.startswith("hint: "), result.stderr
        arguments = followed(arguments, hint.removeprefix("hint: "), VALUES)
    assert steps
    if "unset" in arguments:
        assert run(*LEADS_ON[case]).exit_code == 0
