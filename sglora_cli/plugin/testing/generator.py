"""The conformance checks of generators.

Shapes: S samples, P numbers of an adapter.
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
    """A generator, and what it makes of toy experts and training tasks."""

    generator: Generator
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Its table in a recipe: what keeps a slow one short."""
    experts: ToyExperts = field(default_factory=ToyExperts)

    @cached_property
    def material(self) -> Material:
        return material(self.experts)

    @cached_property
    def fitted(self) -> Fitted:
        return self.generator.fit(self.material, self.settings)[0]

    @property
    def asks_for_data(self) -> bool:
        """Whether it needs more than a prior: then the kit cannot ask it for adapters."""
        return self.generator.needs != ""

    def generate(self, samples: int = 3, seed: int = 5, temperature: float = 1.0, row: int = 7) -> Tensor:
        return self.fitted.generate(self.experts.prior(row), samples, seed, temperature)


def fit_gives_numbers_that_can_be_kept(trial: GeneratorTrial) -> None:
    """fit returns a fitted generator and measurements for JSON; its tensors are finite and safetensors keeps them."""
    fitted, facts = trial.generator.fit(trial.material, trial.settings)
    json.dumps(facts)
    for name, tensor in fitted.tensors().items():
        ask(isinstance(tensor, Tensor), f"tensors()[{name!r}] is no tensor")
        ask(bool(torch.isfinite(tensor.float()).all()), f"tensors()[{name!r}] has numbers that are not finite")
    _kept(fitted)


def adapters_have_their_shape(trial: GeneratorTrial) -> None:
    """generate gives float32 (samples, P), all finite, for any number of samples and any prior. P is that of its own
    layout, where it has one."""
    if trial.asks_for_data:
        return _refuses_without_data(trial)
    size = adapter_layout(trial.fitted, LAYOUT).size
    for samples, row in ((1, 0), (4, 5), (2, 9)):
        adapters_SP = trial.generate(samples, row=row)
        shape = tuple(adapters_SP.shape)
        ask(shape == (samples, size), f"{samples} samples have shape {shape}, not {(samples, size)}")
        ask(adapters_SP.dtype == torch.float32, f"adapters must be float32, got {adapters_SP.dtype}")
        ask(bool(torch.isfinite(adapters_SP).all()), "adapters have numbers that are not finite")
    return None


def a_seed_says_everything(trial: GeneratorTrial) -> None:
    """The same seed gives the same adapters whatever was asked before; another one differs where samples do."""
    if trial.asks_for_data:
        return
    first_SP = trial.generate()
    torch.rand(3)
    other_SP = trial.generate(seed=6)
    ask(torch.equal(first_SP, trial.generate()), "the same seed gives other adapters", "take a torch.Generator of it")
    differ = not torch.equal(first_SP, other_SP)
    ask(differ or not trial.generator.draws, "every seed gives the same adapters", "say draws = False")


def temperature_zero_is_one_adapter(trial: GeneratorTrial) -> None:
    """At temperature 0 all samples of all seeds are the same."""
    if trial.asks_for_data:
        return
    adapters_SP = torch.cat([trial.generate(temperature=0.0), trial.generate(seed=6, temperature=0.0)])
    ask(torch.allclose(adapters_SP, adapters_SP[:1], atol=1e-6), "at temperature 0 samples differ")


def a_device_changes_nothing(trial: GeneratorTrial) -> None:
    """A generator that moves to the CPU, where it is, gives the adapters that it gave, and can still be kept."""
    if trial.asks_for_data or not isinstance(trial.fitted, UsesDevice):
        return
    moved = trial.fitted.on_device(torch.device("cpu"))
    adapters_SP = moved.generate(trial.experts.prior(7), 3, 5, 1.0)
    ask(torch.equal(adapters_SP, trial.generate()), "on_device gives other adapters")
    ask(moved.tensors().keys() == trial.fitted.tensors().keys(), "on_device gives other tensors to keep")


def restored_is_the_same(trial: GeneratorTrial) -> None:
    """What `restore` makes of the tensors read back from a file gives the adapters that `fit` gave, up to float16."""
    tensors = _kept(trial.fitted) if trial.generator.learns else {"joint": trial.material.joint_P}  # as a pack does
    again = trial.generator.restore(trial.experts, tensors)
    if trial.asks_for_data:
        return
    prior = trial.experts.prior(7)
    gap_SP = again.generate(prior, 3, 5, 1.0) - trial.generate()
    ask(float(gap_SP.norm()) <= 1e-2 * float(trial.generate().norm()), "a restored generator gives other adapters")


def inputs_stay_as_they_are(trial: GeneratorTrial) -> None:
    """Neither fit nor generate changes what it is given, nor torch's own random numbers."""
    fresh, state = ToyExperts(), torch.get_rng_state()
    trial.generator.fit(trial.material, trial.settings)
    if not trial.asks_for_data:
        prior = trial.experts.prior(7)
        trial.fitted.generate(prior, 2, 0, 1.0)
        ask(torch.equal(prior.mean_P, fresh.prior(7).mean_P), "generate changed the prior it was given")
    same = torch.equal(trial.experts.mean_EP, fresh.mean_EP) and all(
        torch.equal(trial.material.states(t), material(fresh).states(t)) for t in range(len(trial.material.tasks))
    )
    ask(same, "the experts' or the tasks' adapters were changed", "copy before you change")
    ask(torch.equal(state, torch.get_rng_state()), "torch's random numbers were used", "take a torch.Generator")


def damage_is_not_hidden(trial: GeneratorTrial) -> None:
    """Tensors that are not finite are refused with an error of sglora, or are to be seen in the adapters."""
    tensors = _kept(trial.fitted)
    if not tensors or trial.asks_for_data:
        return
    broken = {name: torch.full_like(t, torch.nan) if t.is_floating_point() else t for name, t in tensors.items()}
    try:
        adapters_SP = trial.generator.restore(trial.experts, broken).generate(trial.experts.prior(7), 1, 0, 1.0)
    except SgloraError:
        return
    ask(not bool(torch.isfinite(adapters_SP).all()), "a generator without a finite number gives adapters")


def unknown_settings_are_refused(trial: GeneratorTrial) -> None:
    """fit raises an error of sglora for a setting there is none of: a recipe with a slip must not be built."""
    try:
        trial.generator.fit(trial.material, {**trial.settings, "no_such_setting": 1})
    except SgloraError:
        return
    ask(False, "fit takes a setting there is none of", "read them with from_mapping(YourConfig, settings, ...)")


def _refuses_without_data(trial: GeneratorTrial) -> None:
    try:
        trial.generate()
    except Unavailable:
        ask(isinstance(trial.fitted, UsesEvidence), "it says that it needs data, and has no generate_with")
    else:
        ask(False, "it says that it needs data, and generate works without", 'raise Unavailable, or say needs = ""')


def _kept(fitted: Fitted) -> dict[str, Tensor]:
    """Its tensors, written to a file and read back."""
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
    """Raises PluginError with everything that is wrong; `settings` is its table of a recipe, to keep it short."""
    run_all(GENERATOR_CHECKS, GeneratorTrial(generator, settings or {}))
