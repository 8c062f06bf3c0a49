"""Figures that need the pack as well as the rows: expert weights, the effect of K, and maps of adapters.

Shapes: T tasks, E experts, D embedding, P parameters of an adapter, S adapters of one task, N points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sglora_cli.bench.ablations import SWEPT, by_k, varied
from sglora_cli.bench.measure import Measurer
from sglora_cli.bench.rows import averages
from sglora_cli.bench.tables import GAIN_K, directions, measure_name
from sglora_cli.bench.tasks import carried, of_other
from sglora_cli.config import BenchConfig
from sglora_cli.errors import Mismatch
from sglora_cli.files.escape import shell_word
from sglora_cli.files.names import file_stem
from sglora_cli.lora.prior import Prior, Query
from sglora_cli.pack.content.evaluation import UnseenTask
from sglora_cli.pack.loaded import LoadedPack
from sglora_cli.pack.pack import Pack
from sglora_cli.plugin.contracts import Generator
from sglora_cli.plugin.sentences import queries
from sglora_cli.plugin.values import AGAINST, ORACLE, ZERO, Report
from sglora_cli.report.charts import Figure, Lines, Map, Scatter, Stacks, featured, gains
from sglora_cli.report.plot import needs
from sglora_cli.search.ranking import correlation
from sglora_cli.system.display import counted
from sglora_cli.system.progress import progress


@dataclass(frozen=True)
class ReportData:
    """A report and the pack it is about. Raises Mismatch if the rows are of another pack or another build of it."""

    loaded: LoadedPack
    report: Report
    config: BenchConfig
    fingerprint: str = ""
    """Fingerprint of the backbone that the rows were measured with, if it is recorded."""
    others: Sequence[Pack] = ()
    """Packs with measured tasks that this pack does not contain."""
    about: str = ""
    """The generator that figures of one generator show; the pack's default generator by default."""

    def __post_init__(self) -> None:
        own = self.loaded.pack.fingerprint
        if self.fingerprint not in ("", own):
            raise Mismatch(
                f"the rows were measured with backbone fingerprint {self.fingerprint}, but this pack is for {own}",
                "measure again with this pack",
            )
        if self.loaded.pack.name != self.report.pack:
            raise Mismatch(
                f"the rows are of pack {self.report.pack!r}, not of {self.loaded.pack.name!r}",
                f"pass --pack {shell_word(self.report.pack)}",
            )

    @cached_property
    def generator(self) -> Generator:
        """The requested generator, or the default generator of `sglora generate`."""
        return self.loaded.generator(self.about)

    @property
    def sources(self) -> list[Pack]:
        """The packs whose unseen tasks were measured. If several have the same task, the last one counts."""
        return [self.loaded.pack, *self.others]

    @cached_property
    def sentences(self) -> dict[tuple[str, str], str]:
        """Descriptions by (dataset, task) of measured tasks that the packs have in the rows' role."""
        measured = {(row.dataset, row.task) for row in self.report.rows}
        listed = [task for pack in self.sources for task in pack.tasks.of(self.report.role)]
        described = {(t["dataset"], t["name"]): t["description"] for t in listed}
        return {task: text for task, text in described.items() if task in measured}

    @cached_property
    def queries(self) -> dict[tuple[str, str], Query]:
        return dict(zip(self.sentences, queries(self.loaded.model, list(self.sentences.values())), strict=True))

    @cached_property
    def priors(self) -> dict[tuple[str, str], Prior]:
        return {task: self.loaded.pack.prior(query) for task, query in self.queries.items()}

    @cached_property
    def carried(self) -> list[UnseenTask]:
        """The measured tasks that can be evaluated without photos."""
        own = self.loaded.pack
        others = [task for other in self.others for task in of_other(own, other, "")]
        by_name = {(task.dataset, task.name): task for task in [*carried(own), *others]}
        return [task.read() for name, task in by_name.items() if name in self.sentences]

    @cached_property
    def method(self) -> str:
        """The method for figures of a single method."""
        return featured(self.report, self.generator.name)

    @cached_property
    def label(self) -> str:
        return self.report.labels.get(self.method, self.method)

    def draw(self, name: str, prior: Prior, count: int = 1) -> Tensor:
        """Generate adapters for a prior: (count, P)."""
        return self.loaded.fitted(name).generate(prior, count, self.config.seed, self.config.temperature)

    def usable(self, names: Sequence[str]) -> list[str]:
        """Return the methods that were measured and can generate adapters here from a sentence alone."""
        known = self.loaded.host.generators
        names = [name for name in names if name in self.report.labels and name in known]
        return [name for name in names if not known[name].needs]

    def of_experts(self, names: Sequence[str]) -> list[str]:
        """Return the usable methods whose adapters have the experts' sites, so that they are in the same space."""
        pack = self.loaded.pack
        return [name for name in self.usable(names) if pack.layout_of(self.loaded.fitted(name)) == pack.layout]


def contributions(data: ReportData) -> Figure | None:
    """Show alpha_k of every unseen task: SG-LoRA (arXiv 2509.10535), Eq. 6."""
    names, parts = [], []
    for (_, task), prior in data.priors.items():
        experts = [data.loaded.pack.experts.names[row] for row in prior.rows]
        pairs = zip(experts, prior.alpha_K.tolist(), strict=True)
        parts.append([(*reversed(expert.partition("/")[::2]), share) for expert, share in pairs])
        names.append(task)
    if not names:
        return None
    config = data.loaded.pack.prior_config
    caption = (
        f"Weights alpha of the {counted(config.k, 'expert')} used for each {data.report.role} task's sentence "
        f"(tau = {config.tau:g}), with the largest weight on the left. Colours show the data sets of the experts."
    )
    alt = f"Stacked bars of expert weights for {counted(len(names), f'{data.report.role} task')}."
    return Figure("contributions", "Expert contributions", Stacks("weight of the expert", names, parts), caption, alt)


def similarity_to_gain(data: ReportData) -> Figure | None:
    """Plot the method's gain over zero-shot against the similarity of a task's sentence to its nearest expert."""
    gain = gains(data.report, data.method)
    groups: dict[str, list[tuple[str, float, float]]] = {}
    for (dataset, task), prior in data.priors.items():
        if (dataset, task) in gain:
            point = (task, float(prior.similarity_E.max()), gain[dataset, task])
            groups.setdefault(dataset, []).append(point)
    points = [point for points in groups.values() for point in points]
    if not points:
        return None
    rho = correlation(torch.tensor([x for _, x, _ in points]), torch.tensor([y for *_, y in points]))
    chart = Scatter("cosine similarity to the nearest expert", "gain over zero-shot (points)", groups, rho, zero=True)
    measures = " and ".join(measure_name(d).removesuffix(" (%)") for d in directions(data.report))
    caption = (
        f"Each point is one {data.report.role} task: the similarity of its sentence to the nearest expert's, and the "
        f"average gain of {data.label} over zero-shot in {measures}."
    )
    alt = f"Scatter plot of {counted(len(points), f'{data.report.role} task')}. The title gives their rank correlation."
    return Figure("similarity-to-gain", "Similarity and gain", chart, caption, alt)


def k_sweep(data: ReportData) -> list[Figure]:
    """Plot R@1 against K, measured on the unseen tasks that the pack contains, with one figure per direction."""
    pack, own = data.loaded.pack, data.loaded.pack.prior_config
    learned = [data.generator.name] if data.generator.learns else []
    fitted = {name: data.loaded.fitted(name) for name in data.usable([*SWEPT, *learned])}
    variants = by_k(pack)
    ks = [variant.config.k for variant in variants]
    if not fitted or not data.carried:
        return []
    measurer, rows = Measurer(data.loaded.model), []
    for task in progress(data.carried, "R@1 against K"):
        query = data.queries[task.dataset, task.name]
        candidates = varied(data.loaded.host, pack, fitted, variants, task.name, query, data.config)
        rows += measurer.rows(task, candidates)
    means, figures = averages(rows), []
    for direction in dict.fromkeys(row.direction for row in rows):
        cell = (direction, GAIN_K)
        lines = {data.report.labels[name]: [means[f"{name}@K={k}"][cell] for k in ks] for name in fitted}
        levels, axis = _levels(data, direction), measure_name(direction)
        tasks = len({(row.dataset, row.task) for row in rows if row.direction == direction})
        caption = (
            f"{axis} against K, mean over {counted(tasks, 'unseen task')} in the pack, with "
            f"{counted(data.config.samples, 'draw')} of sampling generators. The band marks the pack's own K = {own.k}."
        )
        chart = Lines("K (mixed experts)", axis, ks, lines, levels, own.k)
        alt = f"Line chart of {axis} for K from 1 to {ks[-1]}."
        figures.append(Figure(f"k-{direction.lower()}", f"{axis} against K", chart, caption, alt))
    return figures


def _levels(data: ReportData, direction: str) -> dict[str, float]:
    """Return the rows' means of methods without K, on the tasks of the sweep."""
    tasks = {(task.dataset, task.name) for task in data.carried}
    rows = [r for r in data.report.rows if (r.dataset, r.task) in tasks and (r.direction, r.k) == (direction, GAIN_K)]
    means = averages(rows)
    names = [name for name in (ORACLE, ZERO) if name in means]
    return {data.report.labels[name]: means[name][direction, GAIN_K] for name in names}


_MERGES = ("model-soups", "adapter-soup", AGAINST, "joint")  # these mix factors, so they are in the experts' space
_DRAWS = 50  # as in the paper's figure
_MAPS = 3  # tasks with a map of draws
_FEWEST = 6  # with fewer points, neighbourhoods are meaningless
_SPACE = (
    "t-SNE of the flattened factors [B, A]. All adapters of a pack start from one initialisation, so their factors are "
    "comparable. Nearby points are similar, but distances between distant groups are meaningless."
)


def embedded(points_NP: Tensor, seed: int) -> list[tuple[float, float]]:
    """Map points (N, P) to N positions in the plane with t-SNE. The same seed gives the same positions.

    Raises Unavailable without scikit-learn, and Mismatch for fewer than 6 points.
    """
    needs("sklearn", "scikit-learn")
    from sklearn.manifold import TSNE

    if len(points_NP) < _FEWEST:
        raise Mismatch(f"t-SNE needs at least {_FEWEST} points, got {len(points_NP)}")
    perplexity = min(30.0, (len(points_NP) - 1) / 3)
    tsne = TSNE(method="exact", init="pca", perplexity=perplexity, random_state=seed % 2**32)
    return [(float(x), float(y)) for x, y in tsne.fit_transform(points_NP.double().numpy())]


def task_map(data: ReportData) -> Figure | None:
    """Map all experts and, for each unseen task, its Oracle, one draw and the weighted mean."""
    pack, points = data.loaded.pack, []
    for row, expert in enumerate(pack.experts.names):
        points.append(("", "expert, mean", expert.partition("/")[0], pack.experts.means([row])[0]))
    oracles = [(task.dataset, task.oracle_P) for task in data.carried if task.oracle_P is not None]
    points += [("", "unseen task, Oracle", dataset, oracle_P) for dataset, oracle_P in oracles]
    for (dataset, _), prior in data.priors.items():
        for name in dict.fromkeys(data.of_experts([data.generator.name, AGAINST])):
            adapter_P = data.draw(name, prior)[0]
            points.append(("", f"unseen task, {data.report.labels[name]}", dataset, adapter_P))
    if len(points) < _FEWEST:
        return None
    caption = f"{_SPACE} Adapters of training tasks are not shown, because packs do not contain them."
    title = "Adapters of all tasks"
    return Figure("tsne-tasks", title, _placed(points, data.config.seed), caption, f"t-SNE of {len(points)} adapters.")


def draw_maps(data: ReportData) -> list[Figure]:
    """Map the draws for one unseen task with its Oracle, merges and experts, for the first task of each data set."""
    generator = data.generator
    first: dict[str, UnseenTask] = {}
    for task in data.carried:
        if task.oracle_P is not None:
            first.setdefault(task.dataset, task)
    if (
        not generator.learns
        or data.loaded.pack.layout_of(data.loaded.fitted(generator.name)) != data.loaded.pack.layout
    ):
        return []
    return [_draw_map(data, task) for task in list(first.values())[:_MAPS]]


def _draw_map(data: ReportData, task: UnseenTask) -> Figure:
    pack, name, config = data.loaded.pack, data.generator.name, data.config
    prior, experts = data.priors[task.dataset, task.name], pack.experts
    label = data.report.labels.get(name, data.generator.label)
    points = [("", f"{_DRAWS} draws of {label}", draw_P) for draw_P in data.draw(name, prior, _DRAWS)]
    if task.oracle_P is not None:
        points.append(("Oracle", "Oracle of this task", task.oracle_P))
    merges = data.usable(_MERGES)
    points += [(data.report.labels[merge], "merges and joint", data.draw(merge, prior)[0]) for merge in merges]
    names = [experts.names[row].partition("/")[2] for row in prior.rows]
    points += zip(names, ["experts in its prior"] * len(names), experts.means(prior.rows), strict=True)
    chart = _placed([(text, kind, kind, point_P) for text, kind, point_P in points], config.seed)
    caption = f"{_SPACE} The pack has one Oracle adapter per task, not those of its last epochs."
    title, file = f"Draws for “{task.name}”", f"draws-{file_stem(task.dataset)}"
    return Figure(
        file, title, chart, caption, f"t-SNE of {_DRAWS} draws for {task.name}, its Oracle, merges and experts."
    )


def _placed(points: Sequence[tuple[str, str, str, Tensor]], seed: int) -> Map:
    places = embedded(torch.stack([point_P for *_, point_P in points]), seed)
    return Map([(name, kind, group, *xy) for (name, kind, group, _), xy in zip(points, places, strict=True)])
