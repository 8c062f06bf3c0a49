"""Several errors at once are one error."""

from __future__ import annotations

import json
import pickle

import pytest

from sglora_cli.errors import BadFile, Unavailable, UnknownName, UsageError, missing_hint


def test_several_errors_have_a_line_each():
    error = BadFile.several("two things are wrong", [UnknownName("no task 'a'", "did you mean 'b'?"), BadFile("c")])
    assert (error.exit_code, error.hint) == (4, "")
    assert str(error) == "two things are wrong\n  no task 'a' (did you mean 'b'?)\n  c"


def test_a_line_break_of_a_stranger_makes_no_line():
    assert str(BadFile.several("two", [BadFile("x\nerror: y"), BadFile("z")])) == "two\n  x\\nerror: y\n  z"


def test_several_of_several_are_one_list():
    inner = Unavailable.several("inner", [Unavailable("a"), Unavailable("b")])
    assert [part.message for part in Unavailable.several("outer", [inner, Unavailable("c")]).parts] == ["a", "b", "c"]


@pytest.mark.parametrize("error", [Unavailable("a", "b"), Unavailable.several("x", [Unavailable("a", "b")])])
def test_errors_can_be_pickled(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.to_json()) == (Unavailable, error.to_json())


def test_a_long_list_of_names_says_how_many_are_not_shown():
    names = [chr(ord("a") + n) for n in range(14)]
    start = "available: a, b, c, d, e, f, g, h, i, j, k, l"
    assert UnknownName.of("page", "zz", names[:12], "sglora docs").hint == start
    assert UnknownName.of("page", "zz", names).hint == f"{start} and 2 more"
    assert UnknownName.of("page", "zz", names, "sglora docs").hint == (
        f"{start} and 2 more; run `sglora docs` for the complete list"
    )


def test_a_missing_path_has_the_closest_name_or_the_nearest_folder(tmp_path):
    (tmp_path / "photos").mkdir()
    hints = {
        ("photo", ""): f"did you mean {str(tmp_path / 'photos')!r}?",
        ("photo", "omit it"): f"did you mean {str(tmp_path / 'photos')!r}? Otherwise omit it",
        ("x", ""): f"searched in {tmp_path}",
        ("x", "omit it"): f"omit it; searched in {tmp_path}",
        ("x/y/z", "omit it"): f"omit it; the nearest existing folder is {tmp_path}",
    }
    assert {key: missing_hint(tmp_path / key[0], key[1]) for key in hints} == hints
    missing = Unavailable.missing(tmp_path / "x", "weights file ")
    assert (type(missing), missing.message) == (Unavailable, f"weights file {tmp_path / 'x'} does not exist")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "a.txt").touch()
    error = UsageError.no_folder(tmp_path / "a.txt", "the folder ", "pass a folder of photos")
    assert (error.message, error.hint) == (f"{tmp_path / 'a.txt'} is a file, not a folder", "pass a folder of photos")
    assert UsageError.no_folder(tmp_path / "b", "the folder ").message == f"the folder {tmp_path / 'b'} does not exist"


def test_json_has_each_error_and_the_text_a_line_each(run, tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text('backbone = 3\nsumary = ""\n')
    lines = run("inspect", path).stderr.splitlines()
    assert lines[0] == f"error: recipe {path} has 3 errors"
    facts = json.loads(run("inspect", path, "--json").stderr)["error"]
    assert facts["message"].split("\n") == [lines[0].removeprefix("error: "), *lines[1:]]
    assert sorted(one["class"] for one in facts["errors"]) == ["BadFile", "BadFile", "UnknownName"]
    assert facts["errors"][-1]["hint"] in lines[-1]
