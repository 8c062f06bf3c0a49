"""How far a sentence is: by what it is about, not by how it is put."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pack_folders import without

from sglora_cli.generate.session import Session
from sglora_cli.pack.coverage import COVERAGE, SeenTasks, closeness, encoded_phrases, phrase_of, phrases_of

SENTENCES = tomllib.loads((Path(__file__).parent / "coverage_sentences.toml").read_text())


@pytest.fixture(scope="module")
def starter(tmp_path_factory) -> Session:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SGLORA_HOME", str(tmp_path_factory.mktemp("home")))
        session = Session.open("starter")
        _ = session.seen_tasks
    return session


def far(session: Session, seen: SeenTasks, sentence: str) -> bool:
    coverage = seen.coverage(encoded_phrases([sentence], session._meaning), [1.0])
    return coverage.closeness < coverage.far


@pytest.mark.slow
def test_of_sentences_about_the_packs_families_few_are_far_and_of_others_most(starter):
    """200 of each, which were written without looking at the rule."""
    names = SENTENCES["seen"]
    narrow = SeenTasks.measured(names, [f"a photo of a {name}" for name in names], starter._meaning)
    for kind, least, most in (("related", 0, 0.05), ("unrelated", 0.8, 1)):
        assert len(SENTENCES[kind]) == 200
        assert least <= sum(far(starter, narrow, text) for text in SENTENCES[kind]) / 200 <= most, kind


def test_the_warning_follows_what_the_sentence_is_about(starter):
    for text in ("pug", "a pug", "a photo of a pug", "a pug asleep on a sofa", "photo of the Pug", "a lorry"):
        assert not far(starter, starter.seen_tasks, text), text
    for text in ("a quarterly tax report", "a photo of a brain scan", "democracy"):
        assert far(starter, starter.seen_tasks, text), text


@pytest.mark.parametrize(
    ("sentence", "phrase"),
    [
        ("a photo of a pug", "pug"),
        ("A close-up photo of an iris", "iris"),
        ("photos of my dog", "dog"),
        ("the pug", "pug"),
        ("a photo", "photo"),
        ("photo of", "photo of"),
    ],
)
def test_the_template_is_taken_off(sentence, phrase):
    assert phrase_of(sentence) == phrase


def test_words_are_looked_at_alone_but_small_ones():
    assert phrases_of("a photo of two dogs in the snow") == ["two dogs in the snow", "dogs", "snow"]
    assert phrases_of("in the") == ["in the"]


def test_closeness_is_its_definition():
    rng = torch.Generator().manual_seed(0)
    phrases_CW, tasks_TW, words_BW = (F.normalize(torch.randn(n, 8, generator=rng), dim=1) for n in (3, 5, 4))

    def near(one_W: torch.Tensor, others: torch.Tensor) -> float:
        return sum(sorted((float(one_W @ other) for other in others), reverse=True)[:3]) / 3

    each = [near(one, tasks_TW) - near(one, words_BW) for one in phrases_CW]
    assert closeness(phrases_CW, tasks_TW, words_BW) == pytest.approx((each[0] + max(each)) / 2, abs=1e-6)
    assert closeness(phrases_CW[:1], tasks_TW[:1], words_BW[:0]) == pytest.approx(float(phrases_CW[0] @ tasks_TW[0]))


def test_a_task_is_asked_about_the_others_and_background_about_the_pack_is_left_out():
    place = {"pug": 0, "pugs": 0, "car": 1, "vehicle": 1}

    def encode(texts):
        return F.one_hot(torch.tensor([place.get(text, 2) for text in texts]), 4).float()

    found = SeenTasks.measured(["pug", "car"], ["a photo of a pug", "a photo of a car"], encode)
    assert len(found.background_BW) == 68  # without car and vehicle
    assert found.others_T.tolist() == [0.0, 0.0]
    phrases = encoded_phrases(["pugs", "a tax"], encode)
    assert found.coverage(phrases, [1.0, 3.0]).closeness == pytest.approx((0.5 * 1 + -1 * 3) / 4)


def test_in_a_pack_without_it_it_is_measured_once(toy_pack, own_home, monkeypatch):
    without(own_home / "cache/packs/toys", COVERAGE)
    first = Session.open().seen_tasks
    (path,) = (own_home / "cache/measured/coverage").iterdir()
    monkeypatch.setattr(SeenTasks, "measured", None)
    assert torch.equal(Session.open().seen_tasks.others_T, first.others_T)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(TypeError):
        _ = Session.open().seen_tasks
