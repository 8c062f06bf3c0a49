"""What strangers' texts and names may be: properties over many of them, made by hypothesis."""

from __future__ import annotations

import json
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sglora_cli.errors import BadFile
from sglora_cli.files.text import parse_json
from sglora_cli.files.toml import toml_lines, toml_table
from sglora_cli.files.untrusted import DEPTH_LIMIT, entry_fault, inside, json_value, name_fault, read_bytes

few = settings(
    max_examples=150,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
ANY = st.text(st.characters(codec=None))  # half surrogate pairs too
NAMES = st.text(st.sampled_from("ab/.\\:\0~é\ud800 ") | st.characters(codec=None), max_size=40)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(
    LEAVES, lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text(), x, max_size=4), max_leaves=20
)


@few
@given(VALUES)
def test_json_of_common_values_is_what_was_written(value):
    assert json_value(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode(), "x") == value


@few
@given(ANY)
@example('"\\ud800"')
@example("9" * 5000)
@example("[" * 5000)
@example("[" * 101 + "]" * 101)
def test_any_text_is_json_as_the_library_reads_it_or_a_value_error(text):
    try:
        value = json_value(text)
    except ValueError:
        return
    assert value == json.loads(text)
    json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode()  # what is read can be written


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("NaN", "NaN is not a number of JSON"),
        ('{"loss": [-Infinity]}', "-Infinity is not a number of JSON"),
        ("[1e999]", "a number is not finite"),
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "an object has the key 'b' twice"),
        ('{"a": 1, "\\u0061": 1}', "an object has the key 'a' twice"),
        ('"\\udc00"', "has half a character"),
    ],
)
def test_what_only_python_reads_is_not_json(text, fault):
    with pytest.raises(ValueError, match=fault):
        json_value(text)
    with pytest.raises(BadFile, match=fault):
        parse_json(text.encode(), "x")


def test_a_hook_gets_every_object():
    assert json_value('{"a": {"b": 1}, "c": 2}', lambda table: sorted(table)) == ["a", "c"]


def test_infinite_numbers_of_toml_are_refused():
    with pytest.raises(ValueError, match="a number is not finite"):
        toml_table("rank = inf")


@few
@given(st.binary())
def test_any_bytes_are_json_or_a_bad_file(data):
    with suppress(BadFile):
        parse_json(data, "x")


@pytest.mark.parametrize("depth", [2, DEPTH_LIMIT - 1, DEPTH_LIMIT, DEPTH_LIMIT + 1, 990])
def test_depth_is_limited_in_json_and_toml_alike(depth):
    for read, text in (
        (json_value, "[" * depth + "]" * depth),
        (toml_table, "x = " + "[" * (depth - 1) + "]" * (depth - 1)),
    ):
        if depth <= DEPTH_LIMIT - 1:
            read(text)
        elif depth > DEPTH_LIMIT:
            with pytest.raises(ValueError, match="nested"):
                read(text)


@few
@given(st.text(st.sampled_from("ab.=[]{}\"'\\ \n#,1-_") | st.characters(codec=None), max_size=60))
@example("a = 1\n[[b]]\nc = ['x']\n[b.d]\n")
def test_lines_are_found_for_whatever_toml_the_parser_takes(text):
    try:
        table = toml_table(text)
    except ValueError:
        return
    lines = toml_lines(text)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())
    assert not table or lines


@few
@given(NAMES)
@example("x" * 256)
@example("é" * 128)
@example("a/" * 499 + "a")
@example("a/" * 500)
def test_a_name_without_fault_is_one_that_the_system_takes(name):
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        if not name_fault(name):
            (Path(folder) / name.lstrip("/")).exists()  # raises for a name that is too long, or has a NUL


@few
@given(NAMES)
@example("..")
@example("a/../..")
@example("/etc/passwd")
@example("a" * 300)
def test_no_name_leads_out_of_its_folder(name):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "folder"
        folder.mkdir()
        try:
            path = inside(folder, name)
        except BadFile:
            return
        assert path.resolve().is_relative_to(folder.resolve())


@few
@given(NAMES)
@example("a/b.jpg")
@example("a/../b.jpg")
@example("a/b.jpg/")
def test_an_entry_that_may_be_unpacked_is_a_file_below_the_folder(name):
    if not entry_fault(name):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place).resolve()
            assert inside(folder, name) == folder.joinpath(*name.split("/"))
            assert folder in (folder / name).parents
    assert entry_fault(name, stat.S_IFLNK | 0o777)
    assert entry_fault(name, stat.S_IFREG | 0o644) == entry_fault(name)


def test_links_in_a_circle_and_out_are_refused(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "round").symlink_to(folder / "round")
    (folder / "out").symlink_to(tmp_path)
    for name in ("round", "round/x", "out/x", "out"):
        with pytest.raises(BadFile):
            inside(folder, name)


def test_a_file_is_read_up_to_its_limit(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_bytes(path, 5) == b"12345"
    with pytest.raises(BadFile, match="has more than 4 bytes"):
        read_bytes(path, 4)
    with pytest.raises(BadFile, match="more than 1000000 bytes"):
        read_bytes(Path("/dev/zero"), 1_000_000)
    with pytest.raises(BadFile, match="does not exist"):
        read_bytes(tmp_path / "y", 4)
    with pytest.raises(BadFile, match="is no file name"):
        read_bytes(tmp_path / "a\0b", 4)
