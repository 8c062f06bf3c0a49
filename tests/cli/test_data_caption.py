"""`sglora data caption`: captions by a captioner or from a file, resumed, checked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from distributions import install
from filelock import FileLock
from trees import captioned, picture

from sglora_datasets.folder import Folder

HERE = Path(__file__).parents[1]


def test_every_image_gets_its_captions(caption, album):
    result = caption("--captions", 2)
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        f"output     {album}/captions.jsonl\n"
        "images     12, 0 captioned before, 12 now, 0 left\n"
        "captions   24 written, 2.0 an image\n"
    )
    rows = captioned(album)
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
    (by,) = {row["by"] for row in captioned(album)}
    assert by.startswith("parrot ")
    before = (album / "captions.jsonl").read_bytes()
    result = caption("--captions", 2, "--seed", 1)
    assert result.exit_code == 5
    assert f"line 1: written by '{by}', this run is 'parrot " in result.stderr
    assert (album / "captions.jsonl").read_bytes() == before
    row = {key: value for key, value in captioned(album)[0].items() if key != "by"}
    (album / "captions.jsonl").write_text(json.dumps(row) + "\n")  # nobody says who wrote this one
    assert caption("--captions", 2, "--seed", 1).exit_code == 0
    assert len(captioned(album)) == 12


def test_limits_add_up_to_what_one_run_writes(caption, album):
    caption()
    whole = (album / "captions.jsonl").read_bytes()
    (album / "captions.jsonl").unlink()
    assert "images     12, 0 captioned before, 5 now, 7 left\n" in caption("--limit", 5).stdout
    assert caption("--limit", 5).exit_code == caption().exit_code == 0
    assert (album / "captions.jsonl").read_bytes() == whole


@pytest.mark.filterwarnings("ignore:.* ended in the beginning of a line, which was removed")
@pytest.mark.parametrize("size", [0, 1, 50, 130, 400, -1])
def test_a_file_cut_anywhere_is_completed(caption, album, size):
    caption()
    whole = (album / "captions.jsonl").read_bytes()
    (album / "captions.jsonl").write_bytes(whole[:size])
    caption()
    assert (album / "captions.jsonl").read_bytes() == whole


@pytest.mark.slow
def test_a_killed_run_is_completed(caption, album, parrot):
    """kill -9 in the middle, again and again; the file is what an uninterrupted run leaves."""
    caption()
    whole = (album / "captions.jsonl").read_bytes()
    (album / "captions.jsonl").unlink()
    command = [sys.executable, "-m", "sglora_cli.cli.main", "data", "caption", "folder", "--path", str(album)]
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
    rows = captioned(album)
    assert rows[0] == json.loads(line)
    assert len(rows) == len({row["image"] for row in rows}) == 12


@pytest.mark.filterwarnings("always::sglora_cli.errors.SgloraWarning")
def test_what_is_cut_off_is_shown_and_a_line_that_is_wrong_by_hand_is_not_cut_off(caption, album):
    (album / "captions.jsonl").write_text('{"image": "images/cat/6.jpg", "captions": ["my ow')
    result = caption("--limit", 1)
    assert result.exit_code == 0
    line = '{"image": "images/cat/6.jpg", "captions": ["my ow'
    path = album / "captions.jsonl"
    assert f"warning: {path} ended in the beginning of a line, which was removed: {line!r}\n" in result.stderr
    wrong = '{"image": "images/cat/6.jpg", captions: ["my own words"]}'
    path.write_text(wrong)
    result = caption("--limit", 1)
    assert result.exit_code == 4
    assert f"error: {path}, line 1: not JSON" in result.stderr
    assert path.read_text() == wrong + "\n"


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


def test_a_dry_run_says_what_is_passed_over(caption, album):
    """Images that wait for their captions are not: they are what it is about."""
    (album / "images/cat/99.heic").write_text("")
    picture(album / "stray.png", 99)
    expected = [
        {
            "reason": ".heic images, which are not supported (convert them to JPEG or PNG)",
            "count": 1,
            "examples": ["images/cat/99.heic"],
        },
        {"reason": "images outside folders images/TASK", "count": 1, "examples": ["stray.png"]},
    ]
    facts = json.loads(caption("--dry-run", "--json").stdout)
    assert (facts["images"], facts["now"]) == (12, 12)
    assert sorted(facts["passed_over"], key=lambda one: one["reason"]) == expected
    lines = [line for line in caption("--dry-run").stdout.splitlines() if line.startswith("passed over: ")]
    assert sorted(lines) == [f"passed over: {e['reason']}: 1 ({e['examples'][0]})" for e in expected]
    caption("--limit", 2)
    again = json.loads(caption("--dry-run", "--json").stdout)["passed_over"]
    assert sorted(name for one in again for name in one["examples"]) == ["images/cat/99.heic", "stray.png"]


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
        (["--demonstrations", "gone"], 4, "gone does not exist"),
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
    path.write_bytes(b" " * (1 << 20) + b"\n")
    result = caption("--demonstrations", path)
    assert (result.exit_code, result.stderr.split("\n")[0]) == (4, f"error: {path} has more than 1048576 bytes")


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


DEAR = """
from pathlib import Path

from sglora_cli.api import CaptionerCost, hookimpl

SGLORA_API = "1.0"


class Dear:
    name = "dear"
    summary = "a large captioner"

    def caption_cost(self, runtime, pixels, captions):
        return CaptionerCost("big/model", 1_000_000_000, 0 if runtime.weights else 2_000_000_000, 1e9, (1, 2))

    def load(self, runtime):
        Path(__file__).with_name("loaded").touch()
        return self

    def write(self, image, prompt, count, seed):
        return [f"a caption with the numbers {seed} and {n}" for n in range(count)]


@hookimpl
def sglora_captioners():
    return [Dear()]
"""


@pytest.fixture
def dear(run, site, album):
    """Captions of the album by a captioner whose model would be downloaded first."""
    install(site, "sglora-dear", "sglora_dear", DEAR)
    sys.modules.pop("sglora_dear", None)
    yield lambda *args: run("data", "caption", "folder", "--path", album, "--captioner", "dear", *args)
    sys.modules.pop("sglora_dear", None)


def test_without_a_gpu_nobody_downloads_a_model_unasked(dear, site, album):
    result = dear()
    assert (result.exit_code, result.stdout) == (2, "")
    other = f"sglora data caption folder --path {album} --captioner names"
    lines = result.stderr.splitlines()
    assert lines[:2] == ["captioner  dear: big/model, 1.0 billion parameters", "download   2.0 GB, once"]
    assert lines[4:] == [
        "no GPU     captions of names and colours need no model:",
        f"  {other}",
        "error: nobody can be asked whether to fetch 2.0 GB to caption 12 photos without a GPU",
        f"hint: write captions of names and colours: {other}; or pass --yes",
    ]
    assert not (site / "loaded").exists()
    assert not (album / "captions.jsonl").exists()


def test_the_offered_way_works(dear, run, album):
    hint = dear().stderr.splitlines()[-1]
    command = hint.removeprefix("hint: write captions of names and colours: ").removesuffix("; or pass --yes")
    result = run(*command.split()[1:])
    assert result.exit_code == 0, result.output
    assert len(captioned(album)) == 12


@pytest.mark.parametrize(("answer", "code", "lines"), [("y", 0, 12), ("n", 2, 0)])
def test_at_a_terminal_the_user_is_asked(dear, album, monkeypatch, answer, code, lines):
    import click

    from sglora_cli.cli import output

    asked = []
    keys = type("Keys", (), {"isatty": lambda self: True})()
    monkeypatch.setattr(output, "sys", SimpleNamespace(stdin=keys, stdout=sys.stdout, stderr=sys.stderr))
    monkeypatch.setattr(click, "confirm", lambda text, err: asked.append(text) or answer == "y")
    result = dear()
    assert asked == ["fetch 2.0 GB to caption 12 photos without a GPU?"]
    assert result.exit_code == code
    assert (len(captioned(album)) if (album / "captions.jsonl").exists() else 0) == lines


def test_who_says_yes_or_has_the_weights_is_not_asked(dear, album, tmp_path):
    assert dear("--yes", "--limit", 5).exit_code == 0
    result = dear("--weights", tmp_path)
    assert result.exit_code == 5  # other weights write other captions
    assert "download   nothing: it is on this machine\n" in result.stderr
    (album / "captions.jsonl").unlink()
    assert dear("--weights", tmp_path, "--json").stderr == ""
    assert len(captioned(album)) == 12


def test_a_dry_run_names_the_cost_and_the_other_way(dear, site, album):
    lines = dear("--dry-run").stdout.splitlines()
    assert lines[-6:-4] == ["captioner  dear: big/model, 1.0 billion parameters", "download   2.0 GB, once"]
    assert lines[-3].startswith("time       ")
    assert lines[-2:] == [
        "no GPU     captions of names and colours need no model:",
        f"  sglora data caption folder --path {album} --captioner names",
    ]
    cost = json.loads(dear("--dry-run", "--json").stdout)["cost"]
    assert (cost["parameters"], cost["download_bytes"], cost["memory_bytes"]) == (10**9, 2 * 10**9, 4 * 10**9)
    assert not (site / "loaded").exists()


def test_a_captioner_without_a_model_says_so(run, album):
    result = run("data", "caption", "folder", "--path", album, "--captioner", "names", "--dry-run")
    assert result.stdout.splitlines()[-1] == "captioner  names: no model, nothing to download"
