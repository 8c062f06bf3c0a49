"""Caption a data set's images with a captioner, or take the captions from a file of another program.

The captions of a captioner are appended to captions.jsonl, one line per image, in the data set's order. Images that
have a line are skipped. The seeds of an image are derived from its name, so an interrupted run that is resumed produces
the same file. Captions from a file are checked first and written all or none.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglora_cli.config import CaptionConfig
from sglora_cli.data.caption_file import CAPTIONS_CSV, CAPTIONS_JSONL, Captioned, line_of, read_elsewhere, read_lines
from sglora_cli.data.caption_target import CaptionTarget, appending, changed
from sglora_cli.data.caption_text import CAPTION_ISSUES, Demonstration, Judge, cleaned_caption, prompt_of, too_long
from sglora_cli.data.check_rules import DataIssue
from sglora_cli.errors import BadFile, Mismatch, PluginError, SgloraError, Unavailable, UsageError, failure_of
from sglora_cli.files.escape import shell_word
from sglora_cli.files.hashes import content_hash, data_hash
from sglora_cli.files.images import read_image
from sglora_cli.files.named_once import plain_name
from sglora_cli.files.swap import ABSENT, state_of, swapped
from sglora_cli.files.text import file_bytes
from sglora_cli.plugin.contracts import CaptionModel, ListsImages
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import Listed
from sglora_cli.system.locks import locked
from sglora_cli.system.progress import progress

if TYPE_CHECKING:
    from PIL.Image import Image

_EMPTY = data_hash(b"")


@dataclass(frozen=True)
class CaptionJob:
    """The images to caption and the file to write."""

    dataset: str
    root: Path
    target: Path
    listed: Sequence[Listed]
    done: Mapping[str, Captioned]
    """Maps each captioned image to its line in the target."""
    state: str = ABSENT
    """State of the target when `done` was read; see `files.swap`."""

    def waiting(self, limit: int = 0) -> list[Listed]:
        """Return images without captions in the data set's order, at most `limit` of them unless it is 0."""
        images = [one for one in self.listed if one.image not in self.done]
        return images[:limit] if limit else images

    def check_unchanged(self) -> None:
        """Raise Unavailable if the target has changed since the job was created. The caller must hold its lock."""
        if state_of(self.target) not in (self.state, *([_EMPTY] if self.state == ABSENT else [])):
            raise changed(self.target)


@dataclass
class Outcome:
    """The result of a captioning run."""

    job: CaptionJob
    written: int = 0
    """Images whose captions were written."""
    replaced: int = 0
    """Images among them that had other captions before."""
    found: int = 0
    """Images that another process captioned meanwhile."""
    captions: int = 0
    """Captions that were written."""
    problems: list[DataIssue] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    """Rejected captions per reason. The captioner retried most of them."""

    @property
    def left(self) -> int:
        """The number of images that still have no captions."""
        return len(self.job.waiting()) - self.written + self.replaced - self.found

    def to_json(self) -> dict[str, Any]:
        return {
            **job_json(self.job),
            "written": self.written,
            "replaced": self.replaced,
            "captions": self.captions,
            "left": self.left,
            "refused": dict(sorted(self.refused.items())),
            "problems": [asdict(one) for one in self.problems],
        }


def job_json(job: CaptionJob) -> dict[str, Any]:
    """Return the job's output file and counts as JSON values."""
    return {
        "dataset": job.dataset,
        "path": str(job.root),
        "output": str(job.target),
        "images": len(job.listed),
        "captioned_before": len(job.done),
    }


def caption_job(
    host: Host, dataset: str, root: Path, output: Path | None = None, hide_table: bool = False
) -> CaptionJob:
    """Create the captioning job of a folder. It removes an incomplete last line of the target and writes nothing else.

    Raises UnknownName; Unavailable if the data set cannot list images without captions; BadFile for an invalid line of
    the target, or one whose image is not in the data set; UsageError if the new file would hide a captions.csv, unless
    `hide_table` is set.
    """
    plugin = host.datasets[dataset]
    if not root.is_dir():
        raise Unavailable.no_folder(root, "the folder ", f"pass the folder of data set {dataset!r} with --path")
    if not isinstance(plugin, ListsImages):
        raise Unavailable(
            f"data set {dataset!r} comes with captions and does not list images without them",
            "use it without a captioner",
        )
    target = output or root / CAPTIONS_JSONL
    if target.exists() and os.access(target, os.W_OK):  # the data set may read the same file
        with appending(target):
            pass
    listed = list(plugin.images(root))
    if not listed:
        raise BadFile(f"data set {dataset!r} found no images in {root}")
    if not output and not hide_table and not target.exists() and (root / CAPTIONS_CSV).exists():
        table = root / CAPTIONS_CSV
        raise UsageError(
            f"{table} holds the captions, and {CAPTIONS_JSONL} would hide it", f"pass --from {shell_word(table)}"
        )
    data = file_bytes(target) if target.exists() else None
    done, names = read_lines(target, data or b""), {one.image for one in listed}
    for entry in done.values():
        if entry.image not in names:
            raise BadFile(f"{entry.where}: the data set has no image {entry.image!r}", "remove this line")
    return CaptionJob(dataset, root, target, listed, done, ABSENT if data is None else data_hash(data))


def write_captions(
    job: CaptionJob,
    model: CaptionModel,
    config: CaptionConfig,
    demonstrations: Sequence[Demonstration],
    limit: int = 0,
    check_text: Callable[[str], None] | None = None,
    by: str = "",
) -> Outcome:
    """Caption the images that have no captions and append one line per image.

    check_text: raises Mismatch for a caption that is too long.  by: signature of the captioner and its settings.
    Raises Mismatch if existing lines have another signature, Unavailable if the file cannot be written, PluginError if
    the captioner fails. Lines that are already written remain.
    """
    judge, outcome = Judge(config.fewest_words), Outcome(job)
    for entry in job.done.values():
        if by and entry.by not in ("", by):
            raise Mismatch(
                f"{entry.where}: written by {entry.by!r}, but this run would write as {by!r}",
                "use the captioner and options that wrote it, choose another file with -o, or remove its lines",
            )
        judge.remember(entry.image, entry.captions)
    with appending(job.target):
        job.check_unchanged()
        target = CaptionTarget(job.target, job.done)
        for listed in progress(job.waiting(limit), "images"):
            if target.has(listed.image):
                outcome.found += 1
                continue
            try:
                image = read_image(listed.path)
            except BadFile as error:
                outcome.problems.append(problem("broken", listed, error.message))
                continue
            prompt = prompt_of(listed.shows, demonstrations)
            captions = _captions(model, image, listed, prompt, config, judge, outcome.refused)
            judge.remember(listed.image, captions)
            outcome.problems += _shortfalls(listed, captions, config, check_text)
            if target.has(listed.image):  # another process wrote its captions meanwhile
                outcome.found += 1
            elif captions:
                target.append(line_of(listed, captions, by))
                outcome.written, outcome.captions = outcome.written + 1, outcome.captions + len(captions)
    return outcome


def _captions(
    model: CaptionModel,
    image: Image,
    listed: Listed,
    prompt: str,
    config: CaptionConfig,
    judge: Judge,
    refused: Counter[str],
) -> list[str]:
    """Return up to config.captions captions of one image, with up to config.retries retries for rejected ones."""
    kept: list[str] = []
    for attempt in range(1 + config.retries):
        count = config.captions - len(kept)
        for text in _asked(model, image, listed, prompt, count, seed_of(config.seed, listed.image, attempt)):
            caption = cleaned_caption(text)
            if fault := judge.fault(listed.image, caption, kept):
                refused[fault] += 1
            else:
                kept.append(caption)
        if len(kept) == config.captions:
            break
    return kept


def signature(captioner: str, weights: str, config: CaptionConfig, demonstrations: Sequence[Demonstration]) -> str:
    """Return the captioner's name and a hash of its settings. Lines with different signatures must not be mixed."""
    return f"{captioner} {content_hash(weights, asdict(config), [asdict(one) for one in demonstrations])[:12]}"


def seed_of(seed: int, image: str, attempt: int) -> int:
    """Return the seed of one request, below 2**63. It depends on seed, image name and attempt only."""
    digest = hashlib.sha256(f"{seed}\n{attempt}\n{image}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


_GO_ON = "run the same command again to resume; finished lines are preserved"


def _asked(model: CaptionModel, image: Image, listed: Listed, prompt: str, count: int, seed: int) -> list[str]:
    try:
        texts = list(model.write(image, prompt, count, seed))
    except PluginError as error:  # a captioner from the registry is named in the message already
        raise PluginError(f"{error.message}, on {listed.path}", _GO_ON) from error
    except SgloraError:
        raise
    except Exception as error:  # a third-party model may raise anything
        if known := failure_of(error):
            raise known from error
        message = f"the captioner failed on {listed.path}: {type(error).__name__}: {error}"
        raise PluginError(message, _GO_ON) from error
    if len(texts) != count or not all(isinstance(text, str) for text in texts):
        raise PluginError(f"the captioner must return {count} strings for {listed.path}, got {texts!r:.100}")
    return texts


def _shortfalls(
    listed: Listed, captions: Sequence[str], config: CaptionConfig, check_text: Callable[[str], None] | None
) -> Iterator[DataIssue]:
    if len(captions) < config.captions:
        yield problem("few" if captions else "none", listed, f"{len(captions)} of {config.captions}")
    for caption in captions:
        if reason := too_long(caption, config, check_text):
            yield problem("long", listed, f"{reason}: {caption}")


def problem(kind: str, listed: Listed, text: str) -> DataIssue:
    """Return an issue with an image or its captions. `kind` is a key of CAPTION_ISSUES."""
    return DataIssue(kind, listed.shows, listed.split, listed.image, text)


def error_of(outcome: Outcome) -> SgloraError | None:
    """Return the error that a run ends with, once every readable image is processed; None if there is none."""
    many = Counter(one.kind for one in outcome.problems)
    for kind, remedy in (
        ("broken", "fix or remove them, then run the same command again"),
        ("none", "check the photos and the prompt, or pass another --seed"),
    ):
        if many[kind]:
            first = next(one for one in outcome.problems if one.kind == kind)
            return BadFile(f"{CAPTION_ISSUES[kind]}: {many[kind]}. The first is {first.image}: {first.text}", remedy)
    return None


def take_captions(
    job: CaptionJob, source: Path, config: CaptionConfig, force: bool = False, dry: bool = False
) -> Outcome:
    """Merge captions from another program's file into the target, in the data set's order. Writes all or nothing.

    It drops only captions without words, refusals and repetitions. Raises BadFile with file and line for an invalid
    entry or an image that is not in the data set, and UsageError if an image has other captions already. With `force`
    it replaces them instead.
    """
    judge, outcome = Judge(config.fewest_words), Outcome(job)
    lines = {image: entry.line for image, entry in job.done.items()}
    for listed, entry in _joined(job.listed, read_elsewhere(source), source):
        captions = _kept(judge, outcome, listed, entry)
        judge.remember(listed.image, captions)
        before = job.done.get(listed.image)
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
        content = "".join(lines[one.image] + "\n" for one in job.listed if one.image in lines)
        with locked(job.target, wait=False):
            if not swapped(job.target, job.state, content.encode()):
                raise changed(job.target)
    return outcome


def _joined(listed: Sequence[Listed], entries: Sequence[Captioned], source: Path) -> list[tuple[Listed, Captioned]]:
    """Pair entries with images by their path, or by the file name if only one image has it."""
    names = {one.image: one for one in listed}
    last = Counter(Path(one.image).name for one in listed)
    short = {Path(one.image).name: one for one in listed if last[Path(one.image).name] == 1}
    matches = [(names.get(plain_name(e.image)) or short.get(Path(e.image).name), e) for e in entries]
    unknown = [entry for one, entry in matches if one is None]
    if unknown:
        more = f", nor {len(unknown) - 1} others, the last in {unknown[-1].where}" if len(unknown) > 1 else ""
        raise BadFile(f"{unknown[0].where}: the data set has no image {unknown[0].image!r}{more}", "remove them")
    pairs = [(one, entry) for one, entry in matches if one is not None]
    first: dict[str, Captioned] = {}
    for one, entry in pairs:
        if (other := first.setdefault(one.image, entry)) is not entry:
            spelled = "" if other.image == entry.image else f", as {other.image!r}"
            raise BadFile(f"{entry.where}: image {entry.image!r} was named before, in {other.where}{spelled}")
    return pairs


def _kept(judge: Judge, outcome: Outcome, listed: Listed, entry: Captioned) -> list[str]:
    kept: list[str] = []
    for text in entry.captions:
        caption = cleaned_caption(text)
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
