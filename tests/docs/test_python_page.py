"""The examples of the page on Python run, one after the other, and print what is listed here."""

from __future__ import annotations

import re

import pytest
from console import Shown, difference, run_examples

from sglora_cli.cli.commands.docs import FOLDER

PRINTED = """\
starter because it is bundled; no pack is built yet
torch.Size([1, 1280])
[PosixPath('pug.safetensors')]
2
84.8% coco/hot dog
5.5% pets/american bulldog
5.3% coco/cat
4.4% pets/american pit bull terrier
()
torch.Size([2, 2]) torch.Size([1, 2, 2])
visual.project_image torch.Size([256, 384])
safetensors 2 True
Album('photos': 16 photos; backbone 'starter', no adapter)
36 2 PriorConfig(k=4, tau=0.02, space='meaning')
torch.Size([2, 9216])
True
[]
no pack named 'strater' - did you mean 'starter'?
 1 ->  1  ellipse-red-80.png
 3 ->  2  rectangle-red-80.png
 2 ->  3  ellipse-red-30.png
average precision 0.75 -> 0.78
The adapter makes no significant difference: average precision +0.028 [-0.018, +0.133].
{'a red thing': 6, 'a yellow thing': 10}
rectangle-red-80.png 1.00
3
pug-peft
README.md adapter_config.json adapter_model.safetensors
top-k 15 17
cvae 15 17
norm 0.93, rank 2
ForeignAdapter('a photo of a pug': format peft, 1 site, 1280 parameters; backbone 'starter', \
generator 'all-but-the-task')
True
torch.Size([1, 1280]) True
8 images of 'photos' | a photo of a ball; a round thing
"""
PAGE = FOLDER / "python.md"


@pytest.mark.slow
def test_the_examples_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = Shown("python.md", tuple(PRINTED.splitlines()), 0, vary=False)
    assert difference(shown, run_examples(PAGE)) == ""


def test_there_are_ten_recipes_of_ten_lines_at_most():
    recipes = PAGE.read_text(encoding="utf-8").partition("## Recipes\n")[2].split("### ")[1:]
    assert len(recipes) == 10
    for recipe in recipes:
        (code,) = re.findall(r"```python\n(.*?)```", recipe, re.DOTALL)
        assert code.count("\n") <= 10
        assert recipe.split("\n")[2].startswith("When ")


def test_lines_of_the_page_are_short():
    assert [line for line in PAGE.read_text(encoding="utf-8").splitlines() if len(line) > 120] == []
