"""`sglora search`: ranks against the slow, obvious definition, and what a user sees."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from html_page import Page
from obvious import obvious_scores

from sglora_cli.adapter.file import load_adapter
from sglora_cli.search.query import without_direction

TEXT = "a red ball on a blue floor"


@pytest.fixture(autouse=True)
def backbone(tiny, toy_pack):
    """The pack in use is one of the backbone `tiny`."""


def expected(files: list[Path], before: list[float], after: list[float], top: int, adapter: bool) -> list[list[str]]:
    rows = []
    for i in sorted(range(len(files)), key=lambda i: -after[i])[:top]:
        rank, was = (str(1 + sum(other > side[i] for other in side)) for side in (after, before))
        rows.append([rank, *([was] if adapter else []), f"{after[i]:.3f}", str(files[i])])
    return rows


@pytest.mark.parametrize("with_adapter", [False, True])
def test_photos_are_ranked_for_a_sentence(run, adapter, images, with_adapter):
    files = sorted(images.iterdir(), key=lambda path: path.name)
    before, after = ([row[0] for row in side] for side in obvious_scores(adapter, files, [TEXT]))
    option = ["--adapter", adapter] if with_adapter else []
    result = run("search", images, *TEXT.split(), *option, "--top", 7)
    assert result.exit_code == 0, result.output
    scores = after if with_adapter else before
    assert [line.split() for line in result.stdout.splitlines()] == expected(files, before, scores, 7, with_adapter)
    name = "mug.safetensors, made for 'a photo of a mug', for photos that all show it"
    name = name if with_adapter else "none (pass one with --adapter FILE)"
    because = "the adapter's" if with_adapter else "that of pack toys: newest built pack"
    assert result.stderr == (
        f"backbone   tiny ({because})\nadapter    {name}\nquery      {TEXT!r}\nphotos     72, 72 embedded now\n"
    )
    again = run("search", images, TEXT, *option, "--top", 7)
    assert (again.stdout, again.stderr.splitlines()[-1]) == (result.stdout, "photos     72")


def test_a_photo_is_looked_for_by_another_one(run, images):
    from thirdparty.sglora_tiny import TinyModel

    shutil.copy(images / "ball_0.png", images / "copy.png")
    facts = json.loads(run("search", images, "--like", images / "ball_0.png", "--top", 3, "--json").stdout)
    assert facts["left_out"] == ["ball_0.png", "copy.png"]
    assert facts["photos"] == 71
    from PIL import Image

    model = TinyModel()
    stem = model.stem(
        [Image.open(images / name).convert("RGB") for name in ("ball_0.png", facts["results"][0]["photo"])]
    )
    query_D, best_D = model.encode_image(stem)
    assert facts["results"][0]["score"] == pytest.approx(float(query_D @ best_D), abs=1e-5)


def test_a_sentence_and_a_photo_count_the_same(run, images):
    from PIL import Image
    from thirdparty.sglora_tiny import TinyModel

    model = TinyModel()
    like = images / "ball_0.png"
    arguments = ["search", images, TEXT, "--like", like, "--top", 100, "--json"]
    facts = json.loads(run(*arguments).stdout)
    query_D = F.normalize(
        model.encode_text([TEXT])[0] + model.encode_image(model.stem([Image.open(like).convert("RGB")]))[0], dim=0
    )
    for found in facts["results"][::9]:
        image_D = model.encode_image(model.stem([Image.open(found["path"]).convert("RGB")]))[0]
        assert found["score"] == pytest.approx(float(query_D @ image_D), abs=1e-5)


def test_within_takes_a_direction_out_of_the_query(run, images):
    from PIL import Image
    from thirdparty.sglora_tiny import TinyModel

    model = TinyModel()
    arguments = ["search", images, TEXT, "--within", "a ball", "--strength", 1, "--top", 100, "--json"]
    facts = json.loads(run(*arguments).stdout)
    query_D, shared_D = model.encode_text([TEXT, "a ball"])
    left_D = query_D - (query_D @ shared_D) * shared_D
    left_D = left_D / left_D.norm()
    assert abs(float(left_D @ shared_D)) < 1e-6
    for found in facts["results"][::9]:
        image_D = model.encode_image(model.stem([Image.open(found["path"]).convert("RGB")]))[0]
        assert found["score"] == pytest.approx(float(left_D @ image_D), abs=1e-5)


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_what_is_left_of_a_query_is_as_long_as_before(strength):
    rng = torch.Generator().manual_seed(0)
    query_D, unit_D = (F.normalize(torch.randn(8, generator=rng), dim=0) for _ in range(2))
    left_D = without_direction(query_D, unit_D, strength)
    assert float(left_D.norm()) == pytest.approx(1)
    cosine = float(query_D @ unit_D)
    length = (1 - cosine**2 + ((1 - strength) * cosine) ** 2) ** 0.5
    assert float(left_D @ unit_D) == pytest.approx((1 - strength) * cosine / length, abs=1e-6)


def test_the_best_photos_are_copied_in_their_order(run, images, tmp_path):
    result = run("search", images, TEXT, "--top", 12, "--copy", tmp_path / "found", "--json")
    paths = [Path(found["path"]) for found in json.loads(result.stdout)["results"]]
    names = [f"{n:02}-{path.name}" for n, path in enumerate(paths, 1)]
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == names
    for name, path in zip(names, paths, strict=True):
        assert (tmp_path / "found" / name).read_bytes() == path.read_bytes()


def test_copies_replace_nothing(run, images, tmp_path):
    (tmp_path / "found").mkdir()
    (tmp_path / "found/mine.jpg").write_text("mine")
    result = run("search", images, TEXT, "--copy", tmp_path / "found")
    assert (result.exit_code, result.stderr) == (
        2,
        f"error: folder {tmp_path / 'found'} is not empty\n"
        "hint: choose a new folder; existing files are never replaced\n",
    )
    assert [path.name for path in (tmp_path / "found").iterdir()] == ["mine.jpg"]


def test_a_list_of_photos(run, images, tmp_path, monkeypatch):
    few = tmp_path / "few.txt"
    few.write_text("\ufeffdata/toys/images/ball_0.png\n\n" + f"{images / 'nest_3.png'}\n")  # one relative to the list
    monkeypatch.chdir("/")
    facts = json.loads(run("search", few, TEXT, "--json").stdout)
    assert sorted(found["photo"] for found in facts["results"]) == sorted(
        ["data/toys/images/ball_0.png", str(images / "nest_3.png")]
    )
    monkeypatch.chdir(images)
    few.write_text("ball_0.png\nball_1.png\n")  # relative to the working folder
    assert json.loads(run("search", few, TEXT, "--json").stdout)["photos"] == 2


def test_a_photo_that_a_list_names_in_several_ways_is_one(run, images, tmp_path, monkeypatch):
    monkeypatch.chdir(images)
    few = tmp_path / "few.txt"
    few.write_text(f"ball_0.png\n./ball_0.png\n../images/ball_0.png\n{images / 'ball_0.png'}\nball_1.png\n")
    assert json.loads(run("search", few, TEXT, "--json").stdout)["photos"] == 2


def test_a_list_from_standard_input(images, monkeypatch):
    from click.testing import CliRunner

    from sglora_cli.cli.main import main

    monkeypatch.chdir(images)
    result = CliRunner().invoke(main, ["search", "-", TEXT, "--json"], input="ball_0.png\nnest_3.png\n")
    assert sorted(found["path"] for found in json.loads(result.stdout)["results"]) == ["ball_0.png", "nest_3.png"]


def test_the_page_shows_the_best_photos(run, adapter, images, tmp_path):
    out = tmp_path / "x.html"
    result = run("search", images, TEXT, "--adapter", adapter, "--top", 5, "--report", out)
    assert result.stderr.endswith(f"report     {out}\n")
    attributes = Page(out.read_text()).attributes
    names = [Path(line.split()[-1]).name for line in result.stdout.splitlines()]
    assert [value for key, value in attributes if key == "alt"] == names
    sources = [value for key, value in attributes if key == "src"]
    assert len(sources) == 5
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)


def test_an_adapter_of_the_user_cache_goes_by_its_name(run, images):
    made = run("generate", "a photo of a mug").stdout.strip()
    by_path = run("search", images, TEXT, "--adapter", made)
    for name in ("a-photo-of-a-mug", "a-photo-of-a-mug.safetensors"):
        by_name = run("search", images, TEXT, "--adapter", name)
        assert (by_name.exit_code, by_name.stdout) == (0, by_path.stdout)


LIST = "pass a folder of photos, a photo, or a text file with one path per line"


@pytest.mark.parametrize(
    ("arguments", "code", "message", "hint"),
    [
        (["{images}"], 2, "the query is empty", "pass a sentence, or --like PHOTO"),
        (["{images}", " "], 2, "the sentence has no words: ' '", 'describe the task, as in "a photo of a pug"'),
        (["a ball", "{images}"], 2, "a ball does not exist", "put the folder first: sglora search {images} 'a ball'"),
        (["nowhere", "a ball"], 4, "nowhere does not exist", LIST),
        (
            ["{images}/ball_0.png", "a ball"],
            2,
            "{images}/ball_0.png is a single photo, so there is nothing to rank",
            "pass a folder of photos, or a text file with one path per line",
        ),
        (["{images}", "x", "--report", ""], 2, "--report is empty", "pass the path of a file or folder"),
        (["", "x"], 2, "photos is empty", "pass the path of a file or folder"),
        (["{images}", "x", "--report", "."], 2, "a report file must end in .html, got .", "try --report NAME.html"),
        (
            ["{images}", "x", "--copy", "{images}/found"],
            2,
            "{images}/found is inside {images}, where searches would find the copies",
            "choose another folder",
        ),
        (
            ["a dog " * 60, "{images}"],
            2,
            f"{'a dog ' * 60} does not exist",
            f"put the folder first: sglora search {{images}} '{'a dog ' * 60}'",
        ),
        (["{images}", "x", "--like", "no.jpg"], 4, "no.jpg does not exist", "searched in {cwd}"),
        (
            ["{images}", "x", "--adapter", "pug"],
            4,
            "adapter pug does not exist",
            "run `sglora list` to see the adapters",
        ),
        (
            ["{images}", "x", "--adapter", "{adapter}s"],
            4,
            "adapter {adapter}s does not exist",
            "did you mean '{adapter}'?",
        ),
        (["{images}", "x", "--backbone", "tinny"], 3, "no backbone named 'tinny'", "did you mean 'tiny'?"),
        (
            ["{images}", "x", "--report", "x.pdf"],
            2,
            "a report file must end in .html, got x.pdf",
            "try --report x.html",
        ),
        (
            ["{images}", "a ball", "--within", "a ball", "--strength", "1"],
            5,
            "the query means the same as --within, so nothing of it is left",
            "change one of the two",
        ),
        (
            ["{images}", "x", "--adapter", "{adapter}", "--backbone", "starter"],
            5,
            "the adapter was made for a backbone with fingerprint tiny-1, this one has e364de69dd4d2c05",
            "generate it again for this backbone",
        ),
    ],
)
def test_a_mistake_is_answered(run, adapter, images, empty_folder, arguments, code, message, hint):
    places = {"images": images, "adapter": adapter, "cwd": empty_folder}
    result = run("search", *(one.format(**places) for one in arguments))
    assert result.stderr == f"error: {message}\nhint: {hint}\n".format(**places)
    assert (result.exit_code, result.stdout) == (code, "")


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (b"", "{list} lists no photo", "write one path per line"),
        (b"\x89P\0\xff", "{list} is neither a photo nor a list of photos", LIST),
        (
            b"a.png\nb.png\n",
            "2 of 2 photos listed in {list} cannot be found, the first is 'a.png'",
            "write paths relative to the folder of the list, or to the working directory",
        ),
    ],
)
def test_a_list_that_is_none_is_answered(run, tmp_path, content, message, hint):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    result = run("search", path, TEXT)
    assert (result.exit_code, result.stderr) == (4, f"error: {message.format(list=path)}\nhint: {hint}\n")


def test_a_folder_without_images_is_an_error(run, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "notes.txt").write_text("")
    result = run("search", folder, TEXT)
    assert result.exit_code == 4
    assert result.stderr.startswith(
        f"error: found no images in {folder}; files that are not images: 1 (notes.txt)\nhint: supported extensions: "
    )


def test_what_cannot_be_read_is_named(run, images):
    (images / "ball_0.png").write_bytes(b"x")
    (images / "notes.txt").write_text("")
    result = run("search", images, TEXT, "--top", 1)
    assert result.exit_code == 0
    lines = result.stderr.splitlines()
    assert lines[0] == "ignored: files that are not images: 1 (notes.txt)"
    assert lines[1].startswith(f"warning: image {images / 'ball_0.png'} cannot be decoded: ")
    assert lines[-1] == "photos     71, 71 embedded now"


@pytest.mark.filterwarnings("always::sglora_cli.errors.SgloraWarning")
def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(run, images, own_home):
    place = own_home / "cache/embeddings"
    place.parent.mkdir(exist_ok=True)
    place.write_text("")
    result = run("search", images, TEXT, "--top", 1, "--backbone", "tiny")
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1)
    assert "warning: embeddings of photos are not cached: " in result.stderr
    os.remove(place)


def test_scores_without_the_adapter_are_in_the_json(run, adapter, images):
    files = sorted(images.iterdir(), key=lambda path: path.name)
    before, after = obvious_scores(adapter, files, [TEXT])
    facts = json.loads(run("search", images, TEXT, "--adapter", adapter, "--top", 100, "--json").stdout)
    assert load_adapter(adapter).metadata["fingerprint"] == facts["fingerprint"]
    at = {path.name: n for n, path in enumerate(files)}
    for found in facts["results"]:
        n = at[found["photo"]]
        assert (found["score"], found["score_without"]) == pytest.approx((after[n][0], before[n][0]), abs=2e-6)
