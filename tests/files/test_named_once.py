"""An image is named once in a list, however it is spelled."""

from __future__ import annotations

import os
import unicodedata

import pytest

from sglora_cli.errors import BadFile
from sglora_cli.files.named_once import NamedOnce, plain_name

SAME = ["images/00.jpg", "./images/00.jpg", "images//00.jpg", "images/./00.jpg", "images/../images/00.jpg"]


@pytest.mark.parametrize("name", SAME)
def test_one_image_has_one_plain_name(name):
    assert plain_name(name) == os.path.normpath(name) == "images/00.jpg"


@pytest.mark.parametrize("name", ["../x.jpg", "/x.jpg", "a/../../x.jpg", "../../x.jpg", "a\0b/x.jpg", "x y/..z.jpg"])
def test_a_plain_name_leads_where_the_name_leads(name):
    assert plain_name(name) == os.path.normpath(name)


@pytest.mark.parametrize("first", SAME)
@pytest.mark.parametrize("second", SAME)
def test_two_spellings_are_refused_like_two_equal_ones(first, second):
    names = NamedOnce()
    names.add(first, "x.jsonl, line 1", "line 1")
    names.add("images/01.jpg", "x.jsonl, line 2", "line 2")
    with pytest.raises(BadFile) as error:
        names.add(second, "x.jsonl, line 3", "line 3")
    spelled = "" if first == second else f", as {first!r}"
    assert error.value.message == f"x.jsonl, line 3: image {second!r} is already named in line 1{spelled}"


def test_what_leads_to_one_file_is_one_image(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"a")
    (tmp_path / "copy.jpg").write_bytes(b"a")
    (tmp_path / "link.jpg").symlink_to("a.jpg")
    (tmp_path / "far").symlink_to(tmp_path, target_is_directory=True)
    for name in ("link.jpg", "far/a.jpg"):
        names = NamedOnce(tmp_path)
        names.add("a.jpg", "line 1")
        names.add("copy.jpg", "line 2")  # equal bytes are no reason to refuse
        with pytest.raises(BadFile, match=f"image '{name}' is already named in line 1, as 'a.jpg'"):
            names.add(name, "line 3")


def test_hard_links_are_two_files_and_files_that_are_not_there_differ_by_name(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"a")
    (tmp_path / "b.jpg").hardlink_to(tmp_path / "a.jpg")
    names = NamedOnce(tmp_path)
    for name in ("a.jpg", "b.jpg", "gone.jpg", "gone.JPG", "a\0.jpg"):
        names.add(name, name)
    with pytest.raises(BadFile):
        names.add("./gone.jpg", "again")


@pytest.mark.parametrize("change", [str.upper, lambda name: unicodedata.normalize("NFD", name)])
def test_a_file_system_that_does_not_tell_names_apart_is_asked(tmp_path, change):
    (tmp_path / "é.jpg").write_bytes(b"a")
    names = NamedOnce(tmp_path)
    names.add("é.jpg", "line 1")
    if (tmp_path / change("é.jpg")).exists():  # macOS, Windows
        with pytest.raises(BadFile):
            names.add(change("é.jpg"), "line 2")
    else:
        names.add(change("é.jpg"), "line 2")


def test_a_file_system_that_folds_case_is_seen_by_its_numbers(tmp_path, monkeypatch):
    """As one would look on macOS: two names, one file without a second link."""
    (tmp_path / "a.jpg").write_bytes(b"a")
    facts = (tmp_path / "a.jpg").stat()
    (tmp_path / "A.JPG").write_bytes(b"a")
    monkeypatch.setattr(type(tmp_path), "stat", lambda self, **more: facts)
    names = NamedOnce(tmp_path)
    names.add("a.jpg", "line 1")
    with pytest.raises(BadFile, match=r"image 'A\.JPG' is already named in line 1, as 'a\.jpg'"):
        names.add("A.JPG", "line 2")
