"""Where adapters lie: t-SNE of experts, Oracles, draws and merges, as in the paper's figures.

Shapes: E experts, P numbers of an adapter, N points.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sglora_cli.charts import Figure, Map
from sglora_cli.errors import Mismatch
from sglora_cli.exhibits import Exhibits
from sglora_cli.packs import UnseenTask, file_name
from sglora_cli.plotting import needs

_MERGES = ("model-soups", "adapter-soup", "top-k", "joint")  # these mix factors: they lie in the experts' space
_DRAWS = 50  # as in the paper's figure
_MAPS = 3  # tasks whose draws are mapped
_FEWEST = 6  # points below which neighbourhoods mean nothing
_SPACE = (
    "t-SNE of the flattened factors [B, A]. All adapters of a pack start from one initialisation, so their factors can "
    "be compared; near points are alike, distances between far groups say nothing."
)


def embedded(points_NP: Tensor, seed: int) -> list[tuple[float, float]]:
    """t-SNE of points: (N, P) -> N places in the plane; the same seed gives the same ones.

    Raises Unavailable without scikit-learn, Mismatch for fewer than 6 points.
    """
    needs("sklearn", "scikit-learn")
    from sklearn.manifold import TSNE

    if len(points_NP) < _FEWEST:
        raise Mismatch(f"t-SNE needs at least {_FEWEST} points, got {len(points_NP)}")
    perplexity = min(30.0, (len(points_NP) - 1) / 3)
    tsne = TSNE(method="exact", init="pca", perplexity=perplexity, random_state=seed % 2**32)
    return [(float(x), float(y)) for x, y in tsne.fit_transform(points_NP.double().numpy())]


def task_map(shown: Exhibits) -> Figure | None:
    """Experts, and for each unseen task its Oracle, one draw, and the weighted mean: where do they lie?"""
    pack, points = shown.session.pack, []
    for row, expert in enumerate(pack.experts.names):
        points.append(("", "expert, mean", expert.partition("/")[0], pack.experts.means([row])[0]))
    oracles = [(task.dataset, task.oracle_P) for task in shown.carried if task.oracle_P is not None]
    points += [("", "unseen task, Oracle", dataset, oracle_P) for dataset, oracle_P in oracles]
    for (dataset, _), prior in shown.priors.items():
        for name in dict.fromkeys(shown.usable([shown.session.generator.name, "top-k"])):
            adapter_P = shown.draw(name, prior)[0]
            points.append(("", f"unseen task, {shown.report.labels[name]}", dataset, adapter_P))
    if len(points) < _FEWEST:
        return None
    caption = f"{_SPACE} Training tasks' adapters are not in a pack, so they are not here."
    title = "Adapters of all tasks"
    return Figure("tsne-tasks", title, _placed(points, shown.config.seed), caption, f"t-SNE of {len(points)} adapters.")


def draw_maps(shown: Exhibits) -> list[Figure]:
    """The draws for one unseen task beside its Oracle, merges and experts; the first task of each data set."""
    generator = shown.session.generator
    first: dict[str, UnseenTask] = {}
    for task in shown.carried:
        if task.oracle_P is not None:
            first.setdefault(task.dataset, task)
    if not generator.learns:
        return []
    return [_draw_map(shown, task) for task in list(first.values())[:_MAPS]]


def _draw_map(shown: Exhibits, task: UnseenTask) -> Figure:
    pack, name, config = shown.session.pack, shown.session.generator.name, shown.config
    prior, experts = shown.priors[task.dataset, task.name], pack.experts
    label = shown.report.labels.get(name, shown.session.generator.label)
    points = [("", f"{_DRAWS} draws of {label}", draw_P) for draw_P in shown.draw(name, prior, _DRAWS)]
    if task.oracle_P is not None:
        points.append(("Oracle", "Oracle of this task", task.oracle_P))
    merges = shown.usable(_MERGES)
    points += [(shown.report.labels[merge], "merges and joint", shown.draw(merge, prior)[0]) for merge in merges]
    names = [experts.names[row].partition("/")[2] for row in prior.rows]
    points += zip(names, ["experts it leans on"] * len(names), experts.means(prior.rows), strict=True)
    chart = _placed([(text, kind, kind, point_P) for text, kind, point_P in points], config.seed)
    caption = f"{_SPACE} The pack carries one Oracle adapter a task, not its last epochs."
    title, file = f"Draws for “{task.name}”", "draws-" + file_name(task.dataset).removesuffix(".safetensors")
    return Figure(file, title, chart, caption, f"t-SNE of {_DRAWS} draws for {task.name}, its Oracle, merges, experts.")


def _placed(points: Sequence[tuple[str, str, str, Tensor]], seed: int) -> Map:
    places = embedded(torch.stack([point_P for *_, point_P in points]), seed)
    return Map([(name, kind, group, *xy) for (name, kind, group, _), xy in zip(points, places, strict=True)])
