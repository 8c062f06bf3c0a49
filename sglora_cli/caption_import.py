"""Captions made elsewhere, put beside those that are there: checked, and all or nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sglora_cli.caption_files import Entry, line_of, read_elsewhere, read_lines
from sglora_cli.caption_texts import Judge, cleaned
from sglora_cli.captioning import Outcome, Plan, problem, too_long
from sglora_cli.configs import CaptionConfig
from sglora_cli.contracts import Listed
from sglora_cli.errors import BadFile, Unavailable, UsageError
from sglora_cli.files import write_bytes
from sglora_cli.locking import locked


def take_captions(plan: Plan, source: Path, config: CaptionConfig, force: bool = False, dry: bool = False) -> Outcome:
    """Put captions made elsewhere beside those that are there, in the data set's order; all or nothing.

    Somebody chose these captions: only those without a word, refusals and repetitions are left out. Raises BadFile
    with path and line for what is broken or names an image that the data set has not; UsageError if an image has
    other captions already, unless `force`: then they are replaced.
    """
    judge, outcome = Judge(config.fewest_words), Outcome(plan)
    lines = {image: entry.line for image, entry in plan.done.items()}
    for listed, entry in _joined(plan.listed, read_elsewhere(source), source):
        captions = _kept(judge, outcome, listed, entry)
        judge.remember(listed.image, captions)
        before = plan.done.get(listed.image)
        if before and before.captions != tuple(captions) and not force:
            raise UsageError(
                f"{entry.where}: {listed.image!r} has other captions in {before.where}", "pass --force to replace them"
            )
        for caption in captions:
            if reason := too_long(caption, config, None):
                outcome.problems.append(problem("long", listed, f"{reason}: {caption}"))
        if captions and (not before or before.captions != tuple(captions)):
            lines[listed.image] = line_of(listed, captions)
            outcome.captions += len(captions)
            outcome.written, outcome.replaced = outcome.written + 1, outcome.replaced + bool(before)
    if not dry:
        content = "".join(lines[one.image] + "\n" for one in plan.listed if one.image in lines)
        with locked(plan.target, wait=False):
            if read_lines(plan.target).keys() != plan.done.keys():
                raise Unavailable(f"{plan.target} was changed by another process", "run it again to go on")
            write_bytes(plan.target, content.encode())
    return outcome


def _joined(listed: Sequence[Listed], entries: Sequence[Entry], source: Path) -> list[tuple[Listed, Entry]]:
    """Entries with their images: by the whole name, or by the file's own where only one image has it."""
    names = {one.image: one for one in listed}
    last = Counter(Path(one.image).name for one in listed)
    short = {Path(one.image).name: one for one in listed if last[Path(one.image).name] == 1}
    found = [(names.get(e.image) or short.get(Path(e.image).name), e) for e in entries]
    unknown = [entry for one, entry in found if one is None]
    if unknown:
        more = f"; {len(unknown) - 1} more are unknown, the last in {unknown[-1].where}" if len(unknown) > 1 else ""
        raise BadFile(f"{unknown[0].where}: the data set has no image {unknown[0].image!r}{more}", "remove them")
    pairs = [(one, entry) for one, entry in found if one is not None]
    first: dict[str, Entry] = {}
    for one, entry in pairs:
        if (other := first.setdefault(one.image, entry)) is not entry:
            raise BadFile(f"{entry.where}: image {one.image!r} was named before, in {other.where}")
    return pairs


def _kept(judge: Judge, outcome: Outcome, listed: Listed, entry: Entry) -> list[str]:
    kept: list[str] = []
    for text in entry.captions:
        caption = cleaned(text)
        fault = judge.fault(listed.image, caption, kept)
        if fault:
            outcome.problems.append(problem(fault, listed, f"{entry.where}: {caption!r:.100}"))
        if fault in ("empty", "refusal", "repeated"):
            outcome.refused[fault] += 1
        else:
            kept.append(caption)
    if not kept:
        outcome.problems.append(problem("none", listed, entry.where))
    return kept
