"""Collects all figures of a report that rows, pack and photos allow, and why others are missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sglora_cli.bench import tables
from sglora_cli.config import BenchConfig
from sglora_cli.pack.library import Library
from sglora_cli.pack.loaded import LoadedPack
from sglora_cli.pack.pack import Pack
from sglora_cli.plugin.values import UNSEEN, Report
from sglora_cli.report import charts
from sglora_cli.report.charts import Figure
from sglora_cli.report.examples import RetrievalExample, retrieval_examples
from sglora_cli.report.figures import ReportData, contributions, draw_maps, k_sweep, similarity_to_gain, task_map
from sglora_cli.report.load import Measured
from sglora_cli.report.plot import needs


@dataclass(frozen=True)
class Content:
    """Everything on the page. `missing` maps a figure's title to why it is missing."""

    measured: Measured
    figures: Sequence[Figure]
    examples: Sequence[RetrievalExample] = ()
    method: str = ""
    """The label of the method shown in the examples."""
    missing: Mapping[str, str] | None = None


Drawn = charts.Figure | list[charts.Figure] | None
_OF_A_PACK: dict[str, tuple[Callable[[ReportData], Drawn], str]] = {
    "Expert contributions": (contributions, "none of the measured tasks is an unseen task of the pack"),
    "Similarity and gain": (similarity_to_gain, "zero-shot or the method was not measured"),
    "R@1 against K": (
        k_sweep,
        "the pack has no evaluation data of these tasks, or no method with K was measured",
    ),
    "Adapters of all tasks": (task_map, "too few adapters for t-SNE"),
    "Draws for a task": (
        draw_maps,
        "the pack has no Oracle of these tasks, or its generator does not draw samples",
    ),
}
_PHOTOS = "Retrieval examples"
_OF_ADAPTERS = ("R@1 against K", "Adapters of all tasks", "Draws for a task", _PHOTOS)
"""Figures with adapters of the pack for unseen tasks."""


def collect(measured: Measured, loaded: LoadedPack | None, photos: Path | None, config: BenchConfig) -> Content:
    """Make all possible figures. For every other figure the reason is listed instead.

    Raises Mismatch if the rows are of another pack, and Unavailable if a library or a backbone is not installed.
    """
    figures = [charts.bars(measured.report, direction) for direction in tables.directions(measured.report)]
    preferred = loaded.generator().name if loaded else measured.report.against
    if sentences := charts.sentence_map(measured.report, preferred):
        figures.append(sentences)
    if loaded is None:
        missing = dict.fromkeys((*_OF_A_PACK, _PHOTOS), "requires the measured pack (pass --pack)")
        return Content(measured, figures, missing=missing)
    needs("sklearn", "scikit-learn")  # before the figures over K, which take a minute
    data = ReportData(loaded, measured.report, config, measured.fingerprint, _others(measured, loaded))
    missing = dict.fromkeys(_OF_ADAPTERS, reason) if (reason := _no_adapters(measured.report)) else {}
    for title, (make, reason) in _OF_A_PACK.items():
        if title in missing:
            continue
        drawn = make(data)
        if not drawn:
            missing[title] = reason
        figures += drawn if isinstance(drawn, list) else [drawn] if drawn else []
    examples = []
    if photos is None and _PHOTOS not in missing:
        missing[_PHOTOS] = "requires the photos (pass --data)"
    elif photos is not None and _PHOTOS not in missing:
        examples = retrieval_examples(data, photos) if data.usable([data.method]) else []
        if not examples:
            missing[_PHOTOS] = "no retrieval task was measured with one method, or no caption changes its rank"
    return Content(measured, figures, examples, data.label, missing)


def _no_adapters(report: Report) -> str:
    """Return why adapters of the pack for its unseen tasks do not match these rows, or "" if they do."""
    if report.builds:
        return f"shows adapters of one build, but there are {len(report.builds)}; make a page of a single rows file"
    if report.role != UNSEEN:
        return f"shows unseen tasks, but the rows are of {report.role} tasks"
    return ""


def _others(measured: Measured, loaded: LoadedPack) -> tuple[Pack, ...]:
    """Return the other packs that the measured tasks came from, if they exist on this machine."""
    known = {
        location.name: location for location in Library(loaded.host.recipe_folders).packs()
    }  # by name only, because rows may be untrusted
    return tuple(Pack(known[name].folder) for name in measured.other_packs if name in known)
