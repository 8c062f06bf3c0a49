"""Figures that need the pack: against slow definitions, and against what `bench` measures."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch
from made_rows import hand_made, write_made

from sglora_cli.bench.ablations import k_grid
from sglora_cli.config import BenchConfig
from sglora_cli.pack.loaded import LoadedPack
from sglora_cli.plugin.host import Host
from sglora_cli.report.figures import ReportData


@pytest.fixture
def report_data(toy_pack, tmp_path):
    """The toy pack with hand-made rows."""
    from sglora_cli.report import load

    config, path = BenchConfig(samples=2, resamples=100), write_made(tmp_path / "rows.jsonl", hand_made())
    return ReportData(LoadedPack.open(Host.load(), toy_pack), load.read([path], config).report, config)


def test_contributions_are_the_softmax_over_the_nearest_sentences(report_data):
    from sglora_cli.report.figures import contributions

    chart = contributions(report_data).chart
    pack, model = report_data.loaded.pack, report_data.loaded.model
    for name, parts in zip(chart.names, chart.parts, strict=True):
        (embedding,) = model.encode_text([f"a photo of a {name}"]).tolist()
        cosine = [sum(a * b for a, b in zip(embedding, row, strict=True)) for row in pack.index_ED.tolist()]
        best = sorted(range(len(cosine)), key=lambda e: -cosine[e])[:2]
        weight = [math.exp(cosine[e] / pack.prior_config.tau) for e in best]
        assert [f"{group}/{expert}" for expert, group, _ in parts] == [pack.experts.names[e] for e in best]
        assert [share for *_, share in parts] == pytest.approx([w / sum(weight) for w in weight], rel=1e-3)


def test_the_scatter_is_of_the_nearest_similarity_and_the_gain(report_data):
    from sglora_cli.report.figures import similarity_to_gain

    figure = similarity_to_gain(report_data)
    assert report_data.method == "cvae"
    points = {name: (x, y) for name, x, y in figure.chart.groups["toys"]}
    assert set(points) == {"mug", "nest"}
    for name, (similarity, gain) in points.items():
        embedding_D = report_data.loaded.model.encode_text([f"a photo of a {name}"])[0]
        assert similarity == pytest.approx(max(float(row @ embedding_D) for row in report_data.loaded.pack.index_ED))
        assert gain == pytest.approx(30.0)  # cvae is three places after zero-shot


def test_the_sweep_measures_what_bench_measures_at_the_packs_own_k(report_data, run):
    from sglora_cli.report.figures import k_sweep

    figures = {figure.name: figure.chart for figure in k_sweep(report_data)}
    assert list(figures["k-i2t"].x) == [1, 2, 3, 4]
    assert figures["k-i2t"].mark == 2
    bench = json.loads(run("bench", "--json", "--samples", 2).stdout)["averages"]
    for name, direction in (("k-i2t", "I2T"), ("k-t2i", "T2I")):
        for method, label in (("top-k", "Top-K weighted"), ("cvae", "SG-LoRA")):
            assert figures[name].lines[label][1] == pytest.approx(bench[method][f"{direction} R@1"], abs=1e-3)
        assert figures[name].levels["Oracle"] == pytest.approx(21.6 + 2 * (direction == "T2I"))


@pytest.mark.parametrize(
    ("experts", "own", "grid"), [(1, 1, [1]), (4, 2, [1, 2, 3, 4]), (28, 5, [1, 2, 3, 4, 5, 6, 8, 12, 16, 28])]
)
def test_the_grid_has_the_packs_own_k_and_all_experts(experts, own, grid):
    assert k_grid(experts, own) == grid


def test_near_adapters_are_near_on_the_map():
    from sglora_cli.report.figures import embedded

    rng = torch.Generator().manual_seed(0)
    points_NP = torch.cat([centre + torch.randn(12, 40, generator=rng) for centre in (0.0, 30.0)])
    places = embedded(points_NP, seed=3)
    assert places == embedded(points_NP, seed=3)
    middles = [[sum(p[i] for p in part) / 12 for i in (0, 1)] for part in (places[:12], places[12:])]
    for n, place in enumerate(places):
        own, other = (math.dist(place, middles[m]) for m in (n // 12, 1 - n // 12))
        assert own < other


def test_the_maps_have_every_expert_oracle_and_draw(report_data):
    from sglora_cli.report.figures import draw_maps, task_map

    kinds = [kind for _, kind, *_ in task_map(report_data).chart.points]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "expert, mean": 4,
        "unseen task, Oracle": 2,
        "unseen task, SG-LoRA": 2,
        "unseen task, Top-K weighted": 2,
    }
    (figure,) = draw_maps(report_data)
    names = [name for name, *_ in figure.chart.points if name]
    assert len(figure.chart.points) == 50 + len(names)
    assert names == [
        "Oracle",
        "Top-K weighted",
        *(report_data.loaded.pack.experts.names[r][5:] for r in first_rows(report_data)),
    ]


def test_a_data_sets_name_cannot_lead_out_of_the_folder(report_data):
    from dataclasses import replace

    from sglora_cli.report.figures import _draw_map

    (task, *_) = report_data.carried
    evil = replace(task, dataset="../../evil/x")
    report_data.priors["../../evil/x", task.name] = report_data.priors["toys", task.name]
    assert re.fullmatch(r"draws-evil-x~[0-9a-f]{16}", _draw_map(report_data, evil).name)


def first_rows(report_data):
    return report_data.priors["toys", "mug"].rows


class Strong:
    """A generator whose adapter moves many ranks."""

    def generate(self, prior, samples, seed, temperature):
        return torch.randn(samples, len(prior.mean_P), generator=torch.Generator().manual_seed(1))


def test_retrieval_examples_show_the_largest_rise_and_fall_of_all_captions(report_data, toys):
    from sglora_cli.report.examples import retrieval_examples

    report_data.loaded._fitted["cvae"] = Strong()
    rise, fall = retrieval_examples(report_data, toys)
    model, layout = report_data.loaded.model, report_data.loaded.pack.layout
    adapter_1P = Strong().generate(report_data.priors["toys", "mug"], 1, 0, 1.0)
    tasks = {"mug": range(5, 8), "nest": range(5, 8)}
    changes = []
    for task in report_data.carried:
        sides = model.encode_image(task.tensors.stem_N), model.encode_image(task.tensors.stem_N, layout, adapter_1P)[0]
        for c, own in enumerate(task.tensors.image_of):
            scores = [(image_ND @ task.tensors.text_CD[c]).tolist() for image_ND in sides]
            ranks = [1 + sum(s >= side[own] for n, s in enumerate(side) if n != own) for side in scores]
            changes.append((1 / ranks[1] - 1 / ranks[0], task.captions[c], f"{task.name}_{tasks[task.name][own]}.png"))
    assert len(changes) == 2 * 3 * 2  # tasks, test photos, captions
    assert rise.change == pytest.approx(max(changes)[0])
    assert fall.change == pytest.approx(min(changes)[0])
    assert fall.change < 0 < rise.change
    for moved in (rise, fall):
        assert (moved.caption, moved.right.name) in [
            (c, p) for change, c, p in changes if abs(change - moved.change) < 1e-6
        ]
        for rank, photos in ((moved.rank_before, moved.before), (moved.rank_after, moved.after)):
            assert photos.index(moved.right) == rank - 1


def test_tasks_of_another_pack_have_figures_too(run, toy_pack, recipe, toys, tmp_path):
    other = recipe.with_name("other.toml")
    other.write_text(
        recipe.read_text().replace('"cup", "hat"', '"cup", "mug"').replace('"mug", "nest"]', '"hat", "nest"]')
    )
    assert run("pack", "build", other, "--data", toys).exit_code == 0
    file = tmp_path / "rows.jsonl"
    assert run("bench", "--pack", "toys", "--on", "other", "--own-expert", "--rows", file).exit_code == 0
    assert json.loads(file.read_text().splitlines()[0])["on"] == "other"
    page = ("report", file, "--pack", "toys", "--data", toys, "--out", tmp_path / "x.html", "--json")
    facts = json.loads(run(*page, "--figures", tmp_path / "f").stdout)
    assert set(facts["missing"]) <= {"Retrieval examples"}
    text = (tmp_path / "x.html").read_text()
    assert "<td>hat</td>" in text  # its contributions; pack toys has it as an expert
    assert "leak: the pack has already seen toys/hat (expert toys/hat)." in text
    assert run("pack", "remove", "other", "--yes").exit_code == 0
    facts = json.loads(run(*page).stdout)
    assert "R@1 against K" not in facts["missing"]  # nest is a task of both
    assert "<td>hat</td>" not in (tmp_path / "x.html").read_text()
