"""What any generator could reach that mixes adapters: `python tests/benchmarks/upper_bounds.py --data DIR`.

On the recipe's *training* tasks, each left out in turn, and once more with their train and test photos exchanged;
adapters from the user cache, or trained there. A point of a span is the shared start plus directions times
coefficients. "found" points use what no generator has: the left-out task's training photos (as the Oracle does), or
even its test photos. Projections of the Oracle say how much of what it learned lies in the span. "ridge" is no bound
but the simplest predictor: text embedding -> what a task adds, fitted on the other tasks, lambda by leave-one-out.
Shapes: T tasks, K directions, P numbers, N photos, D embedding.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from leave_tasks_out import Experts, interval, planned, scores, show
from torch import Tensor

from sglora_cli.build.losses import contrastive_loss
from sglora_cli.build.pipeline import build_tasks, compute_features
from sglora_cli.build.steps import Steps
from sglora_cli.config import RuntimeConfig
from sglora_cli.data.features import task_tensors
from sglora_cli.lora.layout import Layout
from sglora_cli.lora.prior import prior
from sglora_cli.pack.recipe import Recipe
from sglora_cli.pack.recipe_parser import read
from sglora_cli.plugin.contracts import Model
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import TaskTensors
from sglora_cli.system.progress import Journal, be_quiet

STEPS, RATE, MIX_RATE = 20, 0.03, 0.3
"""Steps of Adam for coefficients, each on all photos with one caption of each; their learning rates."""
ON_TEST = "found on its test photos: span of all others"
LAMBDAS = [10.0**n for n in range(-3, 4)]


def found(model: Model, layout: Layout, task: TaskTensors, start_P: Tensor, way_KP: Tensor, convex: bool) -> Tensor:
    """(P,) the point with the least loss on a task's photos: mean of the last half of the steps, as the Oracle's is."""
    w_K = torch.zeros(len(way_KP), requires_grad=True)
    adam = torch.optim.Adam([w_K], lr=MIX_RATE if convex else RATE)
    dice, owner = torch.Generator().manual_seed(0), torch.tensor(task.image_of)
    real_1N, total_K = torch.ones(1, len(task.stem_N), dtype=torch.bool), torch.zeros(len(way_KP))
    for step in range(STEPS):
        mixed_K = w_K.softmax(0) if convex else w_K
        image_1ND = model.encode_image(task.stem_N[None].float(), layout, (start_P + mixed_K @ way_KP)[None])
        shuffled = torch.randperm(len(owner), generator=dice)
        first = [int(shuffled[owner[shuffled] == i][0]) for i in range(len(task.stem_N))]
        loss = contrastive_loss(image_1ND, task.text_CD[first][None].float(), real_1N, model.scale).sum()
        (w_K.grad,) = torch.autograd.grad(loss, w_K)
        adam.step()
        if step >= STEPS // 2:
            total_K += (w_K.softmax(0) if convex else w_K).detach()
    return start_P + total_K / (STEPS - STEPS // 2) @ way_KP


def projected(x_P: Tensor, way_KP: Tensor) -> Tensor:
    """The nearest point of the span of the directions."""
    basis_PK = torch.linalg.qr(way_KP.T).Q
    return basis_PK @ (basis_PK.T @ x_P)


def ridge(text_TD: Tensor, own_TP: Tensor, asked_D: Tensor) -> Tensor:
    """(P,) what the tasks say a sentence adds; the lambda errs least on each task left out."""
    text_mean_D, own_mean_P = text_TD.mean(0), own_TP.mean(0)
    x_TD, y_TP = (text_TD - text_mean_D).double(), (own_TP - own_mean_P).double()
    kernel_TT, eye_TT = x_TD @ x_TD.T, torch.eye(len(x_TD), dtype=torch.float64)

    def error(ridge: float) -> float:
        inverse_TT = torch.linalg.inv(kernel_TT + ridge * eye_TT)
        left_T1 = (ridge * inverse_TT.diagonal() - 1 / len(x_TD))[:, None]  # the mean is fitted, too
        return float((ridge * inverse_TT @ y_TP / left_T1).square().sum())

    best = min(LAMBDAS, key=error)
    weight_T = torch.linalg.solve(kernel_TT + best * eye_TT, x_TD @ (asked_D - text_mean_D).double())
    return own_mean_P + (weight_T @ y_TP).float()


def points(
    model: Model, layout: Layout, recipe: Recipe, tasks, trains: list[TaskTensors], tests: list[TaskTensors]
) -> dict[str, list[Tensor]]:
    """Row of the table -> every training task's adapter (1, P); prints what is no recall."""
    steps = Steps(model, layout, tasks, replace(recipe.train, joint_epochs=1))  # nobody asks for the joint adapter
    steps.train(lambda passes, part: None, Journal(None))
    chosen = [task for task in tasks if task.role == "training"]
    experts, start_P = Experts(steps), steps.start_P
    text_ED, text_TD = (model.encode_text([t.task.description for t in some]) for some in (steps.experts, chosen))
    expert_EP = experts.mean_EP - start_P
    own_TP = torch.stack([steps.moments(task)[0] for task in chosen]) - start_P
    typical, shares, table = float(expert_EP.norm(dim=1).mean()), [], {}

    def put(name: str, add_P: Tensor) -> None:
        table.setdefault(name, []).append((start_P + add_P)[None])

    for t, (train, test) in enumerate(zip(trains, tests, strict=True)):
        rest = [u for u in range(len(chosen)) if u != t]
        other_KP = torch.cat([expert_EP, own_TP[rest]])
        own_P, top_P = own_TP[t], prior(text_TD[t], text_ED, experts, recipe.prior.k, recipe.prior.tau).mean_P - start_P
        ridge_P = ridge(torch.cat([text_ED, text_TD[rest]]), other_KP, text_TD[t])
        nearest = {"experts": projected(own_P, expert_EP), "all others": projected(own_P, other_KP)}
        explained = 1 - (own_P - ridge_P).square().sum() / own_P.square().sum()
        shares.append([float(x.square().sum() / own_P.square().sum()) for x in nearest.values()] + [float(explained)])
        put("shared start", torch.zeros_like(start_P))
        table.setdefault("zero-shot", []).append(torch.zeros_like(start_P)[None])
        put("top-k", top_P)
        for times in (2, 4, 8):
            put(f"top-k, {times} times what it adds", times * top_P)
        put("top-k, calibrated to an expert's norm", top_P * typical / top_P.norm())
        put("mean of all others", other_KP.mean(0))
        put("mean of all others, calibrated", other_KP.mean(0) * typical / other_KP.mean(0).norm())
        put("ridge", ridge_P)
        put("ridge, calibrated", ridge_P * typical / ridge_P.norm())
        for name, photos, way_KP, convex in (
            ("found: convex mixture of experts", train, expert_EP, True),
            ("found: span of experts", train, expert_EP, False),
            ("found: span of all others", train, other_KP, False),
            (ON_TEST, test, other_KP, False),
        ):
            put(name, found(model, layout, photos, start_P, way_KP, convex) - start_P)
        for name, x_P in nearest.items():
            put(f"Oracle projected: {name}", x_P)
            put(f"the same, at the Oracle's norm: {name}", x_P * own_P.norm() / x_P.norm())
        put("oracle", own_P)
        put("oracle, 2 times what it adds", 2 * own_P)
        print(f"{chosen[t].task.key}: {shares[-1]}", flush=True)
    told = ("in the experts' span", "in all others' span", "explained by ridge")
    for name, share_T in zip(told, torch.tensor(shares).T, strict=True):
        print(f"Share of the squared norm of what a task adds, {name}, percent: {interval(100 * share_T)}")
    everything_UP = torch.nn.functional.normalize(torch.cat([expert_EP, own_TP]), dim=1)
    text_UD = torch.cat([text_ED, text_TD])
    alike, said = ((x @ x.T)[*torch.triu_indices(len(x), len(x), 1)] for x in (everything_UP, text_UD))
    close = torch.corrcoef(torch.stack([alike, said]))[0, 1]
    print(
        f"Cosine of what two tasks add: mean {alike.mean():.4f}, deviation {alike.std():.4f}, most {alike.max():.4f};"
    )
    print(f"correlation with their sentences' cosine {close:.3f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--recipe", type=Path, default=Path("packs/starter.toml"))
    parser.add_argument("--seed", type=int, default=0, help="training seed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    be_quiet(True)
    host, recipe = Host.load(), read(options.recipe)
    recipe = replace(recipe, train=replace(recipe.train, seed=options.seed))
    model = host.backbones[recipe.backbone].load(RuntimeConfig())
    layout = Layout(tuple(model.sites), recipe.lora.rank, recipe.lora.alpha)
    halves: list[tuple[Mapping[str, Tensor], Mapping[str, Tensor]]] = []
    for exchanged in (False, True):
        plan = planned(host, recipe, options.data, exchanged)
        tasks = build_tasks(model, plan, recipe.prompts, recipe.train.mirror > 0)
        compute_features(model, tasks, Journal(None))
        chosen = [t for t in tasks if t.role == "training"]
        trains, tests = (
            [task_tensors(model, t.task.key, t.task.photos[split]) for t in chosen] for split in ("train", "test")
        )
        adapters = points(model, layout, recipe, tasks, trains, tests)
        halves.append((scores(model, layout, tests, adapters), scores(model, layout, trains, adapters)))
    measured, own = ({name: (one[name] + two[name]) / 2 for name in one} for one, two in zip(*halves, strict=True))
    show(f"seed {options.seed}, {len(chosen)} training tasks, mean of both halves", measured)
    show("the same on the photos learned from", own)
    for name, against in (("found: span of all others", "oracle"), ("top-k", "oracle")):
        gap_TC = measured[name] - measured[against]
        print(f"{name} - {against}: {interval(gap_TC[:, 0])} / {interval(gap_TC[:, 1])}")


if __name__ == "__main__":
    main()
