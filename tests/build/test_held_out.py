"""Scores on training tasks left out: who sees what, that the numbers are recalls, and what a user reads of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sglora_cli.build.held_out import fold_rows, folds_of, own_photos, scores
from sglora_cli.build.prerequisites import plan_tasks
from sglora_cli.build.tasks import BuildTask, build_tasks
from sglora_cli.cli.describe import held_out
from sglora_cli.config import RuntimeConfig
from sglora_cli.data.features import Features
from sglora_cli.lora.layout import Layout
from sglora_cli.lora.prior import cosines, prior
from sglora_cli.pack.recipe_parser import read
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import Material, Photo, Task


class Experts:
    names = ("a", "b", "c")

    def __init__(self, layout):
        rng = torch.Generator().manual_seed(1)
        self.layout, self.mu = layout, torch.randn(3, layout.size, generator=rng)

    def means(self, rows=None):
        return self.mu if rows is None else self.mu[list(rows)]

    def variances(self, rows=None):
        return torch.zeros_like(self.means(rows))


class Left:
    """A pool that says which tasks it is without."""

    def __init__(self, names=()):
        self.names = names

    def without(self, names):
        return Left(tuple(names))


class Spy:
    """Writes down what each fold is fitted on and asked about; makes mu* plus a push."""

    name, summary, label = "spy", "a spy", "Spy"
    learns, draws, needs, config = True, False, "", None

    def __init__(self, push=0.0):
        self.push, self.folds = push, []

    def fit(self, material, settings):
        self.folds.append((material, []))
        return self, {}

    def generate(self, prior, samples, seed, temperature):
        self.folds[-1][1].append(prior)
        return (prior.mean_P + self.push)[None].expand(samples, -1)


def recall(image_ND, text_CD, owner):
    """R@1 of images and of captions, one query at a time; a wrong match that ties comes first."""
    score = (image_ND @ text_CD.T).tolist()
    photos, captions = range(len(image_ND)), range(len(text_CD))
    right = [max(score[i][c] for c in captions if owner[c] == i) for i in photos]
    wrong = [max(score[i][c] for c in captions if owner[c] != i) for i in photos]
    texts = [all(score[owner[c]][c] > score[i][c] for i in photos if i != owner[c]) for c in captions]
    images = [a > b for a, b in zip(right, wrong, strict=True)]
    return 100 * sum(images) / len(images), 100 * sum(texts) / len(texts)


@pytest.fixture
def given(tiny, toys, recipe):
    """A model, three training tasks, and a material made of them."""
    host, what = Host.load(), read(recipe)
    model = host.backbones["tiny"].load(RuntimeConfig())
    layout = Layout(tuple(model.sites), 2, 2.0)
    tasks = [t for t in build_tasks(model, plan_tasks(host, what, toys)) if t.role == "training"]
    experts, rng = Experts(layout), torch.Generator().manual_seed(2)
    index = torch.nn.functional.normalize(torch.randn(6, 4, generator=rng), dim=1)
    states = torch.randn(3, 2, layout.size, generator=rng)
    material = Material(
        experts,
        [t.task.key for t in tasks],
        states=lambda t: states[t],
        rows=lambda t, rows: states[t][list(rows)],
        states_of_task=2,
        priors=[prior(d, cosines(d, index[:3], 2), experts, k=2, tau=0.05) for d in index[3:]],
        joint_P=torch.zeros(layout.size),
        pool=Left(),
        start_P=None,
        recall=lambda t, adapters_SP: torch.zeros(len(adapters_SP)),
        seed=0,
        note=lambda text: None,
    )
    return model, tasks, material


def scored(model, generator, table, material, tasks):
    """All folds, and their scores."""
    folds = folds_of(table, len(tasks))
    rows = [r for fold in range(folds) for r in fold_rows(model, generator, table, material, tasks, [], fold)]
    return scores(rows, generator.name, folds, tasks, [])


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_no_fold_sees_what_it_is_asked_about(given, folds):
    model, tasks, material = given
    spy = Spy()
    record = scored(model, spy, {"held_out": folds}, material, tasks)["held_out"]
    asked = [prior for _, priors in spy.folds for prior in priors]
    assert sorted(map(id, asked)) == sorted(map(id, material.priors))
    for fold, priors in spy.folds:
        seen = [material.tasks.index(key) for key in fold.tasks]
        assert {id(one) for one in priors}.isdisjoint(id(material.priors[t]) for t in seen)
        assert [id(one) for one in fold.priors] == [id(material.priors[t]) for t in seen]
        for n, t in enumerate(seen):
            assert torch.equal(fold.states(n), material.states(t))
            assert torch.equal(fold.rows(n, [1]), material.rows(t, [1]))
        assert set(fold.pool.names) == set(material.tasks) - set(fold.tasks)
        assert bool(fold.joint_P.isnan().all())  # it was trained on the tasks left out, too
    assert record["folds"] == len(spy.folds) == min(folds, 3)
    assert record["tasks"] == 3


@pytest.mark.parametrize("folds", [0, 1])
def test_without_two_folds_nothing_is_scored(given, folds):
    model, tasks, material = given
    spy = Spy()
    assert scored(model, spy, {"held_out": folds}, material, tasks) == {}
    assert spy.folds == []


def test_scores_are_recalls_on_the_training_photos_averaged_over_tasks(given):
    model, tasks, material = given
    record = scored(model, Spy(push=3.0), {"held_out": 3}, material, tasks)["held_out"]
    layout = material.experts.layout
    adapters = {
        "zero-shot": [torch.zeros(layout.size)] * 3,
        "top-k": [one.mean_P for one in material.priors],
        "spy": [one.mean_P + 3.0 for one in material.priors],
    }
    for name, flat_TP in adapters.items():
        by_task = []
        for task, flat_P in zip(tasks, flat_TP, strict=True):
            content = task.train.stored(model).to(torch.device("cpu"))
            image_ND = model.encode_image(content.stem_N.float(), layout, flat_P[None])[0]
            by_task.append(recall(image_ND, content.text_CD, content.image_of))
        for n, cell in enumerate(("I2T R@1", "T2I R@1")):
            assert record["scores"][name][cell] == pytest.approx(sum(one[n] for one in by_task) / 3, abs=0.01)
    assert record["photos"] == 15
    for cell, (mean, low, high) in record["gain"].items():
        assert mean == pytest.approx(record["scores"]["spy"][cell] - record["scores"]["top-k"][cell], abs=0.01)
        assert low <= mean <= high


def test_a_pack_says_how_its_generator_did_on_tasks_left_out(run, tiny, toys, recipe):
    recipe.write_text(recipe.read_text().replace("hidden = 8\n", "hidden = 8\nheld_out = 3\n"))
    assert run("pack", "build", recipe, "--data", toys).exit_code == 0
    record = json.loads(run("pack", "show", "toys", "--json").stdout)["generators"]["cvae"]["held_out"]
    assert sorted(record["scores"]) == ["cvae", "top-k", "zero-shot"]
    outputs = {command: run(*command.split(), "toys").stdout for command in ("pack show", "inspect")}
    for text in outputs.values():
        assert "held out   cvae: I2T R@1 / T2I R@1 on 3 training tasks, each held out of the fit: zero-shot " in text
        assert "held out   cvae: 3 folds; difference to top-k with 95 % confidence interval: " in text
        assert "'scores'" not in text


def test_lines_of_a_manifest_that_says_nonsense_are_left_out():
    good = {"folds": 2, "tasks": 4, "scores": {"zero-shot": {"x": 1.0}, "top-k": {"x": 2.0}}, "gain": {"x": [1, 0, 2]}}
    assert held_out(good)[1] == "2 folds; difference to top-k with 95 % confidence interval: +1.0 [+0.0, +2.0]"
    for bad in (None, 3, "x", [], {}, {**good, "gain": {"x": 1}}, {**good, "scores": {"a": {"x": "?"}}}):
        assert held_out(bad) == []


def learning(name: str, *photos: str) -> BuildTask:
    """A task that learns from these photos."""
    some = [Photo(Path(photo), ("a caption",)) for photo in photos]
    return BuildTask(Task("d", name, name, {"train": some}), "training", Features(name, some, (), (), "", photos), None)


def test_a_task_is_not_asked_about_photos_that_others_learn_from():
    tasks, expert = [learning("a", "1", "2", "3", "4"), learning("b", "4", "5", "6")], learning("e", "2", "9")
    assert own_photos(tasks, [expert]) == [[0, 2], [1, 2]]
    assert own_photos([*tasks, learning("c", "1", "5", "5")], [expert])[1:] == [
        [0, 1, 2],
        [0, 1, 2],
    ]  # too few are left
