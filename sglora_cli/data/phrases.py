"""Find nouns, and nouns with the preceding word, in captions. They become seen tasks.

This needs no dictionary and no tagger. A word is a noun if it often stands alone between an article and a preposition
("a *dog* on"), relative to its total count. The rule holds for English captions. In other languages it finds few
phrases or none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BEFORE = _words("""a an the its his her their two three four five six several some many another each one this""")
"""Words that start a noun phrase."""
_AFTER = _words(
    """of in on at to from with without by for as into onto over under above below behind before beside beneath between
    among against along across around near inside outside through while where which is are was were has have . ;
    """
)
"""Words that follow a noun phrase. A comma or "and" is not one of them, as in "a red and white kite"."""
_OTHER = _words(
    """that these those and or but who whose be been being had our your my it they he she few other both all no not very
    so than then there here up down out off away just only more most almost about toward towards past still does do can
    """
)
_FUNCTION = _BEFORE | _AFTER | _OTHER
_TOKEN = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*|[.,;:!?]")
_LEAST, _SHARE, _SHORTEST = 3, 0.05, 3
"""The fewest times a noun stands alone, their least share of all its occurrences, and its fewest letters."""


def phrases(captions: Sequence[Iterable[str]]) -> dict[str, list[int]]:
    """Map each phrase to the photos whose captions contain it, in order. captions: the captions of each photo.

    A plural counts as its singular if both occur.

    >>> found = phrases([["A kite in the sky."], ["The kite on a hill."], ["A red kite.", "The kite over trees."]])
    >>> found["kite"], found["red kite"]
    ([0, 1, 2], [2])
    """
    words = [[[*_TOKEN.findall(caption.lower()), "."] for caption in of_photo] for of_photo in captions]
    known = nouns(sentence for of_photo in words for sentence in of_photo)
    found: dict[str, dict[int, None]] = {}
    for photo, of_photo in enumerate(words):
        for sentence in of_photo:
            for before, word in zip([".", *sentence], sentence, strict=False):
                if (noun := _singular(word, known)) is None:
                    continue
                found.setdefault(noun, {})[photo] = None
                if before not in _FUNCTION and before.isalpha() and len(before) >= _SHORTEST:
                    found.setdefault(f"{before} {noun}", {})[photo] = None
    return {phrase: list(photos) for phrase, photos in found.items()}


def nouns(sentences: Iterable[Sequence[str]]) -> set[str]:
    """Return the nouns of sentences. A sentence is a list of lower-case words and punctuation."""
    alone: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for sentence in sentences:
        total.update(sentence)
        alone.update(
            word
            for before, word, after in zip(sentence, sentence[1:], sentence[2:], strict=False)
            if before in _BEFORE and after in _AFTER and word not in _FUNCTION and word.isalpha()
        )
    return {
        word
        for word, count in alone.items()
        if count >= _LEAST and count >= _SHARE * total[word] and len(word) >= _SHORTEST
    }


def _singular(word: str, known: set[str]) -> str | None:
    """Return the noun that a word is a form of; None if it is not a noun."""
    one = word.removesuffix("s")
    if one in known:
        return one
    return word if word in known else None


def share_a_word(phrase: str, names: Iterable[str]) -> bool:
    """Whether a phrase shares a word with one of these names, ignoring number.

    >>> share_a_word("red buses", ["bus"]), share_a_word("dog", ["hot dog"]), share_a_word("kite", ["bus"])
    (True, True, False)
    """
    return bool(_stems(phrase, _FUNCTION) & {stem for name in names for stem in _stems(name)})


_IRREGULAR = {
    "men": "man",
    "women": "woman",
    "people": "person",
    "children": "child",
    "mice": "mouse",
    "feet": "foot",
    "geese": "goose",
    "teeth": "tooth",
}


def _stems(text: str, without: frozenset[str] = frozenset()) -> set[str]:
    return {_stem(word) for word in re.findall(r"[^\W\d_]+", text.lower()) if word not in without}


def _stem(word: str) -> str:
    """Strip the plural ending of a word. A stem that is too short is safe, because it only drops one more phrase."""
    word = re.sub(r"(?:ies|ie|ys|y)$", "i", _IRREGULAR.get(word, word))
    return re.sub(r"(?:ves?|fe?s?)$", "f", word).rstrip("es") or word


def chosen(
    found: Mapping[str, Sequence[int]], photos: int, least: int, share: float, most: int
) -> dict[str, list[int]]:
    """Choose the `most` phrases with the most photos.

    A phrase needs at least `least` photos and at most `share` of all `photos`. Of phrases with the same photos, the
    longest is chosen, because it is the most specific.
    """
    fitting = [phrase for phrase, of in found.items() if least <= len(of) <= share * photos]
    fitting.sort(key=lambda phrase: (-len(found[phrase]), -len(phrase), phrase))
    kept: dict[tuple[int, ...], str] = {}
    for phrase in fitting:
        kept.setdefault(tuple(found[phrase]), phrase)
    return {phrase: list(found[phrase]) for phrase in list(kept.values())[:most]}
