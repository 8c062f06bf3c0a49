"""What a task is described by: one sentence, several with weights, or photos.

Several sentences are one task: d* is the mean of their unit embeddings by weight, normalised, as
the paper describes Flickr30K by one caption an image. With photos (the paper's visual condition)
d* is the mean visual embedding, and experts are compared by theirs. See METHOD, step 3.

Shapes: N texts or images, D embedding width.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglora_cli.contracts import Model
from sglora_cli.errors import BadFile, Mismatch, UsageError
from sglora_cli.files import parse_json, read_image
from sglora_cli.strict import read_bytes
from sglora_cli.tensor_rows import TensorRows

MAX_CHARACTERS = 2000
MAX_TEXTS = 10_000
TEXTS_LIMIT = 4 * MAX_CHARACTERS * MAX_TEXTS
"""Bytes of a file with them."""
_WEIGHTED = re.compile(r"\s*([0-9.eE+-]+)\s*\|(.*)", re.DOTALL)
_BATCH = 32


@dataclass(frozen=True)
class Description:
    """Texts with positive weights, or images: one of the two is empty."""

    texts: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    images: tuple[Path, ...] = ()

    @classmethod
    def of(cls, *parts: str | tuple[float, str]) -> Description:
        """Of sentences; `2.0 | a photo of a pug` has the weight 2. Raises UsageError for an empty or over-long one."""
        pairs = [weighted(one) if isinstance(one, str) else (checked_weight(*one), one[1]) for one in parts]
        if not 1 <= len(pairs) <= MAX_TEXTS:
            raise UsageError(f"a description has 1 to {MAX_TEXTS} sentences, got {len(pairs)}")
        return cls(tuple(cleaned(text) for _, text in pairs), tuple(weight for weight, _ in pairs))

    def __str__(self) -> str:
        if self.images:
            return f"{len(self.images)} images of {self.images[0].parent.name!r}"
        return "; ".join(self.texts[:8]) + (f"; and {len(self.texts) - 8} more" if len(self.texts) > 8 else "")

    def about(self) -> dict[str, Any]:
        """What files say of it: the sentence, and all texts with their weights if there are several."""
        several = [[weight, text] for weight, text in zip(self.weights, self.texts, strict=True)]
        return {"description": str(self)} | ({"described_by": several} if len(several) > 1 else {})


def weighted(line: str) -> tuple[float, str]:
    """Weight and text of `2.0 | a photo of a pug`; without a number in front, the weight is 1.

    >>> weighted("0.5 | a dog"), weighted("cat | dog")
    ((0.5, 'a dog'), (1.0, 'cat | dog'))
    """
    found = _WEIGHTED.fullmatch(line)
    try:
        weight, text = (float(found[1]), found[2].strip()) if found else (1.0, line)
    except ValueError:
        return 1.0, line
    return checked_weight(weight, line), text


def checked_weight(weight: float, what: str) -> float:
    if not 0 < weight < math.inf:
        raise UsageError(f"a weight must be positive and finite, got {weight} for {what[:100]!r}")
    return weight


def read_texts(path: Path) -> list[str | tuple[float, str]]:
    """What `Description.of` takes, from a file. Raises BadFile.

    Text: a sentence a line, `weight | sentence` for a weighted one; empty lines do not count.
    JSON: a list of sentences, or a table {sentence: weight}.
    """
    data = read_bytes(path, TEXTS_LIMIT)
    found: list[str | tuple[float, str]]
    if path.suffix.lower() == ".json":
        found = _json_texts(path, parse_json(data, str(path)))
    else:
        try:
            found = [line for line in data.decode("utf-8-sig").splitlines() if line.strip()]
        except UnicodeDecodeError:
            raise BadFile(f"{path} is not UTF-8 text", "save it as UTF-8") from None
    if not found:
        raise BadFile(f"{path} has no sentence", "write one a line")
    return found


def _json_texts(path: Path, content: Any) -> list[str | tuple[float, str]]:
    listed = content if isinstance(content, list) else [content]
    pairs = content.items() if isinstance(content, dict) else [(text, 1) for text in listed]
    found: list[str | tuple[float, str]] = []
    for text, weight in pairs:
        if not isinstance(text, str) or isinstance(weight, bool) or not isinstance(weight, int | float):
            wanted = 'write ["...", "..."] or {"...": 2.0}'
            raise BadFile(f"{path}: {text!r} with {weight!r} is no sentence with a weight", wanted)
        found.append((float(weight), text))
    return found


def cleaned(sentence: str) -> str:
    """The sentence with plain spaces. Raises UsageError if nothing is left, far too much, or it is no UTF-8."""
    try:  # a byte that the locale does not know comes from the command line as half a surrogate pair
        sentence = sentence.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:
        raise UsageError(f"the sentence is not UTF-8: {sentence!r}", "write it in UTF-8") from None
    text = " ".join(unicodedata.normalize("NFC", sentence).split())
    if not any(character.isalnum() for character in text):
        raise UsageError(f"the sentence has no word: {sentence!r}", 'describe the task, as in "a photo of a pug"')
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"the sentence has {len(text)} characters, more than {MAX_CHARACTERS}", "shorten it")
    return text


def mean_direction(weights_N: Sequence[float], unit_ND: Tensor) -> Tensor:
    """The normalised mean of unit vectors by weight: (D,). One vector alone is returned as it is.

    Raises Mismatch if they cancel out.

    >>> mean_direction([3, 1], torch.eye(2))
    tensor([0.9487, 0.3162])
    """
    if len(unit_ND) == 1:
        return unit_ND[0]
    weights = torch.tensor(weights_N, dtype=torch.float64)
    sum_D = (weights / weights.sum()) @ unit_ND.double()
    if float(sum_D.norm()) < 1e-6:
        raise Mismatch("the sentences cancel each other out: their mean has no direction", "describe one task")
    return (sum_D / sum_D.norm()).float()


@torch.no_grad()
def image_embeddings(model: Model, stem_N: Tensor | TensorRows) -> Tensor:
    """Unit embeddings (N, D) of images behind the frozen parts, without an adapter; stems are read in batches."""
    rows = range(len(stem_N))
    parts = (model.encode_image(stem_N[list(rows[i : i + _BATCH])]) for i in range(0, len(rows), _BATCH))
    return torch.cat([part.float().cpu() for part in parts])


@torch.no_grad()
def visual_embedding(model: Model, images: Sequence[Path]) -> Tensor:
    """d* of photos: the mean of the backbone's image embeddings without an adapter, normalised: (D,)."""
    parts = []
    for start in range(0, len(images), _BATCH):
        stem = model.stem([read_image(path) for path in images[start : start + _BATCH]])
        parts.append(model.encode_image(stem).float().cpu())
    return mean_direction([1.0] * len(images), torch.cat(parts))
