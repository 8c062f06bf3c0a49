"""`sglora data caption`: captions by a captioner or from a file, resumed, checked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import install
from filelock import FileLock
from trees import picture

from sglora_cli.caption_texts import DEMONSTRATIONS, cleaned, prompt_of
from sglora_cli.captioning import planned, seed_of, write_captions
from sglora_cli.configs import CaptionConfig
from sglora_cli.errors import PluginError
from sglora_cli.host import Host
from sglora_datasets.folder import Folder

HERE = Path(__file__).parent


@pytest.fixture
def parrot(site):
    """The third-party captioner `parrot` is installed."""
    install(site, "sglora-parrot", "sglora_parrot", (HERE / "thirdparty/sglora_parrot.py").read_text())
    return site


@pytest.fixture
def album(tmp_path) -> Path:
    """Folders of 12 photos without captions: 4 tasks of 3."""
    root = tmp_path / "album"
    for n in range(12):
        picture(root / "images" / ("pug", "red_fox", "cat", "owl")[n // 3] / f"{n}.jpg", n)
    return root


@pytest.fixture
def caption(run, parrot, album):
    return lambda *args: run("data", "caption", "folder", "--path", album, "--captioner", "parrot", *args)


def lines(album):
    return [json.loads(line) for line in (album / "captions.jsonl").read_text().splitlines()]


def test_every_image_gets_its_captions(caption, album):
    result = caption("--captions", 2)
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        f"output     {album}/captions.jsonl\n"
        "images     12, 0 captioned before, 12 now, 0 left\n"
        "captions   24 written, 2.0 an image\n"
    )
    rows = lines(album)
    assert [row["image"] for row in rows] == sorted(row["image"] for row in rows)
    assert (rows[-1]["task"], rows[-1]["image"]) == ("red fox", "images/red_fox/5.jpg")
    assert rows[-1]["captions"][0].startswith("A red fox beside ")
    tasks = Folder().tasks(album)  # the data set reads what was written
    assert {t.name: sum(map(len, t.photos.values())) for t in tasks} == {"cat": 3, "owl": 3, "pug": 3, "red fox": 3}


def test_a_second_run_has_nothing_to_do(caption, album):
    caption()
    before = (album / "captions.jsonl").read_bytes()
    result = caption("--json")
    facts = json.loads(result.stdout)
    assert (facts["captioned_before"], facts["written"], facts["left"]) == (12, 0, 0)
    assert (album / "captions.jsonl").read_bytes() == before


def test_a_file_is_written_in_one_way(caption, album):
    caption("--captions", 2, "--limit", 1)
    (by,) = {row["by"] for row in lines(album)}
    assert by.startswith("parrot ")
    before = (album / "captions.jsonl").read_bytes()
    result = caption("--captions", 2, "--seed", 1)
    assert result.exit_code == 5
    assert f"line 1: written by '{by}', this run is 'parrot " in result.stderr
    assert (album / "captions.jsonl").read_bytes() == before
    row = {key: value for key, value in lines(album)[0].items() if key != "by"}
    (album / "captions.jsonl").write_text(json.dumps(row) + "\n")  # nobody says who wrote this one
    assert caption("--captions", 2, "--seed", 1).exit_code == 0
    assert len(lines(album)) == 12


def test_limits_add_up_to_what_one_run_writes(caption, album):
    caption()
    whole = (album / "captions.jsonl").read_bytes()
    (album / "captions.jsonl").unlink()
    assert "images     12, 0 captioned before, 5 now, 7 left\n" in caption("--limit", 5).stdout
    assert caption("--limit", 5).exit_code == caption().exit_code == 0
    assert (album / "captions.jsonl").read_bytes() == whole


@pytest.mark.parametrize("size", [0, 1, 50, 130, 400, -1])
def test_a_file_cut_anywhere_is_completed(caption, album, size):
    caption()
    whole = (album / "captions.jsonl").read_bytes()
    (album / "captions.jsonl").write_bytes(whole[:size])
    caption()
    assert (album / "captions.jsonl").read_bytes() == whole


def test_a_killed_run_is_completed(caption, album, parrot):
    """kill -9 in the middle, again and again; the file is what an uninterrupted run leaves."""
    caption()
    whole = (album / "captions.jsonl").read_bytes()
    (album / "captions.jsonl").unlink()
    command = [sys.executable, "-m", "sglora_cli.cli", "data", "caption", "folder", "--path", str(album)]
    environment = {**os.environ, "PYTHONPATH": str(parrot), "PARROT_SECONDS": "0.1"}
    sizes = []
    while len(sizes) < 20:
        process = subprocess.Popen([*command, "--captioner", "parrot"], env=environment, stdout=subprocess.DEVNULL)
        started = (album / "captions.jsonl").stat().st_size if sizes else 0
        while process.poll() is None:
            time.sleep(0.01)
            path = album / "captions.jsonl"
            if path.exists() and path.stat().st_size > started:
                time.sleep(0.025 * (len(sizes) % 4))
                process.send_signal(signal.SIGKILL)
                process.wait()
        sizes.append(path.stat().st_size)
        if process.returncode == 0:
            break
    assert len(sizes) > 4
    assert sizes == sorted(sizes)
    assert path.read_bytes() == whole


def test_a_line_by_hand_without_its_line_break_is_kept(caption, album):
    line = '{"image": "images/cat/6.jpg", "task": "cat", "captions": ["my own words"]}'
    (album / "captions.jsonl").write_text(line)
    caption()
    rows = lines(album)
    assert rows[0] == json.loads(line)
    assert len(rows) == len({row["image"] for row in rows}) == 12


class Script:
    """A captioner that answers from a list, and remembers what it was asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def write(self, image, prompt, count, seed):
        self.asked.append((count, seed))
        return [self.answers.pop(0) if self.answers else f"caption number {seed} {i}" for i in range(count)]


def told(album, *answers, **config):
    model = Script(*answers)
    plan = planned(Host.load(), "folder", album)
    return model, write_captions(plan, model, CaptionConfig(**config), DEMONSTRATIONS)


def test_refused_texts_are_asked_for_again_with_another_seed(album):
    answers = ["", "a cat", "I'm sorry, I cannot see it.", "A black cat sits."]
    model, outcome = told(album, *answers, "a Black  cat sits.", "Two cats sleep.", "One cat runs.", captions=4)
    first = lines(album)[0]
    assert first["captions"][:3] == ["A black cat sits.", "Two cats sleep.", "One cat runs."]
    assert len(first["captions"]) == 4
    image = first["image"]
    assert model.asked[:3] == [(4, seed_of(0, image, 0)), (3, seed_of(0, image, 1)), (1, seed_of(0, image, 2))]
    assert outcome.refused == {"empty": 1, "short": 1, "refusal": 1, "repeated": 1}
    assert outcome.problems == []


def test_a_caption_of_another_image_is_refused_and_a_shortage_is_reported(album):
    _, outcome = told(album, *["the same old words"] * 1000, captions=2, retries=1)
    assert [row["captions"] for row in lines(album)] == [["the same old words"]]
    kinds = [problem.kind for problem in outcome.problems]
    assert kinds == ["few"] + ["none"] * 11
    # One image: 2 asked, then 1. Every other one: 2 and 2, all shared.
    assert outcome.refused == {"repeated": 2, "shared": 44}


def test_what_is_left_without_a_caption_is_an_error_after_the_rest(run, site, album):
    source = (HERE / "thirdparty/sglora_parrot.py").read_text().replace(" A {what}", "{'' if what == 'owl' else what}")
    install(
        site, "sglora-parrot", "sglora_parrot", source.replace(" {pick.choice(ANIMALS)}s. ", "").replace("beside", "")
    )
    sys.modules.pop("sglora_parrot", None)
    result = run("data", "caption", "folder", "--path", album, "--captioner", "parrot", "--fewest-words", 2)
    sys.modules.pop("sglora_parrot", None)
    assert result.exit_code == 4
    assert "images without a caption that could be kept: " in result.stderr.splitlines()[-2]


def test_an_image_that_does_not_decode_is_named_and_the_others_get_captions(caption, album):
    (album / "images/cat/7.jpg").write_bytes(b"not a photo")
    result = caption()
    assert result.exit_code == 4
    assert "images     12, 0 captioned before, 11 now, 1 left\n" in result.stdout
    assert "error: images that do not decode: 1; the first: images/cat/7.jpg: " in result.stderr


@pytest.mark.parametrize("answer", [["one"], "text", [1, 2], None])
def test_a_captioner_that_breaks_its_word_is_named(album, answer):
    model = Script()
    model.write = lambda *_: answer
    with pytest.raises(PluginError, match="captioner"):
        write_captions(planned(Host.load(), "folder", album), model, CaptionConfig(captions=2), ())


def test_a_captioner_that_fails_leaves_what_it_wrote(album):
    model = Script()
    good = model.write
    model.write = lambda *args: good(*args) if len(model.asked) < 3 else 1 / 0
    with pytest.raises(PluginError, match=r"failed on .*: ZeroDivisionError: division by zero"):
        write_captions(planned(Host.load(), "folder", album), model, CaptionConfig(), ())
    assert len(lines(album)) == 3


def test_a_run_that_wrote_nothing_leaves_no_file(album):
    model = Script()
    model.write = lambda *_: 1 / 0
    with pytest.raises(PluginError):
        write_captions(planned(Host.load(), "folder", album), model, CaptionConfig(), ())
    assert not (album / "captions.jsonl").exists()


def test_long_captions_are_kept_with_a_warning(caption, album):
    result = caption("--words", 4, "--limit", 1, "--captions", 1)
    assert result.exit_code == 0
    assert (
        "warning: captions that are long: text encoders cut them: 1\n  images/cat/6.jpg  5 words: A cat "
        in result.stderr
    )


def test_a_backbone_says_what_it_would_cut(caption, album, site):
    source = (HERE / "thirdparty/sglora_tiny.py").read_text()
    source += (
        "\ndef check_text(self, text):\n    from sglora_cli.api import Mismatch\n    raise Mismatch('9 tokens')\n"
        "TinyModel.check_text = check_text\n"
    )
    install(site, "sglora-tiny", "sglora_tiny", source)
    sys.modules.pop("sglora_tiny", None)
    result = caption("--limit", 1, "--captions", 1, "--backbone", "tiny")
    sys.modules.pop("sglora_tiny", None)
    assert result.exit_code == 0, result.output
    assert "  images/cat/6.jpg  9 tokens: A cat " in result.stderr


def test_a_dry_run_counts_and_writes_nothing(caption, album):
    result = caption("--dry-run", "--limit", 4)
    assert result.stdout == (
        f"output     {album}/captions.jsonl\nimages     12, 0 captioned before, 4 to caption now\n  cat  3\n  owl  1\n"
    )
    assert not (album / "captions.jsonl").exists()


def test_two_runs_do_not_write_one_file(caption, album):
    with FileLock(album / ".captions.jsonl.lock", thread_local=False):
        result = caption()
    assert result.exit_code == 6
    assert result.stderr.startswith(f"error: another process is writing {album}/captions.jsonl\n")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--captioner", "parot"], 3, "no captioner named 'parot'"),
        (["--force"], 2, "--force goes with --from"),
        (["--captions", 0], 2, "captions must be at least 1, got 0"),
        (["--demonstrations", "gone"], 4, "cannot read gone: "),
        (["--from", "x.txt"], 4, "captions are read from .jsonl, .csv, .json, got x.txt"),
    ],
)
def test_mistakes_are_answered(caption, arguments, code, message):
    result = caption(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith(f"error: {message}")


def test_a_data_set_that_lists_no_images_says_so(run, parrot, tmp_path):
    result = run("data", "caption", "webdataset", "--path", tmp_path, "--captioner", "parrot")
    assert result.exit_code == 6
    assert "data set 'webdataset' has captions of its own" in result.stderr


def test_a_strange_line_in_the_file_stops_before_anything_is_written(caption, album):
    (album / "captions.jsonl").write_text('{"image": "images/dog/1.jpg", "task": "dog", "captions": ["a dog here"]}\n')
    result = caption()
    assert result.exit_code == 4
    assert "captions.jsonl, line 1: image " in result.stderr


def test_demonstrations_come_from_a_file(tmp_path, caption, album):
    path = tmp_path / "d.jsonl"
    path.write_text('{"name": "dog", "caption": "The dog\\n runs."}\n')
    assert caption("--demonstrations", path, "--limit", 1).exit_code == 0
    path.write_text('\n{"name": "dog"}\n')
    result = caption("--demonstrations", path)
    assert result.exit_code == 4
    assert result.stderr.startswith(f"error: {path}, line 2: expected a name and a caption, got ")


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
    assert cleaned(text) == caption


FORMATS = {
    "x.jsonl": '{"image": "images/cat/6.jpg", "captions": ["one black cat", "two black cats"]}\n'
    '{"image": "images/owl/9.jpg", "captions": ["an old owl"]}\n',
    "x.csv": "image,caption\nimages/owl/9.jpg,an old owl\n6.jpg,one black cat\n6.jpg,two black cats\n",
    "coco.json": json.dumps(
        {
            "images": [{"id": 1, "file_name": "6.jpg"}, {"id": 2, "file_name": "9.jpg"}],
            "annotations": [
                {"image_id": 1, "caption": "one black cat\n"},
                {"image_id": 2, "caption": "an old owl"},
                {"image_id": 1, "caption": "two black  cats"},
            ],
        }
    ),
    "karpathy.json": json.dumps(
        {
            "images": [
                {"filename": "6.jpg", "sentences": [{"raw": "one black cat"}, {"raw": "two black cats"}]},
                {"filepath": "images/owl", "filename": "9.jpg", "sentences": [{"raw": "an old owl"}]},
            ]
        }
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_captions_made_elsewhere_are_taken(caption, album, tmp_path, name):
    (tmp_path / name).write_text(FORMATS[name])
    result = caption("--from", tmp_path / name)
    assert result.exit_code == 0, result.output
    assert "images     12, 0 captioned before, 2 now, 10 left\ncaptions   3 written, 1.5 an image\n" in result.stdout
    rows = lines(album)
    assert [row["image"] for row in rows] == ["images/cat/6.jpg", "images/owl/9.jpg"]
    assert [row["captions"] for row in rows] == [["one black cat", "two black cats"], ["an old owl"]]
    assert caption("--from", tmp_path / name).exit_code == 0  # the same again changes nothing
    assert lines(album) == rows
    assert caption().exit_code == 0  # the rest by a captioner
    assert len(lines(album)) == 12


def test_other_captions_are_replaced_only_by_force(caption, album, tmp_path):
    caption("--limit", 1)
    before = (album / "captions.jsonl").read_bytes()
    (tmp_path / "x.csv").write_text(FORMATS["x.csv"])
    result = caption("--from", tmp_path / "x.csv")
    assert result.exit_code == 2
    assert (album / "captions.jsonl").read_bytes() == before
    facts = json.loads(caption("--from", tmp_path / "x.csv", "--force", "--json").stdout)
    assert (facts["written"], facts["replaced"], facts["left"]) == (2, 1, 10)
    assert lines(album)[0]["captions"] == ["one black cat", "two black cats"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", FORMATS["x.csv"] + "77.jpg,x\n", "x.csv, line 5: the data set has no image '77.jpg'"),
        ("x.jsonl", FORMATS["x.jsonl"] + "{", "x.jsonl, line 3: not JSON: "),
        ("x.jsonl", '{"image": "6.jpg", "captions": "a"}', "x.jsonl, line 1: 'captions' must be a list of texts"),
        ("x.csv", "image,text\n", "x.csv, line 1: no column 'caption'"),
        ("x.json", '{"images": [{"id": 1, "file_name": "6.jpg"}], "annotations": [{"image_id": 2}]}',
         "x.json, annotations[0]: image 2 is not listed in 'images'"),
        ("x.json", '{"images": [{"filename": "6.jpg"}]}', "x.json, images[0]: sentences must be a list"),
        ("x.json", "[]", "x.json: expected an object, got list"),
        ("x.csv", "image,caption\n6.jpg,a b c\nimages/cat/6.jpg,c d e\n", "line 3: image 'images/cat/6.jpg' was named"),
        ("x.csv", "image,caption\n", "x.csv names no image"),
    ],
)  # fmt: skip
def test_a_broken_file_of_captions_is_named_with_its_line_and_nothing_is_written(
    caption, album, tmp_path, name, content, message
):
    (tmp_path / name).write_text(content)
    result = caption("--from", tmp_path / name)
    assert result.exit_code == 4
    assert message in result.stderr
    assert not (album / "captions.jsonl").exists()


def test_captions_that_were_chosen_by_somebody_are_kept_where_they_say_anything(caption, album, tmp_path):
    (tmp_path / "x.csv").write_text("image,caption\n6.jpg,a cat\n6.jpg,A cat\n6.jpg,\n7.jpg,a cat\n8.jpg,...\n")
    result = caption("--from", tmp_path / "x.csv")
    assert result.exit_code == 4
    assert [row["captions"] for row in lines(album)] == [["a cat"], ["a cat"]]
    for title, count in (("too short", 2), ("repeated within an image", 1), ("without a word", 2)):
        assert f"warning: captions {title}: {count}\n" in result.stderr
    assert "error: images without a caption that could be kept: 1; the first: images/cat/8.jpg: " in result.stderr


def test_a_table_of_captions_is_not_hidden(caption, album):
    (album / "captions.csv").write_text("image,task,caption\nimages/cat/6.jpg,cat,one black cat\n")
    result = caption()
    assert result.exit_code == 2
    assert result.stderr.endswith(f"hint: pass --from {album}/captions.csv\n")
    assert caption("--from", album / "captions.csv").exit_code == 0


def test_images_of_a_folder_may_be_in_splits_or_named_by_a_file(tmp_path):
    for n, place in enumerate(("train/a_b/1.jpg", "test/a_b/2.JPG", "train/c/3.png")):
        picture(tmp_path / "images" / place, n)
    (tmp_path / "images/train/c/notes.txt").write_text("no image")
    assert [(x.image, x.tasks, x.split) for x in Folder().images(tmp_path)] == [
        ("images/test/a_b/2.JPG", ("a b",), "test"),
        ("images/train/a_b/1.jpg", ("a b",), "train"),
        ("images/train/c/3.png", ("c",), "train"),
    ]
    (tmp_path / "names.jsonl").write_text('{"image": "images/train/c/3.png", "name": "sea", "split": "test"}\n')
    assert [(x.image, x.tasks, x.split) for x in Folder().images(tmp_path)] == [
        ("images/train/c/3.png", ("sea",), "test")
    ]
