"""The state of a recipe's data set and its captions on this machine. Nothing is downloaded or written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sglora_cli.data.caption_file import CAPTIONS_JSONL, read_lines
from sglora_cli.data.check import partial_line
from sglora_cli.errors import SgloraError, Unavailable
from sglora_cli.files.escape import shell_word
from sglora_cli.plugin.contracts import Dataset, Fetches, ListsImages, PlansFetch
from sglora_cli.plugin.values import FetchPlan, Listed


@dataclass(frozen=True)
class SourceState:
    """A data set on this machine."""

    here: bool
    """Whether its photos exist."""
    captioned: bool = True
    """Whether no photo needs a caption, now or after the download."""
    waiting: Sequence[Listed] = ()
    """Existing photos without captions."""
    photos: int | None = None
    """Number of photos that need captions, or None if unknown."""
    plan: FetchPlan | None = None
    remarks: tuple[str, ...] = ()
    errors: tuple[SgloraError, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether a recipe can be built from it."""
        return self.here and self.captioned and not self.errors


def source_state(name: str, dataset: Dataset, root: Path, place: Path, interrupted: bool = False) -> SourceState:
    """Return the state of a data set in its folder `root`.

    place: the folder of all data sets.  interrupted: whether a download of it was interrupted.

    A data set that sglora never downloaded counts as present if tasks can be read from it. Photos may be missing,
    because the user may have chosen a part. One whose download was interrupted does not count.
    """
    plan, refused = _plan(dataset, place)
    begun = plan is not None and (interrupted or any(one.here for one in plan.waiting))
    try:
        dataset.tasks(root)
        why: SgloraError | None = None
    except SgloraError as error:
        why = error
    listed = _listed(dataset, root)
    if begun or (isinstance(why, Unavailable) and not listed):
        return _absent(name, dataset, root, plan, refused, why)
    if why is not None and not isinstance(why, Unavailable):
        return SourceState(True, plan=plan, errors=(why,))
    try:
        waiting, own = _waiting(root, listed, why is not None)
    except SgloraError as error:
        return SourceState(True, plan=plan, errors=(error,))
    partial = partial_line(name, dataset, root) if plan is not None and plan.waiting else ""
    remarks = [partial] if partial else []
    if waiting and not own:  # captions from elsewhere, which need not be of all photos
        remarks.append(f"{len(waiting)} of {len(listed)} photos have no captions and are ignored")
        waiting = []
    return SourceState(True, not waiting, waiting, len(waiting), plan, tuple(remarks))


def _plan(dataset: Dataset, place: Path) -> tuple[FetchPlan | None, SgloraError | None]:
    """Return the downloads of a data set, or the error that says why it may not be downloaded."""
    try:
        return (dataset.fetch_plan(place) if isinstance(dataset, PlansFetch) else None), None
    except SgloraError as error:
        return None, error


def _absent(
    name: str,
    dataset: Dataset,
    root: Path,
    plan: FetchPlan | None,
    refused: SgloraError | None,
    why: SgloraError | None,
) -> SourceState:
    """Return the state of a data set that is not here. why: its own error.  refused: why it may not be downloaded."""
    captions = plan is None or plan.captions
    if not isinstance(dataset, Fetches) or plan is None:
        by_hand = f"put photos with captions into {root}; `sglora docs how-to-data` explains the formats"
        if refused:
            error = Unavailable(f"{root} has no data set: {refused.message}", refused.hint)
        else:
            error = Unavailable(why.message if why else f"{root} is incomplete", (why and why.hint) or by_hand)
        return SourceState(False, captions, plan=plan, errors=(error,))
    errors: tuple[SgloraError, ...] = ()
    if plan.folder != root:
        text = f"`sglora data fetch {shell_word(name)}` downloads into {plan.folder}, but the recipe reads {root}"
        errors = (Unavailable(text, f'write path = "{plan.folder.name}" in its [[source]]'),)
    return SourceState(False, captions, photos=plan.images, plan=plan, errors=errors)


def _listed(dataset: Dataset, root: Path) -> Sequence[Listed]:
    """Return the images of a data set that a captioner can caption."""
    if not isinstance(dataset, ListsImages):
        return ()
    try:
        return [one for one in dataset.images(root) if one.path.exists()]
    except SgloraError:
        return ()


def _waiting(root: Path, listed: Sequence[Listed], bare: bool) -> tuple[list[Listed], bool]:
    """Return the photos without captions, and whether a captioner should write them.

    It should if there are no captions at all, or if a captioner wrote the others. Raises BadFile.
    """
    path = root / CAPTIONS_JSONL
    if not path.exists():
        return (list(listed) if bare else []), True
    lines = read_lines(path)
    waiting = [one for one in listed if one.image not in lines]
    return waiting, bare or any(line.by for line in lines.values())
