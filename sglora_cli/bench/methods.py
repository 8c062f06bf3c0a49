"""The methods, what they may use of an unseen task, and their adapters for it.

Shapes: P parameters of an adapter, D embedding, S samples, N images.
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
from sglora_cli.bench.candidates import Candidate
from sglora_cli.bench.evidence import TaskEvidence
from sglora_cli.bench.measure import Part
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
"""Maps a task to the parts of every method."""


@dataclass(frozen=True)
class BenchPlan:
    """Everything that determines the rows of a measurement."""

    model: Model
    tasks: Sequence[UnseenTask]
    names: Mapping[str, str]
    """Method name to label, in the order of the table."""
    parts: Parts = field(repr=False)
    config: BenchConfig
    pack: str
    backbone: str
    against: str = AGAINST
    references: Mapping[str, str] = field(default_factory=dict)
    """Methods that are compared with another method than `against`."""
    on: str = ""
    """The other pack that the tasks come from."""
    role: str = UNSEEN
    """Role of the tasks in the pack, one of ROLES."""
    protocol: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    """Notes that a reader of the table needs."""
    origin: Any = None
    """Further inputs of the adapters as JSON: the pack's manifest or the hashes of adapter files."""

    @property
    def key(self) -> str:
        """Hash of everything that determines the rows, except the test photos themselves."""
        keys = [[t.dataset, t.name, t.description, len(t.tensors.stem_N)] for t in self.tasks]
        inputs = [self.origin, self.model.fingerprint, list(self.names), self._settings, keys]
        return content_hash(inputs)[:16]

    @property
    def _settings(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self.config).items() if k != "resamples"}

    def header(self, command: str = "", table: str = "") -> Header:
        more = {"plan": self.key, "command": command, "table": table, "config": self._settings}
        more |= {"fingerprint": self.model.fingerprint, "on": self.on, "references": dict(self.references)}
        more |= {"role": self.role, "notes": list(self.notes), "build": content_hash(self.origin)[:16]}
        return Header(self.pack, self.backbone, {CHANCE: "Chance", **self.names}, self.against, more=more)


def methods(host: Host, pack: Pack, wanted: str, oracle: bool = True, without: Container[str] = ()) -> dict[str, str]:
    """Return method names and their labels, in the order of the table.

    wanted: comma-separated names, where "all" and "paper" stand for several methods.
    oracle: whether every task has an Oracle.  without: names that "all" and "paper" leave out.
    "all" also leaves out learned generators that the pack lacks, and both leave out the Oracle if `oracle` is false.
    Raises UnknownName.
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
                raise UnknownName(f"pack {pack.name!r} has no trained {name!r}", "rebuild the pack with this generator")
            raise UnknownName.of("method", name, [*usable, ORACLE])
    return {n: "Oracle" if n == ORACLE else usable[n].label for n in names}


def plan_of_methods(
    loaded: LoadedPack, tasks: Sequence[UnseenTask], names: Mapping[str, str], config: BenchConfig
) -> BenchPlan:
    """Plan the measurement of a pack's methods."""
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
    """A pack's methods, applied to the sentences of the tasks and to other sentences.

    Adapters are made and generators loaded only on demand.
    """

    def __init__(self, loaded: LoadedPack, tasks: Sequence[UnseenTask], config: BenchConfig) -> None:
        self.loaded, self.pack, self.config = loaded, loaded.pack, config
        self.tasks, self.pool = tasks, _sentences(loaded.pack, tasks)
        self._reads: dict[str, bool] = {}
        self._keys = PartKeys(loaded)

    @cached_property
    def query_of(self) -> dict[str, Query]:
        """The query of each task and each other sentence, by key."""
        texts = {task.key: task.description for task in self.tasks}
        if self.config.wrong_sentences:
            texts = {one.key: one.text for one in self.pool} | texts | {UNRELATED: UNRELATED_SENTENCE}
        return dict(zip(texts, queries(self.loaded.model, list(texts.values())), strict=True))

    @cached_property
    def oracle_of(self) -> dict[str, Tensor]:
        return {t.key: t.oracle_P for t in self.tasks if t.oracle_P is not None}

    def parts(self, names: Sequence[str], task: UnseenTask) -> list[Part]:
        """Return each method's part for the task, then each method's part for other sentences."""
        evidence = TaskEvidence(self.loaded.model, self.pack, task)
        own = [self._part(self._own, name, name, task, evidence, task.description) for name in names]
        if not self.config.wrong_sentences:
            return own
        one = Sentence(task.key, task.dataset, task.description)
        others = other_sentences(one, self.pool, self.config.wrong_sentences, self.config.seed)
        text_of = {sentence.key: sentence.text for sentence in self.pool} | {UNRELATED: UNRELATED_SENTENCE}
        said = [[key, text_of[key]] for key in others]
        make = partial(self._controls, others)
        return [*own, *(self._part(make, name, f"{name}, other sentences", task, evidence, said) for name in names)]

    def _part(
        self,
        make: Callable[[str, UnseenTask, TaskEvidence], list[Candidate]],
        name: str,
        what: str,
        task: UnseenTask,
        evidence: TaskEvidence,
        said: Any,
    ) -> Part:
        def unchanged() -> list[Candidate]:
            with self.pack.unchanged():  # else the adapters may come from two versions of the pack
                return make(name, task, evidence)

        if name == ORACLE:
            return Part("", unchanged, name=what, ready=True)
        key = self._keys(name, [asdict(self.config), task.key, said])
        return Part(key, unchanged, partial(self.loaded.fitted, name), what)

    def _own(self, name: str, task: UnseenTask, evidence: TaskEvidence) -> list[Candidate]:
        if name == ORACLE:
            if task.oracle_P is None:
                raise Unavailable(f"there is no Oracle adapter of {task.name!r}", "remove oracle from --baselines")
            return [Candidate(name, self.pack.layout, task.oracle_P)]
        prior = self.pack.prior(self.query_of[task.key])
        return self._candidates(name, evidence, prior, self.config)

    def _controls(self, others: Sequence[str], name: str, task: UnseenTask, evidence: TaskEvidence) -> list[Candidate]:
        """Make the adapters of other sentences, for methods that depend on the sentence."""
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
        if name not in self._reads:  # methods that are fitted to the task's pairs are slow and not controlled
            generator = self.loaded.host.generators[name]
            ask = partial(evidence.ask, generator, self.loaded.fitted(name))
            self._reads[name] = generator.needs != SHOTS and reads_sentence(self.pack, ask, self.config)
        return self._reads[name]


class PartKeys:
    """Hashes of all inputs of the methods' adapters."""

    def __init__(self, loaded: LoadedPack) -> None:
        self._loaded = loaded
        self._of = cache(self._method)

    def __call__(self, name: str, asked: Any) -> str:
        """Return the key of a method, or "" for a method whose inputs are unknown because it reads training photos.

        asked: further inputs of its adapters, as JSON.
        """
        key = self._of(name)
        return content_hash(key, asked) if key else ""

    def _method(self, name: str) -> str:
        generator, pack = self._loaded.host.generators[name], self._loaded.pack
        if generator.needs == SHOTS:
            return ""
        # Files are identified by size and change times, so a damaged file is read again and rejected.
        code = [path for one in (*single(generator), self._loaded.model) for path in source_files(one)]
        stamps = [*_stamps([*pack.files_of(generator), *code]), *self._own_code]
        where = self._loaded.model.device.type
        return content_hash("adapters", __version__, version("torch"), stamps, pack.manifest, name, where)

    @cached_property
    def _own_code(self) -> list[list[int]]:
        return _stamps(sorted(Path(str(files("sglora_cli"))).rglob("*.py")))


def _stamps(paths: Sequence[Path]) -> list[list[int]]:
    """Return values that change with the content of the files but not with their location."""
    return [stamp(path)[2:] for path in paths if path.exists()]


def _sentences(pack: Pack, tasks: Sequence[UnseenTask]) -> list[Sentence]:
    """Return the sentences of the measured tasks and of the pack's other unseen tasks."""
    known = {t.key: Sentence(t.key, t.dataset, t.description) for t in tasks}
    for task in pack.tasks.of(UNSEEN):
        known.setdefault(task["key"], Sentence(task["key"], task["dataset"], task["description"]))
    return list(known.values())


def reads_sentence(pack: Pack, ask: Callable[[Prior, int, int, float], Tensor], config: BenchConfig) -> bool:
    """Return whether a method's adapters differ between the sentences of the first experts.

    They do not for methods that ignore the sentence, such as a merge of all experts with equal weights.
    """
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
    """Make a method's adapters for a prior: every sample of every seed. With `fold`, each sample combines n `draws`.

    ask: (prior, samples, seed, temperature) -> (S, P), or (S, N, P) if each image has its own adapter.
    """
    adapters = []
    for seed in range(config.seed, config.seed + (config.seeds if generator.draws else 1)):
        count = config.samples if generator.draws else 1
        flat_SP = ask(prior, count * draws, seed, config.temperature)
        if fold is not None:
            flat_SP = torch.stack([fold(prior, part_nP) for part_nP in flat_SP.split(draws)])
        adapters += [Candidate(method, layout, flat_P, s, seed) for s, flat_P in enumerate(flat_SP)]
    return adapters
