"""Which methods there are, what they may see of an unseen task, and their adapters for it.

Shapes: P numbers of an adapter, D embedding, S samples, N images.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sglora_cli.bench.measure import Candidate
from sglora_cli.bench.rows_file import Header
from sglora_cli.bench.sentences import UNRELATED, UNRELATED_SENTENCE, Sentence, other_sentences
from sglora_cli.config import BenchConfig
from sglora_cli.data.encode import image_embeddings
from sglora_cli.errors import PluginError, SgloraError, Unavailable, UnknownName
from sglora_cli.files.hashes import content_hash
from sglora_cli.lora.layout import Layout
from sglora_cli.lora.prior import Prior
from sglora_cli.pack.content.evaluation import UnseenTask
from sglora_cli.pack.loaded import LoadedPack
from sglora_cli.pack.pack import Pack
from sglora_cli.plugin.combined import Combined, parts_of
from sglora_cli.plugin.contracts import IMAGES, SHOTS, Evidence, Fitted, Generator, Model, UsesEvidence
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.sentences import queries
from sglora_cli.plugin.values import AGAINST, CHANCE, EXPERT, ORACLE, UNSEEN, ZERO, Experts, Moments

PAPER = (ZERO, ORACLE, "model-soups", "adapter-soup", AGAINST, "cvae")

Maker = Callable[[UnseenTask], list[Candidate]]
"""A task -> the adapters to measure on it."""


@dataclass(frozen=True)
class BenchPlan:
    """What will be measured: everything the rows follow from."""

    model: Model
    tasks: Sequence[UnseenTask]
    names: Mapping[str, str]
    """Method name to its label, in the order of the table."""
    make: Maker = field(repr=False)
    config: BenchConfig
    pack: str
    backbone: str
    against: str = AGAINST
    references: Mapping[str, str] = field(default_factory=dict)
    """Methods that are compared with another one than `against`."""
    on: str = ""
    """The other pack that the tasks came from."""
    role: str = UNSEEN
    """What the tasks are to the pack, one of ROLES."""
    protocol: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    """What a reader of the table must know."""
    origin: Any = None
    """What else the adapters follow from, as JSON: the pack's manifest, or the adapters' files."""

    def header(self, command: str = "", table: str = "") -> Header:
        settings = {k: v for k, v in asdict(self.config).items() if k != "resamples"}
        keys = [[t.dataset, t.name, t.description, len(t.tensors.stem_N)] for t in self.tasks]
        key = content_hash([self.origin, self.model.fingerprint, list(self.names), settings, keys])[:16]
        more = {"plan": key, "command": command, "table": table, "config": settings}
        more |= {"fingerprint": self.model.fingerprint, "on": self.on, "references": dict(self.references)}
        more |= {"role": self.role, "notes": list(self.notes), "build": content_hash(self.origin)[:16]}
        return Header(self.pack, self.backbone, {CHANCE: "Chance", **self.names}, self.against, more=more)


def methods(host: Host, pack: Pack, wanted: str, oracle: bool = True, without: Container[str] = ()) -> dict[str, str]:
    """Method names to labels, in the table's order. `wanted`: names with commas; "all" and "paper" stand for several.

    oracle: whether every task has an Oracle. A learned generator that the pack lacks is left out of "all"; the Oracle
    without `oracle`, and names in `without`, of "all" and "paper". Raises UnknownName.
    """
    usable = {n: g for n, g in host.generators.items() if not g.learns or n in pack.manifest["generators"]}
    rules = [n for n, g in usable.items() if not g.learns and n not in without]
    learned = [n for n, g in usable.items() if g.learns and n not in without]
    several = {
        "all": [*rules[:1], *[ORACLE] * oracle, *rules[1:], *learned],
        "paper": [n for n in PAPER if (n == ORACLE and oracle) or (n in usable and n not in without)],
    }
    asked = [n.strip() for n in wanted.split(",") if n.strip()]
    names = list(dict.fromkeys(name for one in asked for name in several.get(one, [one])))
    families = {n: {part.partition(":")[0] for part in parts_of(n)} for n in names}  # of `joint+ties:density=0.5`
    usable |= {n: host.generators[n] for n in names if families[n] <= set(usable)}
    for name in names:
        if name != ORACLE and name not in usable:
            if name in host.generators:
                raise UnknownName(f"pack {pack.name!r} has no trained {name!r}", "build the pack again with it")
            raise UnknownName.of("method", name, [*usable, ORACLE])
    return {n: "Oracle" if n == ORACLE else usable[n].label for n in names}


def plan_of_methods(
    loaded: LoadedPack, tasks: Sequence[UnseenTask], names: Mapping[str, str], config: BenchConfig
) -> BenchPlan:
    """Measure a pack's methods."""
    pack, host = loaded.pack, loaded.host
    fitted = {n: loaded.fitted(n) for n in names if n != ORACLE}
    asked = queries(loaded.model, [task.description for task in tasks])
    query_of = {task.key: query for task, query in zip(tasks, asked, strict=True)}
    pool = _sentences(pack, tasks)
    if config.wrong_sentences:
        more = {one.key: one.text for one in pool if one.key not in query_of} | {UNRELATED: UNRELATED_SENTENCE}
        query_of |= dict(zip(more, queries(loaded.model, list(more.values())), strict=True))
    oracle_of = {t.key: t.oracle_P for t in tasks if t.oracle_P is not None}
    reads: dict[str, bool] = {}

    def controls(task: UnseenTask, evidence: TaskEvidence) -> list[Candidate]:
        """Adapters that other sentences make, of methods that read it."""
        own = Sentence(task.key, task.dataset, task.description)
        others = other_sentences(own, pool, config.wrong_sentences, config.seed)
        priors = {key: pack.prior(query_of[key]) for key in others}
        one_draw = replace(config, samples=1, seeds=1)
        adapters = [
            Candidate(ORACLE, pack.layout, oracle_of[key], sentence=key)
            for key in others
            if ORACLE in names and key in oracle_of
        ]
        for name in fitted:
            ask = partial(evidence.ask, host.generators[name], fitted[name])
            if name not in reads:  # what searches on the task's pairs is slow to ask, and made for them
                reads[name] = host.generators[name].needs != SHOTS and reads_sentence(pack, ask, config)
            layout = pack.layout_of(fitted[name])
            for key, prior in priors.items() if reads[name] else ():
                made = candidates(layout, host.generators[name], ask, prior, one_draw, name)
                adapters += [replace(one, sentence=key) for one in made]
        return adapters

    def make(task: UnseenTask) -> list[Candidate]:
        prior = pack.prior(query_of[task.key])
        evidence = TaskEvidence(loaded.model, pack, task)
        adapters = []
        for name in names:
            if name == ORACLE:
                if task.oracle_P is None:
                    hint = "leave oracle out of --baselines"
                    raise Unavailable(f"there is no Oracle adapter of {task.name!r}", hint)
                adapters.append(Candidate(name, pack.layout, task.oracle_P))
                continue
            ask = partial(evidence.ask, host.generators[name], fitted[name])
            layout = pack.layout_of(fitted[name])
            adapters += candidates(layout, host.generators[name], ask, prior, config, name)
        return adapters + (controls(task, evidence) if config.wrong_sentences else [])

    def make_unchanged(task: UnseenTask) -> list[Candidate]:
        with pack.unchanged():  # or these adapters may be of two packs
            return make(task)

    protocol: dict[str, Any] = {"backbone": pack.backbone, "rank": pack.layout.rank, "k": pack.prior_config.k}
    protocol["experts"] = sorted({t["dataset"] for t in pack.tasks.of(EXPERT)})
    return BenchPlan(
        loaded.model,
        tasks,
        names,
        make_unchanged,
        config,
        pack.name,
        pack.backbone,
        protocol=protocol,
        origin=pack.manifest,
    )


def _sentences(pack: Pack, tasks: Sequence[UnseenTask]) -> list[Sentence]:
    """The sentences of the measured tasks, and of the pack's other unseen tasks."""
    known = {t.key: Sentence(t.key, t.dataset, t.description) for t in tasks}
    for task in pack.tasks.of(UNSEEN):
        known.setdefault(task["key"], Sentence(task["key"], task["dataset"], task["description"]))
    return list(known.values())


def reads_sentence(pack: Pack, ask: Callable[[Prior, int, int, float], Tensor], config: BenchConfig) -> bool:
    """Whether a method's adapters for the sentences of the first experts differ. Merging all experts alike, no
    sentence changes them."""
    priors = [pack.prior(pack.expert_query(row)) for row in range(min(_ASKED, len(pack.experts.names)))]
    made = [ask(prior, 1, config.seed, config.temperature) for prior in priors]
    return any(not torch.equal(made[0], other) for other in made[1:])


_ASKED = 4


def candidates(
    layout: Layout,
    generator: Generator,
    ask: Callable[[Prior, int, int, float], Tensor],
    prior: Prior,
    config: BenchConfig,
    method: str,
    draws: int = 1,
    fold: Callable[[Prior, Tensor], Tensor] | None = None,
) -> list[Candidate]:
    """A method's adapters for a prior: of every seed every sample. With `fold`, a sample is made of n `draws`.

    ask: (prior, samples, seed, temperature) -> (S, P), or (S, N, P) where each image has its own adapter.
    """
    adapters = []
    for seed in range(config.seed, config.seed + (config.seeds if generator.draws else 1)):
        count = config.samples if generator.draws else 1
        flat_SP = ask(prior, count * draws, seed, config.temperature)
        if fold is not None:
            flat_SP = torch.stack([fold(prior, part_nP) for part_nP in flat_SP.split(draws)])
        adapters += [Candidate(method, layout, flat_P, s, seed) for s, flat_P in enumerate(flat_SP)]
    return adapters


def lack(pack: Pack, generator: Generator, tasks: Sequence[UnseenTask]) -> Unavailable | None:
    """Why a generator cannot be asked about tasks; None if it can, or if it needs nothing."""
    if generator.needs == SHOTS and any(task.training is None for task in tasks):
        message = f"{generator.name!r} needs training photos of the unseen tasks, which no pack carries"
        return Unavailable(message, "name the folder of the photos: --data DIR")
    if generator.needs == IMAGES and not pack.has_visual:
        message = f"{generator.name!r} compares photos, and pack {pack.name!r} does not know what its experts look like"
        return Unavailable(message, "build the pack again")
    try:
        if generator.needs or not generator.learns:
            pack.fitted(generator)
    except Unavailable as error:
        return error
    return None


def saw_training(loaded: LoadedPack, name: str) -> bool:
    """Whether a method has seen the pack's training tasks: it was fitted to them, or uses the joint adapter
    or the moments, which have seen them. What is made of the experts alone can do without moments, and does not change
    if that adapter is NaN."""
    generator, pack = loaded.host.generators[name], loaded.pack
    if isinstance(generator, Combined):
        return any(saw_training(loaded, part.name) for part in generator.parts)
    if generator.learns or generator.needs:
        return generator.learns and name in pack.manifest["generators"]
    try:
        blind = generator.restore(_Blind(pack.experts), {"joint": torch.full((pack.layout.size,), torch.nan)})
        flat_SP = blind.generate(pack.prior(pack.expert_query(0)), 1, 0, 1.0)
    except SgloraError:
        return True
    return not bool(torch.isfinite(flat_SP).all())


class _Blind:
    """Experts that know nothing of the training tasks."""

    moments: Moments | None = None

    def __init__(self, experts: Experts) -> None:
        self.names, self.layout = experts.names, experts.layout
        self.means, self.variances = experts.means, experts.variances


class TaskEvidence:
    """Evidence of one task, each kind looked at once, and only if a method needs it."""

    def __init__(self, model: Model, pack: Pack, task: UnseenTask) -> None:
        self._model, self._pack, self._task = model, pack, task
        self._seen: dict[str, Evidence] = {}

    def evidence(self, needs: str) -> Evidence:
        if needs not in self._seen:
            self._seen[needs] = self._look(needs)
        return self._seen[needs]

    def _look(self, needs: str) -> Evidence:
        if needs == IMAGES:
            image_ND = image_embeddings(self._model, self._task.tensors.stem_N)
            return Evidence(self._model, images_ND=image_ND, visual_ED=self._pack.visual_ED)
        if self._task.training is None:
            raise Unavailable(f"there are no training photos of {self._task.name!r}", "name their folder: --data DIR")
        return Evidence(self._model, shots=self._task.training())

    def ask(
        self, generator: Generator, fitted: Fitted, prior: Prior, samples: int, seed: int, temperature: float
    ) -> Tensor:
        """Adapters of any generator: (S, P), or (S, N, P) where each image has its own."""
        if not generator.needs:
            return fitted.generate(prior, samples, seed, temperature)
        if not isinstance(fitted, UsesEvidence):
            raise PluginError(f"generator {generator.name!r} says that it needs data, and has no generate_with")
        return fitted.generate_with(prior, self.evidence(generator.needs), samples, seed, temperature)
