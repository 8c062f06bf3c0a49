"""Run the commands and examples of the tested pages, and write what they print today.

    python -m tests.docs.outputs

It updates the outputs in the `console` blocks of sglora_cli/docs/tutorial.md, and `PRINTED` in test_python_page.py,
which lists what the examples of sglora_cli/docs/python.md print. A line that the tests accept is not touched, and `...`
remains where it stands. An output whose numbers vary is not touched either, unless its words differ. Then all of its
numbers become those of this run. The changes are printed as a diff. Review them, because the prose around an output may
quote it. The notebook has its own tool, notebook.py.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from console import Shown, alike, difference, newcomer_in, run_examples, run_steps, steps_of, without_progress

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = ROOT / "sglora_cli/docs/tutorial.md"
PYTHON = ROOT / "sglora_cli/docs/python.md"
PYTHON_TEST = ROOT / "tests/docs/test_python_page.py"
GAP = 0.9
"""Cost of a line or word that is new or gone, where the cost of a changed one is at most 1."""
REST = "..."
_PRINTED = re.compile(r'(?<=PRINTED = """\\\n).*?(?=""")', re.DOTALL)


def align(
    wanted: Sequence[str], printed: Sequence[str], cost: Callable[[str, str], float]
) -> list[tuple[int | None, int | None]]:
    """Pair what is wanted with what is printed, at the least total cost.

    (w, p) is a changed or equal item, (w, None) one that is gone or `...`, and (None, p) a new one. No pair has what
    `...` stands for.
    """
    totals = [[GAP * p for p in range(len(printed) + 1)]]
    moves = [[(0, 1)] * (len(printed) + 1)]
    for w, item in enumerate(wanted, 1):
        total, move = [], []
        for p in range(len(printed) + 1):
            ways = [(totals[w - 1][p] + (0 if item == REST else GAP), (1, 0))]
            if p:
                ways.append((total[p - 1] + (0 if item == REST else GAP), (0, 1)))
            if p and item != REST:
                ways.append((totals[w - 1][p - 1] + cost(item, printed[p - 1]), (1, 1)))
            best = min(ways)
            total.append(best[0])
            move.append(best[1])
        totals.append(total)
        moves.append(move)
    pairs: list[tuple[int | None, int | None]] = []
    w, p = len(wanted), len(printed)
    while w or p:
        down, right = moves[w][p]
        if down or w == 0 or wanted[w - 1] != REST:
            pairs.append((w - 1 if down else None, p - 1 if right else None))
        w, p = w - down, p - right
    return pairs[::-1]


def merged(one: Shown, output: str) -> tuple[str, ...]:
    """The output that the page should show for a command that prints `output`."""
    if difference(one, output) == "" and not one.vary:
        return one.output

    def cost(line: str, got: str) -> float:
        if not line or not got:
            return 0 if line == got else 2 * GAP
        return 0 if alike(line, got, one.vary) else _line_cost(line, got)

    def same(w: int | None, p: int | None) -> bool:
        if w is None or p is None:
            return one.output[w] in ("", REST) if w is not None else not printed[p or 0]
        return alike(one.output[w], printed[p], vary=False)

    def line(w: int | None, p: int | None) -> str:
        if w is None or p is None:
            return one.output[w] if w is not None else printed[p or 0]
        exact = replace(one, output=(one.output[w],), vary=False)
        return one.output[w] if difference(exact, printed[p]) == "" else _merged_line(one.output[w], printed[p])

    printed = without_progress(output)
    pairs = align(one.output, printed, cost)
    if one.vary and all(same(w, p) for w, p in pairs):
        return one.output
    return tuple(line(w, p) for w, p in pairs if p is not None or one.output[w or 0] in ("", REST))


def _line_cost(line: str, got: str) -> float:
    words = [word for word in line.split() if word != REST]
    blocks = difflib.SequenceMatcher(None, words, got.split(), autojunk=False).get_matching_blocks()
    return 1 - sum(block.size for block in blocks) / max(1, len(words))


def _merged_line(line: str, got: str) -> str:
    """The printed line, with `...` where the page's line has it."""
    words, got_words = re.findall(r"\s*\S+", line), re.findall(r"\s*\S+", got)
    bare, got_bare = [word.strip() for word in words], [word.strip() for word in got_words]
    text = ""
    for w, p in align(bare, got_bare, _word_cost):
        if p is not None:
            kept = w is not None and REST in bare[w] and alike(bare[w], got_bare[p], vary=False)
            text += words[w] if w is not None and kept else got_words[p]
        elif w is not None and bare[w] == REST:
            text += words[w]
    return text


def _word_cost(word: str, got: str) -> float:
    if alike(word, got, vary=False):
        return 0
    return 1 - difflib.SequenceMatcher(None, word, got, autojunk=False).ratio()


def rewritten(text: str, steps: Sequence[Shown], outputs: dict[int, str]) -> str:
    """A page with the outputs of today."""
    lines = text.splitlines()
    for one in reversed(steps):
        lines[one.number : one.number + len(one.output)] = merged(one, outputs[one.number])
    return "\n".join(lines) + "\n"


def without_places(output: str, folder: Path) -> str:
    """The output with `...` for the folders that it ran in."""
    for place in (folder / "home" / "cache", folder / "home", folder):
        output = output.replace(str(place), REST)
    return output


def write(path: Path, text: str) -> None:
    """Write the file and print what changes in it."""
    before = path.read_text(encoding="utf-8")
    name = path.relative_to(ROOT).as_posix()
    sys.stdout.writelines(difflib.unified_diff(before.splitlines(True), text.splitlines(True), name, name, n=1))
    path.write_text(text, encoding="utf-8", newline="\n")


def main() -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch

    torch.set_num_threads(1)  # as in the tests
    with tempfile.TemporaryDirectory() as name, newcomer_in(Path(name).resolve()) as folder:
        outputs = {number: without_places(output, folder) for number, (_, output) in run_steps(TUTORIAL).items()}
    write(TUTORIAL, rewritten(TUTORIAL.read_text(encoding="utf-8"), steps_of(TUTORIAL), outputs))
    with tempfile.TemporaryDirectory() as name, newcomer_in(Path(name).resolve()):
        printed = run_examples(PYTHON)
    test = PYTHON_TEST.read_text(encoding="utf-8")
    listed = Shown(PYTHON.name, tuple(_PRINTED.findall(test)[0].splitlines()), 0, vary=False)
    write(PYTHON_TEST, _PRINTED.sub(lambda _: "".join(f"{line}\n" for line in merged(listed, printed)), test))


if __name__ == "__main__":
    main()
