"""The conformance checks of generators: built-ins pass, and faults are found."""

from __future__ import annotations

import pytest
import torch

from sglora_calibrated import sglora_generators as calibrated
from sglora_cli.errors import Mismatch, Unavailable
from sglora_cli.testing import GENERATOR_CHECKS, GeneratorTrial, check_generator, run_check
from sglora_common_own import sglora_generators as common_own
from sglora_cvae import sglora_generators as cvae
from sglora_flow import sglora_generators as flows
from sglora_hypernet import sglora_generators as hypernets
from sglora_kde import sglora_generators as kde
from sglora_merge import sglora_generators as merged
from sglora_mixtures import sglora_generators as mixed

QUICK = {
    **{one.name: {"hidden": 8, "latent": 3, "epochs": 200, "learning_rate": 0.01} for one in cvae()},
    **{one.name: {"width": 16, "blocks": 1, "epochs": 30, "steps": 10} for one in flows()},
    **{one.name: {"steps": 20, "tasks": 4, "photos": 4} for one in mixed()},
    **{one.name: {"steps": 20} for one in (*hypernets(), *common_own())},
}
LEARNED = (*cvae(), *flows(), *kde(), *hypernets(), *common_own(), *mixed(), *calibrated())
GENERATORS = {one.name: one for one in (*LEARNED, *merged())}


@pytest.mark.parametrize("name", GENERATORS)
def test_built_in_generators_pass(name):
    if name == "lorahub":
        pytest.importorskip("cma")
    check_generator(GENERATORS[name], QUICK.get(name, {}))


class Simple:
    """A generator that passes: the mean of the prior, and noise."""

    name = summary = label = "simple"
    learns, draws, needs, config = False, True, "", None

    def fit(self, material, settings):
        if settings:
            raise Mismatch("no settings")
        return self.restore(material.experts, {}), {}

    def restore(self, experts, tensors):
        return self

    def tensors(self):
        return {}

    def generate(self, prior, samples, seed, temperature):
        rng = torch.Generator().manual_seed(seed)
        return prior.mean_P + temperature * torch.randn(samples, len(prior.mean_P), generator=rng)


class Learned(Simple):
    learns = True

    def tensors(self):
        return {"weight": torch.ones(3)}


class Global(Simple):
    def generate(self, prior, samples, seed, temperature):
        torch.manual_seed(seed)
        return prior.mean_P + temperature * torch.randn(samples, len(prior.mean_P))


class Careless(Simple):
    def fit(self, material, settings):
        return self, {}


class Hot(Simple):
    def generate(self, prior, samples, seed, temperature):
        return super().generate(prior, samples, seed, 1.0)


class Forgetful(Simple):
    def restore(self, experts, tensors):
        return Hot() if tensors else self  # the host hands it the joint adapter, fit does not

    def generate(self, prior, samples, seed, temperature):
        return super().generate(prior, samples, seed, 0.0)


class Grabby(Simple):
    def generate(self, prior, samples, seed, temperature):
        prior.mean_P.mul_(2)
        return super().generate(prior, samples, seed, temperature)


class Flat(Simple):
    def generate(self, prior, samples, seed, temperature):
        return super().generate(prior, samples, seed, temperature)[0]


class Stuck(Simple):
    def generate(self, prior, samples, seed, temperature):
        return super().generate(prior, samples, 0, temperature)


class Drifting(Simple):
    def on_device(self, device):
        return Stuck()


class Needy(Simple):
    needs = "shots"


class Silent(Needy):
    def generate(self, prior, samples, seed, temperature):
        raise Unavailable("it needs training pairs")


@pytest.mark.parametrize(
    ("broken", "check", "message"),
    [
        (Global, "inputs_stay_as_they_are", "torch's global random generator was used"),
        (Careless, "unknown_settings_are_refused", "fit accepts an unknown setting"),
        (Hot, "temperature_zero_is_one_adapter", "samples differ at temperature 0"),
        (Forgetful, "restored_is_the_same", "a restored generator gives different adapters"),
        (Grabby, "inputs_stay_as_they_are", "generate changed the prior it was given"),
        (Flat, "adapters_have_their_shape", "generate must return shape (1, 66), got (66,)"),
        (Stuck, "a_seed_says_everything", "every seed gives the same adapters"),
        (Drifting, "a_device_changes_nothing", "on_device changes the adapters"),
        (Learned, "damage_is_not_hidden", "a generator with only non-finite tensors gives finite adapters"),
        (Needy, "adapters_have_their_shape", "the generator needs data, but generate works without it"),
        (Silent, "adapters_have_their_shape", "the generator needs data but has no generate_with"),
    ],
)
def test_a_broken_generator_is_found(broken, check, message):
    answers = {c.__name__: run_check(c, GeneratorTrial(broken())) for c in GENERATOR_CHECKS}
    assert answers[check] == message
    check_generator(Simple())
