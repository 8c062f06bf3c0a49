"""Which methods there are, what they may see of an unseen task, and their adapters for it.

Shapes: P numbers of an adapter, D embedding, S samples, N images.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property, partial
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglora_cli import __version__
from sglora_cli.bench.evidence import TaskEvidence
from sglora_cli.bench.measure import Candidate, Part
from sglora_cli.bench.paper import PAPER
from sglora_cli.bench.rows_file import Header
from sglora_cli.bench.sentences import UNRELATED, UNRELATED_SENTENCE, Sentence, other_sentences
from sglora_cli.config import BenchConfig
from sglora_cli.errors import Unavailable, UnknownName
from sglora_cli.files.hashes import content_hash
from sglora_cli.lora.layout import Layout
from sglora_cli.lora.prior import Prior, Query
from sglora_cli.pack.content.evaluation import UnseenTask
from sglora_cli.pack.loaded import LoadedPack
from sglora_cli.pack.pack import Pack
from sglora_cli.plugin.combined import parts_of, single
from sglora_cli.plugin.contracts import SHOTS, Generator, Model
from sglora_cli.plugin.guard import source_files
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.sentences import queries
from sglora_cli.plugin.values import AGAINST, CHANCE, EXPERT, ORACLE, UNSEEN
from sglora_cli.system.fingerprints import stamp

Parts = Callable[[UnseenTask], list[Part]]
"""A task -> what each method is asked for on it."""


@dataclass(frozen=True)
class BenchPlan:
    """What will be measured: everything the rows follow from."""

    model: Model
    tasks: Sequence[UnseenTask]
    names: Mapping[str, str]
    """Method name to its label, in the order of the table."""
    parts: Parts = field(repr=False)
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
    pack, asking = loaded.pack, _Asking(loaded, tasks, config)
    protocol: dict[str, Any] = {"backbone": pack.backbone, "rank": pack.layout.rank, "k": pack.prior_config.k}
    protocol["experts"] = sorted({t["dataset"] for t in pack.tasks.of(EXPERT)})
    return BenchPlan(
        loaded.model,
        tasks,
        names,
        partial(asking.parts, list(names)),
        config,
        pack.name,
        pack.backbone,
        protocol=protocol,
        origin=pack.manifest,
    )


class _Asking:
    """A pack's methods, asked with the sentences of tasks and with those of others. Nothing is asked, and no generator
    opened, before somebody wants to know its adapters."""

    def __init__(self, loaded: LoadedPack, tasks: Sequence[UnseenTask], config: BenchConfig) -> None:
        self.loaded, self.pack, self.config = loaded, loaded.pack, config
        self.tasks, self.pool = tasks, _sentences(loaded.pack, tasks)
        self._reads: dict[str, bool] = {}
        self._keys = PartKeys(loaded)

    @cached_property
    def query_of(self) -> dict[str, Query]:
        """The key of each task, and of each other sentence, to how the experts are asked about it."""
        texts = {task.key: task.description for task in self.tasks}
        if self.config.wrong_sentences:
            texts = {one.key: one.text for one in self.pool} | texts | {UNRELATED: UNRELATED_SENTENCE}
        return dict(zip(texts, queries(self.loaded.model, list(texts.values())), strict=True))

    @cached_property
    def oracle_of(self) -> dict[str, Tensor]:
        return {t.key: t.oracle_P for t in self.tasks if t.oracle_P is not None}

    def parts(self, names: Sequence[str], task: UnseenTask) -> list[Part]:
        """Of every method its adapters for the task, then of every method those that other sentences make."""
        evidence = TaskEvidence(self.loaded.model, self.pack, task)
        own = [self._part(self._own, name, task, evidence, task.description) for name in names]
        if not self.config.wrong_sentences:
            return own
        one = Sentence(task.key, task.dataset, task.description)
        others = other_sentences(one, self.pool, self.config.wrong_sentences, self.config.seed)
        text_of = {sentence.key: sentence.text for sentence in self.pool} | {UNRELATED: UNRELATED_SENTENCE}
        said = [[key, text_of[key]] for key in others]
        make = partial(self._controls, others)
        return [*own, *(self._part(make, name, task, evidence, said) for name in names)]

    def _part(
        self,
        make: Callable[[str, UnseenTask, TaskEvidence], list[Candidate]],
        name: str,
        task: UnseenTask,
        evidence: TaskEvidence,
        said: Any,
    ) -> Part:
        def unchanged() -> list[Candidate]:
            with self.pack.unchanged():  # or these adapters may be of two packs
                return make(name, task, evidence)

        if name == ORACLE:  # its adapters are there already
            return Part("", unchanged)
        key = self._keys(name, [asdict(self.config), task.key, said])
        return Part(key, unchanged, partial(self.loaded.fitted, name))

    def _own(self, name: str, task: UnseenTask, evidence: TaskEvidence) -> list[Candidate]:
        if name == ORACLE:
            if task.oracle_P is None:
                raise Unavailable(f"there is no Oracle adapter of {task.name!r}", "leave oracle out of --baselines")
            return [Candidate(name, self.pack.layout, task.oracle_P)]
        prior = self.pack.prior(self.query_of[task.key])
        return self._candidates(name, evidence, prior, self.config)

    def _controls(self, others: Sequence[str], name: str, task: UnseenTask, evidence: TaskEvidence) -> list[Candidate]:
        """Adapters that other sentences make, of a method that reads it."""
        if name == ORACLE:
            known = [key for key in others if key in self.oracle_of]
            return [Candidate(ORACLE, self.pack.layout, self.oracle_of[key], sentence=key) for key in known]
        if not self._reads_sentence(name, evidence):
            return []
        one_draw = replace(self.config, samples=1, seeds=1)
        made = []
        for key in others:
            found = self._candidates(name, evidence, self.pack.prior(self.query_of[key]), one_draw)
            made += [replace(one, sentence=key) for one in found]
        return made

    def _candidates(self, name: str, evidence: TaskEvidence, prior: Prior, config: BenchConfig) -> list[Candidate]:
        generator, fitted = self.loaded.host.generators[name], self.loaded.fitted(name)
        ask = partial(evidence.ask, generator, fitted)
        return candidates(self.pack.layout_of(fitted), generator, ask, prior, config, name)

    def _reads_sentence(self, name: str, evidence: TaskEvidence) -> bool:
        if name not in self._reads:  # what searches on the task's pairs is slow to ask, and made for them
            generator = self.loaded.host.generators[name]
            ask = partial(evidence.ask, generator, self.loaded.fitted(name))
            self._reads[name] = generator.needs != SHOTS and reads_sentence(self.pack, ask, self.config)
        return self._reads[name]


class PartKeys:
    """The hashes of everything that methods' adapters follow from."""

    def __init__(self, loaded: LoadedPack) -> None:
        self._loaded = loaded
        self._of = cache(self._method)

    def __call__(self, name: str, asked: Any) -> str:
        """Of a method; "" where that is not known: of what it reads of training photos. asked: what else its adapters
        follow from, as JSON."""
        key = self._of(name)
        return content_hash(key, asked) if key else ""

    def _method(self, name: str) -> str:
        generator, pack = self._loaded.host.generators[name], self._loaded.pack
        if generator.needs == SHOTS:
            return ""
        # Files are taken by size and times of change, so that a damaged one is read and refused.
        code = [path for one in (*single(generator), self._loaded.model) for path in source_files(one)]
        stamps = [*_stamps([*pack.files_of(generator), *code]), *self._own_code]
        where = self._loaded.model.device.type
        return content_hash("adapters", __version__, version("torch"), stamps, pack.manifest, name, where)

    @cached_property
    def _own_code(self) -> list[list[int]]:
        return _stamps(sorted(Path(str(files("sglora_cli"))).rglob("*.py")))


def _stamps(paths: Sequence[Path]) -> list[list[int]]:
    """What another content of files does not have, wherever they lie."""
    return [stamp(path)[2:] for path in paths if path.exists()]


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
