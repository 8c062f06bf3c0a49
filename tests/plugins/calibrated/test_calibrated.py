"""The generator `calibrated`: the lengths that do best on training tasks, and nothing of what an unseen task knows."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from sglora_calibrated import SHARES, SIZES, Calibrated, point
from sglora_cli.api import BadFile, Mismatch
from sglora_cli.plugin.testing.toys import ToyExperts, material

EXPERTS = ToyExperts()
LAYOUT = EXPERTS.layout


def dense(flat_P):
    """Site -> the update as a matrix, in float64."""
    return {name: LAYOUT.scaling * b[0].double() @ a[0].double() for name, (b, a) in LAYOUT.split(flat_P[None]).items()}


def wanting(size, share):
    """Material whose recall is best at one size and share, of the adapter that starts at the warm-up's."""
    given = material(EXPERTS)
    start_P = LAYOUT.initial(0) + 0.1 * torch.randn(LAYOUT.size, generator=torch.Generator().manual_seed(5))
    centre_P = EXPERTS.means().mean(dim=0)

    def recall(t, adapters_SP):
        best_P = point(LAYOUT, start_P, given.priors[t].mean_P - centre_P, size, share)
        return 100 - (adapters_SP - best_P).norm(dim=1)

    return replace(given, start_P=start_P, recall=recall)


@pytest.mark.parametrize(("size", "share"), [(0.5, 2.0), (0.75, 0.5), (1.0, 1.0)])
def test_it_finds_the_lengths_that_do_best(size, share):
    given = wanting(size, share)
    fitted, facts = Calibrated().fit(given, {})
    assert (fitted.size, fitted.share) == (facts["size"], facts["share"]) == (size, share)
    assert facts["recall"] == pytest.approx(100.0)
    assert facts["recall_unchanged"] <= facts["recall"]


def test_what_it_makes_is_the_formula_of_its_docstring():
    given = wanting(0.75, 2.0)
    fitted, _ = Calibrated().fit(given, {})
    asked = EXPERTS.prior(7)
    (first_P, second_P) = fitted.generate(asked, 2, 3, 1.0)
    assert torch.equal(first_P, second_P)
    own_P = given.joint_P + 2.0 * (asked.mean_P - torch.stack(list(EXPERTS.means())).mean(dim=0))
    whole, shortened = dense(own_P), dense(first_P)
    for name, update in whole.items():
        torch.testing.assert_close(shortened[name], 0.75 * update, rtol=1e-5, atol=1e-6)


def test_every_choice_is_asked_about_on_every_training_task():
    given, asked = wanting(1.0, 1.0), []

    def recall(t, adapters_SP):
        asked.append((t, len(adapters_SP)))
        return torch.zeros(len(adapters_SP))

    Calibrated().fit(replace(given, recall=recall), {})
    assert asked == [(t, len(list(itertools.product(SIZES, SHARES)))) for t in range(len(given.tasks))]


def test_without_a_warm_up_the_experts_mean_stands_in():
    given, seen = material(EXPERTS), []

    def recall(t, adapters_SP):
        seen.append(adapters_SP)
        return torch.zeros(len(adapters_SP))

    Calibrated().fit(replace(given, start_P=None, recall=recall), {})
    unchanged = list(itertools.product(SIZES, SHARES)).index((1.0, 1.0))
    # The mean plus mu* minus the mean is mu*.
    torch.testing.assert_close(seen[0][unchanged], given.priors[0].mean_P)


def test_a_fold_has_no_joint_adapter_and_takes_the_warm_ups():
    given = wanting(1.0, 1.0)
    left_out = replace(given, joint_P=torch.full_like(given.joint_P, torch.nan))
    fitted, _ = Calibrated().fit(left_out, {"held_out": 3})
    assert torch.equal(fitted.joint_P, given.start_P)


def test_a_stored_one_makes_the_same():
    fitted, _ = Calibrated().fit(wanting(0.625, 1.0), {})
    again = Calibrated().restore(EXPERTS, fitted.tensors())
    assert torch.equal(again.generate(EXPERTS.prior(6), 1, 0, 1.0), fitted.generate(EXPERTS.prior(6), 1, 0, 1.0))


def test_it_wants_training_tasks():
    with pytest.raises(Mismatch, match="needs training tasks"):
        Calibrated().fit(replace(wanting(1.0, 1.0), tasks=(), priors=()), {})


@pytest.mark.parametrize("missing", ["joint", "centre", "chosen"])
def test_a_file_that_lacks_something_is_refused(missing):
    tensors = Calibrated().fit(wanting(1.0, 1.0), {})[0].tensors()
    del tensors[missing]
    with pytest.raises(BadFile, match=missing):
        Calibrated().restore(EXPERTS, tensors)


def test_a_file_of_another_pack_is_refused():
    tensors = Calibrated().fit(wanting(1.0, 1.0), {})[0].tensors()
    with pytest.raises(BadFile, match=f"does not match adapters of {LAYOUT.size} parameters"):
        Calibrated().restore(EXPERTS, {**tensors, "joint": tensors["joint"][1:]})


def test_a_pack_is_built_with_it(run, tiny, toys, recipe):
    text = recipe.read_text().replace("[train]", "[train]\nwarmup_epochs = 2")
    recipe.write_text(text.replace("[[source]]", "[generators.calibrated]\nheld_out = 2\n[[source]]", 1))
    output = run("pack", "build", recipe, "--data", toys, "--dry-run").output
    assert [line.split()[-2:] for line in output.splitlines() if line.startswith("calibrated")] == [["not", "counted"]]
    built = run("pack", "build", recipe, "--data", toys)
    assert built.exit_code == 0, built.output
    result = run("generate", "a photo of a mug", "--pack", recipe.stem, "--generator", "calibrated", "--json")
    assert result.exit_code == 0, result.output
    result = run("pack", "show", recipe.stem)
    assert "calibrated: " in result.output
    assert "share " in result.output
