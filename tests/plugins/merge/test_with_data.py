"""Rules that see data of the unseen task: their weights the slow way, and what they must not see."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import pytest
import torch
from merge_rules import RULES
from random_factors import seeded

from sglora_cli.bench.candidates import Candidate
from sglora_cli.bench.evidence import TaskEvidence
from sglora_cli.bench.measure import Measurer
from sglora_cli.data.encode import encode_each
from sglora_cli.errors import Mismatch, PluginError, Unavailable, UnknownName
from sglora_cli.generate.session import Session
from sglora_cli.plugin.contracts import IMAGES, SHOTS, Evidence
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import TaskTensors
from sglora_merge.lorahub import drawn, objective, search
from sglora_merge.rule import HubRule
from sglora_merge.semla import weights
from sglora_merge.with_data import LoraHub, Semla


@pytest.fixture
def session(toy_pack) -> Session:
    return Session.open()


@pytest.fixture
def shots(session) -> TaskTensors:
    """Three pairs of a task, of its test split: here nobody is measured."""
    task = next(session.pack.unseen()).tensors
    return drawn(task, 3, torch.Generator().manual_seed(5))


def obvious_loss(session: Session, shots: TaskTensors, weights: list[float]) -> float:
    """One weight, one pair, one direction after the other."""
    means = session.pack.experts.means().double()
    adapter_P = sum(w * means[e] for e, w in enumerate(weights)).float()
    image_ND = session.model.encode_image(shots.stem_N, session.pack.layout, adapter_P[None])[0].double()
    scores = [[session.model.scale * float(i @ t) for t in shots.text_CD.double()] for i in image_ND]
    count, total = len(scores), 0.0
    for n in range(count):
        row, column = scores[n], [scores[m][n] for m in range(count)]
        for line in (row, column):
            total += math.log(sum(math.exp(x) for x in line)) - scores[n][n]
    return total / 2 / count + 0.05 * sum(abs(w) for w in weights)


def test_what_lorahub_minimises_is_the_loss_and_the_size_of_the_weights(session, shots):
    tried = torch.randn(3, 4, generator=seeded())
    losses = objective(session.model, session.pack.experts, shots, 0.05)(tried)
    assert losses.tolist() == pytest.approx([obvious_loss(session, shots, w) for w in tried.tolist()], abs=1e-4)


def test_of_a_classification_task_it_is_the_cross_entropy(session, shots):
    heads_CD = torch.nn.functional.normalize(torch.randn(4, 8, generator=seeded()), dim=1)
    task = TaskTensors("x", shots.stem_N, heads_CD, (), (2, 0, 2))
    goal = objective(session.model, session.pack.experts, task, 0.05)
    image_ND = session.model.encode_image(task.stem_N, session.pack.layout, session.pack.experts.means([1]))[0]
    expected = torch.nn.functional.cross_entropy(session.model.scale * image_ND @ heads_CD.T, torch.tensor([2, 0, 2]))
    assert float(goal(torch.eye(4)[1:2])) == pytest.approx(float(expected) + 0.05, abs=1e-5)


def test_one_shot_set_has_as_many_pairs_as_asked_and_each_is_a_pair(session):
    task = next(session.pack.unseen()).tensors
    few = drawn(task, 2, seeded())
    for n, text_D in enumerate(few.text_CD):
        (image,) = [i for i, stem in enumerate(task.stem_N) if torch.equal(stem, few.stem_N[n])]
        assert any(torch.equal(text_D, task.text_CD[c]) for c, owner in enumerate(task.image_of) if owner == image)
    assert len(few.stem_N) == len(few.text_CD) == 2
    assert len(drawn(task, 99, seeded()).stem_N) == len(task.stem_N)


def test_the_search_finds_the_minimum_inside_its_bounds():
    target = torch.tensor([0.3, -0.7, 9.0])
    before = torch.random.get_rng_state()
    weights_E = search(lambda w_SE: ((w_SE - target) ** 2).sum(dim=1), 3, HubRule(steps=150), seed=1)
    assert weights_E.tolist() == pytest.approx([0.3, -0.7, 1.5], abs=1e-2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_search_that_finds_nothing_better_changes_nothing():
    assert search(lambda w_SE: w_SE.abs().sum(dim=1), 2, HubRule(steps=1), seed=1).tolist() == [0, 0]
    assert search(lambda w_SE: torch.full((len(w_SE),), torch.nan), 2, HubRule(steps=1), seed=1).tolist() == [0, 0]


def test_the_search_leaves_numpys_dice_alone():
    import numpy

    numpy.random.seed(3)
    expected = numpy.random.random()
    numpy.random.seed(3)
    search(lambda w_SE: (w_SE**2).sum(dim=1), 2, HubRule(steps=2), seed=1)
    assert numpy.random.random() == expected


def test_with_one_expert_lorahub_makes_multiples_of_it(session, shots):
    class One:
        layout, names = session.pack.layout, ("a",)

        def means(self, rows=None):
            return session.pack.experts.means([2])

    found_SP = LoraHub().restore(One(), {}).generate_with(None, Evidence(session.model, shots=shots), 2, 0, 1.0)
    for flat_P in found_SP:
        weight = float(flat_P @ One().means()[0] / (One().means()[0] @ One().means()[0]))
        assert abs(weight) <= 1.5
        assert torch.allclose(flat_P, weight * One().means()[0], atol=1e-6)


def test_lorahub_never_sees_a_test_photo(run, toy_pack, toys, monkeypatch):
    """What it may draw from is the five training photos, and none of the test photos that the pack carries."""
    from PIL import Image

    from sglora_merge import lorahub

    seen: list[TaskTensors] = []
    monkeypatch.setattr(lorahub, "drawn", lambda task, *more: seen.append(task) or drawn(task, *more))
    result = run("bench", "--data", toys, "--baselines", "lorahub:steps=1", "--samples", 1)
    assert result.exit_code == 0, result.output
    session = Session.open()
    for task, test in zip(seen, session.pack.unseen(), strict=True):
        photos = [toys / f"toys/images/{test.name}_{n}.png" for n in range(5)]
        assert torch.equal(task.stem_N, session.model.stem([Image.open(path) for path in photos]))
        assert not any(torch.equal(mine, other) for mine in task.stem_N for other in test.tensors.stem_N)


def test_each_kind_of_evidence_comes_alone(session):
    task = replace(next(session.pack.unseen()), training=lambda: "pairs")
    seen = TaskEvidence(session.model, session.pack, task)
    assert (seen.evidence(SHOTS).shots, seen.evidence(SHOTS).images_ND) == ("pairs", None)
    assert seen.evidence(IMAGES).shots is None
    assert torch.equal(seen.evidence(IMAGES).visual_ED, session.pack.visual_ED)
    expected_ND = session.model.encode_image(task.tensors.stem_N)
    assert torch.allclose(seen.evidence(IMAGES).images_ND, expected_ND, atol=1e-6)


@pytest.mark.parametrize("per", ["image", "task"])
def test_semla_weighs_by_a_softmax_over_the_nearest(session, per):
    images_ND = torch.nn.functional.normalize(torch.randn(3, 8, generator=seeded()), dim=1)
    evidence = Evidence(session.model, images_ND=images_ND, visual_ED=session.pack.visual_ED)
    fitted = Semla().member(f"k=2/tau=0.1/per={per}").restore(session.pack.experts, {})
    (generated,) = fitted.generate_with(None, evidence, 1, 0, 1.0)
    asked = images_ND.tolist()
    if per == "task":
        mean = [sum(image[d] for image in asked) / 3 for d in range(8)]
        length = math.sqrt(sum(x * x for x in mean))
        asked, generated = [[x / length for x in mean]], generated[None]
    for image, flat_P in zip(asked, generated, strict=True):
        near = [sum(a * b for a, b in zip(image, expert, strict=True)) for expert in session.pack.visual_ED.tolist()]
        best = sorted(range(4), key=lambda e: -near[e])[:2]
        total = sum(math.exp(near[e] / 0.1) for e in best)
        expected_P = sum(math.exp(near[e] / 0.1) / total * session.pack.experts.means()[e] for e in best)
        assert torch.allclose(flat_P, expected_P, atol=1e-5)


def test_more_experts_than_there_are_means_all(session):
    evidence = Evidence(session.model, visual_ED=session.pack.visual_ED)
    ((rows, weights_K),) = weights(Semla().rule, session.pack.visual_ED[:1], evidence)
    assert sorted(rows) == [0, 1, 2, 3]
    assert float(weights_K.sum()) == pytest.approx(1)


def test_each_image_with_its_own_adapter_is_as_if_alone(session):
    task, layout = next(session.pack.unseen()).tensors, session.pack.layout
    adapters_NP = torch.randn(len(task.stem_N), layout.size, generator=seeded())
    together_ND = encode_each(session.model, layout, task, adapters_NP, at_once=2)
    for n, flat_P in enumerate(adapters_NP):
        alone_D = session.model.encode_image(task.stem_N[n : n + 1], layout, flat_P[None])[0, 0]
        assert torch.allclose(together_ND[n], alone_D, atol=1e-6)


def test_an_adapter_for_each_image_is_measured_beside_one_for_all(session):
    task, layout = next(session.pack.unseen()), session.pack.layout
    flat_P = session.pack.joint_P
    same_NP = flat_P.expand(len(task.tensors.stem_N), -1)
    measurer = Measurer(session.model, fresh=True)
    rows = measurer.rows(task, [Candidate("each", layout, same_NP), Candidate("one", layout, flat_P)])
    each, one = ([(r.direction, r.k, r.hits) for r in rows if r.method == name] for name in ("each", "one"))
    assert each == one != []


def test_a_pack_knows_the_mean_of_its_experts_training_photos(session, toys):
    from PIL import Image

    for name, visual_D in zip(session.pack.experts.names, session.pack.visual_ED, strict=True):
        photos = [toys / f"toys/images/{name.removeprefix('toys/')}_{n}.png" for n in range(5)]
        mean_D = torch.zeros(8)
        for path in photos:
            mean_D += session.model.encode_image(session.model.stem([Image.open(path)]))[0] / 5
        assert torch.allclose(visual_D, mean_D / mean_D.norm(), atol=1e-3)


def test_all_leaves_out_what_lacks_its_data_and_says_so(run, toy_pack, toys):
    every = ["bench", "--baselines", "all"]
    plain, photos = (run(*every, "--as", "csv", *more) for more in ([], ["--data", toys, "--samples", 1]))
    methods = [{line.split(",")[0] for line in result.stdout.splitlines()[1:]} for result in (plain, photos)]
    assert methods[1] - methods[0] == {"lorahub"}
    assert {"semla", "semla-task"} <= methods[0]
    output = run(*every).stdout
    assert "left out: 'lorahub' needs training photos of the unseen tasks, which packs do not contain" in output


def test_asked_by_name_it_is_an_error(run, toy_pack):
    result = run("bench", "--baselines", "top-k,lorahub:shots=3")
    assert (result.exit_code, result.stdout) == (6, "")
    assert result.stderr == (
        "error: 'lorahub:shots=3' needs training photos of the unseen tasks, which packs do not contain\n"
        "hint: pass the folder of the photos with --data DIR\n"
    )


def test_a_pack_from_before_has_no_semla(run, old_pack):
    result = run("bench", "--baselines", "semla")
    assert result.exit_code == 6
    assert result.stderr == (
        "error: 'semla' compares photos, but pack 'toys' has no visual embeddings of its experts\n"
        "hint: rebuild the pack: sglora pack build RECIPE --data DIR\n"
    )


@pytest.mark.parametrize("name", ["lorahub", "semla", "semla-task"])
def test_a_sentence_alone_is_not_enough(run, toy_pack, name):
    result = run("generate", "a photo of a mug", "--generator", name)
    assert result.exit_code == 6
    assert "cannot use a sentence alone" in result.stderr


def test_without_the_package_that_searches_lorahub_is_left_out(run, toy_pack, toys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cma", None)
    monkeypatch.setattr("sglora_merge.with_data.find_spec", lambda name: None)
    assert run("bench", "--data", toys, "--samples", 1).exit_code == 0
    result = run("bench", "--data", toys, "--baselines", "lorahub")
    assert result.exit_code == 6
    assert result.stderr == (
        "error: 'lorahub' needs the package cma, which is not installed\nhint: pip install \"sglora[lorahub]\"\n"
    )


def test_the_label_says_what_was_seen():
    assert LoraHub().member("shots=16").label == "LoraHub (16 shots)"
    assert (Semla().label, Semla().member("per=task").label) == ("SemLA (each test image)", "SemLA (mean test image)")
    assert Semla().member("k=3").summary.startswith("top 3 by similarity of the experts' photos to each test image")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("lorahub:shoots=3", UnknownName, "no setting of lorahub named 'shoots'"),
        ("semla:per=photo", UnknownName, "no per of semla named 'photo'"),
    ],
)
def test_wrong_settings(name, error, message):
    with pytest.raises(error, match=message):
        _ = Host.load().generators[name]


def test_a_recipe_has_no_settings_for_them(session):
    for generator in (LoraHub(), Semla()):
        assert generator.restore(session.pack.experts, {}).tensors() == {}
    for generator in (LoraHub(), Semla(), RULES["ties"]):
        with pytest.raises(Mismatch, match="has no settings in a recipe, got 'shots'") as error:
            generator.fit(None, {"shots": 3})
        assert error.value.hint == f"write them into its name, as in default_generator = '{generator.name}:shots=3'"


def test_a_plugin_that_needs_data_and_does_not_take_it_is_named(session):
    strange, plain = replace(Semla(), needs="shots"), session.fitted
    with pytest.raises(PluginError, match="generator 'semla' declares that it needs data but has no generate_with"):
        TaskEvidence(session.model, session.pack, None).ask(strange, plain, None, 1, 0, 1.0)


def test_evidence_of_the_other_kind_is_refused(session):
    nothing = Evidence(session.model)
    for generator in (LoraHub(), Semla()):
        with pytest.raises(Mismatch, match="got none"):
            generator.restore(session.pack.experts, {}).generate_with(None, nothing, 1, 0, 1.0)
    with pytest.raises(Unavailable, match="no training photos of 'mug'"):
        TaskEvidence(session.model, session.pack, next(session.pack.unseen())).evidence(SHOTS)
