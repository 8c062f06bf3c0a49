"""`sglora classify`: photos sorted by names as the slow, obvious definition sorts them."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from html_page import Page
from obvious import obvious_scores

SCALE = 10.0  # of the backbone `tiny`
NAMES = ["red ball", "blue nest", "green hat"]
PROMPTS = [f"a photo of a {name}" for name in NAMES]


@pytest.fixture(autouse=True)
def backbone(tiny, toy_pack):
    """The pack in use is one of the backbone `tiny`."""


def names_of() -> list[str]:
    return [argument for name in NAMES for argument in ("--name", name)]


def test_each_photo_gets_the_most_similar_name(run, adapter, images):
    files = sorted(images.iterdir(), key=lambda path: path.name)
    before, after = obvious_scores(adapter, files, PROMPTS)
    result = run("classify", images, *names_of(), "--adapter", adapter)
    assert result.exit_code == 0, result.output
    lines, counts, changed = [], dict.fromkeys(NAMES, 0), 0
    for path, old, new in zip(files, before, after, strict=True):
        best, was = max(range(3), key=lambda c: new[c]), max(range(3), key=lambda c: old[c])
        powers = [math.exp(SCALE * (score - max(new))) for score in new]
        counts[NAMES[best]] += 1
        changed += best != was
        lines.append(
            [*NAMES[best].split(), f"{max(powers) / sum(powers):.2f}", *(NAMES[was].split() * (best != was)), str(path)]
        )
    assert [line.split() for line in result.stdout.splitlines()] == lines
    assert changed
    assert "photos     " + ", ".join(f"{count} {name}" for name, count in counts.items()) in result.stderr.splitlines()


def test_names_come_from_a_file_and_prompts_from_the_command_line(run, images, tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("red ball\n\nblue nest\ngreen hat\n")
    first = run("classify", images, *names_of(), "--json").stdout
    assert run("classify", images, "--names", file, "--json").stdout.replace('"computed": 0', '"computed": 72') == first
    other = run("classify", images, "--names", file, "--prompt", "{class}", "--prompt", "one {class}", "--json")
    probabilities = [[one["probability"] for one in json.loads(text)["results"]] for text in (other.stdout, first)]
    assert probabilities[0] != probabilities[1]


def test_one_photo_is_sorted_by_itself(run, images):
    result = run("classify", images / "ball_0.png", *names_of())
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1)


def test_photos_are_copied_into_a_folder_for_each_name(run, images, tmp_path):
    shutil.copytree(images, tmp_path / "photos/more")
    shutil.copytree(images, tmp_path / "photos/again")  # equal names: none replaces another
    out = tmp_path / "sorted"
    facts = json.loads(run("classify", tmp_path / "photos", *names_of(), "--copy", out, "--json").stdout)
    stems = {"red ball": "red-ball", "blue nest": "blue-nest", "green hat": "green-hat"}
    for name, count in facts["names"].items():
        folder = out / stems[name]
        assert len(list(folder.iterdir()) if folder.exists() else []) == count
    assert sum(facts["names"].values()) == 144


def test_folders_called_by_a_name_tell_how_many_are_right(run, images, tmp_path):
    for path in images.iterdir():
        folder = tmp_path / "photos" / {"ball": "Red_Ball", "nest": "blue nest"}.get(path.name.split("_")[0], "other")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    facts = json.loads(run("classify", tmp_path / "photos", *names_of(), "--json").stdout)
    told = {"Red_Ball": "red ball", "blue nest": "blue nest"}
    known = [found for found in facts["results"] if Path(found["path"]).parent.name in told]
    right = sum(found["name"] == told[Path(found["path"]).parent.name] for found in known)
    assert facts["folders"] == {"photos": len(known), "agree": right, "agree_without": right}
    result = run("classify", tmp_path / "photos", *names_of())
    assert (
        f"folders    of {len(known)} photos in folders with one of the names, {right} got that name\n" in result.stderr
    )


def test_a_name_that_fits_no_photo_is_named(run, images):
    result = run("classify", images / "ball_0.png", "--name", "red ball", "--name", "zzz yyy")
    got = result.stdout.split("  ")[0]
    (other,) = {"red ball", "zzz yyy"} - {got}
    assert result.stderr.endswith(
        f"warning: no photo got the name {other!r}; leave out names without photos, or use other words\n"
    )


def test_the_page_shows_photos_under_their_names(run, images, tmp_path):
    out = tmp_path / "x.html"
    run("classify", images, *names_of(), "--report", out)
    page = Page(out.read_text())
    assert page.tags.count("img") == min(72, len([key for key, _ in page.attributes if key == "alt"])) > 60
    assert "72 photos sorted by 3 names" in out.read_text()


TWO = "pass --name pug --name beagle, or --names FILE"


@pytest.mark.parametrize(
    ("arguments", "code", "message", "hint"),
    [
        ([], 2, "at least two names are needed, got none", TWO),
        (["--name", "pug", "--name", " pug "], 2, "at least two names are needed, got only 'pug'", TWO),
        (
            ["--name", "a", "--name", ""],
            2,
            "a name is empty",
            TWO,
        ),
        (
            ["--name", "a", "--name", "b", "--prompt", "a photo"],
            2,
            "the prompt 'a photo' has no {class}",
            'put {class} in place of the name, as in "a photo of a {class}"',
        ),
    ],
)
def test_a_mistake_is_answered(run, images, arguments, code, message, hint):
    result = run("classify", images, *arguments)
    assert result.stderr == f"error: {message}\n" + (f"hint: {hint}\n" if hint else "")
    assert (result.exit_code, result.stdout) == (code, "")
