"""Status lines of `search` and `classify` about photos, encoder and written files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglora_cli.cli.output import say, say_passed_over

if TYPE_CHECKING:
    from sglora_cli.search.encoder import Encoder
    from sglora_cli.search.photos import PhotoList


def say_photos(photos: PhotoList, skipped: Sequence[str]) -> None:
    """Print which files are ignored, and why."""
    say_passed_over(photos.passed_over)
    for reason in skipped:
        say(f"warning: {reason} (skipped)")


def say_encoder(encoder: Encoder) -> None:
    """Print which backbone and adapter embed the photos."""
    say(f"backbone   {encoder.backbone} ({encoder.because})")
    if encoder.adapter:
        made_for = encoder.about.get("description", "an unknown task")
        say(f"adapter    {encoder.file}, made for {made_for!r}, for photos that all show it")
    else:
        say("adapter    none (pass one with --adapter FILE)")


def say_written(copy: Path | None, report: Path | None) -> None:
    """Print the paths of copied photos and of the report."""
    for noun, place in (("copied to", copy), ("report", report)):
        if place:
            say(f"{noun:<10} {place}")


def written_json(photos: PhotoList, copy: Path | None, report: Path | None) -> dict[str, Any]:
    """Return the paths of copies and report, and the ignored files, as JSON values."""
    return {
        "passed_over": [one.to_json() for one in photos.passed_over],
        "copied_to": str(copy) if copy else None,
        "report": str(report) if report else None,
    }
