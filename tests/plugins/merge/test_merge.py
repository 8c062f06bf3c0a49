"""Merging rules against the slow, obvious definition, number by number, and against dense matrices."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from merge_rules import ALPHA, EXPERTS, PRIOR, RULES, at_one_site, dense, generate
from random_factors import seeded

from sglora_cli.errors import Mismatch, UnknownName, UsageError
from sglora_merge.rule import Rule


def best(matrix: torch.Tensor) -> torch.Tensor:
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return (u[:, :2] * s[:2]) @ vh[:2]


def obvious_ties(rows: list[list[float]], weights: list[float], density: float, convention: str) -> list[float]:
    """Yadav et al. 2023, one number after the other."""
    count = int(density * len(rows[0]))
    kept = []
    for row in rows:
        largest = sorted(range(len(row)), key=lambda i: -abs(row[i]))[:count]
        kept.append([x if i in largest else 0.0 for i, x in enumerate(row)])
    result = []
    for i in range(len(rows[0])):
        values = [row[i] for row in kept]
        votes = sum(values) if convention == "peft" else sum(w * x for w, x in zip(weights, values, strict=True))
        agreeing = [(w, x) for w, x in zip(weights, values, strict=True) if (x > 0 if votes >= 0 else x < 0)]
        below = len(agreeing) if convention == "peft" else sum(w for w, _ in agreeing)
        result.append(sum(w * x for w, x in agreeing) / below if agreeing else 0.0)
    return result


@pytest.mark.parametrize("convention", ["peft", "mergekit"])
@pytest.mark.parametrize("density", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.7, 0.2, 0.1], [3.0, 0.1, 0.1]])
def test_ties_is_its_definition_number_by_number(convention, density, weights):
    rows = torch.randn(3, 40, generator=seeded())
    rule = Rule(prune="magnitude", density=density, elect="total", convention=convention)
    merged = at_one_site(rule, torch.tensor(weights), rows.view(3, 5, 8), seeded())
    expected = torch.tensor(obvious_ties(rows.tolist(), weights, density, convention))
    assert torch.allclose(merged.flatten(), expected, atol=1e-6)
    assert bool(merged.any())


@pytest.mark.parametrize(
    ("density", "kept"), [(0.5, [3.0, -2.0, 2.0, 0, 0, 0]), (0.1, [0.0] * 6), (0.9, [3, -2, 2, 2, -2, 0])]
)
def test_of_equal_numbers_no_more_stay_than_the_density_says(density, kept):
    x = torch.tensor([[3.0, -2.0, 2.0, 2.0, -2.0, 0.5]])
    assert at_one_site(Rule(prune="magnitude", density=density), torch.ones(1), x, seeded()).tolist() == kept


def test_what_is_dropped_is_rescaled_by_density_or_to_the_l1_norm():
    x = torch.randn(1, 30_000, generator=seeded())
    by_density, by_norm = (
        at_one_site(Rule(prune="random", density=0.25, convention=convention), torch.ones(1), x, seeded(3))
        for convention in ("peft", "mergekit")
    )
    kept = by_density != 0
    assert float(kept.double().mean()) == pytest.approx(0.25, abs=0.01)
    assert torch.equal(kept, by_norm != 0)
    assert torch.allclose(by_density[kept], x[0][kept] * 4)
    assert float(by_norm.abs().sum()) == pytest.approx(float(x.abs().sum()), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("zero-shot", [0, 0, 0, 0]),
        ("joint", [0, 0, 0, 1]),
        ("nearest", [0, 0, 1, 0]),
        ("model-soups", [0.25, 0.25, 0.25, 0.25]),
        ("adapter-soup", [0, 0.5, 0.5, 0]),
        ("top-k", [0, 0.25, 0.75, 0]),
    ],
)
def test_rules_in_factors_are_weighted_means_of_numbers(name, weights):
    expected = (torch.tensor(weights).double()[:, None] * EXPERTS.mean_EP).sum(dim=0).float()
    generated = generate(name, samples=2)
    assert torch.allclose(generated, expected.expand(2, -1), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("top-k-updates", [0, 0.25, 0.75, 0]),
        ("task-arithmetic", [0.4, 0.4, 0.4, 0.4]),
        ("task-arithmetic:scale=2/weights=mean", [0.5, 0.5, 0.5, 0.5]),
        ("knots:prune=none/elect=none", [1, 1, 1, 1]),
        ("knots:density=1/elect=none/weights=mean", [0.25, 0.25, 0.25, 0.25]),
    ],
)
def test_linear_rules_in_updates_are_weighted_sums_of_matrices(name, weights):
    for site, update in dense(generate(name)[0]).items():
        exact = sum(w * dense(x)[site] for w, x in zip(weights, EXPERTS.mean_EP, strict=True))
        assert torch.allclose(update, best(exact), atol=1e-5)


@pytest.mark.parametrize("name", ["ties", "ties:experts=top/weights=alpha/convention=mergekit", "ties:elect=frequency"])
def test_ties_on_updates_is_ties_on_dense_matrices(name):
    rule = RULES["ties"].member(name.partition(":")[2]).rule if ":" in name else RULES["ties"].rule
    top = rule.experts == "top"
    for site, update in dense(generate(name)[0]).items():
        stack = torch.stack([dense(x)[site].float() for x in EXPERTS.means(PRIOR.rows if top else None)])
        merged = at_one_site(rule, ALPHA if top else torch.ones(4), stack, seeded())
        assert torch.allclose(update, best(merged.double()), atol=1e-4)


def test_knots_merges_the_right_singular_vectors_of_the_updates_side_by_side():
    for site, update in dense(generate("knots")[0]).items():
        side_by_side = torch.cat([dense(x)[site] for x in EXPERTS.mean_EP], dim=1)
        u, s, vh = torch.linalg.svd(side_by_side, full_matrices=False)
        live = s > 1e-6 * s[0]
        parts = vh[live].unflatten(1, (4, -1)).movedim(1, 0)
        merged = at_one_site(RULES["knots"].rule, torch.ones(4), parts.float(), seeded()).double()
        assert torch.allclose(update, best((u[:, live] * s[live]) @ merged), atol=1e-4)


def test_model_stock_shortens_the_mean_by_the_angles_between_updates():
    shortened = dense(generate("model-stock")[0])
    for site, update in shortened.items():
        updates = [dense(x)[site] for x in EXPERTS.mean_EP]
        pairs = [(x, y) for i, x in enumerate(updates) for y in updates[i + 1 :]]
        cosine = sum(float((x * y).sum() / (x.norm() * y.norm())) for x, y in pairs) / len(pairs)
        ratio = 4 * cosine / (1 + 3 * cosine)
        assert torch.allclose(update, ratio * best(sum(updates) / 4), atol=1e-4)


@pytest.mark.parametrize("name", ["dare-linear", "dare-ties"])
def test_dare_draws_by_seed_and_drops_nothing_at_temperature_zero(name):
    one, again, other = generate(name, 3, seed=1), generate(name, 3, seed=1), generate(name, 3, seed=2)
    assert torch.equal(one, again)
    assert torch.equal(one[:1], generate(name, 1, seed=1))
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one, other)
    still = generate(name, 2, seed=1, temperature=0)
    assert torch.equal(still[0], still[1])
    assert torch.equal(still, generate(name, 2, seed=2, temperature=0))


@pytest.mark.parametrize("name", ["dare-linear", "dare-ties", "dare-linear:experts=top"])
def test_what_was_drawn_for_one_sentence_is_drawn_anew_for_another_that_changes_it(name):
    """All experts are merged alike whatever the sentence; the top K are not."""
    fitted = (RULES[name.partition(":")[0]].member("experts=top") if ":" in name else RULES[name]).restore(EXPERTS, {})
    other = replace(PRIOR, rows=(0, 3))
    first = fitted.generate(PRIOR, 2, 5, 1.0)
    expected = first.clone()
    first.zero_()  # what a caller does to its adapters is its own affair
    assert torch.equal(fitted.generate(PRIOR, 2, 5, 1.0), expected)
    assert torch.equal(fitted.generate(other, 2, 5, 1.0), expected) == (":" not in name)
    assert torch.equal(fitted.generate(PRIOR, 3, 5, 1.0)[:2], expected)


def test_dare_is_task_arithmetic_on_average():
    mean = generate("dare-linear:space=factors/weights=mean/scale=1", 4000).mean(dim=0)
    assert torch.allclose(mean, generate("model-soups")[0], atol=0.06)


def test_sampling_rules_say_that_they_sample():
    assert [name for name, merge in RULES.items() if merge.draws] == ["dare-linear", "dare-ties"]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ("density", UsageError, "ties: 'density' is no setting"),
        ("density=0.1/density=0.2", UsageError, "ties: 'density=0.2' is no setting"),
        ("density=half", UsageError, "ties: density must be a number, got 'half'"),
        ("density=2", UsageError, "ties: density must be at most 1, got 2.0"),
        ("densty=1", UnknownName, "no setting of ties named 'densty'"),
        ("convention=pefd", UnknownName, "no convention of a merging rule named 'pefd'"),
        ("weights=alpha", Mismatch, "weights=alpha requires experts=top, got 'all'"),
        ("ratio=angle/space=factors", Mismatch, "ratio=angle requires space=updates, got 'factors'"),
    ],
)
def test_a_wrong_setting_is_named(settings, error, message):
    with pytest.raises(error) as caught:
        RULES["ties"].member(settings)
    assert caught.value.message == message


def test_a_rule_with_settings_is_used_and_remembered(run, toy_pack, tmp_path):
    path = tmp_path / "m.safetensors"
    result = run("generate", "a mug", "-o", path, "--generator", "ties:density=0.5/convention=mergekit")
    assert result.exit_code == 0, result.output
    assert "made by    generator ties:density=0.5/convention=mergekit of pack toys\n" in run("inspect", path).stdout


def test_all_rules_are_measured_and_those_that_draw_several_times(run, toy_pack):
    out = run("bench", "--baselines", "all", "--as", "csv", "--samples", 3).stdout.splitlines()[1:]
    samples = {name: {line.split(",")[3] for line in out if line.split(",")[0] == name} for name in RULES}
    assert {name for name, numbers in samples.items() if numbers == {"0", "1", "2"}} == {"dare-linear", "dare-ties"}
    assert {name for name, numbers in samples.items() if numbers == {"0"}} == set(RULES) - {"dare-linear", "dare-ties"}


def test_a_rule_with_settings_is_measured(run, toy_pack):
    out = run("bench", "--baselines", "top-k,ties:density=0.5", "--as", "csv").stdout.splitlines()[1:]
    assert {line.split(",")[0] for line in out} == {"top-k", "ties:density=0.5", "chance"}
