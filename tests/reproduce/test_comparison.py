"""Measured numbers beside the paper's: means by hand, gaps where something is missing."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from made_rows import HEADER, write_made

from sglora_cli.reproduce.comparison import Block, Comparison, Number, comparison_of
from sglora_cli.reproduce.targets import Lean, Line, Measurement, Table, Target

ROWS = [
    {"method": "top-k", "dataset": "pets", "task": task, "sample": 0, "direction": d, "k": 1, "value": value}
    for task, d, value in (
        ("pug", "I2T", 40.0),
        ("persian", "I2T", 60.0),
        ("pug", "T2I", 30.0),
        ("persian", "T2I", 50.0),
    )
]


@pytest.fixture
def job(tmp_path):
    """A job with rows of two tasks of pets."""
    write_made(tmp_path / "pets.jsonl", ROWS, HEADER)

    def make(*tables, leans=()):
        target = Target("table1", "a title", (Measurement("pets", "pets"),), leans, tables, notes=("a note",))
        files = {
            "rows_file": lambda name: tmp_path / f"{name}.jsonl",
            "lean_file": lambda name: tmp_path / f"{name}.json",
        }
        return SimpleNamespace(target=target, **files)

    return make


def test_means_stand_beside_the_papers_numbers(job):
    line = Line("Top-K weighted", "pets", "top-k", ("tables", "pets on pets", "top-k"))
    blocks = comparison_of(job(Table("Pets", (line,)))).blocks
    assert [block.title for block in blocks] == ["Pets: image to text", "Pets: text to image"]
    assert blocks[0].columns == ["R@1", "R@5", "R@10"]
    assert blocks[0].lines == [("Top-K weighted", [Number(50.0, 53.96), Number(None, 79.41), Number(None, 86.53)])]
    assert blocks[1].lines[0][1][0].difference == pytest.approx(40.0 - 35.42)


def test_one_task_is_taken_alone(job):
    (block, _) = comparison_of(job(Table("Pug", (Line("it", "pets", "top-k", task="pug"),)))).blocks
    assert (block.tasks, block.lines) == (1, [("it", [Number(40.0, None)])])


def test_what_was_not_measured_has_the_papers_number_alone(job):
    line = Line("SG-LoRA", "coco", "cvae", ("tables", "coco on coco", "cvae"))
    made = job(Table("COCO", (line,)))
    made.target = Target("table1", "a title", (Measurement("coco", "coco"),), (), (Table("COCO", (line,)),))
    block = comparison_of(made).blocks[0]
    assert (block.tasks, block.lines[0][1][0]) == (0, Number(None, 74.31))


def test_weights_of_experts_are_compared_by_name(job, tmp_path):
    lean = Lean("yorkshire", "mixed", "pets", "yorkshire terrier")
    (tmp_path / "yorkshire.json").write_text(json.dumps({"weights": {"coco/dog": 0.9, "pets/pug": 0.1}}))
    (block,) = comparison_of(job(Table("weights", lean="yorkshire"), leans=(lean,))).blocks
    assert block.lines == [
        ("pets/scottish terrier", [Number(None, 0.9221)]),
        ("coco/dog", [Number(0.9, 0.0692)]),
        ("pets/pug", [Number(0.1, None)]),
        ("coco/cat", [Number(None, 0.0082)]),
        ("pets/american bulldog", [Number(None, 0.0005)]),
    ]


COMPARISON = Comparison(
    "table1",
    "a title",
    [
        Block("COCO: image to text", 34, ["R@1"], [("Zero-shot", [Number(66.0, 66.43)]), ("a|b", [Number(None, 1.0)])]),
        Block("K", 1, ["R@1"], [("K = 1", [Number(50.0, None)])]),
    ],
    ["a note"],
    "not comparable: toys",
)


def test_a_comparison_is_columns_of_text():
    assert COMPARISON.to_text() == (
        "table1: a title\n"
        "measured, and what the paper prints: SG-LoRA (arXiv 2509.10535)\n"
        "not comparable: toys\n"
        "\n"
        "COCO: image to text (34 tasks)\n"
        "             R@1  paper  difference\n"
        "Zero-shot  66.00  66.43       -0.43\n"
        "a|b            -   1.00           -\n"
        "\n"
        "K (1 task)\n"
        "         R@1\n"
        "K = 1  50.00\n"
        "\n"
        "a note\n"
    )


def test_a_comparison_is_markdown():
    assert COMPARISON.to_markdown() == (
        "# table1: a title\n"
        "\n"
        "**not comparable: toys**\n"
        "\n"
        "**COCO: image to text (34 tasks)**\n"
        "\n"
        "|  | R@1 | paper | difference |\n"
        "|---|---|---|---|\n"
        "| Zero-shot | 66.00 | 66.43 | -0.43 |\n"
        "| a\\|b | - | 1.00 | - |\n"
        "\n"
        "**K (1 task)**\n"
        "\n"
        "|  | R@1 |\n"
        "|---|---|\n"
        "| K = 1 | 50.00 |\n"
        "\n"
        "* a note\n"
    )


def test_a_comparison_is_json():
    content = COMPARISON.to_json()
    assert (content["comparable"], content["warning"]) == (False, "not comparable: toys")
    assert content["tables"][0]["lines"][0] == {
        "label": "Zero-shot",
        "numbers": [{"measured": 66.0, "paper": 66.43, "difference": -0.43}],
    }
