"""Every method on the recipe's *training* tasks: `python tests/benchmarks/leave_tasks_out.py --data DIR`.

For choosing settings without touching an unseen task. Each training task is described to the pack
by its sentence only and measured on its test photos; a learned generator is fitted in three folds,
on two thirds of the training tasks, and asked about the rest. Adapters are taken from the user cache
or trained there, so that a later `sglora pack build` with the same settings does not train them again.

Shapes: T training tasks, B resamples, S drawn adapters, P numbers of an adapter.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from sglora_cli.bench.retrieval import recalls
from sglora_cli.build.held_out import recall_on
from sglora_cli.build.pipeline import build_tasks, compute_features
from sglora_cli.build.steps import BuildTask, Steps
from sglora_cli.config import RuntimeConfig
from sglora_cli.data.encode import encode_images
from sglora_cli.data.features import task_tensors
from sglora_cli.lora.layout import Layout
from sglora_cli.lora.prior import Prior, prior
from sglora_cli.pack.recipe import Recipe
from sglora_cli.pack.recipe_parser import read
from sglora_cli.plugin.contracts import Model
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import Material, Task, TaskTensors
from sglora_cli.system.progress import Journal, be_quiet

CELLS = (("I2T", 1), ("T2I", 1), ("I2T", 5), ("T2I", 5))
FOLDS, SAMPLES, RESAMPLES = 3, 5, 10000
Adapters = Mapping[str, Sequence[Tensor]]
"""Method -> the adapters (S, P) of each training task."""


class Experts:
    """The expert repository in memory (Eq. 5)."""

    def __init__(self, steps: Steps) -> None:
        self.names, self.layout = [task.task.key for task in steps.experts], steps.layout
        mean, variance = zip(*(steps.moments(task) for task in steps.experts), strict=True)
        self.mean_EP, self.variance_EP = torch.stack(mean), torch.stack(variance)

    def means(self, rows=None) -> Tensor:
        return self.mean_EP if rows is None else self.mean_EP[list(rows)]

    def variances(self, rows=None) -> Tensor:
        return self.variance_EP if rows is None else self.variance_EP[list(rows)]


def planned(host: Host, recipe: Recipe, data: Path, exchanged: bool = False) -> list[dict[str, list[Task]]]:
    """What is built, of each source: experts as the recipe has them, training tasks in the place of unseen ones, so
    with a train and a test split whatever the recipe says; `exchanged`: the one for the other."""
    found = []
    for source in recipe.sources:
        tasks = replace(source, whole=False).tasks(host, data, recipe.template)["training"]
        if exchanged:
            tasks = [replace(t, photos={"train": t.photos["test"], "test": t.photos["train"]}) for t in tasks]
        found.append({"expert": source.tasks(host, data, recipe.template)["expert"], "training": tasks})
    return found


def left_out(
    host: Host, recipe: Recipe, name: str, experts: Experts, steps: Steps, tasks, priors, **settings
) -> list[Tensor]:
    """(S, P) of a learned generator for every training task, from the fold that did not see it."""
    drawn: dict[int, Tensor] = {}
    for fold in range(FOLDS):
        seen = [t for t in range(len(tasks)) if t % FOLDS != fold]
        material = Material(
            experts=experts,
            tasks=[tasks[t].task.key for t in seen],
            states=lambda row, seen=seen: steps.states(tasks[seen[row]]).to("cpu"),
            rows=lambda row, some, seen=seen: steps.states(tasks[seen[row]])[some],
            states_of_task=steps.kept,
            priors=[priors[t] for t in seen],
            joint_P=torch.full((experts.layout.size,), torch.nan),  # it would have seen the fold's tasks
            start_P=steps.start_P,
            recall=recall_on(steps.model, steps.layout, [tasks[t] for t in seen]),
            seed=recipe.train.seed,
            note=lambda text: None,
        )
        fitted, facts = host.generators[name].fit(material, {**recipe.generators[name], **settings})
        print(f"{name} {settings}, fold {fold}: {facts}", file=sys.stderr, flush=True)
        drawn |= {t: fitted.generate(priors[t], SAMPLES, 0, 1.0) for t in range(fold, len(tasks), FOLDS)}
    return [drawn[t] for t in range(len(tasks))]


def methods(
    host: Host, recipe: Recipe, model: Model, layout: Layout, tasks: list[BuildTask], projections: Sequence[int] = ()
) -> Adapters:
    steps = Steps(model, layout, tasks, replace(recipe.train, joint_epochs=1))  # nobody asks for the joint adapter
    steps.train(lambda passes, part: None, Journal(None))
    chosen = [task for task in tasks if task.role == "training"]
    experts = Experts(steps)
    index_ED = model.encode_text([t.task.description for t in tasks if t.role == "expert"]).float()
    embeddings_TD = model.encode_text([t.task.description for t in chosen])
    priors: list[Prior] = [prior(d, index_ED, experts, recipe.prior.k, recipe.prior.tau) for d in embeddings_TD]
    found = {"shared start": [steps.start_P[None]] * len(chosen)}
    for name, generator in host.generators.items():
        # The joint adapter was trained on these very tasks; what looks at a task's own data is measured elsewhere.
        if not (generator.learns or name == "joint" or generator.needs):
            rule = generator.restore(experts, {})
            found[name] = [rule.generate(one, 1, 0, 1.0) for one in priors]
    for name in recipe.generators:
        found[name] = left_out(host, recipe, name, experts, steps, chosen, priors)
    for size in projections:
        found[f"cvae, R {size}"] = left_out(host, recipe, "cvae", experts, steps, chosen, priors, projection=size)
    found["oracle"] = [steps.moments(task)[0][None] for task in chosen]
    return found


def scores(model: Model, layout: Layout, tests: list[TaskTensors], adapters: Adapters) -> dict[str, Tensor]:
    """Method -> (T, 4) recall in percent in the order of CELLS, averaged over draws."""
    result = {}
    for name, by_task in adapters.items():
        rows = []
        for test, adapters_SP in zip(tests, by_task, strict=True):
            images_SND = encode_images(model, layout, test, adapters_SP)
            found = [recalls(image_ND, test.text_CD.float(), test.image_of) for image_ND in images_SND]
            rows.append([sum(one[cell] for one in found) / len(found) for cell in CELLS])
        result[name] = torch.tensor(rows)
    return result


def interval(gap_T: Tensor) -> str:
    """Mean and 95 % interval, bootstrap over tasks."""
    dice = torch.Generator().manual_seed(0)
    drawn_B = gap_T[torch.randint(len(gap_T), (RESAMPLES, len(gap_T)), generator=dice)].mean(dim=1)
    low, high = torch.quantile(drawn_B, torch.tensor([0.025, 0.975])).tolist()
    return f"{float(gap_T.mean()):+.1f} [{low:+.1f}, {high:+.1f}]"


def show(title: str, by_method: Mapping[str, Tensor]) -> None:
    """A table with paired differences to zero-shot and to top-k at R@1."""
    print(f"\n**{title}**\n\n| method | {' | '.join(f'{d} R@{k}' for d, k in CELLS)} | R@1 - zero-shot | R@1 - top-k |")
    print("|---" * (len(CELLS) + 3) + "|")
    for name, score_TC in by_method.items():
        cells = [f"{value:.1f}" for value in score_TC.mean(dim=0).tolist()]
        for against in ("zero-shot", "top-k"):
            gap_TC = score_TC - by_method[against]
            cells.append(" / ".join(interval(gap_TC[:, c]) for c in (0, 1)) if name != against else "")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--recipe", type=Path, default=Path("packs/starter.toml"))
    parser.add_argument("--seeds", type=int, default=3, help="training seeds 0, 1, ...")
    parser.add_argument("--projections", type=int, nargs="*", default=[], help="more CVAEs, of so many coordinates")
    options = parser.parse_args()
    torch.set_num_threads(1)
    be_quiet(True)
    host, recipe = Host.load(), read(options.recipe)
    model = host.backbones[recipe.backbone].load(RuntimeConfig())
    layout = Layout(tuple(model.sites), recipe.lora.rank, recipe.lora.alpha)
    plan = planned(host, recipe, options.data)
    tasks = build_tasks(model, plan, recipe.prompts, recipe.train.mirror > 0)
    compute_features(model, tasks, Journal(None))
    tests = [task_tensors(model, t.task.key, t.task.photos["test"]) for t in tasks if t.role == "training"]
    found = []
    for seed in range(options.seeds):
        seeded = replace(recipe, train=replace(recipe.train, seed=seed))
        found.append(scores(model, layout, tests, methods(host, seeded, model, layout, tasks, options.projections)))
        show(f"seed {seed}", found[-1])
    mean = {name: torch.stack([one[name] for one in found]).mean(dim=0) for name in found[0]}
    show(f"mean of {len(found)} seeds, {len(tests)} training tasks", mean)
    for size in options.projections:
        gap_TC = mean[f"cvae, R {size}"] - mean["cvae"]
        print(f"cvae, R {size} - cvae: {' / '.join(interval(gap_T) for gap_T in gap_TC.T)}")


if __name__ == "__main__":
    main()
