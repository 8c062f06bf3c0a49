"""Ablations: the same methods with one setting changed, measured on the same tasks.

A method with a changed setting is called `top-k@K=2`. It is compared with itself at the pack's own setting.
The results describe methods and must not be used to choose a setting, because that would tune on the measured
tasks. Choose settings on training tasks instead.

Shapes: P parameters of an adapter, D embedding, n draws that make one adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from torch import Tensor

from sglora_cli.bench.candidates import Candidate
from sglora_cli.bench.measure import Part
from sglora_cli.bench.methods import BenchPlan, PartKeys, Parts, candidates, methods, plan_of_methods
from sglora_cli.config import ABLATIONS, SPACES, BenchConfig, PriorConfig
from sglora_cli.data.description import Description
from sglora_cli.data.encode import check_text, image_embeddings, mean_direction, mean_query
from sglora_cli.errors import BadFile, Unavailable, UsageError
from sglora_cli.files.hashes import content_hash
from sglora_cli.files.text import read_json
from sglora_cli.lora.prior import Prior, Query, best_of
from sglora_cli.pack.content.evaluation import UnseenTask
from sglora_cli.pack.loaded import LoadedPack
from sglora_cli.pack.pack import Pack
from sglora_cli.plugin.contracts import Fitted, Model
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.sentences import queries
from sglora_cli.plugin.values import AGAINST, ORACLE, UNSEEN, ZERO

SWEPT = (AGAINST, "adapter-soup")
_KS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
_TAUS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_DRAWS = (2, 5, 10, 20)
OWN = "the pack's own setting"


@dataclass(frozen=True)
class Variant:
    """One value of the setting that an ablation changes."""

    mark: str
    config: PriorConfig
    own: bool = False
    """Whether this is the pack's own setting."""
    queries: Mapping[str, Query] = field(default_factory=dict)
    """Queries that replace those of the tasks' own sentences, by task key."""
    looks: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    """(D,) mean embeddings of the tasks' photos, which replace the sentences, by task key."""
    without_nearest: bool = False
    draws: int = 1
    """How many draws are combined into one adapter."""
    fold: Callable[[Prior, Tensor], Tensor] | None = None
    """Combines the draws: (n, P) -> (P,)."""

    def prior(self, pack: Pack, key: str, query: Query) -> Prior:
        if key in self.looks:
            return pack.visual_prior(self.looks[key], self.config)
        return pack.prior(self.queries.get(key, query), self.config, self.without_nearest)


def k_grid(experts: int, own: int) -> list[int]:
    """Return the values of K to measure: a grid that is denser for small K, the pack's own K and all experts."""
    return sorted({k for k in _KS if 1.25 * k < experts} | {own, experts})


def by_k(pack: Pack) -> list[Variant]:
    own = pack.prior_config
    return [Variant(f"K={k}", replace(own, k=k), k == own.k) for k in k_grid(len(pack.experts.names), own.k)]


def _by_tau(pack: Pack) -> list[Variant]:
    own = pack.prior_config
    return [Variant(f"tau={tau:g}", replace(own, tau=tau), tau == own.tau) for tau in sorted({*_TAUS, own.tau})]


def _by_space(pack: Pack) -> list[Variant]:
    own = pack.prior_config
    return [Variant(f"space={space}", replace(own, space=space), space == own.space) for space in SPACES]


def _by_draws(pack: Pack) -> list[Variant]:
    def best(prior: Prior, draws_nP: Tensor) -> Tensor:
        return draws_nP[best_of(prior, draws_nP, 1)[0]]

    def mean(prior: Prior, draws_nP: Tensor) -> Tensor:
        return draws_nP.mean(dim=0)

    several = [("best-of", best), ("mean-of", mean)]
    config = pack.prior_config
    return [
        Variant("one-draw", config, own=True),
        *(Variant(f"{name}-{n}", config, draws=n, fold=fold) for name, fold in several for n in _DRAWS),
    ]


def _by_expert(pack: Pack) -> list[Variant]:
    config = pack.prior_config
    return [Variant("all-experts", config, own=True), Variant("without-nearest", config, without_nearest=True)]


def _by_description(pack: Pack, described: Mapping[str, Query]) -> list[Variant]:
    config = pack.prior_config
    return [Variant("template", config, own=True), Variant("sentences", config, queries=described)]


def _by_condition(pack: Pack, looks: Mapping[str, Tensor]) -> list[Variant]:
    config = pack.prior_config
    return [Variant("textual", config, own=True), Variant("visual", config, looks=looks)]


def _looks(loaded: LoadedPack, tasks: Sequence[UnseenTask]) -> dict[str, Tensor]:
    """Return the mean visual embedding (D,) of each task's training photos, by task key.

    Raises Unavailable if the pack has no visual embeddings of its experts, or if there are no photos.
    """
    if not loaded.pack.has_visual:
        message = f"pack {loaded.pack.name!r} has no visual embeddings of its experts"
        raise Unavailable(message, "rebuild it with this version: sglora pack build RECIPE --data DIR")
    embeddings = {}
    for task in tasks:
        if task.training is None:
            message = "ablation-condition needs training photos of the unseen tasks, which packs do not contain"
            raise Unavailable(message, "pass the folder of the photos with --data DIR")
        image_ND = image_embeddings(loaded.model, task.training().stem_N)
        embeddings[task.key] = mean_direction([1.0] * len(image_ND), image_ND)
    return embeddings


def read_sentences(path: Path, tasks: Sequence[UnseenTask]) -> dict[str, Description]:
    """Read a JSON file that maps task keys or names to a sentence or a list of sentences.

    Returns descriptions by task key. Other keys in the file are ignored.
    Raises BadFile for an invalid file and UsageError for a task that the file lacks.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise BadFile(f"{path} is not a JSON object", 'write {"pets/pug": "a small dog with a black muzzle", ...}')
    descriptions = {}
    for task in tasks:
        key = task.key
        texts = content.get(key, content.get(task.name))
        if texts is None:
            raise UsageError(f"{path} has no sentence for task {key!r}", "add one, or select other tasks with --tasks")
        texts = texts if isinstance(texts, list) else [texts]
        if not all(isinstance(text, str) for text in texts):
            raise BadFile(f"{path}: {key} must be a sentence or a list of sentences, got {texts!r:.200}")
        descriptions[key] = Description.of(*texts)
    return descriptions


def _asked(model: Model, described: Mapping[str, Description]) -> dict[str, Query]:
    for one in described.values():
        for text in one.texts:
            check_text(model, text)
    return {key: mean_query(one.weights, queries(model, one.texts)) for key, one in described.items()}


def varied(
    host: Host,
    pack: Pack,
    fitted: Mapping[str, Fitted],
    variants: Sequence[Variant],
    key: str,
    query: Query,
    config: BenchConfig,
) -> list[Candidate]:
    """Make every method's adapters for one task, in every variant, as `METHOD@MARK`."""
    adapters: list[Candidate] = []
    for variant in variants:
        asked = variant.prior(pack, key, query)
        for name, one in fitted.items():
            method = f"{name}@{variant.mark}"
            adapters += candidates(
                pack.layout_of(one),
                host.generators[name],
                one.generate,
                asked,
                config,
                method,
                variant.draws,
                variant.fold,
            )
    return adapters


def plan_of_ablation(
    loaded: LoadedPack,
    tasks: Sequence[UnseenTask],
    table: str,
    wanted: str,
    sentences: Path | None,
    config: BenchConfig,
    role: str = UNSEEN,
    without: Sequence[str] = (),
) -> BenchPlan:
    """Plan the measurement of methods at every value of one setting.

    wanted: comma-separated method names, or "all" or "paper", which stand for the methods that the ablation applies
    to and that are not in `without`.  role: the role of the tasks in the pack.
    Raises UsageError if the table and the sentences do not go together, or if no method is left.
    """
    if (table == "ablation-description") != (sentences is not None):
        raise UsageError("--table ablation-description and --sentences FILE go together", "pass both or neither")
    host, pack = loaded.host, loaded.pack
    described = _asked(loaded.model, read_sentences(sentences, tasks)) if sentences else {}
    looks = _looks(loaded, tasks) if table == "ablation-condition" else {}
    variants = _variants(table, pack, described, looks)
    labels = _concerned(host, pack, table, wanted, without)
    levels = methods(host, pack, ",".join([ORACLE] * all(t.oracle_P is not None for t in tasks) + [ZERO]))
    base = plan_of_methods(loaded, tasks, levels, replace(config, wrong_sentences=0))
    own = next(variant.mark for variant in variants if variant.own)
    names = {f"{name}@{v.mark}": f"{label} ({_words(v.mark)})" for name, label in labels.items() for v in variants}
    references = {m: f"{m.rpartition('@')[0]}@{own}" for m in names if m.rpartition("@")[2] != own}
    points = looks or {key: one.embedding_D for key, one in described.items()}
    note = (
        f"{table}: {ABLATIONS[table]}. Every method is compared with itself at {OWN} ({_words(own)}). "
        f"Do not choose a setting from this table, because that would tune it on {role} tasks."
    )
    origin = [pack.manifest, table, {key: content_hash(one) for key, one in points.items()}]
    return replace(
        base,
        names={**levels, **names},
        parts=_parts(loaded, tasks, list(labels), variants, base.parts, config, origin),
        against=OWN,
        references=references,
        notes=[note, *_of_table(table)],
        origin=origin,
    )


def _variants(table: str, pack: Pack, described: Mapping[str, Query], looks: Mapping[str, Tensor]) -> list[Variant]:
    if table == "ablation-description":
        return _by_description(pack, described)
    if table == "ablation-condition":
        return _by_condition(pack, looks)
    makers = {"k": by_k, "tau": _by_tau, "space": _by_space, "samples": _by_draws, "expert": _by_expert}
    return makers[table.partition("-")[2]](pack)


def _concerned(host: Host, pack: Pack, table: str, wanted: str, without: Sequence[str]) -> dict[str, str]:
    """Return the methods to vary, with their labels."""
    draws = {name for name, g in host.generators.items() if g.draws}
    if wanted in ("all", "paper"):
        known = methods(host, pack, wanted, False, without)
        learned = [name for name in known if host.generators[name].learns]
        swept = [name for name in SWEPT if name in known and not (name == "adapter-soup" and table == "ablation-tau")]
        wanted = ",".join(learned if table == "ablation-samples" else [*swept, *learned])
    labels = {name: label for name, label in methods(host, pack, wanted).items() if name not in (ORACLE, ZERO)}
    for name in labels:
        if host.generators[name].needs:
            raise UsageError(
                f"{name!r} uses data of the unseen task, which ablations do not support", "remove it from --baselines"
            )
    if table == "ablation-samples":
        labels = {name: label for name, label in labels.items() if name in draws}
    if not labels:
        raise UsageError(f"{table} does not apply to any of these methods", "select others with --baselines")
    return labels


def _parts(
    loaded: LoadedPack,
    tasks: Sequence[UnseenTask],
    names: Sequence[str],
    variants: Sequence[Variant],
    levels: Parts,
    config: BenchConfig,
    origin: Any,
) -> Parts:
    """Return the parts of every method in every variant, as `METHOD@MARK`."""

    keys = PartKeys(loaded)

    @cache
    def query_of() -> dict[str, Query]:
        asked = queries(loaded.model, [t.description for t in tasks])
        return dict(zip([t.key for t in tasks], asked, strict=True))

    def make(variant: Variant, name: str, key: str) -> list[Candidate]:
        fitted = {name: loaded.fitted(name)}
        return varied(loaded.host, loaded.pack, fitted, [variant], key, query_of()[key], config)

    def part(variant: Variant, name: str, task: UnseenTask) -> Part:
        asked = [origin, variant.mark, asdict(config), task.key, task.description]
        adapters = partial(make, variant, name, task.key)
        return Part(keys(name, asked), adapters, partial(loaded.fitted, name), f"{name}@{variant.mark}")

    return lambda task: [*levels(task), *(part(v, name, task) for v in variants for name in names)]


def _words(mark: str) -> str:
    if mark == "visual":
        return "visual, from its training photos"
    return mark.replace("=", " = ") if "=" in mark else mark.replace("-", " ")


def _of_table(table: str) -> list[str]:
    if table == "ablation-expert":
        return ["The prior leaves out the nearest expert. Learned generators were trained with that expert."]
    if table == "ablation-condition":
        return [
            "visual: photos replace the sentence of the unseen task, and experts are compared by their photos. tau "
            "stays as chosen for sentences, and learned generators were fitted to sentences."
        ]
    return []
