"""Rows files of several builds as one table: against loops, and what cannot be put together."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from html_page import Page
from made_rows import HEADER, LABELS, hand_made, row_of, write_made

from sglora_cli.bench.rows_file import pack_hits
from sglora_cli.config import BenchConfig
from sglora_cli.report.load import read

TASKS, QUERIES, DRAWS = 4, 7, {"top-k": [(0, 0)], "cvae": [(0, 0), (0, 1), (1, 0)]}


@pytest.fixture
def hits() -> list[dict]:
    """Three builds: (method, task, draw) to the queries that were right. Builds differ a lot, and cvae is better."""
    rng = random.Random(0)
    builds = []
    for build in range(3):
        outcomes = {}
        for t in range(TASKS):
            for draw in DRAWS["cvae"]:
                outcomes["cvae", t, draw] = [rng.random() < 0.3 + 0.2 * build for _ in range(QUERIES)]
            outcomes["top-k", t, (0, 0)] = [hit and rng.random() < 0.6 for hit in outcomes["cvae", t, (0, 0)]]
        builds.append(outcomes)
    return builds


@pytest.fixture
def files(hits, tmp_path) -> list[Path]:
    return [
        write_made(
            tmp_path / f"seed-{n}.jsonl",
            [
                row_of(method, f"t{t}", 100 * sum(some) / QUERIES, seed=seed, sample=sample, hits=pack_hits(some))
                for (method, t, (seed, sample)), some in build.items()
            ],
            {**HEADER, "build": f"b{n}"},
        )
        for n, build in enumerate(hits)
    ]


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def slowly(hits: list[dict], resamples: int) -> list[float]:
    """Sorted resampled differences cvae - top-k: builds, each build's draws, tasks and queries drawn one by one."""
    rng, gaps = random.Random(1), []
    for _ in range(resamples):
        draws_of = [[rng.choice(DRAWS["cvae"]) for _ in DRAWS["cvae"]] for _ in hits]
        drawn = [(n, draws_of[n]) for n in (rng.randrange(len(hits)) for _ in hits)]
        total = 0.0
        for t in [rng.randrange(TASKS) for _ in range(TASKS)]:
            queries = [rng.randrange(QUERIES) for _ in range(QUERIES)]
            new = mean(mean(mean(hits[n]["cvae", t, d][q] for q in queries) for d in draws) for n, draws in drawn)
            old = mean(mean(hits[n]["top-k", t, (0, 0)][q] for q in queries) for n, _ in drawn)
            total += 100 * (new - old) / TASKS
        gaps.append(total)
    return sorted(gaps)


def test_means_and_intervals_are_those_of_the_loops(hits, files):
    report = read(files, BenchConfig(resamples=20_000), over_builds=True).report
    gap, low, high = report.differences["cvae", "I2T", 1]
    own = [100 * mean(mean(some) for (method, *_), some in build.items() if method == "cvae") for build in hits]
    other = [100 * mean(mean(some) for (method, *_), some in build.items() if method == "top-k") for build in hits]
    assert gap == pytest.approx(mean(own) - mean(other))
    expected = slowly(hits, 6000)
    assert (low, high) == pytest.approx((expected[150], expected[5850]), abs=0.8)
    alone = read(files[:1], BenchConfig(resamples=20_000)).report.differences["cvae", "I2T", 1]
    assert alone[0] == pytest.approx(own[0] - other[0])
    assert report.builds == ("seed-0.jsonl", "seed-1.jsonl", "seed-2.jsonl")
    assert {(row.seed, row.sample) for row in report.rows if row.method == "cvae"} == {
        (build, draw) for build in range(3) for draw in range(3)
    }


def test_an_interval_over_builds_knows_that_builds_differ(tmp_path):
    """One task, one query: only builds vary, 10 and 30 points apart."""
    files = [
        write_made(tmp_path / f"{n}.jsonl", [row_of("cvae", value=50.0 + gap), row_of("top-k", value=50.0)], {**HEADER})
        for n, gap in enumerate((10.0, 30.0))
    ]
    report = read(files, BenchConfig(), over_builds=True).report
    assert report.differences["cvae", "I2T", 1] == pytest.approx((20, 10, 30))


def test_the_lowest_and_highest_build_are_shown(run, files, hits):
    lows = [100 * mean(mean(some) for (method, *_), some in build.items() if method == "cvae") for build in hits]
    text = run("report", *files, "--over", "builds").stdout
    assert f"SG-LoRA, lowest to highest of 3 builds: I2T R@1 {min(lows):.1f} to {max(lows):.1f}.\n" in text
    assert "3 builds, seed-0.jsonl, seed-1.jsonl, seed-2.jsonl; " in text
    assert "paired bootstrap over tasks, queries, builds and draws." in text
    content = json.loads(run("report", *files, "--over", "builds", "--as", "json").stdout)
    assert content["ranges"]["cvae I2T R@1"] == pytest.approx({"lowest": min(lows), "highest": max(lows)})
    assert content["builds"] == ["seed-0.jsonl", "seed-1.jsonl", "seed-2.jsonl"]
    assert "draws" not in content


@pytest.mark.parametrize("reporter", ["table", "terminal", "markdown", "latex", "json", "csv"])
def test_every_reporter_can_show_builds(run, files, reporter):
    result = run("report", *files, "--over", "builds", "--as", reporter)
    assert result.exit_code == 0, result.output
    assert "SG-LoRA" in result.stdout or "cvae" in result.stdout


def test_the_page_shows_builds_and_says_why_figures_of_a_pack_are_missing(run, toy_pack, tmp_path, toys):
    files = [
        write_made(tmp_path / f"{n}.jsonl", [{**row, "value": row["value"] + n} for row in hand_made()])
        for n in range(2)
    ]
    out = tmp_path / "x.html"
    result = run("report", *files, "--over", "builds", "--out", out, "--pack", toy_pack, "--data", toys, "--json")
    assert result.exit_code == 0, result.output
    reason = "shows adapters of one build, but there are 2; make a page of a single rows file"
    assert json.loads(result.stdout)["missing"] == dict.fromkeys(
        ("R@1 against K", "Adapters of all tasks", "Draws for a task", "Retrieval examples"), reason
    )
    shown_text = "".join(Page(out.read_text()).texts)
    for text in ("0.jsonl, 1.jsonl", "Lowest and highest of 2 builds", "41.60 to 42.60", "queries, builds and draws"):
        assert text in shown_text
    assert "Expert contributions" in shown_text


def test_without_over_files_are_one_build_as_ever(run, files):
    rows = run("report", *files, "--as", "csv").stdout
    assert rows == run("report", files[-1], "--as", "csv").stdout


def test_what_cannot_be_put_together_is_named(run, tmp_path):
    def file(name, lines=None, **header):
        lines = hand_made() if lines is None else lines
        return write_made(tmp_path / f"{name}.jsonl", lines, {**HEADER, "build": name, **header})

    first = file("a")
    same = file("again", build="a")
    methods = file("methods", [row for row in hand_made() if row["method"] not in ("cvae", "oracle")])
    tasks = file("tasks", [*hand_made(), *(row_of(method, "owl") for method in LABELS)])
    draws = file("draws", [*hand_made(), row_of(sample=1)])
    for other, code, message in (
        (None, 2, f"--over builds needs the rows files of at least two builds, got {first} only"),
        (first, 5, f"{first} and {first} have rows of the same build"),
        (same, 5, f"{first} and {same} have rows of the same build"),
        (methods, 5, f"{methods} has no method 'cvae' and 1 more, which {first} has"),
        (tasks, 5, f"{first} has no task 'toys/owl', which {tasks} has"),
        (draws, 5, f"{first} and {draws} differ in draws of method 'top-k' on toys/mug"),
        (file("empty", []), 4, f"there is no row in {tmp_path / 'empty.jsonl'}"),
        (
            file("pack", pack="other"),
            5,
            f"{tmp_path / 'pack.jsonl'} has rows of pack 'other' on 'tiny', but {first} of pack 'toys' on 'tiny'",
        ),
        (tmp_path / "nothing.jsonl", 4, f"{tmp_path / 'nothing.jsonl'} does not exist"),
    ):
        result = run("report", first, *([other] if other else []), "--over", "builds")
        assert (result.exit_code, result.stdout) == (code, ""), result.output
        assert result.stderr.startswith(f"error: {message}\nhint: "), result.stderr
    prints = file("p", fingerprint="1"), file("q", fingerprint="2")
    result = run("report", *prints, "--over", "builds")
    assert result.exit_code == 5
    assert f"{prints[0]} and {prints[1]} have rows of backbones with fingerprints 1 and 2" in result.stderr
    assert run("report", first, "--over", "nights").exit_code == 2


def test_builds_with_one_name_are_told_apart_by_their_folders(tmp_path):
    files = []
    for n in range(2):
        (tmp_path / str(n)).mkdir()
        files.append(write_made(tmp_path / str(n) / "rows.jsonl", hand_made()))
    assert read(files, BenchConfig(), over_builds=True).report.builds == tuple(map(str, files))


def test_two_builds_of_a_pack_measured_on_another_pack_are_one_table(run, toy_pack, recipe, toys, tmp_path):
    """What `bench --on` and `--over builds` are for together; and a pack that was not built again is noticed."""
    other = recipe.with_name("other.toml")
    other.write_text(recipe.read_text())
    assert run("pack", "build", other, "--data", toys).exit_code == 0
    files = []
    for seed in (0, 1):
        recipe.write_text(
            recipe.read_text().replace("[train]\n", "[train]\nseed = 1\n") if seed else recipe.read_text()
        )
        assert run("pack", "build", recipe, "--data", toys).exit_code == 0
        files.append(tmp_path / f"seed-{seed}.jsonl")
        result = run("bench", "--pack", "toys", "--on", "other", "--baselines", "paper", "--rows", files[-1])
        assert result.exit_code == 0, result.output
    result = run("report", *files, "--over", "builds", "--as", "json")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    single = [json.loads(run("report", file, "--as", "json").stdout)["averages"] for file in files]
    for method, cells in content["averages"].items():
        for cell, value in cells.items():
            both = [one[method][cell] for one in single]
            assert value == pytest.approx(mean(both))
            assert content["ranges"][f"{method} {cell}"] == pytest.approx({"lowest": min(both), "highest": max(both)})
    again = tmp_path / "again.jsonl"
    assert run("bench", "--pack", "toys", "--on", "other", "--baselines", "top-k", "--rows", again).exit_code == 0
    assert "have rows of the same build" in run("report", files[1], again, "--over", "builds").stderr
