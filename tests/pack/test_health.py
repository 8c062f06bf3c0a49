"""Whether a generator does anything: measured against dense updates, and refused where it does not."""

from __future__ import annotations

import json
import math
from dataclasses import astuple

import pytest
import torch
from random_factors import dense_update

from sglora_cli.files.tensors import load_tensors, save_tensors
from sglora_cli.generate.session import Session
from sglora_cli.lora.layout import Layout, Site
from sglora_cli.pack.health import Health, faults, measure, notes

GOOD = Health(size=1.0, gap=0.1, spread=0.1, draws=0.1)


class Made:
    """A generator whose output is a function of (prior, draw)."""

    def __init__(self, function) -> None:
        self.function = function

    def generate(self, prior, samples, seed, temperature):
        rng = torch.Generator().manual_seed(seed)
        noise = torch.randn(samples, len(prior.mean_P), generator=rng)
        return self.function(prior.mean_P, temperature * noise)


def test_the_measures_are_those_of_dense_updates(toy_pack):
    pack = Session.open().pack
    fitted = Made(lambda mean_P, noise: 0.5 * mean_P + 0.01 * noise)
    health = measure(pack, fitted)
    priors = [pack.prior(pack.expert_query(row)) for row in range(len(pack.experts.names))]
    mean = [dense_update(pack.layout, 0.5 * prior.mean_P) for prior in priors]
    star = [dense_update(pack.layout, prior.mean_P) for prior in priors]
    expert = [dense_update(pack.layout, x) for x in pack.experts.means()]
    draw = [dense_update(pack.layout, fitted.generate(p, 1, row, 1.0)[0]) for row, p in enumerate(priors)]

    def norm(rows):
        return sum(float(x.norm()) for x in rows) / len(rows)

    def apart(pairs):
        return norm([x - y for x, y in pairs])

    assert health.size == pytest.approx(norm(mean) / norm(expert), rel=1e-4)
    assert health.gap == pytest.approx(apart(zip(mean, star, strict=True)) / norm(star), rel=1e-4)
    assert health.draws == pytest.approx(apart(zip(mean, draw, strict=True)) / norm(mean), rel=1e-3)
    pairs = [(x, y) for i, x in enumerate(mean) for y in mean[i + 1 :]]
    assert health.spread == pytest.approx(apart(pairs) / norm(mean), rel=1e-4)


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        (lambda mean, noise: mean * math.nan + noise, "its output is not finite"),
        (
            lambda mean, noise: 0.01 * mean + 0 * noise,
            "its updates have 0.0% of the experts' norm, which has no effect",
        ),
        (lambda mean, noise: torch.ones_like(noise), "it generates the same adapter for every sentence and every draw"),
    ],
)
def test_a_generator_that_does_nothing_has_a_fault(toy_pack, function, fault):
    pack = Session.open().pack
    assert faults(measure(pack, Made(function)), {}) == [fault]


@pytest.mark.parametrize(
    "function",
    [lambda mean, noise: mean + 0 * noise, lambda mean, noise: torch.ones_like(noise) + 0.1 * noise],
    ids=["a mean without draws", "draws without a mean"],
)
def test_one_of_both_is_enough(toy_pack, function):
    assert faults(measure(Session.open().pack, Made(function)), {}) == []


def test_an_error_as_large_as_the_spread_is_a_fault():
    measures = {"error_per_number": 1.5, "spread_per_number": 1.09}
    assert faults(GOOD, measures) == ["it does not explain its training data (error 1.5 per parameter, spread 1.09)"]
    assert faults(GOOD, {**measures, "error_per_number": 1.0}) == []
    assert len(faults(GOOD, {**measures, "error_per_number": math.nan})) == 1
    assert faults(GOOD, {"error_per_number": "high", "spread_per_number": []}) == []


def test_a_loss_as_large_as_a_constants_is_a_fault():
    assert faults(GOOD, {"loss": 0.9, "loss_of_constant": 1.0}) == []
    assert faults(GOOD, {"loss": 1.0, "loss_of_constant": 1.0}) == ["it learned nothing (loss 1, a constant has 1)"]
    (fault,) = faults(GOOD, {"loss": math.nan, "loss_of_constant": 1.0})
    assert fault.endswith("(loss nan, a constant has 1) because training diverged (lower `learning_rate`)")


def test_a_training_on_one_task_is_a_fault():
    assert faults(GOOD, {"trained_on": {"tasks": 1, "states": 20}}) == [
        "it was trained on 1 training task (list more in the recipe's `training`)"
    ]
    assert faults(GOOD, {"trained_on": {"tasks": 2, "states": 1}}) == []
    assert faults(GOOD, {"trained_on": {"tasks": 1}}) == []  # it chose on tasks, and learned from no state
    assert faults(GOOD, {"trained_on": "all"}) == []


def test_a_projection_that_drops_most_of_the_norm_is_a_fault():
    assert faults(GOOD, {"projection": {"numbers": 8, "kept_share": 0.31}}) == [
        "its projection keeps 31.0% of the adapters' squared norm (raise `projection` above 8, or `energy`)"
    ]
    assert faults(GOOD, {"projection": {"numbers": 8, "kept_share": 0.9}}) == []


@pytest.mark.parametrize(
    ("training", "fault"),
    [
        ({"loss_at_start": 2.0, "loss": 2.5}, "it learned nothing (loss 2.5, before training 2)"),
        ({"dropped": 0.8, "rank": 2}, "at rank 2 its updates lose 80% of their norm (raise `rank`)"),
    ],
)
def test_training_that_led_nowhere_is_a_fault_with_the_knob_to_turn(training, fault):
    assert faults(GOOD, training) == [fault]
    assert faults(GOOD, {"loss_at_start": 2.0, "loss": 1.5, "dropped": 0.1, "rank": 2}) == []


def test_a_generator_with_a_layout_of_its_own_is_measured_by_its_updates(toy_pack):
    pack = Session.open().pack
    plain = Made(lambda mean_P, noise: mean_P + 0.01 * noise)
    wider = Layout(pack.layout.sites, pack.layout.rank + 1, 7.0)

    class Wider:
        """The same updates, in factors of a higher rank and another scaling."""

        own_layout = wider

        def generate(self, *args):
            flat_SP = plain.generate(*args)
            parts = {}
            for name, (b, a) in pack.layout.split(flat_SP).items():
                b = b * pack.layout.scaling / wider.scaling
                parts[name] = torch.nn.functional.pad(b, (0, 1)), torch.nn.functional.pad(a, (0, 0, 0, 1))
            return wider.join(parts)

    for value, expected in zip(astuple(measure(pack, Wider())), astuple(measure(pack, plain)), strict=True):
        assert value == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_a_generator_of_other_sites_is_compared_with_no_expert(toy_pack):
    pack, head = Session.open().pack, Layout((Site("head", 3, 4),), 2, 2.0)

    class Elsewhere:
        own_layout = head

        def generate(self, prior, samples, seed, temperature):
            return head.initial(0) + prior.embedding_D[0] * torch.ones(samples, head.size)

    health = measure(pack, Elsewhere())
    assert (health.size, health.gap, health.draws) == (None, None, 0.0)
    assert health.spread > 0
    assert faults(health, {}) == []


def test_an_unused_latent_is_noted_and_no_fault():
    assert faults(GOOD, {"kl": 0.02}) == []
    assert notes(GOOD, {"kl": 0.02})[0].startswith("its latent carries almost no information (KL 0.02 nats)")
    assert notes(GOOD, {"kl": 2.0}) == []


def collapsed(own_home) -> None:
    """The toy pack's CVAE with a decoder of zeros: every output is its centre."""
    path = own_home / "cache/packs/toys/generators/cvae.safetensors"
    tensors, metadata = load_tensors(path)
    zeros = {k: torch.zeros_like(v) if "decoder" in k else v for k, v in tensors.items()}
    save_tensors(path, zeros, metadata)


def test_a_collapsed_generator_is_refused_unless_forced(run, toy_pack, own_home, tmp_path):
    collapsed(own_home)
    path = tmp_path / "m.safetensors"
    result = run("generate", "a mug", "-o", path)
    assert result.exit_code == 4
    assert result.stderr == (
        "error: generator 'cvae' of pack 'toys' looks untrained: "
        "it generates the same adapter for every sentence and every draw\n"
        "hint: build the pack again with more epochs or tasks, or pass --force to use it anyway\n"
    )
    assert not path.exists()
    assert run("generate", "a mug", "-o", path, "--force").exit_code == 0
    assert run("generate", "a mug", "--generator", "top-k").exit_code == 0


def test_show_and_inspect_say_how_healthy_generators_are(run, toy_pack, own_home):
    for command in (["inspect", "toys"], ["pack", "show", "toys"]):
        assert "health     cvae: on the experts' own sentences, relative to norms: size " in run(*command).stdout
    collapsed(own_home)
    assert (
        "fault      cvae: it generates the same adapter for every sentence and every draw; "
        "`generate` requires --force\n"
    ) in run("inspect", "toys").stdout
    assert json.loads(run("pack", "show", "--json").stdout)["health"]["cvae"]["faults"] != []


def test_a_generator_nobody_knows_does_not_hide_the_pack(run, toy_pack, own_home):
    manifest = own_home / "cache/packs/toys/pack.json"
    manifest.write_text(manifest.read_text().replace('"cvae": {', '"cvea": {'))
    result = run("pack", "show", "toys")
    assert result.exit_code == 0
    assert "fault      cvea: no generator named 'cvea'" in result.stdout
