"""The page that works a table out by hand prints what the program prints, and its words have the program's numbers."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest
import torch

from sglora_cli.bench.bootstrap import bootstrap
from sglora_cli.bench.retrieval import ranks_of
from sglora_cli.plugin.values import Row

PAGE = Path(__file__).parents[2] / "sglora_cli" / "docs" / "measures.md"


def test_examples_of_the_page_are_true():
    outcome = doctest.testfile(str(PAGE), module_relative=False)
    assert outcome.attempted >= 15
    assert outcome.failed == 0


def test_the_table_and_the_words_of_the_page_are_those_of_its_examples():
    text = PAGE.read_text()
    table = [
        [float(cell.strip(" *")) for cell in line.split("|")[2:-1]]
        for line in text.splitlines()
        if line.startswith("| image")
    ]
    image_of = [0, 0, 1, 1, 2]
    bold = [
        [cell.strip().startswith("*") for cell in line.split("|")[2:-1]] for line in re.findall(r"\| image.*", text)
    ]
    assert bold == [[owner == n for owner in image_of] for n in range(3)]
    i2t_N, t2i_C = ranks_of(torch.tensor(table), torch.eye(5), image_of)
    said = re.findall(r"\* (image|caption) (\d):[^*]*?(?:\*\*[^*]*\*\*)?[^*]*?rank (\d)", text)
    assert [(kind, int(n), int(rank)) for kind, n, rank in said] == [
        *(("image", n, rank) for n, rank in enumerate(i2t_N.tolist())),
        *(("caption", c, rank) for c, rank in enumerate(t2i_C.tolist())),
    ]


def test_the_interval_of_the_page():
    rows = [Row("x", "d", "a", 0, "I2T", 1, 35.0), Row("x", "d", "b", 0, "I2T", 1, 55.0)]
    rows += [Row("zero-shot", "d", task, 0, "I2T", 1, 40.0) for task in "ab"]
    assert bootstrap(rows).difference(("x", "I2T", 1), "zero-shot") == pytest.approx((5, -5, 15))
