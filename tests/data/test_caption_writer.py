"""What is asked of a captioner, and which of its answers are kept."""

from __future__ import annotations

import os

import pytest
from trees import captioned

from sglora_cli.config import CaptionConfig
from sglora_cli.data.caption_text import DEMONSTRATIONS, cleaned_caption, prompt_of
from sglora_cli.data.caption_writer import caption_job, seed_of, take_captions, write_captions
from sglora_cli.errors import BadFile, PluginError, Unavailable
from sglora_cli.plugin.host import Host


class Script:
    """A captioner that answers from a list, and remembers what it was asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def write(self, image, prompt, count, seed):
        self.asked.append((count, seed))
        return [self.answers.pop(0) if self.answers else f"caption number {seed} {i}" for i in range(count)]


def written(album, *answers, **config):
    model = Script(*answers)
    job = caption_job(Host.load(), "folder", album)
    return model, write_captions(job, model, CaptionConfig(**config), DEMONSTRATIONS)


def test_refused_texts_are_asked_for_again_with_another_seed(album):
    answers = ["", "a cat", "I'm sorry, I cannot see it.", "A black cat sits."]
    model, outcome = written(album, *answers, "a Black  cat sits.", "Two cats sleep.", "One cat runs.", captions=4)
    first = captioned(album)[0]
    assert first["captions"][:3] == ["A black cat sits.", "Two cats sleep.", "One cat runs."]
    assert len(first["captions"]) == 4
    image = first["image"]
    assert model.asked[:3] == [(4, seed_of(0, image, 0)), (3, seed_of(0, image, 1)), (1, seed_of(0, image, 2))]
    assert outcome.refused == {"empty": 1, "short": 1, "refusal": 1, "repeated": 1}
    assert outcome.problems == []


def test_a_caption_of_another_image_is_refused_and_a_shortage_is_reported(album):
    _, outcome = written(album, *["the same old words"] * 1000, captions=2, retries=1)
    assert [row["captions"] for row in captioned(album)] == [["the same old words"]]
    kinds = [problem.kind for problem in outcome.problems]
    assert kinds == ["few"] + ["none"] * 11
    # One image: 2 asked, then 1. Every other one: 2 and 2, all shared.
    assert outcome.refused == {"repeated": 2, "shared": 44}


@pytest.mark.parametrize("answer", [["one"], "text", [1, 2], None])
def test_a_captioner_that_breaks_its_word_is_named(album, answer):
    model = Script()
    model.write = lambda *_: answer
    with pytest.raises(PluginError, match="captioner"):
        write_captions(caption_job(Host.load(), "folder", album), model, CaptionConfig(captions=2), ())


def test_a_captioner_that_fails_leaves_what_it_wrote(album):
    model = Script()
    good = model.write
    model.write = lambda *args: good(*args) if len(model.asked) < 3 else 1 / 0
    with pytest.raises(PluginError, match=r"failed on .*: ZeroDivisionError: division by zero"):
        write_captions(caption_job(Host.load(), "folder", album), model, CaptionConfig(), ())
    assert len(captioned(album)) == 3


def test_a_run_that_wrote_nothing_leaves_no_file(album):
    model = Script()
    model.write = lambda *_: 1 / 0
    with pytest.raises(PluginError):
        write_captions(caption_job(Host.load(), "folder", album), model, CaptionConfig(), ())
    assert not (album / "captions.jsonl").exists()


def test_the_prompt_is_the_papers():
    text = prompt_of("horse", DEMONSTRATIONS)
    assert text.startswith("Input: A photo of pug. Output: The pug ")
    assert text.endswith("\nInput: A photo of horse. Output:")
    assert len(text.splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        (" A  cat.\n", "A cat."),
        ('"A cat."', "A cat."),
        ('A cat named "Tom"', 'A cat named "Tom"'),
        ('"Tom" is a cat called "Tom"', '"Tom" is a cat called "Tom"'),
        ("Output: A cat.", "A cat."),
        ("Sure! Here is a caption: A cat.", "A cat."),
        ("A cat.\nInput: A photo of dog. Output: A dog.", "A cat."),
        ("A sign: no cats.", "A sign: no cats."),
        ("A \ud83d cat.", "A ? cat."),
        ("Surely a cat: black.", "Surely a cat: black."),
        ("", ""),
    ],
)
def test_only_what_is_no_caption_is_taken_off(text, caption):
    assert cleaned_caption(text) == caption


def test_captions_mended_while_others_are_taken_stay(album, tmp_path):
    target = album / "captions.jsonl"
    target.write_text('{"image": "images/cat/6.jpg", "task": "cat", "captions": ["an old caption"]}\n')
    (tmp_path / "new.jsonl").write_text('{"image": "images/owl/9.jpg", "captions": ["a brand new caption"]}\n')
    job = caption_job(Host.load(), "folder", album)
    mended = target.read_text().replace("an old caption", "mended by hand")
    target.write_text(mended)
    with pytest.raises(Unavailable, match="was changed by another program, so nothing was written") as caught:
        take_captions(job, tmp_path / "new.jsonl", CaptionConfig())
    assert caught.value.hint == "run the same command again to start from the current content"
    assert target.read_text() == mended
    with pytest.raises(Unavailable, match="was changed by another program"):
        write_captions(job, Script(), CaptionConfig(), ())
    assert target.read_text() == mended
    take_captions(caption_job(Host.load(), "folder", album), tmp_path / "new.jsonl", CaptionConfig())
    assert [row["captions"] for row in captioned(album)] == [["mended by hand"], ["a brand new caption"]]


def test_a_file_that_appears_while_captions_are_taken_stays(album, tmp_path):
    (tmp_path / "new.jsonl").write_text('{"image": "images/owl/9.jpg", "captions": ["a brand new caption"]}\n')
    job = caption_job(Host.load(), "folder", album)
    (album / "captions.jsonl").write_text("{}\n")
    with pytest.raises(Unavailable, match="was changed by another program"):
        take_captions(job, tmp_path / "new.jsonl", CaptionConfig())
    assert (album / "captions.jsonl").read_text() == "{}\n"


@pytest.mark.parametrize("renamed", [False, True])
def test_lines_written_by_hand_while_a_captioner_writes_stay_and_are_not_doubled(album, renamed):
    target, model = album / "captions.jsonl", Script()
    plain = model.write

    def write(*args):
        texts = plain(*args)
        if len(model.asked) == 3:
            lines = target.read_text().replace("caption number", "MENDED", 1)
            lines += '{"image": "images/owl/9.jpg", "captions": ["my own owl"]}\n'
            lines += f'{{"image": "{images[2]}", "captions": ["faster than the model"]}}'  # without a line break
            (album / "x").write_text(lines)
            os.replace(album / "x", target) if renamed else target.write_text(lines)
        return texts

    model.write = write
    job = caption_job(Host.load(), "folder", album)
    images = [one.image for one in job.waiting()]
    outcome = write_captions(job, model, CaptionConfig(), DEMONSTRATIONS)
    rows = captioned(album)
    assert [row["image"] for row in rows[:4]] == [images[0], images[1], "images/owl/9.jpg", images[2]]
    assert sorted(row["image"] for row in rows) == sorted(images)
    assert rows[0]["captions"][0].startswith("MENDED")
    assert rows[3]["captions"] == ["faster than the model"]
    assert (outcome.written, outcome.left) == (10, 0)


def test_a_captioner_stops_at_lines_that_somebody_broke(album):
    target, model = album / "captions.jsonl", Script()
    plain = model.write
    model.write = lambda *args: (len(model.asked) == 2 and target.write_text("mine\n"), plain(*args))[1]
    with pytest.raises(BadFile, match=r"captions.jsonl, line 1: not JSON"):
        write_captions(caption_job(Host.load(), "folder", album), model, CaptionConfig(), DEMONSTRATIONS)
    assert target.read_text() == "mine\n"
