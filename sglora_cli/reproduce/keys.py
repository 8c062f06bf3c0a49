"""What results follow from, as hashes: rows, the experts that a sentence leans on, and the report. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from sglora_cli.bench.rows_file import read_rows
from sglora_cli.errors import BadFile, SgloraError
from sglora_cli.files.hashes import content_hash
from sglora_cli.files.text import read_json
from sglora_cli.pack.library import Library
from sglora_cli.pack.pack import Pack
from sglora_cli.pack.recipe import Recipe
from sglora_cli.reproduce.job import Job
from sglora_cli.reproduce.targets import Lean, Measurement

COMPARISON = "comparison.json"
"""The file that says what a report was made of."""


def built_packs(job: Job) -> dict[str, Path]:
    """Recipe of the target -> the folder of its pack, where that is built as the recipe says it."""
    known = {one.name: one.folder for one in Library(job.host.recipe_folders).packs()}
    return {
        name: known[recipe.name]
        for name, recipe in job.recipes.items()
        if recipe.name in known and _is_of(known[recipe.name], recipe)
    }


def _is_of(folder: Path, recipe: Recipe) -> bool:
    """Whether a pack was built as a recipe says."""
    try:
        return bool(Pack(folder).manifest["recipe"] == json.loads(json.dumps(recipe.raw)))
    except SgloraError:
        return False


def rows_key(job: Job, one: Measurement, packs: Mapping[str, Path]) -> str:
    """A hash of everything that rows follow from; "" as long as a pack is missing."""
    names = [name for name in (one.recipe, one.on) if name]
    if not set(names) <= set(packs):
        return ""
    manifests = [Pack(packs[name]).manifest for name in names]
    asked = [one.table, list(one.methods), list(job.measured(one)), list(one.source), one.photos, one.captions]
    return content_hash("reproduce 1", manifests, asked, job.settings_of_rows())


def lean_key(job: Job, lean: Lean, packs: Mapping[str, Path]) -> str:
    """The same of the experts that a sentence leans on."""
    if lean.recipe not in packs:
        return ""
    return content_hash("reproduce 1", Pack(packs[lean.recipe]).manifest, lean.dataset, lean.task)


def rows_done(job: Job, one: Measurement, packs: Mapping[str, Path]) -> bool:
    """Whether all rows of a measurement are here, of the packs that are here now."""
    key, path = rows_key(job, one, packs), job.rows_file(one.name)
    with suppress(BadFile):
        return bool(key) and path.exists() and read_rows(path)[-1].header.more.get("reproduce") == key
    return False


def lean_done(job: Job, lean: Lean, packs: Mapping[str, Path]) -> bool:
    """The same of the experts that a sentence leans on."""
    key, path = lean_key(job, lean, packs), job.lean_file(lean.name)
    with suppress(BadFile, AttributeError):
        return bool(key) and path.exists() and read_json(path).get("reproduce") == key
    return False


def report_key(job: Job) -> str:
    """A hash of what a report follows from, as far as it is here."""
    files = [job.rows_file(one.name) for one in job.target.measurements]
    files += [job.lean_file(one.name) for one in job.target.leans]
    return content_hash(
        [path.read_text(encoding="utf-8") if path.exists() else "" for path in files], job.config.resamples
    )


def report_done(job: Job) -> bool:
    """Whether a report of what is here was written, with all pages."""
    pages = [job.page(one.name) for one in job.target.measurements]
    path = job.folder / COMPARISON
    try:
        known = read_json(path) if path.exists() else {}
        return known.get("key") == report_key(job) and all(page.exists() for page in pages)
    except (BadFile, AttributeError, OSError):
        return False
