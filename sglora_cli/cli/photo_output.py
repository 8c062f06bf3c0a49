"""What `search` and `classify` say beside their results: which photos, which encoder, and what was written where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglora_cli.cli.output import say, say_passed_over

if TYPE_CHECKING:
    from sglora_cli.search.encoder import Encoder
    from sglora_cli.search.photos import PhotoList


def say_photos(photos: PhotoList, skipped: Sequence[str]) -> None:
    """What of a folder of photos is not looked at, and why."""
    say_passed_over(photos.passed_over)
    for reason in skipped:
        say(f"warning: {reason}; it is left out")


def say_encoder(encoder: Encoder) -> None:
    """Which backbone and which adapter embed the photos."""
    say(f"backbone   {encoder.backbone} ({encoder.because})")
    if encoder.adapter:
        made_for = encoder.about.get("description", "an unknown task")
        say(f"adapter    {encoder.file}, made for {made_for!r}: among photos that all show it")
    else:
        say("adapter    none; --adapter FILE takes one")


def say_written(copy: Path | None, report: Path | None) -> None:
    """Where copies of photos and a page are."""
    for noun, place in (("copied to", copy), ("report", report)):
        if place:
            say(f"{noun:<10} {place}")


def written_json(photos: PhotoList, copy: Path | None, report: Path | None) -> dict[str, Any]:
    """The same, and what was passed over, for programs."""
    return {
        "passed_over": [one.to_json() for one in photos.passed_over],
        "copied_to": str(copy) if copy else None,
        "report": str(report) if report else None,
    }
