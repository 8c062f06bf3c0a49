"""Hashes of the inputs of results: rows, experts selected by a sentence, and the report. No torch."""

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
"""The file that records the inputs of a report."""


def built_packs(job: Job) -> dict[str, Path]:
    """Map the target's recipes to the folders of their packs, if these were built from the same recipe."""
    known = {one.name: one.folder for one in Library(job.host.recipe_folders).packs()}
    return {
        name: known[recipe.name]
        for name, recipe in job.recipes.items()
        if recipe.name in known and _is_of(known[recipe.name], recipe)
    }


def _is_of(folder: Path, recipe: Recipe) -> bool:
    """Return whether a pack was built from this recipe."""
    try:
        return bool(Pack(folder).manifest["recipe"] == json.loads(json.dumps(recipe.raw)))
    except SgloraError:
        return False


def rows_key(job: Job, one: Measurement, packs: Mapping[str, Path]) -> str:
    """Return a hash of all inputs of rows, or "" while a pack is missing."""
    names = [name for name in (one.recipe, one.on) if name]
    if not set(names) <= set(packs):
        return ""
    manifests = [Pack(packs[name]).manifest for name in names]
    asked = [one.table, list(one.methods), list(job.measured(one)), list(one.source), one.photos, one.captions]
    return content_hash("reproduce 1", manifests, asked, job.settings_of_rows())


def lean_key(job: Job, lean: Lean, packs: Mapping[str, Path]) -> str:
    """Return the hash for the experts selected by a sentence, as `rows_key`."""
    if lean.recipe not in packs:
        return ""
    return content_hash("reproduce 1", Pack(packs[lean.recipe]).manifest, lean.dataset, lean.task)


def rows_done(job: Job, one: Measurement, packs: Mapping[str, Path]) -> bool:
    """Return whether all rows of a measurement exist and belong to the current packs."""
    key, path = rows_key(job, one, packs), job.rows_file(one.name)
    with suppress(BadFile):
        return bool(key) and path.exists() and read_rows(path)[-1].header.more.get("reproduce") == key
    return False


def lean_done(job: Job, lean: Lean, packs: Mapping[str, Path]) -> bool:
    """Return the same for the experts selected by a sentence."""
    key, path = lean_key(job, lean, packs), job.lean_file(lean.name)
    with suppress(BadFile, AttributeError):
        return bool(key) and path.exists() and read_json(path).get("reproduce") == key
    return False


def report_key(job: Job) -> str:
    """Return a hash of the existing inputs of a report."""
    files = [job.rows_file(one.name) for one in job.target.measurements]
    files += [job.lean_file(one.name) for one in job.target.leans]
    return content_hash(
        [path.read_text(encoding="utf-8") if path.exists() else "" for path in files], job.config.resamples
    )


def report_done(job: Job) -> bool:
    """Return whether the report of the current results was written with all its pages."""
    pages = [job.page(one.name) for one in job.target.measurements]
    path = job.folder / COMPARISON
    try:
        known = read_json(path) if path.exists() else {}
        return known.get("key") == report_key(job) and all(page.exists() for page in pages)
    except (BadFile, AttributeError, OSError):
        return False
