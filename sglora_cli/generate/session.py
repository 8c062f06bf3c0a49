"""Generates adapters from descriptions: a session holds pack, model and generator, and answers many descriptions.

Shapes: N texts, D embedding width, W width of meaning, E experts, S samples, P parameters of an adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sglora_cli.adapter.file import AdapterFile
from sglora_cli.adapter.library import found
from sglora_cli.config import GenerateConfig, PriorConfig, RuntimeConfig, checked
from sglora_cli.data.description import Description
from sglora_cli.data.encode import check_text, mean_query, visual_embedding
from sglora_cli.errors import SgloraError, Unavailable, UnknownName, UsageError
from sglora_cli.generate.generated import Generated
from sglora_cli.lora.layout import checked_flat
from sglora_cli.lora.prior import Prior, Query, best_of
from sglora_cli.pack.coverage import Coverage, SeenTasks, encoded_phrases
from sglora_cli.pack.dependence import Dependence, dependence
from sglora_cli.pack.health import check_trained
from sglora_cli.pack.loaded import LoadedPack
from sglora_cli.pack.recipe import PROMPTS
from sglora_cli.plugin.contracts import Fitted, Generator, IgnoresExperts, Model
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.sentences import meaning, queries
from sglora_cli.plugin.values import ZERO, Task
from sglora_cli.system.display import html_table, quoted

if TYPE_CHECKING:
    from sglora_cli.adapter.foreign import ForeignAdapter
    from sglora_cli.search.album import Album, Places


class Session:
    """A pack, model and generator, loaded once.

    >>> session = Session.open("starter", generator="top-k")
    >>> generated = session.generate("a photo of a yorkshire terrier")
    >>> session.pack.experts.names[generated.prior.rows[0]]
    'pets/scottish terrier'
    """

    def __init__(self, loaded: LoadedPack, generator: str = "", force: bool = False) -> None:
        self.loaded, self.pack, self.reason = loaded, loaded.pack, loaded.reason
        self.generator: Generator = loaded.usable(generator)
        self.fitted: Fitted = loaded.fitted(self.generator.name)
        self.layout = self.pack.layout_of(self.fitted)
        self._health_checked = force

    @classmethod
    def open(
        cls,
        pack: str = "",
        generator: str = "",
        host: Host | None = None,
        runtime: RuntimeConfig | None = None,
        backbone: str = "",
        force: bool = False,
    ) -> Session:
        """Open a session with the given pack and generator, or with the defaults of `sglora generate`.

        force: allow a generator that looks untrained.
        """
        return cls(LoadedPack.open(host or Host.load(), pack, runtime, backbone), generator, force)

    def __repr__(self) -> str:
        which, backbone = f"{quoted(self.pack.name)} ({self.reason})", quoted(self.pack.backbone)
        return f"Session(pack {which}, generator {quoted(self.generator.name)}, backbone {backbone} {self._state})"

    def _repr_html_(self) -> str:
        facts = {
            "pack": f"{self.pack.name} ({self.reason})",
            "experts": len(self.pack.experts.names),
            "generator": f"{self.generator.name}: {self.generator.summary}",
            "backbone": f"{self.pack.backbone}, {self._state}",
            "layout": self.layout.line,
        }
        return html_table("session", facts)

    @property
    def _state(self) -> str:
        return "loaded" if self.loaded.has_model else "not loaded yet"

    @property
    def mixes_experts(self) -> bool:
        """Whether the adapters depend on the prior's experts."""
        return not (isinstance(self.fitted, IgnoresExperts) and self.fitted.ignores_experts)

    @property
    def model(self) -> Model:
        """The pack's backbone, loaded on first use. Raises Mismatch if its weights are not the pack's."""
        return self.loaded.model

    def _meaning(self, texts: Sequence[str]) -> Tensor:
        return meaning(self.model, texts)

    @cached_property
    def seen_tasks(self) -> SeenTasks:
        """The tasks that the pack has seen, to measure how far a sentence is from them."""
        return SeenTasks.of(self.pack, self._meaning)

    @cached_property
    def dependence(self) -> Dependence | None:
        """How much this generator's adapters depend on the sentence, or None if that cannot be measured."""
        with suppress(SgloraError):  # errors with other sentences must not fail this one
            return dependence(self.loaded, self.generator.name)
        return None

    def generate(
        self,
        description: str | Description,
        config: GenerateConfig | None = None,
        prior_config: PriorConfig | None = None,
    ) -> Generated:
        """Generate adapters for one task. Raises UsageError for an empty or too long sentence."""
        return self.generate_all([description], config, prior_config)[0]

    def generate_all(
        self,
        descriptions: Sequence[str | Description],
        config: GenerateConfig | None = None,
        prior_config: PriorConfig | None = None,
    ) -> list[Generated]:
        """Generate adapters for each description, encoding all sentences in one batch. Raises the first error."""
        config, prior_config = checked(config or GenerateConfig()), checked(prior_config or self.pack.prior_config)
        tasks = [Description.of(one) if isinstance(one, str) else one for one in descriptions]
        with self.pack.unchanged():
            if not self._health_checked:
                check_trained(self.pack, self.generator, self.fitted)
                self._health_checked = True
            for task in tasks:
                for text in task.texts:
                    check_text(self.model, text)
            return self._generate_batch(tasks, config, prior_config)

    def _generate_batch(
        self, tasks: Sequence[Description], config: GenerateConfig, prior_config: PriorConfig
    ) -> list[Generated]:
        texts = [text for task in tasks for text in task.texts]
        asked = queries(self.model, texts)
        phrases = encoded_phrases(texts, self._meaning)
        results, start = [], 0
        for task in tasks:
            own = slice(start, start := start + len(task.texts))
            results.append(self._generate(task, asked[own], phrases[own], config, prior_config))
        return results

    def evaluate(self, generated: Generated, *tasks: str | Task) -> dict[str, dict[str, float]]:
        """Measure the adapters in percent: {"zero-shot": {"I2T R@1": 12.5, ...}, "adapter": {...}}.

        tasks: names or keys of unseen tasks of the pack, or Tasks of a data set with test photos. The default is all
        unseen tasks of the pack. Results are averaged over samples, then over tasks.
        Raises UnknownName, and Unavailable if there is no task.
        """
        from sglora_cli.bench.candidates import Candidate
        from sglora_cli.bench.measure import Measurer
        from sglora_cli.bench.rows import averages
        from sglora_cli.bench.tables import cell_name
        from sglora_cli.bench.tasks import of_task

        carried = {t.key: t for t in self.pack.unseen()}
        known = carried | {t.name: t for t in carried.values()}
        for task in tasks:
            if isinstance(task, str) and task not in known:
                raise UnknownName.of(f"unseen task in pack {self.pack.name!r}", task, carried)
        measured = [known[t] if isinstance(t, str) else of_task(self.model, t, PROMPTS) for t in tasks or carried]
        if not measured:
            raise Unavailable(f"pack {self.pack.name!r} has no evaluation data", "pass Tasks of a data set")
        none = Candidate(ZERO, generated.layout, torch.zeros(generated.layout.size))
        adapters = [Candidate("adapter", generated.layout, flat_P, s) for s, flat_P in enumerate(generated.adapters_SP)]
        measurer = Measurer(self.model, self._precision)
        rows = [row for task in measured for row in measurer.rows(task, [none, *adapters])]
        means = averages(rows)
        return {method: {cell_name(c): value for c, value in cells.items()} for method, cells in means.items()}

    def album(
        self, photos: Places, adapter: Generated | AdapterFile | ForeignAdapter | Path | str | None = None
    ) -> Album:
        """Return a user's photos, to search, sort or rate them with this session's backbone.

        photos: a folder, a text file with one path per line, or paths.  adapter: the result of `generate` or
        `read_adapter`, or a file or folder in any format. Of several samples, the first is used.
        Raises BadFile, and Mismatch for an adapter that does not fit the backbone.
        """
        from sglora_cli.search.album import Album
        from sglora_cli.search.encoder import Encoder

        if isinstance(adapter, Generated):
            adapter = adapter.adapter()
        elif isinstance(adapter, str | Path):
            adapter = found(Path(adapter))
        because = f"that of pack {self.pack.name}: {self.reason}"
        return Album.of(photos, Encoder.of_model(self.model, self.pack.backbone, because, self._precision, adapter))

    @property
    def _precision(self) -> str:
        return self.loaded.runtime.precision

    def described(self, sentence: str) -> Description:
        """Convert a sentence to a description that this session's model can encode. Raises UsageError or Mismatch."""
        task = Description.of(sentence)
        check_text(self.model, task.texts[0])
        return task

    def _generate(
        self,
        task: Description,
        asked: Sequence[Query],
        phrases: Sequence[Tensor],
        config: GenerateConfig,
        prior_config: PriorConfig,
    ) -> Generated:
        if task.images:
            if self.layout != self.pack.layout or not self.mixes_experts:
                raise UsageError(
                    f"{self.generator.name!r} needs a sentence, or its sites or ranks differ from the experts'",
                    "describe the task in words, or use a generator that mixes experts: --generator cvae",
                )
            prior = self.pack.visual_prior(visual_embedding(self.model, task.images), prior_config)
            coverage = Coverage(float(prior.similarity_E.max()), self.pack.nearest_E)
        else:
            prior = self.pack.prior(mean_query(task.weights, asked), prior_config)
            self.pack.check_width(self.seen_tasks.tasks_TW, phrases[0][0])
            coverage = self.seen_tasks.coverage(phrases, task.weights)
        adapters_SP = self.fitted.generate(prior, config.samples, config.seed, config.temperature)
        checked_flat(adapters_SP, f"the output of generator {self.generator.name!r}")
        drawn = tuple(range(len(adapters_SP)))
        if config.best:
            if self.layout != self.pack.layout:
                raise UsageError(
                    f"sites or ranks of {self.generator.name!r} differ from the experts', so draws cannot be ranked",
                    "remove --best",
                )
            drawn = best_of(prior, adapters_SP, config.best)
            adapters_SP = adapters_SP[list(drawn)]
        warnings = self._warnings(coverage, adapters_SP, "photos are" if task.images else "sentence is")
        metadata = self._metadata(task, prior, config, prior_config)
        return Generated(task, adapters_SP, prior, self.layout, metadata, warnings, drawn, coverage)

    def _metadata(
        self, task: Description, prior: Prior, config: GenerateConfig, prior_config: PriorConfig
    ) -> dict[str, Any]:
        return {
            **task.to_json(),
            "backbone": self.pack.backbone,
            "fingerprint": self.pack.fingerprint,
            "pack": self.pack.name,
            "generator": self.generator.name,
            "prior": asdict(prior_config),
            "draw": {key: value for key, value in asdict(config).items() if key != "best" or value},
            "experts": [
                [self.pack.experts.names[r], round(float(a), 6)] for r, a in zip(prior.rows, prior.alpha_K, strict=True)
            ]
            if self.mixes_experts
            else [],
        }

    def _warnings(self, coverage: Coverage, adapters_SP: Tensor, what: str = "sentence is") -> tuple[str, ...]:
        warnings = []
        if coverage.closeness < coverage.far:
            warnings.append(
                f"the {what} far from the tasks the pack has seen: closeness {coverage.closeness:.2f}, while 19 of 20 "
                f"of these tasks reach {coverage.far:.2f} to the others; measure the adapter before you rely on it"
            )
        if float(self.layout.update_norm(adapters_SP).max()) == 0:
            warnings.append(f"generator {self.generator.name!r} produced a zero update, so the adapter has no effect")
        elif self.dependence and self.dependence.hardly:
            warnings.append(
                f"adapters from {self.generator.name!r} with pack {self.pack.name!r} hardly depend on the sentence: "
                f"those for {self.dependence.sentences} tasks have a mean cosine of {self.dependence.cosine:.3f}; "
                "measure the sentence gain with `sglora bench`"
            )
        return tuple(warnings)
