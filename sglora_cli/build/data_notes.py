"""Reports which data a build does not use: missing images, skipped files, and truncated ends of captions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sglora_cli.data import check
from sglora_cli.data.text_limit import TextLimit
from sglora_cli.errors import SgloraWarning
from sglora_cli.pack.recipe import Recipe
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import Task


def say_what_is_not_seen(
    host: Host, recipe: Recipe, data: Path, tasks: Iterable[Task], note: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """Note what is missing or skipped in each source of a recipe, and warn of truncated captions of `tasks`.

    Truncated captions are only reported for backbones that count tokens. Returns the missing and skipped items as JSON.
    """
    partial: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for dataset, path in dict.fromkeys((source.dataset, source.path) for source in recipe.sources):
        if counts := check.image_counts(host.datasets[dataset], data / path):
            note(f"{check.partial_text(dataset, counts)}; missing images are not in any task")
            partial.append({"path": str(data / path), "here": counts[0], "named": counts[1]})
        for one in check.passed_over(host.datasets[dataset], data / path):
            note(f"skipped in {data / path}: {one}")
            rows.append({"path": str(data / path), **one.to_json()})
    cut = TextLimit.of(host, recipe.backbone).cut(check.captions_of(tasks))
    if many := len(cut.tokens):
        first, count = next(iter(cut.tokens.items()))
        what = "1 caption has" if many == 1 else f"{many} captions have"
        warnings.warn(
            f"{what} more tokens than the text encoder of {recipe.backbone} reads ({cut.limit.tokens}) and will be "
            f"truncated. The first, of {count}, begins with {first[:60]!r}. "
            "`sglora data check DATASET` lists all of them",
            SgloraWarning,
            stacklevel=3,
        )
    return {"partial": partial, "passed_over": rows}
