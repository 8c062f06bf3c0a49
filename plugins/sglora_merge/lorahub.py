"""LoraHub: search weights of the experts with a few training pairs, without gradients.

Shapes: E experts, S candidates or samples, N images, C captions or classes, D embedding, P parameters of an adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy
import torch
from torch import Tensor

from sglora_cli.api import (
    Evidence,
    Experts,
    Mismatch,
    Model,
    Prior,
    TaskTensors,
    Unavailable,
    classification_loss,
    contrastive_loss,
    mix,
)

from .rule import HubRule

Objective = Callable[[Tensor], Tensor]
"""(S, E) weights -> (S,) objective to minimise."""


@dataclass(frozen=True)
class FewShots:
    """LoraHub over the experts of one pack."""

    rule: HubRule
    experts: Experts

    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        raise Unavailable(
            "'lorahub' needs training pairs of the task and cannot use a sentence alone",
            "measure it with `sglora bench --baselines lorahub --data DIR`",
        )

    def generate_with(self, prior: Prior, evidence: Evidence, samples: int, seed: int, temperature: float) -> Tensor:
        """Generate (S, P). Samples differ in the random shots and the search. The sentence is not used."""
        if evidence.shots is None:
            raise Mismatch("lorahub needs training pairs, got none")
        means_EP, adapters = self.experts.means(), []
        for sample in range(samples):
            rng = torch.Generator().manual_seed(1000 * (self.rule.seed + seed) + sample)
            shots = drawn(evidence.shots, self.rule.shots, rng)
            goal = objective(evidence.model, self.experts, shots, self.rule.l1)
            number = int(torch.randint(1, 2**31, (), generator=rng))
            adapters.append(mix(search(goal, len(means_EP), self.rule, number), means_EP))
        return torch.stack(adapters)

    def tensors(self) -> dict[str, Tensor]:
        return {}


def drawn(task: TaskTensors, count: int, rng: torch.Generator) -> TaskTensors:
    """Sample a few photos, with one random caption each. For a classification task, all heads stay."""
    chosen = torch.randperm(len(task.stem_N), generator=rng)[:count].tolist()
    stem_N = task.stem_N[chosen]
    if task.label_of:
        return replace(task, stem_N=stem_N, label_of=tuple(task.label_of[n] for n in chosen))
    captions = [[c for c, image in enumerate(task.image_of) if image == n] for n in chosen]
    one = [own[int(torch.randint(len(own), (), generator=rng))] for own in captions]
    return replace(task, stem_N=stem_N, text_CD=task.text_CD[one], image_of=tuple(range(len(one))))


def objective(model: Model, experts: Experts, shots: TaskTensors, l1: float) -> Objective:
    """Return the objective: the training loss of adapters on the shots plus l1 times the sum of |w|."""
    means_EP, text_CD = experts.means(), shots.text_CD.float()
    stem_N, every_N = shots.stem_N, torch.ones(1, len(shots.stem_N), dtype=torch.bool)

    def loss(image_SND: Tensor) -> Tensor:
        count = len(image_SND)
        real_SN = every_N.expand(count, -1)
        text_SCD = text_CD.expand(count, -1, -1)
        if not shots.label_of:
            return contrastive_loss(image_SND, text_SCD, real_SN, model.scale)
        real_SC = torch.ones(count, len(text_CD), dtype=torch.bool)
        own_SND = text_SCD[:, list(shots.label_of)]
        return classification_loss(image_SND, own_SND, real_SN, text_SCD, real_SC, model.scale)

    @torch.no_grad()
    def goal(weights_SE: Tensor) -> Tensor:
        adapters_SP = mix(weights_SE, means_EP)
        image_SND = model.encode_image(stem_N, experts.layout, adapters_SP).float().cpu()
        return loss(image_SND) + l1 * weights_SE.abs().sum(dim=1)

    return goal


def search(goal: Objective, size: int, rule: HubRule, seed: int) -> Tensor:
    """Return the best weights (E,) found by CMA-ES (Hansen & Ostermeier 2001). Zero weights are also considered."""
    import cma

    def values(weights_SE: Tensor) -> list[float]:
        losses_S = goal(weights_SE.float()).double()
        return torch.where(losses_S.isfinite(), losses_S, torch.inf).tolist()

    best_E, least = torch.zeros(size), values(torch.zeros(1, size))[0]
    options = {"bounds": [-rule.bound, rule.bound], "seed": seed, "verbose": -9, "verb_log": 0}
    with _own_rng():
        strategy = cma.CMAEvolutionStrategy([0.0] * size, rule.spread, options)
        for _ in range(rule.steps):
            if strategy.stop():
                break
            asked = strategy.ask()
            weights_SE = torch.tensor(numpy.stack(asked))
            losses = values(weights_SE)
            strategy.tell(asked, losses)
            if min(losses) < least:
                least = min(losses)
                best_E = weights_SE[losses.index(least)].float()
    return best_E


@contextmanager
def _own_rng() -> Iterator[None]:
    """Restore numpy's global random state, because cma seeds it."""
    state = numpy.random.get_state()
    try:
        yield
    finally:
        numpy.random.set_state(state)
