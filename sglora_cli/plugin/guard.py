"""Guards that turn a plugin's exceptions and wrong return values into PluginErrors that name the plugin.

There is one wrapper class per contract. Registries wrap all their values, and wrappers also wrap what `load`, `fit`,
`restore` and `member` return. sglora's own errors, interrupts and machine failures (such as a full disk) pass through
unchanged. A wrapper has exactly the optional methods that its value has. Importing this module does not load torch.

Shapes: N images, C texts, T or S adapters, D embedding, P parameters of an adapter.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from sglora_cli.errors import PluginError, SgloraError, failure_of
from sglora_cli.plugin.contracts import (
    POWERS,
    Backbone,
    Captioner,
    CaptionModel,
    ChecksText,
    ChoosesSites,
    CountsImages,
    CountsTokens,
    Dataset,
    EncodesMeaning,
    Evidence,
    Executor,
    Fetches,
    Fitted,
    Generator,
    HasMembers,
    HasProjection,
    HidesTokens,
    IgnoresExperts,
    Job,
    KnowsEarlier,
    ListsImages,
    MergesCheckpoints,
    Model,
    PlansFetch,
    PreparesPhotos,
    Reporter,
    SaysAbsent,
    SaysCaptionCost,
    SaysCost,
    SaysDownload,
    SaysNames,
    SaysPassedOver,
    SaysTerms,
    UsesDevice,
    UsesEvidence,
)
from sglora_cli.plugin.validation import (
    wrong_adapters,
    wrong_counts,
    wrong_earlier,
    wrong_image_counts,
    wrong_matrix,
    wrong_pair,
    wrong_plan,
    wrong_site,
    wrong_stem,
    wrong_tasks,
    wrong_terms,
    wrong_value,
    wrong_vectors,
)
from sglora_cli.plugin.values import (
    CaptionerCost,
    Experts,
    FetchPlan,
    Listed,
    Material,
    Report,
    Resources,
    Step,
    Task,
    Terms,
)

if TYPE_CHECKING:
    from typing import Self

    import torch
    from PIL.Image import Image
    from torch import Tensor

    from sglora_cli.config import RuntimeConfig
    from sglora_cli.lora.layout import Layout, Site
    from sglora_cli.lora.prior import Prior

V = TypeVar("V")


class Guarded(Generic[V]):
    """A plugin's value whose contract methods are guarded. All other attributes are passed through."""

    contract: ClassVar[type]

    def __new__(cls, value: V, *_: Any) -> Self:
        optional = tuple(_OPTIONAL[power] for power in POWERS[cls.contract] if isinstance(value, power))
        plain: Any = cls
        return super().__new__(_with(plain, optional))

    def __init__(self, value: V, who: str) -> None:
        self._value, self._who = value, who

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the interpreter looks these up on every object
            raise AttributeError(name)
        with self._asking(name, passing=(SgloraError, AttributeError)):
            return getattr(self._value, name)

    def __reduce__(self) -> Any:
        return self._plain(), (self._value, self._who)

    def __repr__(self) -> str:
        return repr(self._value)

    @classmethod
    def _plain(cls) -> type[Self]:
        """Return the wrapper class without optional methods, which can be found in this module by name (for pickle)."""
        return next(kind for kind in cls.__mro__ if "contract" in vars(kind))

    @contextmanager
    def _asking(self, member: str, passing: tuple[type[Exception], ...] = (SgloraError,)) -> Iterator[None]:
        try:
            yield
        except passing:
            raise
        except Exception as error:  # plugin code may raise anything
            if failure_of(error):  # the machine's fault, not the plugin's
                raise
            raise self._blamed(member, error) from error

    def _blamed(self, member: str, error: Exception) -> PluginError:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}, line {frame.lineno}"
        return PluginError(
            f"{self._who} failed in {member}: {type(error).__name__}: {error} ({where})",
            "report this line to its author; the other plugins still work",
        )

    def _refuse(self, method: str, wrong: str) -> None:
        """Raise PluginError if `wrong` describes a fault."""
        if wrong:
            raise PluginError(f"{self._who}: {method} {wrong}", "report this line to its author")


def source_files(value: object) -> list[Path]:
    """Return the files of the package or module that defines a plugin's value. Its behaviour may change with them."""
    kind = type(value._value if isinstance(value, Guarded) else value)
    module = sys.modules.get(kind.__module__.partition(".")[0])
    folders = [Path(folder) for folder in getattr(module, "__path__", ())]
    if not folders:
        origin = getattr(module, "__file__", None)
        return [Path(origin)] if origin else []
    files = (path for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts)
    return sorted(path for path in files if path.is_file())


@cache
def _with(cls: type[Any], optional: tuple[type, ...]) -> type[Any]:
    """Return the wrapper with optional methods as its own class, so that `isinstance` needs no attribute access."""
    return type(cls.__name__, (*optional, cls), {}) if optional else cls


class GuardedBackbone(Guarded[Backbone]):
    contract = Backbone
    name: str
    summary: str

    def load(self, runtime: RuntimeConfig) -> GuardedModel:
        with self._asking("load"):
            model = self._value.load(runtime)
        self._refuse("load", wrong_value(model, Model))
        return GuardedModel(model, self._who)


class GuardedModel(Guarded[Model]):
    contract = Model
    fingerprint: str
    sites: Sequence[Site]
    scale: float
    loss_scale: float
    hub_name: str
    device: torch.device

    def stem(self, images: Sequence[Image]) -> Tensor:
        with self._asking("stem"):
            stem_N = self._value.stem(images)
        self._refuse("stem", wrong_stem(stem_N, len(images)))
        return stem_N

    def encode_image(self, stem: Tensor, layout: Layout | None = None, adapters_TP: Tensor | None = None) -> Tensor:
        with self._asking("encode_image"):
            image_ND = self._value.encode_image(stem, layout, adapters_TP)
        count = len(stem) if adapters_TP is None else len(adapters_TP)
        self._refuse("encode_image", wrong_vectors(image_ND, count, plain=adapters_TP is None))
        return image_ND

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        with self._asking("encode_text"):
            text_CD = self._value.encode_text(texts)
        self._refuse("encode_text", wrong_vectors(text_CD, len(texts), plain=True))
        return text_CD


class GuardedDataset(Guarded[Dataset]):
    contract = Dataset
    name: str
    summary: str

    def tasks(self, root: Path) -> Sequence[Task]:
        with self._asking("tasks"):
            tasks = self._value.tasks(root)
        self._refuse("tasks", wrong_tasks(tasks))
        return tasks


class GuardedCaptioner(Guarded[Captioner]):
    contract = Captioner
    name: str
    summary: str

    def load(self, runtime: RuntimeConfig) -> GuardedCaptionModel:
        with self._asking("load"):
            return GuardedCaptionModel(self._value.load(runtime), self._who)


class GuardedCaptionModel(Guarded[CaptionModel]):
    contract = CaptionModel

    def write(self, image: Image, prompt: str, count: int, seed: int) -> Sequence[str]:
        with self._asking("write"):
            return self._value.write(image, prompt, count, seed)


class GuardedGenerator(Guarded[Generator]):
    contract = Generator
    name: str
    summary: str
    label: str
    learns: bool
    draws: bool
    needs: str
    config: Any

    def fit(self, material: Material, settings: Mapping[str, Any]) -> tuple[GuardedFitted, dict[str, Any]]:
        with self._asking("fit"):
            answer = self._value.fit(material, settings)
        good = isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], Mapping)
        wrong = f"must return a fitted generator and measurements, got {type(answer).__name__}"
        self._refuse("fit", "" if good else wrong)
        return GuardedFitted(answer[0], self._who), answer[1]

    def restore(self, experts: Experts, tensors: Mapping[str, Tensor]) -> GuardedFitted:
        with self._asking("restore"):
            return GuardedFitted(self._value.restore(experts, tensors), self._who)


class GuardedFitted(Guarded[Fitted]):
    contract = Fitted

    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        with self._asking("generate"):
            adapters_SP = self._value.generate(prior, samples, seed, temperature)
        size = self.own_layout.size if isinstance(self, ChoosesSites) else len(prior.mean_P)
        self._refuse("generate", wrong_adapters(adapters_SP, (samples, size)))
        return adapters_SP

    def tensors(self) -> dict[str, Tensor]:
        with self._asking("tensors"):
            return self._value.tensors()


class GuardedReporter(Guarded[Reporter]):
    contract = Reporter
    name: str
    summary: str

    def render(self, report: Report) -> str:
        with self._asking("render"):
            text = self._value.render(report)
        self._refuse("render", "" if isinstance(text, str) else f"must return a string, got {type(text).__name__}")
        return text


class GuardedExecutor(Guarded[Executor]):
    contract = Executor
    name: str
    summary: str

    def check(self, resources: Resources) -> None:
        with self._asking("check"):
            self._value.check(resources)

    def run(
        self,
        job: Job,
        steps: Sequence[Step],
        advance: Callable[[float, str], None],
        journal: Callable[..., None],
    ) -> Mapping[str, int]:
        with self._asking("run"):
            counts = self._value.run(job, steps, advance, journal)
        good = isinstance(counts, Mapping) and all(isinstance(n, int) for n in counts.values())
        self._refuse("run", "" if good else f"must return the number of steps per machine, got {counts!r:.100}")
        return counts


# Optional methods, one class per protocol


class _HasMembers(Guarded[HasMembers[Any]]):
    def member(self, name: str, /) -> Any:
        with self._asking("member"):
            member = self._value.member(name)
        self._refuse("member", wrong_value(member, self.contract))
        return self._plain()(member, self._who)


class _SaysAbsent(Guarded[SaysAbsent]):
    def absent(self, runtime: RuntimeConfig) -> str:
        with self._asking("absent"):
            text = self._value.absent(runtime)
        self._refuse("absent", "" if isinstance(text, str) else f"must return a string, got {text!r:.100}")
        return text


class _SaysDownload(Guarded[SaysDownload]):
    def download_bytes(self, runtime: RuntimeConfig) -> int | None:
        with self._asking("download_bytes"):
            count = self._value.download_bytes(runtime)
        self._refuse("download_bytes", "" if count is None else wrong_counts([count], 1))
        return count


class _SaysTerms(Guarded[SaysTerms]):
    def terms(self) -> Sequence[Terms]:
        with self._asking("terms"):
            terms = self._value.terms()
        self._refuse("terms", wrong_terms(terms))
        return terms


class _CountsTokens(Guarded[CountsTokens]):
    def token_limit(self) -> int:
        with self._asking("token_limit"):
            limit = self._value.token_limit()
        self._refuse("token_limit", wrong_counts([limit], 1, least=1))
        return limit

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        with self._asking("count_tokens"):
            counts = self._value.count_tokens(texts)
        self._refuse("count_tokens", wrong_counts(counts, len(texts)))
        return counts


class _Fetches(Guarded[Fetches]):
    def fetch(self, data: Path, note: Callable[[str], None]) -> Path:
        with self._asking("fetch"):
            return self._value.fetch(data, note)


class _PlansFetch(Guarded[PlansFetch]):
    def fetch_plan(self, data: Path) -> FetchPlan:
        with self._asking("fetch_plan"):
            plan = self._value.fetch_plan(data)
        self._refuse("fetch_plan", wrong_plan(plan))
        return plan


class _CountsImages(Guarded[CountsImages]):
    def image_counts(self, root: Path) -> tuple[int, int]:
        with self._asking("image_counts"):
            counts = self._value.image_counts(root)
        self._refuse("image_counts", wrong_image_counts(counts))
        return counts


class _ListsImages(Guarded[ListsImages]):
    def images(self, root: Path) -> Sequence[Listed]:
        with self._asking("images"):
            return self._value.images(root)


class _SaysPassedOver(Guarded[SaysPassedOver]):
    def passed_over(self, root: Path) -> Iterator[tuple[str, str]]:
        with self._asking("passed_over"):
            for one in self._value.passed_over(root):
                self._refuse("passed_over", wrong_pair(one))
                yield one


class _EncodesMeaning(Guarded[EncodesMeaning]):
    def encode_meaning(self, texts: Sequence[str]) -> Tensor:
        with self._asking("encode_meaning"):
            text_CD = self._value.encode_meaning(texts)
        self._refuse("encode_meaning", wrong_vectors(text_CD, len(texts), plain=True))
        return text_CD


class _ChecksText(Guarded[ChecksText]):
    def check_text(self, text: str) -> None:
        with self._asking("check_text"):
            self._value.check_text(text)


class _HidesTokens(Guarded[HidesTokens]):
    def hide(self, stem: Tensor, share: float, rng: torch.Generator) -> Tensor:
        with self._asking("hide"):
            return self._value.hide(stem, share, rng)


class _MergesCheckpoints(Guarded[MergesCheckpoints]):
    def merged(self, layout: Layout, flat_P: Tensor) -> dict[str, Tensor]:
        with self._asking("merged"):
            return self._value.merged(layout, flat_P)

    def unmerged(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        with self._asking("unmerged"):
            return self._value.unmerged(tensors)


class _HasProjection(Guarded[HasProjection]):
    @property
    def projection(self) -> Site:
        with self._asking("projection"):
            site = self._value.projection
        self._refuse("projection", wrong_site(site))
        return site

    def projection_weight(self) -> Tensor:
        with self._asking("projection_weight"):
            weight_DI = self._value.projection_weight()
        site = self.projection
        self._refuse("projection_weight", wrong_matrix(weight_DI, (site.out_features, site.in_features)))
        return weight_DI

    def unprojected(self, stem: Tensor) -> Tensor:
        with self._asking("unprojected"):
            x_NI = self._value.unprojected(stem)
        self._refuse("unprojected", wrong_matrix(x_NI, (len(stem), self.projection.in_features)))
        return x_NI


class _SaysNames(Guarded[SaysNames]):
    def base_names(self) -> Sequence[str]:
        with self._asking("base_names"):
            names = self._value.base_names()
        well = isinstance(names, Sequence) and not isinstance(names, str) and all(isinstance(x, str) for x in names)
        self._refuse("base_names", "" if well else f"must return a list of strings, got {names!r:.100}")
        return names


class _PreparesPhotos(Guarded[PreparesPhotos]):
    def prepare(self, image: Image) -> Tensor:
        with self._asking("prepare"):
            return self._value.prepare(image)

    def stem_of(self, prepared: Sequence[Tensor]) -> Tensor:
        with self._asking("stem_of"):
            stem_N = self._value.stem_of(prepared)
        self._refuse("stem_of", wrong_stem(stem_N, len(prepared)))
        return stem_N


class _KnowsEarlier(Guarded[KnowsEarlier]):
    def earlier(self, fingerprint: str) -> str | None:
        with self._asking("earlier"):
            answer = self._value.earlier(fingerprint)
        self._refuse("earlier", "" if answer is None else wrong_earlier(answer))
        return answer


class _ChoosesSites(Guarded[ChoosesSites]):
    own_layout: Layout


class _IgnoresExperts(Guarded[IgnoresExperts]):
    ignores_experts: bool


class _UsesDevice(Guarded[UsesDevice]):
    def on_device(self, device: torch.device) -> GuardedFitted:
        with self._asking("on_device"):
            fitted = self._value.on_device(device)
        self._refuse("on_device", wrong_value(fitted, Fitted))
        return GuardedFitted(fitted, self._who)


class _SaysCaptionCost(Guarded[SaysCaptionCost]):
    def caption_cost(self, runtime: RuntimeConfig, pixels: int, captions: int) -> CaptionerCost:
        with self._asking("caption_cost"):
            cost = self._value.caption_cost(runtime, pixels, captions)
        good = isinstance(cost, CaptionerCost)
        self._refuse("caption_cost", "" if good else f"must return a CaptionerCost, got {type(cost).__name__}")
        return cost


class _SaysCost(Guarded[SaysCost]):
    def cost(
        self, layout: Layout, tasks: int, states: int, settings: Mapping[str, Any], device: str
    ) -> Mapping[str, Any]:
        with self._asking("cost"):
            return self._value.cost(layout, tasks, states, settings, device)


class _UsesEvidence(Guarded[UsesEvidence]):
    def generate_with(self, prior: Prior, evidence: Evidence, samples: int, seed: int, temperature: float) -> Tensor:
        with self._asking("generate_with"):
            return self._value.generate_with(prior, evidence, samples, seed, temperature)


_OPTIONAL: Mapping[type, type[Guarded[Any]]] = {
    HasMembers: _HasMembers,
    SaysAbsent: _SaysAbsent,
    SaysDownload: _SaysDownload,
    SaysTerms: _SaysTerms,
    CountsTokens: _CountsTokens,
    Fetches: _Fetches,
    PlansFetch: _PlansFetch,
    CountsImages: _CountsImages,
    ListsImages: _ListsImages,
    SaysPassedOver: _SaysPassedOver,
    EncodesMeaning: _EncodesMeaning,
    ChecksText: _ChecksText,
    PreparesPhotos: _PreparesPhotos,
    HidesTokens: _HidesTokens,
    MergesCheckpoints: _MergesCheckpoints,
    HasProjection: _HasProjection,
    SaysNames: _SaysNames,
    KnowsEarlier: _KnowsEarlier,
    SaysCaptionCost: _SaysCaptionCost,
    SaysCost: _SaysCost,
    UsesEvidence: _UsesEvidence,
    ChoosesSites: _ChoosesSites,
    IgnoresExperts: _IgnoresExperts,
    UsesDevice: _UsesDevice,
}
