"""How right photos rank: against the slow, obvious definition and scikit-learn, and how a user names them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from sglora_cli.search.comparison import Comparison
from sglora_cli.search.ranking import Ranking
from sglora_cli.search.relevance import RESAMPLES, judged, measures

TEXT = "a red ball on a blue floor"


def obvious(scores: list[float], right: list[bool], k: int) -> tuple[float, float, float]:
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], right[i]))  # a wrong one that ties comes first
    hits = [right[i] for i in order]
    precisions = [sum(hits[: n + 1]) / (n + 1) for n in range(len(hits)) if hits[n]]
    first = hits[:k]
    return sum(first) / len(first), sum(precisions) / len(precisions), 1 / (1 + hits.index(True))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("k", [1, 5, 50])
def test_measures_are_the_obvious_ones(seed, k):
    rng = np.random.default_rng(seed)
    scores, right = rng.integers(6, size=20) / 7, rng.random(20) < 0.3  # many ties
    right[seed] = True
    found = measures(scores, right, k)
    expected = obvious(scores.tolist(), right.tolist(), k)
    assert (found.precision, found.average_precision, found.reciprocal_rank) == pytest.approx(expected)


def test_average_precision_is_that_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores, right = rng.random(30), rng.random(30) < 0.4  # no ties: there the two differ
        right[0] = True
        assert measures(scores, right).average_precision == pytest.approx(
            sklearn.average_precision_score(right, scores)
        )


def comparison(before: np.ndarray, after: np.ndarray) -> Comparison:
    items = tuple(map(str, range(len(before))))
    sides = torch.tensor(before), torch.tensor(after)
    return Comparison("a", {}, "tiny", "tiny-1", "images", (Ranking("q", items, *sides),), {}, ())


def test_the_interval_is_that_of_a_slow_bootstrap():
    rng = np.random.default_rng(3)
    right = np.arange(40) < 10
    before, after = rng.normal(size=40), rng.normal(size=40) + 0.8 * right
    found = judged(comparison(before, after), [str(i) for i in range(10)])
    gaps = []
    for _ in range(RESAMPLES):
        rows = [*rng.integers(10, size=10), *rng.integers(10, 40, size=30)]
        own = right[rows].tolist()
        sides = [obvious(side[rows].tolist(), own, 10)[1] for side in (before, after)]
        gaps.append(sides[1] - sides[0])
    low, high = np.quantile(gaps, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.03)
    assert found.low < found.difference < found.high


@pytest.mark.parametrize(
    ("shift", "verdict"),
    [
        (3.0, "The adapter helps: average precision +"),
        (-3.0, "The adapter makes the ranking worse: average precision -"),
        (0.0, "The adapter makes no significant difference: average precision +0.000 [+0.000, +0.000]."),
    ],
)
def test_the_verdict_says_what_the_interval_says(shift, verdict):
    before = np.random.default_rng(0).normal(size=60)
    after = before + shift * (np.arange(60) < 20)
    assert judged(comparison(before, after), [str(i) for i in range(20)]).verdict.startswith(verdict)


@pytest.fixture
def trial(run, adapter, images):
    return lambda relevant, *more: run(
        "try", adapter, "--images", images, "--text", TEXT, "--relevant", relevant, *more
    )


def test_photos_are_named_by_a_pattern_a_list_or_a_folder(trial, images, tmp_path):
    by_pattern = json.loads(trial("ball_*", "--json").stdout)["relevance"]
    assert (by_pattern["photos"], by_pattern["of"], by_pattern["k"]) == (8, 72, 10)
    names = sorted(path.name for path in images.iterdir() if path.name.startswith("ball_"))
    listed = tmp_path / "right.txt"
    listed.write_text("\n".join([*names[:4], *(str(images / name) for name in names[4:])]))
    assert json.loads(trial(listed, "--json").stdout)["relevance"] == by_pattern
    folder = tmp_path / "copies"
    folder.mkdir()
    for name in names:
        shutil.copy(images / name, folder / f"copy-of-{name}")
    assert json.loads(trial(folder, "--json").stdout)["relevance"] == by_pattern


def test_relevant_photos_are_marked_and_measured(trial, images, adapter):
    from obvious import obvious_scores

    files = sorted(images.iterdir(), key=lambda path: path.name)
    right = [path.name.startswith("ball_") for path in files]
    result = trial("ball_*", "--top", 72)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    marked = [line.split()[-1] for line in lines if " relevant " in line]
    assert sorted(marked) == [path.name for path in files if path.name.startswith("ball_")]
    sides = [obvious([row[0] for row in side], right, 10) for side in obvious_scores(adapter, files, [TEXT])]
    (p, ap, rr), (p_with, ap_with, rr_with) = sides
    start = lines.index("relevant: 8 of 72 photos")
    assert [line.split() for line in lines[start + 1 : start + 4]] == [
        ["P@10", f"{p:.3f}", "->", f"{p_with:.3f}"],
        ["average", "precision", f"{ap:.3f}", "->", f"{ap_with:.3f}"],
        ["reciprocal", "rank", f"{rr:.3f}", "->", f"{rr_with:.3f}"],
    ]
    assert f"average precision {ap_with - ap:+.3f} [" in lines[start + 4]


def test_the_page_marks_relevant_photos(trial, tmp_path):
    out = tmp_path / "x.html"
    assert trial("ball_*", "--top", 72, "--report", out).exit_code == 0
    text = out.read_text()
    assert text.count("✓ relevant</span>") == 16  # on both sides
    assert "8 of 72 photos are relevant" in text


def test_few_relevant_photos_get_no_verdict(trial, images):
    result = trial(images / "ball_0.png")
    assert result.stdout.splitlines()[-1].startswith("A verdict needs at least 5 relevant photos")
    assert trial("ball_0.png").stdout == result.stdout


def test_lines_that_name_no_photo_are_counted(trial, tmp_path):
    listed = tmp_path / "right.txt"
    listed.write_text("ball_0.png\nunknown.png\n")
    result = trial(listed)
    assert result.exit_code == 0
    assert result.stderr.startswith(f"warning: 1 line in {listed} names no photo in ")
    assert "(unknown.png)" in result.stderr.splitlines()[0]


@pytest.mark.parametrize(
    ("relevant", "code", "message"),
    [
        ("zebra_*", 2, "zebra_* matches no photo of {images}"),
        ("nowhere.txt", 4, "nowhere.txt is not a file, a folder or a pattern"),
        ("*", 2, "all of the 72 photos are relevant"),
        ("{empty}", 2, "{empty} matches no photo of {images}"),
    ],
)
def test_photos_that_are_named_wrongly_are_answered(trial, images, tmp_path, relevant, code, message):
    empty = tmp_path / "list.txt"
    empty.write_text("a.png\n")
    places = {"images": images, "empty": empty}
    result = trial(relevant.format(**places))
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.splitlines()[-2] == f"error: {message}".format(**places)


def test_relevant_photos_belong_to_a_folder(run, adapter, images):
    result = run("try", adapter, "--image", images / "ball_0.png", "--relevant", "*")
    assert (result.exit_code, result.stderr) == (
        2,
        "error: --relevant requires --images\nhint: pass --images DIR, or leave out --relevant\n",
    )
