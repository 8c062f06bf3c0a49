"""Phrases of captions: which words are nouns, which photos a phrase has, and which phrases are taken."""

from __future__ import annotations

import pytest

from sglora_cli.data.phrases import chosen, nouns, phrases, share_a_word

CAPTIONS = [
    ["A dog on a hill.", "Two brown dogs in the grass."],
    ["The dog in the grass.", "A hill with a red kite."],
    ["A dog at a lake.", "The red kite over the hill is torn."],
    ["A kite above the lake.", "Its tail is red."],
    ["The kite on a hill.", "A kite in the grass."],
]


def test_nouns_stand_alone_between_an_article_and_a_preposition():
    sentences = [caption.lower().replace(".", " .").split() for captions in CAPTIONS for caption in captions]
    assert nouns(sentences) == {"dog", "hill", "kite", "grass"}


def test_a_phrase_has_the_photos_of_captions_that_name_it_and_plurals_count():
    found = phrases(CAPTIONS)
    assert found["dog"] == [0, 1, 2]
    assert found["brown dog"] == [0]
    assert found["kite"] == [1, 2, 3, 4]
    assert found["red kite"] == [1, 2]
    assert not {"red", "torn", "tail", "the hill", "a dog"} & set(found)


def test_captions_of_another_language_have_no_phrase_and_do_no_harm():
    assert phrases([["Ein Hund läuft über die Wiese."], ["草地上的一只狗"], [""]]) == {}


@pytest.mark.parametrize(
    ("least", "share", "most", "kept"),
    [
        (2, 1.0, 9, ["kite", "hill", "grass", "dog", "red kite"]),
        (3, 0.7, 9, ["grass", "dog"]),
        (2, 1.0, 1, ["hill"]),
        (5, 1.0, 9, []),
    ],
)
def test_phrases_with_too_few_or_too_many_photos_are_left_out(least, share, most, kept):
    found = {phrase: photos for phrase, photos in phrases(CAPTIONS).items() if len(photos) > 1}
    by_count = {"kite": 4, "hill": 4, "grass": 3, "dog": 3, "red kite": 2}
    assert {phrase: len(photos) for phrase, photos in found.items()} == by_count
    assert sorted(chosen(found, 5, least, share, most)) == sorted(kept)


def test_of_phrases_with_the_same_photos_the_longest_is_kept():
    assert chosen({"kite": [0, 1], "red kite": [0, 1], "dog": [1, 2]}, 9, 2, 1.0, 9) == {
        "red kite": [0, 1],
        "dog": [1, 2],
    }


@pytest.mark.parametrize(
    ("phrase", "name", "shared"),
    [
        ("red buses", "bus", True),
        ("horse", "horses", True),
        ("dog", "hot dog", True),
        ("traffic", "traffic light", True),
        ("house", "horse", False),
        ("the lamp of a room", "a light of the hall", False),
        ("rose", "roses", True),
        ("white daisies", "barbeton daisy", True),
        ("knives", "knife", True),
        ("two men", "man", True),
        ("cans", "can", True),
        ("stoves", "stove", True),
        ("tie", "ties", True),
        ("a key", "keys", True),
        ("scarf", "scarves", True),
    ],
)
def test_a_phrase_and_a_name_share_a_word_in_singular_or_plural(phrase, name, shared):
    assert share_a_word(phrase, ["kite", name]) is shared
