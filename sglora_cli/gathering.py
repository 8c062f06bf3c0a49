"""What a report shows: all figures that rows, pack and photos allow, and why the others are not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sglora_cli import adapter_maps, charts, exhibits
from sglora_cli.configs import BenchConfig
from sglora_cli.exhibits import Exhibits
from sglora_cli.generating import Session
from sglora_cli.packs import Pack
from sglora_cli.plotting import needs
from sglora_cli.report_page import Content
from sglora_cli.reporting import Measured
from sglora_cli.shelves import places
from sglora_cli.strips import strips

Made = charts.Figure | list[charts.Figure] | None
_OF_A_PACK: dict[str, tuple[Callable[[Exhibits], Made], str]] = {
    "Expert contributions": (exhibits.contributions, "the pack lists no measured task as unseen"),
    "Similarity and gain": (exhibits.similarity_to_gain, "zero-shot or the method was not measured"),
    "R@1 against K": (
        exhibits.k_sweep,
        "the pack carries no evaluation of these tasks, or no such method was measured",
    ),
    "Adapters of all tasks": (adapter_maps.task_map, "there are too few adapters for t-SNE"),
    "Draws for a task": (
        adapter_maps.draw_maps,
        "the pack carries no Oracle of these tasks, or its generator does not draw",
    ),
}
_PHOTOS = "Retrieval examples"


def gather(measured: Measured, session: Session | None, data: Path | None, config: BenchConfig) -> Content:
    """All figures there can be. A figure that cannot be made is listed with the reason instead.

    Raises Mismatch if the rows are of another pack, Unavailable if a library or a backbone is not installed.
    """
    figures = [charts.bars(measured.report, direction) for direction in charts.directions(measured.report)]
    if session is None:
        missing = dict.fromkeys((*_OF_A_PACK, _PHOTOS), "needs the pack that was measured: pass --pack")
        return Content(measured, figures, missing=missing)
    needs("sklearn", "scikit-learn")  # before the minute that K takes
    shown = Exhibits(session, measured.report, config, measured.fingerprint, _others(measured, session))
    missing = {}
    for title, (make, reason) in _OF_A_PACK.items():
        made = make(shown)
        if not made:
            missing[title] = reason
        figures += made if isinstance(made, list) else [made] if made else []
    found = []
    if data is None:
        missing[_PHOTOS] = "needs the photos: pass --data"
    else:
        found = strips(shown, data) if shown.usable([shown.method]) else []
        if not found:
            missing[_PHOTOS] = "no retrieval task was measured with one method, or no caption changes its rank"
    return Content(measured, figures, found, shown.label, missing)


def _others(measured: Measured, session: Session) -> tuple[Pack, ...]:
    """The other packs that the measured tasks came from, as far as this machine has them."""
    known = {
        place.name: place for place in places(session.host.recipe_folders)
    }  # by name only: rows may be a stranger's
    return tuple(Pack(known[name].folder) for name in measured.on if name in known)
