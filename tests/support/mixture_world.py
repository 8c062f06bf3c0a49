"""A world in which a task's best update is a known mixture of experts, to learn from in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import torch
import torch.nn.functional as F

from sglora_cli.api import Layout, Site
from sglora_cli.lora.prior import cosines, prior
from sglora_cli.plugin.testing.toys import ToyExperts, material

SITES = tuple(Site(f"blocks.{n}.q", out, into) for n, (out, into) in enumerate([(6, 7), (5, 7), (7, 4), (6, 7)]))


def dense(layout, flat_P):
    """Site -> update, in float64."""
    return [layout.scaling * b.double() @ a.double() for b, a in layout.split(flat_P).values()]


def flattened(layout, flat_P):
    return torch.cat([update.flatten() for update in dense(layout, flat_P)])


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class World:
    """Experts, and seen and unseen tasks whose best update is a known mixture of the experts' updates.

    `truth(prior)` gives the coefficients (S, E). The loss of a task is the squared distance to its best update.
    """

    layout, sites, moments = Layout(SITES, 2, 4.0), SITES, None
    k, tau, experts, seen, unseen, width = 3, 0.3, 6, 80, 20, 10

    def __init__(self, truth):
        count = self.experts + self.seen + self.unseen
        embedding_TD = F.normalize(randn(count, self.width, seed=1) + 1.0, dim=1)  # part of it is common to all
        self.index_ED, self.unit_TD = embedding_TD[: self.experts], embedding_TD[self.experts :]
        self.mean_EP = marked(self.layout, randn(self.experts, self.layout.size, seed=2) / 2)
        self.rows = list(range(self.seen))
        self.names, self.roles = [f"world/{row}" for row in self.rows], ["training"] * len(self.rows)
        self.sentences_TD = self.unit_TD[self.rows]
        updates = [dense(self.layout, mean_P) for mean_P in self.mean_EP]
        coefficients = [truth(self, self.asked(row)) for row in range(self.seen + self.unseen)]
        self.best = [  # site -> the best update of each task, (T, O, I)
            torch.stack([sum(float(c_SE[s, e]) * updates[e][s] for e in range(self.experts)) for c_SE in coefficients])
            for s in range(len(SITES))
        ]

    def means(self, rows=None):
        return self.mean_EP if rows is None else self.mean_EP[list(rows)]

    def variances(self, rows=None):
        return torch.ones_like(self.means(rows))

    def asked(self, row):
        d_D = self.unit_TD[row]
        return prior(d_D, cosines(d_D, self.index_ED, self.k), self, self.k, self.tau)

    def prior(self, task):
        return self.asked(self.rows[task])

    def without(self, names):
        assert not set(names) & set(self.names)  # its experts are no tasks
        return self

    def losses(self, layout, adapters_TP, tasks: Sequence[int], photos, rng):
        loss_T = torch.zeros(len(tasks))
        for best_TOI, (b_TOR, a_TRI) in zip(self.best, layout.split(adapters_TP).values(), strict=True):
            away_TOI = layout.scaling * b_TOR @ a_TRI - best_TOI[list(tasks)].float()
            loss_T = loss_T + away_TOI.square().sum(dim=(1, 2))
        return loss_T

    def material(self):
        experts = SimpleNamespace(
            names=[f"world/expert {e}" for e in range(self.experts)],
            layout=self.layout,
            moments=None,
            means=self.means,
            variances=self.variances,
        )
        return replace(material(ToyExperts()), experts=experts, pool=self)

    def errors(self, fitted):
        """Method -> relative distance to the best update, on the average of unseen tasks."""
        found: dict[str, float] = {}
        for row in range(self.seen, self.seen + self.unseen):
            asked, best = self.asked(row), torch.cat([best_TOI[row].flatten() for best_TOI in self.best])
            updates = [flattened(self.layout, mean_P) for mean_P in self.mean_EP]
            (made_Q,) = fitted.generate(asked, 1, 0, 1.0)
            made = {
                "learned": flattened(fitted.own_layout, made_Q),
                "mu*": flattened(self.layout, asked.mean_P),
                "top-k": sum(float(a) * updates[e] for a, e in zip(asked.alpha_K, asked.rows, strict=True)),
                "mean": sum(updates) / len(updates),
                "nearest": updates[asked.rows[0]],
            }
            for name, update in made.items():
                error = float((update - best).norm() / best.norm())
                found[name] = found.get(name, 0.0) + error / self.unseen
        return found


def marked(layout, mean_EP):
    """Every second expert has a large part in its updates that tells it apart."""
    ways_P = randn(layout.size, seed=3)
    sign_E = torch.tensor([1.0 if e % 2 else -1.0 for e in range(len(mean_EP))])
    return torch.where(layout.b_mask(), mean_EP + sign_E[:, None] * ways_P / 2, mean_EP + ways_P / 2)


def by_sentence(world, asked):
    """Even sites choose by one linear map of the sentence, odd sites by another."""
    x_D = (asked.embedding_D - world.unit_TD.mean(dim=0)) / world.unit_TD.std()
    maps = randn(2, world.experts, world.width, seed=4)
    return torch.stack([(maps[s % 2] @ x_D).softmax(dim=0) for s in range(len(SITES))])


def by_experts(world, asked):
    """Even sites take the unmarked of the K experts only, and more of them; odd sites the nearest one alone."""
    coefficient_SE = torch.zeros(len(SITES), world.experts)
    for s in range(len(SITES)):
        for place, (alpha, e) in enumerate(zip(asked.alpha_K.tolist(), asked.rows, strict=True)):
            coefficient_SE[s, e] = (place == 0) * 1.2 if s % 2 else (e % 2 == 0) * 1.5 * alpha
    return coefficient_SE
