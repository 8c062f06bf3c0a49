"""A plan is run: rows, averages, intervals, tables, and photos against what the pack carries."""

from __future__ import annotations

import json

import pytest
import torch

from sglora_cli.bench.bootstrap import bootstrap
from sglora_cli.bench.rows import averages, recovery
from sglora_cli.data.encode import encode_images
from sglora_cli.plugin.values import Row


def test_photos_and_pack_agree(run, toy_pack, toys):
    carried, measured = (json.loads(run("bench", "--json", *more).stdout) for more in ([], ["--data", toys]))
    for method, cells in carried["averages"].items():
        assert measured["averages"][method] == pytest.approx(cells, abs=1e-3)


def test_a_named_dataset_is_measured_from_its_photos_where_they_are_known(run, toy_pack, toys, monkeypatch):
    monkeypatch.setenv("SGLORA_DATA", str(toys))
    (toys / "toys/captions.jsonl").write_text("{")
    assert run("bench", "--json").exit_code == 0
    assert run("bench", "--json", "--dataset", "toys").exit_code == 4


def test_adapters_in_one_pass_are_as_if_one_by_one(toy_pack):
    from sglora_cli.generate.session import Session

    session = Session.open()
    task = next(session.pack.unseen())
    adapters = 0.1 * torch.randn(5, session.pack.layout.size, generator=torch.Generator().manual_seed(0))
    together = encode_images(session.model, session.pack.layout, task.tensors, adapters, at_once=6)
    for s in range(5):
        one = session.model.encode_image(task.tensors.stem_N, session.pack.layout, adapters[s : s + 1])[0]
        assert torch.allclose(together[s], one, atol=1e-6)


def rows(values: dict[str, list[float]]) -> list[Row]:
    return [
        Row(method, "d", f"t{t}", 0, direction, k, value)
        for method, per_task in values.items()
        for t, value in enumerate(per_task)
        for direction in ("I2T", "T2I")
        for k in (1, 5, 10)
    ]


def test_the_interval_is_that_of_the_normal_mean():
    rng = torch.Generator().manual_seed(0)
    gaps = (3 + torch.randn(200, generator=rng)).tolist()
    difference = bootstrap(rows({"top-k": [0.0] * 200, "x": gaps}), resamples=4000).difference(("x", "I2T", 1), "top-k")
    mean, half = sum(gaps) / 200, 1.96 * float(torch.tensor(gaps).std()) / 200**0.5
    assert difference == pytest.approx((mean, mean - half, mean + half), abs=0.02)


def test_recovery_is_the_part_of_the_oracles_gain():
    average = averages(rows({"zero-shot": [10.0], "oracle": [30.0], "x": [25.0], "y": [10.0]}))
    assert recovery(average, "x", ("I2T", 1)) == pytest.approx(0.75)
    assert recovery(averages(rows({"zero-shot": [5.0], "oracle": [5.9], "x": [6.0]})), "x", ("I2T", 1)) is None


def test_samples_are_averaged_before_tasks():
    two = [Row("x", "d", "a", s, "I2T", 1, v) for s, v in ((0, 0.0), (1, 50.0))]
    assert averages([*two, Row("x", "d", "b", 0, "I2T", 1, 100.0)])["x"]["I2T", 1] == pytest.approx(62.5)


def test_a_terminal_gets_the_numbers_of_the_plain_table(run, toy_pack, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    plain, coloured = (run("bench", "--baselines", "paper", "--as", name).stdout for name in ("table", "terminal"))
    words = [[line.split() for line in text.splitlines() if line.strip()] for text in (plain, coloured)]
    assert words[0] == words[1]


def test_a_pipe_gets_the_plain_table(run, toy_pack):
    assert run("bench").stdout == run("bench", "--as", "table").stdout
