"""Conformance checks of generators.

Shapes: S samples, P parameters of an adapter.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglora_cli.errors import SgloraError, Unavailable
from sglora_cli.files.tensors import load_tensors, save_tensors
from sglora_cli.plugin.contracts import Fitted, Generator, UsesDevice, UsesEvidence, adapter_layout
from sglora_cli.plugin.testing.toys import LAYOUT, ToyExperts, ask, material, run_all
from sglora_cli.plugin.values import Material


@dataclass(frozen=True)
class GeneratorTrial:
    """A generator under test, with toy experts and training tasks."""

    generator: Generator
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Its table in a recipe. Use it to keep a slow fit short."""
    experts: ToyExperts = field(default_factory=ToyExperts)

    @cached_property
    def material(self) -> Material:
        return material(self.experts)

    @cached_property
    def fitted(self) -> Fitted:
        return self.generator.fit(self.material, self.settings)[0]

    @property
    def asks_for_data(self) -> bool:
        """Whether it needs more than a prior. The checks then cannot generate adapters."""
        return self.generator.needs != ""

    def generate(self, samples: int = 3, seed: int = 5, temperature: float = 1.0, row: int = 7) -> Tensor:
        return self.fitted.generate(self.experts.prior(row), samples, seed, temperature)


def fit_gives_numbers_that_can_be_kept(trial: GeneratorTrial) -> None:
    """fit returns a fitted generator and measurements for JSON. Its tensors are finite and fit into safetensors."""
    fitted, facts = trial.generator.fit(trial.material, trial.settings)
    json.dumps(facts)
    for name, tensor in fitted.tensors().items():
        ask(isinstance(tensor, Tensor), f"tensors()[{name!r}] is not a tensor")
        ask(bool(torch.isfinite(tensor.float()).all()), f"tensors()[{name!r}] has numbers that are not finite")
    _kept(fitted)


def adapters_have_their_shape(trial: GeneratorTrial) -> None:
    """generate returns finite float32 adapters (samples, P) for any number of samples and any prior. P is the size of
    its own layout if it has one."""
    if trial.asks_for_data:
        return _refuses_without_data(trial)
    size = adapter_layout(trial.fitted, LAYOUT).size
    for samples, row in ((1, 0), (4, 5), (2, 9)):
        adapters_SP = trial.generate(samples, row=row)
        shape = tuple(adapters_SP.shape)
        ask(shape == (samples, size), f"generate must return shape {(samples, size)}, got {shape}")
        ask(adapters_SP.dtype == torch.float32, f"adapters must be float32, got {adapters_SP.dtype}")
        ask(bool(torch.isfinite(adapters_SP).all()), "adapters have numbers that are not finite")
    return None


def a_seed_says_everything(trial: GeneratorTrial) -> None:
    """The same seed gives the same adapters, independent of earlier calls. If samples differ, so do seeds."""
    if trial.asks_for_data:
        return
    first_SP = trial.generate()
    torch.rand(3)
    other_SP = trial.generate(seed=6)
    ask(
        torch.equal(first_SP, trial.generate()),
        "the same seed gives different adapters",
        "use a torch.Generator with this seed",
    )
    differ = not torch.equal(first_SP, other_SP)
    ask(differ or not trial.generator.draws, "every seed gives the same adapters", "set draws = False")


def temperature_zero_is_one_adapter(trial: GeneratorTrial) -> None:
    """At temperature 0, all samples of all seeds are the same."""
    if trial.asks_for_data:
        return
    adapters_SP = torch.cat([trial.generate(temperature=0.0), trial.generate(seed=6, temperature=0.0)])
    ask(torch.allclose(adapters_SP, adapters_SP[:1], atol=1e-6), "samples differ at temperature 0")


def a_device_changes_nothing(trial: GeneratorTrial) -> None:
    """Moving a generator to the CPU, where it already is, changes neither its adapters nor its tensor names."""
    if trial.asks_for_data or not isinstance(trial.fitted, UsesDevice):
        return
    moved = trial.fitted.on_device(torch.device("cpu"))
    adapters_SP = moved.generate(trial.experts.prior(7), 3, 5, 1.0)
    ask(torch.equal(adapters_SP, trial.generate()), "on_device changes the adapters")
    ask(moved.tensors().keys() == trial.fitted.tensors().keys(), "on_device changes the tensors to save")


def restored_is_the_same(trial: GeneratorTrial) -> None:
    """A generator restored from saved tensors gives the same adapters as after `fit`, up to float16 rounding."""
    tensors = _kept(trial.fitted) if trial.generator.learns else {"joint": trial.material.joint_P}  # as in a pack
    again = trial.generator.restore(trial.experts, tensors)
    if trial.asks_for_data:
        return
    prior = trial.experts.prior(7)
    gap_SP = again.generate(prior, 3, 5, 1.0) - trial.generate()
    ask(float(gap_SP.norm()) <= 1e-2 * float(trial.generate().norm()), "a restored generator gives different adapters")


def inputs_stay_as_they_are(trial: GeneratorTrial) -> None:
    """Neither fit nor generate changes its inputs or uses torch's global random generator."""
    fresh, state = ToyExperts(), torch.get_rng_state()
    trial.generator.fit(trial.material, trial.settings)
    if not trial.asks_for_data:
        prior = trial.experts.prior(7)
        trial.fitted.generate(prior, 2, 0, 1.0)
        ask(torch.equal(prior.mean_P, fresh.prior(7).mean_P), "generate changed the prior it was given")
    same = torch.equal(trial.experts.mean_EP, fresh.mean_EP) and all(
        torch.equal(trial.material.states(t), material(fresh).states(t)) for t in range(len(trial.material.tasks))
    )
    ask(same, "the experts' or the tasks' adapters were changed", "copy them before changing them")
    ask(torch.equal(state, torch.get_rng_state()), "torch's global random generator was used", "use a torch.Generator")


def damage_is_not_hidden(trial: GeneratorTrial) -> None:
    """Non-finite tensors either raise an sglora error or give non-finite adapters."""
    tensors = _kept(trial.fitted)
    if not tensors or trial.asks_for_data:
        return
    broken = {name: torch.full_like(t, torch.nan) if t.is_floating_point() else t for name, t in tensors.items()}
    try:
        adapters_SP = trial.generator.restore(trial.experts, broken).generate(trial.experts.prior(7), 1, 0, 1.0)
    except SgloraError:
        return
    ask(not bool(torch.isfinite(adapters_SP).all()), "a generator with only non-finite tensors gives finite adapters")


def unknown_settings_are_refused(trial: GeneratorTrial) -> None:
    """fit raises an sglora error for an unknown setting, so that a recipe with a typo is not built."""
    try:
        trial.generator.fit(trial.material, {**trial.settings, "no_such_setting": 1})
    except SgloraError:
        return
    ask(False, "fit accepts an unknown setting", "read settings with from_mapping(YourConfig, settings, ...)")


def _refuses_without_data(trial: GeneratorTrial) -> None:
    try:
        trial.generate()
    except Unavailable:
        ask(isinstance(trial.fitted, UsesEvidence), "the generator needs data but has no generate_with")
    else:
        ask(False, "the generator needs data, but generate works without it", 'raise Unavailable, or set needs = ""')


def _kept(fitted: Fitted) -> dict[str, Tensor]:
    """Return its tensors, written to a file and read back."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        save_tensors(path, fitted.tensors(), {})
        return {name: tensor.clone() for name, tensor in load_tensors(path)[0].items()}


GENERATOR_CHECKS: tuple[Callable[[GeneratorTrial], None], ...] = (
    fit_gives_numbers_that_can_be_kept,
    adapters_have_their_shape,
    a_seed_says_everything,
    temperature_zero_is_one_adapter,
    a_device_changes_nothing,
    restored_is_the_same,
    inputs_stay_as_they_are,
    damage_is_not_hidden,
    unknown_settings_are_refused,
)


def check_generator(generator: Generator, settings: Mapping[str, Any] | None = None) -> None:
    """Raise PluginError listing all faults. `settings` is its table in a recipe, to keep the fit short."""
    run_all(GENERATOR_CHECKS, GeneratorTrial(generator, settings or {}))
