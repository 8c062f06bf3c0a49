"""Task descriptions: one sentence, several weighted sentences, or photos. No torch at import time.

Several sentences describe one task. Then d* is the normalised weighted mean of their unit embeddings, as in the paper,
which describes Flickr30K by one caption per image. With photos (the paper's visual condition) d* is the mean visual
embedding, and it is compared with the visual embeddings of the experts. See docs/method.md, section 3.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglora_cli.errors import BadFile, UsageError
from sglora_cli.files.text import decoded, read_json
from sglora_cli.files.untrusted import read_bytes
from sglora_cli.system.display import counted

MAX_CHARACTERS = 2000
MAX_TEXTS = 10_000
TEXTS_LIMIT = 4 * MAX_CHARACTERS * MAX_TEXTS
"""The largest size of a description file, in bytes."""
_WEIGHTED = re.compile(r"\s*([0-9.eE+-]+)\s*\|(.*)", re.DOTALL)


@dataclass(frozen=True)
class Description:
    """Sentences with positive weights, or images. One of the two is empty."""

    texts: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    images: tuple[Path, ...] = ()

    @classmethod
    def of(cls, *parts: str | tuple[float, str]) -> Description:
        """Create a description from sentences. `2.0 | a photo of a pug` has weight 2.

        Raises UsageError for a sentence that is empty or too long.
        """
        pairs = [weighted(one) if isinstance(one, str) else (checked_weight(*one), one[1]) for one in parts]
        if not 1 <= len(pairs) <= MAX_TEXTS:
            raise UsageError(f"a description must have 1 to {MAX_TEXTS} sentences, got {len(pairs)}")
        return cls(tuple(cleaned_sentence(text) for _, text in pairs), tuple(weight for weight, _ in pairs))

    def __str__(self) -> str:
        if self.images:
            return f"{counted(len(self.images), 'image')} of {self.images[0].parent.name!r}"
        return "; ".join(self.texts[:8]) + (f"; and {len(self.texts) - 8} more" if len(self.texts) > 8 else "")

    def to_json(self) -> dict[str, Any]:
        """The description as JSON values: the text, and all sentences with their weights if there are several."""
        several = [[weight, text] for weight, text in zip(self.weights, self.texts, strict=True)]
        return {"description": str(self)} | ({"described_by": several} if len(several) > 1 else {})


def weighted(line: str) -> tuple[float, str]:
    """Split `2.0 | a photo of a pug` into weight and sentence. Without a number in front, the weight is 1.

    >>> weighted("0.5 | a dog"), weighted("cat | dog")
    ((0.5, 'a dog'), (1.0, 'cat | dog'))
    """
    match = _WEIGHTED.fullmatch(line)
    try:
        weight, text = (float(match[1]), match[2].strip()) if match else (1.0, line)
    except ValueError:
        return 1.0, line
    return checked_weight(weight, line), text


def checked_weight(weight: float, what: str) -> float:
    if not 0 < weight < math.inf:
        raise UsageError(f"a weight must be positive and finite, got {weight} for {what[:100]!r}")
    return weight


def read_texts(path: Path) -> Sequence[str | tuple[float, str]]:
    """Read the arguments of `Description.of` from a file. Raises BadFile.

    A text file has one sentence per line, or `weight | sentence`. Empty lines are ignored.
    A JSON file has a list of sentences, or an object {sentence: weight}.
    """
    texts: Sequence[str | tuple[float, str]]
    texts = _json_texts(path) if path.suffix.lower() == ".json" else sentence_lines(path)
    if not texts:
        raise BadFile(f"{path} has no sentences", "write one sentence per line")
    return texts


def sentence_lines(path: Path) -> list[str]:
    """Return the non-empty lines of a text file. Raises BadFile."""
    return [line for line in decoded(read_bytes(path, TEXTS_LIMIT), str(path)).splitlines() if line.strip()]


def _json_texts(path: Path) -> list[str | tuple[float, str]]:
    content = read_json(path, limit=TEXTS_LIMIT)
    listed = content if isinstance(content, list) else [content]
    pairs = content.items() if isinstance(content, dict) else [(text, 1) for text in listed]
    weighted_texts: list[str | tuple[float, str]] = []
    for text, weight in pairs:
        if not isinstance(text, str) or isinstance(weight, bool) or not isinstance(weight, int | float):
            wanted = 'write ["...", "..."] or {"...": 2.0}'
            raise BadFile(f"{path}: {text!r} with {weight!r} is not a sentence with a weight", wanted)
        weighted_texts.append((float(weight), text))
    return weighted_texts


def cleaned_sentence(sentence: str) -> str:
    """Normalise a sentence to NFC and single spaces. Raises UsageError if it is empty, too long or not UTF-8."""
    try:  # Python decodes a command-line byte that the locale cannot represent to a lone surrogate
        sentence = sentence.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:
        raise UsageError(f"the sentence is not UTF-8: {sentence!r}", "write it in UTF-8") from None
    text = " ".join(unicodedata.normalize("NFC", sentence).split())
    if not any(character.isalnum() for character in text):
        raise UsageError(f"the sentence has no words: {sentence!r}", 'describe the task, as in "a photo of a pug"')
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"the sentence has {len(text)} characters, the limit is {MAX_CHARACTERS}", "shorten it")
    return text
