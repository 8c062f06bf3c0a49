"""Build prompts for a captioner, clean its answers and decide which of them to reject.

A demonstrations file has one JSON object per line: {"name": "pug", "caption": "The pug has a fawn coat, ..."}.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sglora_cli.config import CaptionConfig
from sglora_cli.data.check_rules import normal
from sglora_cli.errors import BadFile, Mismatch
from sglora_cli.files.text import jsonl_rows
from sglora_cli.files.untrusted import read_bytes

REASONS = {
    "empty": "without words",
    "short": "too short",
    "refusal": "refusals",
    "repeated": "repeated within an image",
    "shared": "shared with another image",
}
"""Why a caption is rejected."""
CAPTION_ISSUES = {
    "broken": "images that cannot be decoded",
    "none": "images without an accepted caption",
    "few": "images with fewer captions than requested",
    "long": "captions that a text encoder may truncate",
    **{reason: f"captions {text}" for reason, text in REASONS.items()},
}
"""What can be wrong with an image and its captions, the most serious first."""
_FILE_LIMIT = 1 << 20
_LEAD = re.compile(r"^(?:(?:sure|certainly|of course)\b[^:\n]{0,80}:|output:|caption:)\s*", re.IGNORECASE)
_NEXT = re.compile(r"\s*\bInput:")  # a model may continue with an example of its own
_REFUSAL = re.compile(
    r"^(?:i(?:'m| am) (?:sorry|unable|not able)|sorry\b|i (?:cannot|can't|can not)\b|as an ai\b|unfortunately, i\b)",
    re.IGNORECASE,
)
_QUOTES = {'"': '"', "\N{LEFT DOUBLE QUOTATION MARK}": "\N{RIGHT DOUBLE QUOTATION MARK}"}


@dataclass(frozen=True)
class Demonstration:
    """An example in the prompt: the subject of a photo and a caption in the desired style."""

    name: str
    caption: str


DEMONSTRATIONS = (
    Demonstration(
        "pug",
        "The pug sits on a wooden floor and looks up, with a short fawn coat, a black mask, folded dark ears "
        "and a tightly curled tail.",
    ),
    Demonstration(
        "sunflower",
        "A single sunflower with two rows of pointed yellow petals around a dark brown centre leans to the left, "
        "in front of a blurred green field.",
    ),
)
"""The default demonstrations. The paper uses two as well; the wording is this project's."""


def read_demonstrations(path: Path) -> tuple[Demonstration, ...]:
    """Read the demonstrations of a file. Raises BadFile with file and line."""
    demonstrations = []
    for number, line, row in jsonl_rows(path, read_bytes(path, _FILE_LIMIT)):
        values = [row.get(key) for key in ("name", "caption")]
        texts = [" ".join(value.split()) for value in values if isinstance(value, str) and value.strip()]
        if len(texts) < 2:
            raise BadFile(
                f"{path}, line {number}: expected a name and a caption, got {line.strip()!r:.100}",
                'write {"name": "pug", "caption": "The pug has ..."}',
            )
        demonstrations.append(Demonstration(*texts))
    if not demonstrations:
        raise BadFile(f"{path} has no demonstrations", "omit --demonstrations to use the default ones")
    return tuple(demonstrations)


def prompt_of(name: str, demonstrations: Sequence[Demonstration]) -> str:
    """Return the prompt for a photo of `name`, in the form that SG-LoRA (arXiv 2509.10535) uses.

    >>> print(prompt_of("horse", [Demonstration("pug", "The pug has a fawn coat.")]))
    Input: A photo of pug. Output: The pug has a fawn coat.
    Input: A photo of horse. Output:
    """
    examples = [f"Input: A photo of {one.name}. Output: {one.caption}" for one in demonstrations]
    return "\n".join([*examples, f"Input: A photo of {name}. Output:"])


def cleaned_caption(text: str) -> str:
    r"""Extract the caption from a model's answer, as one line. Text that may belong to the caption is preserved.

    >>> cleaned_caption('Sure, here is a caption: "A black  cat."\nInput: A photo of dog.')
    'A black cat.'
    """
    text = text.encode("utf-8", "replace").decode()  # a lone surrogate cannot be written
    caption = _LEAD.sub("", text.strip())
    caption = " ".join(_NEXT.split(_LEAD.sub("", caption), maxsplit=1)[0].split())
    inner = caption[1:-1]
    if len(caption) > 1 and _QUOTES.get(caption[0]) == caption[-1] and not {caption[0], caption[-1]} & set(inner):
        return inner.strip()
    return caption


@dataclass
class Judge:
    """Accept or reject captions. It compares them with the captions of all images passed to `remember`."""

    fewest_words: int
    known: dict[str, str] = field(default_factory=dict)
    """Maps each caption, normalised for comparison, to its image."""

    def remember(self, image: str, captions: Sequence[str]) -> None:
        for caption in captions:
            self.known.setdefault(normal(caption), image)

    def fault(self, image: str, caption: str, own: Sequence[str]) -> str:
        """Return why a caption is rejected (a key of REASONS); "" if it is accepted. `own`: the image's captions."""
        if not any(c.isalnum() for c in caption):
            return "empty"
        if _REFUSAL.match(caption):
            return "refusal"
        if normal(caption) in map(normal, own):
            return "repeated"
        if len(caption.split()) < self.fewest_words:
            return "short"
        return "shared" if self.known.get(normal(caption), image) != image else ""


def too_long(caption: str, config: CaptionConfig, check_text: Callable[[str], None] | None) -> str:
    """Return why a text encoder would truncate the caption; "" if it would not."""
    words = len(caption.split())
    if words > config.words:
        return f"{words} words"
    try:
        if check_text is not None:
            check_text(caption)
    except Mismatch as error:
        return error.message
    return ""
