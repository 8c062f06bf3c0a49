"""Combines rows files into one report: what was measured, with which pack, and which numbers are comparable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sglora_cli.bench.bootstrap import bootstrap
from sglora_cli.bench.rows import row_key
from sglora_cli.bench.rows_file import Header, Run, read_rows
from sglora_cli.bench.sentences import apart, sentence_gains
from sglora_cli.config import BenchConfig
from sglora_cli.errors import BadFile, Mismatch
from sglora_cli.plugin.values import UNSEEN, Report, Row
from sglora_cli.report.builds import BuildRows, names_of, rows_of_builds


@dataclass(frozen=True)
class Measured:
    """The rows of some files as one report, and their header."""

    header: Header
    """The last header of the files."""
    report: Report
    files: Sequence[Path]
    left_out: Sequence[str]
    """Why methods are missing in the report, as sentences."""
    remarks: Sequence[str] = ()
    """Notes of `bench` for the reader."""
    fingerprint: str = ""
    """Fingerprint of the backbone, if it is recorded."""
    other_packs: Sequence[str] = ()
    """Other packs that the tasks came from."""


def read(paths: Sequence[Path], config: BenchConfig, over_builds: bool = False) -> Measured:
    """Read all rows of the files. A number that was measured again replaces the older one.

    over_builds: each file is another build of one recipe. The numbers of all builds are kept, and intervals are also
    over builds.
    A method that was not measured on every task is left out, because its mean would not be comparable.
    Raises BadFile for an invalid file or one without rows, and Mismatch for rows of several packs, backbones or roles.
    With `over_builds`, also the errors of `rows_of_builds`.
    """
    builds = [BuildRows(path, read_rows(path)) for path in paths]
    of_builds = rows_of_builds(builds) if over_builds else []
    runs = [run for build in builds for run in build.runs]
    owners = sorted({(run.header.pack, run.header.backbone) for run in runs})
    prints = sorted({text for run in runs if (text := _text(run.header, "fingerprint"))})
    if len(prints) > 1:
        raise Mismatch(
            f"the rows come from backbones with fingerprints {' and '.join(prints)}", "make one report per backbone"
        )
    if len(owners) > 1:
        (pack, backbone), (other, another) = owners[:2]
        raise Mismatch(
            f"the rows come from pack {pack!r} on backbone {backbone!r} and from pack {other!r} on {another!r}",
            "make one report per pack",
        )
    roles = sorted({_text(run.header, "role") or UNSEEN for run in runs})
    if len(roles) > 1:
        raise Mismatch(f"the rows are of {' and '.join(roles)} tasks", "make one report per role")
    latest = list({row_key(row): row for row in of_builds or [row for run in runs for row in run.rows]}.values())
    if not latest:
        raise BadFile(
            f"there are no rows in {', '.join(map(str, paths))}", "run `sglora bench --rows FILE` until it finishes"
        )
    latest, controls = apart(latest)
    labels = {method: label for run in runs for method, label in run.header.labels.items()}
    labels |= {row.method: row.method for row in latest if row.method not in labels}
    left_out = incomplete(latest, labels)
    rows = [row for row in latest if row.method not in left_out]
    kept = {method: label for method, label in labels.items() if method not in left_out}
    header = runs[-1].header
    gaps = bootstrap(rows, config.resamples, config.seed).differences(header.against, _references(runs))
    controls = [row for row in controls if row.method in kept]
    gains = sentence_gains(rows, controls, config.resamples, config.seed)
    names = names_of(paths) if over_builds else ()
    remarks = (*([_over(names)] if names else []), *_notes(runs))
    report = Report(header.pack, rows, kept, gaps, header.against, builds=names, role=roles[0])
    report = replace(
        report, controls=controls, sentence_gains=gains, notes=[_summary(report, paths), *remarks, *left_out.values()]
    )
    other_packs = tuple(dict.fromkeys(text for run in runs if (text := _text(run.header, "on"))))
    return Measured(header, report, tuple(paths), tuple(left_out.values()), remarks, "".join(prints), other_packs)


def _text(header: Header, key: str) -> str:
    """Return the value of an optional header key, or "" if it is not a printable string."""
    value = header.more.get(key)
    return value if isinstance(value, str) and value.isprintable() else ""


def _notes(runs: Sequence[Run]) -> tuple[str, ...]:
    notes = [run.header.more.get("notes") for run in runs]
    texts = [text for several in notes if isinstance(several, list) for text in several]
    return tuple(dict.fromkeys(text for text in texts if isinstance(text, str) and text.isprintable()))


def _references(runs: Sequence[Run]) -> dict[str, str]:
    references = [run.header.more.get("references") for run in runs]
    return {
        method: other
        for pairs in references
        if isinstance(pairs, dict)
        for method, other in pairs.items()
        if type(other) is str
    }


def _over(builds: Sequence[str]) -> str:
    names = ", ".join(builds)
    return f"{len(builds)} builds: {names}. In the rows, `seed` is the build, from 0, and `sample` counts its draws"


def _summary(report: Report, paths: Sequence[Path]) -> str:
    files = ", ".join(path.name for path in paths)
    return f"{report.tasks()}, in percent, averaged over tasks; pack {report.pack!r}; {files}"


def incomplete(rows: Sequence[Row], labels: dict[str, str]) -> dict[str, str]:
    """Return methods that lack numbers which others have, with a sentence about it."""
    cells_of: dict[str, set[tuple[str, str, str, int]]] = {}
    for row in rows:
        cells_of.setdefault(row.method, set()).add((row.dataset, row.task, row.direction, row.k))
    every = set().union(*cells_of.values())
    return {
        method: f"{labels[method]} is left out, because it has only {len(cells)} of {len(every)} numbers"
        for method, cells in cells_of.items()
        if cells != every
    }
