"""Photos searched, sorted and judged from Python, with an adapter in memory or in a file: as the commands do it."""

from __future__ import annotations

import json

import pytest
from html_page import Page

from sglora_cli.api import (
    Album,
    BadFile,
    Description,
    GenerateConfig,
    Mismatch,
    Session,
    SgloraWarning,
    UnknownName,
    UsageError,
    read_adapter,
)

TEXT = "a large red ball"


@pytest.fixture
def session(toy_pack):
    return Session.open(generator="top-k")


@pytest.fixture
def generated(session):
    return session.generate("a photo of a mug")


def test_search_is_what_the_command_prints(session, generated, images, run, tmp_path):
    generated.save(tmp_path / "mug.safetensors")
    arguments = ["search", images, TEXT, "--within", "a ball", "--strength", 0.7, "--top", 100, "--json"]
    for adapter in (None, generated, generated.adapter(), read_adapter(tmp_path / "mug.safetensors")):
        printed = json.loads(run(*arguments, *["--adapter", tmp_path / "mug.safetensors"] * bool(adapter)).stdout)
        found = session.album(images, adapter).search(TEXT, within="a ball", strength=0.7)
        assert found.to_json(100)["results"] == printed["results"]


def test_a_file_needs_no_session(session, generated, images, tmp_path):
    (path,) = generated.save(tmp_path / "mug.safetensors")
    (kept,) = generated.save()
    (folder,) = generated.save(tmp_path / "mug-peft", model=session.model)
    wanted = session.album(images, generated).search(TEXT).to_json(100)["results"]
    for adapter in (str(path), path, folder, kept.stem):
        assert Album.open(images, adapter).search(TEXT).to_json(100)["results"] == wanted
        assert session.album(images, adapter).search(TEXT).to_json(100)["results"] == wanted


def test_each_draw_can_be_searched_with(session, images):
    draws = session.generate("a photo of a mug", GenerateConfig(samples=2))
    one, two = (session.album(images, draws.adapter(n)).encoder.adapter for n in (0, 1))
    assert (one.metadata["sample"], two.metadata["sample"]) == (0, 1)


def test_photos_are_a_folder_a_list_or_paths(session, images, tmp_path):
    paths = sorted(images.glob("ball_*"))
    (tmp_path / "balls.txt").write_text("".join(f"{path}\n" for path in paths))
    few, listed = session.album(paths).search(TEXT), session.album(tmp_path / "balls.txt").search(TEXT)
    assert few.best(5) == listed.best(5)
    assert set(few.best(100)) == set(paths)
    assert repr(session.album(paths)) == "Album(8 photos; backbone 'tiny', no adapter)"
    like = session.album([*map(str, paths)]).search(like=paths[0])
    assert like.left_out == [str(paths[0])]


def test_classify_is_what_the_command_prints(session, generated, images, run, tmp_path):
    (path,) = generated.save(tmp_path / "mug.safetensors")
    names = ["ball", "mug", "nest"]
    arguments = [word for name in names for word in ("--name", name)]
    printed = json.loads(run("classify", images, *arguments, "--adapter", path, "--json").stdout)
    found = session.album(images, generated).classify(names)
    assert found.to_json()["results"] == printed["results"]


def test_judge_is_what_the_command_prints(session, generated, images, run, tmp_path):
    (path,) = generated.save(tmp_path / "mug.safetensors")
    arguments = ["try", path, "--images", images, "--text", TEXT, "--relevant"]
    printed = json.loads(run(*arguments, "ball_*", "--json").stdout)["relevance"]
    album, paths = session.album(images, generated), sorted(images.glob("ball_*"))
    for relevant in ("ball_*", paths, [path.name for path in paths], [*map(str, paths)]):
        assert album.judge(relevant, TEXT).to_json() == printed
    own = album.judge("ball_*")
    assert own.to_json() == album.judge("ball_*", ["a photo of a mug"]).to_json()


def test_lines_that_name_no_photo_are_warned_about(session, generated, images, tmp_path):
    (tmp_path / "right.txt").write_text("ball_0.png\nbal_1.png\n")
    with pytest.warns(SgloraWarning, match=r"no photo of .* matches 1 line of .*right.txt \(bal_1.png\)"):
        assert session.album(images, generated).judge(tmp_path / "right.txt").relevant == ["ball_0.png"]


def test_results_say_what_they_are(session, generated, images, monkeypatch):
    (images / "broken.png").write_bytes(b"x")
    monkeypatch.chdir(images.parent)
    album = session.album("images", generated)
    found, classes, relevance = album.search(TEXT), album.classify(["ball", "mug"]), album.judge("ball_*")
    first = found.ranking.items[found.ranking.top(1)[0]]
    adapter = "backbone 'tiny', adapter for 'a photo of a mug'"
    assert repr(album) == f"Album('images': 73 photos; {adapter})"
    assert repr(found).startswith(f"SearchResults('{TEXT}': 72 photos, first '{first}' ")
    assert repr(found).endswith(f"; {adapter})")
    counts = [f"{len(classes.of(name))} {name}" for name in ("ball", "mug")]
    assert repr(classes) == f"Classes(72 photos: {', '.join(counts)}; {adapter})"
    assert repr(relevance).startswith("Relevance(8 of 72 photos are relevant: ")
    for thing in (album, found, classes, relevance, found.ranking, album.encoder):
        assert "\n" not in repr(thing)
        assert "tensor(" not in repr(thing)
    cells = [text.strip() for text in Page(found._repr_html_()).texts if text.strip()]
    start = cells.index("photo") + 1
    assert cells[start + 3 :: 4] == [path.name for path in found.best(10)]
    assert any("broken.png cannot be decoded" in text for text in cells)
    for thing in (album, classes, relevance):
        Page(thing._repr_html_())


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda album, images: album.search(), UsageError, "the query is empty"),
        (lambda album, images: album.search("x", strength=2), UsageError, "strength must be at most 1, got 2"),
        (lambda album, images: album.search(like="no.png"), BadFile, "photo no.png does not exist"),
        (lambda album, images: album.classify("ball"), UsageError, "got only 'ball'"),
        (lambda album, images: album.judge(["bal_0.png"]), UnknownName, "no photo named 'bal_0.png'"),
        (lambda album, images: Album.open(images).judge("*", "x"), UsageError, "there is no adapter to judge"),
        (lambda album, images: Album.open(images, "no"), BadFile, "adapter no does not exist"),
        (lambda album, images: Album.open([]), BadFile, "the list has no photos"),
        (lambda album, images: Album.open(["no.png"]), BadFile, "photo no.png does not exist"),
        (lambda album, images: Album.open("nowhere"), BadFile, "nowhere does not exist"),
        (
            lambda album, images: Album.open([images / "ball_0.png"]).search("x"),
            UsageError,
            "is a single photo, so there is nothing to rank",
        ),
    ],
)
def test_a_mistake_is_answered(session, generated, images, call, kind, message):
    with pytest.raises(kind, match=message):
        call(session.album(images, generated), images)


def test_an_adapter_of_another_backbone_is_refused(session, generated, images, tmp_path):
    other = Session.open("starter", generator="top-k").generate("a photo of a mug")
    (path,) = other.save(tmp_path / "other.safetensors")
    for adapter in (other, path, read_adapter(path)):
        with pytest.raises(Mismatch):
            session.album(images, adapter)


def test_a_task_is_described_by_photos(session, images):
    by_photos = session.generate(Description(images=tuple(sorted(images.glob("ball_*")))))
    assert str(by_photos.description) == "8 images of 'images'"
