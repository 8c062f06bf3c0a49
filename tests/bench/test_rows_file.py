"""Rows on disk: what is written is read, and what is broken is named by its line."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglora_cli.bench.rows_file import Header, Log, append, mend, pack_hits, read_rows, row_line, unpack_hits
from sglora_cli.errors import BadFile, Unavailable
from sglora_cli.plugin.values import Row

few = settings(max_examples=150, derandomize=True, database=None, deadline=None)

HEADER = Header("p", "b", {"top-k": "Top-K", "x": "X, ünlike"}, more={"command": "sglora bench"})
ROW = Row("x", "pets", "pug", 2, "T2I", 5, 100 / 3, seed=4, hits="3:IA==")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rows.jsonl"
    append(path, [HEADER.line(), row_line(ROW)])
    return path


def test_what_is_written_is_read(file):
    (run,) = read_rows(file)
    assert run.header == HEADER
    assert run.rows == [ROW]


def test_a_later_header_is_for_the_rows_after_it(file):
    other = replace(HEADER, pack="q")
    append(file, [other.line(), row_line(replace(ROW, direction="ACC", k=1, hits=""))])
    first, second = read_rows(file)
    assert (first.header.pack, second.header.pack) == ("p", "q")
    assert (first.rows[0].direction, second.rows[0].direction) == ("T2I", "ACC")


def test_more_keys_are_left_out_and_a_seed_may_be_missing(file):
    row = json.loads(row_line(ROW))
    del row["seed"], row["hits"]
    append(file, [json.dumps({**row, "weather": "rain"}) + "\n"])
    assert read_rows(file)[0].rows[1] == replace(ROW, seed=0, hits="")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"method": "x', "not JSON"),
        ("", "not JSON"),
        ("[1]", "not a JSON object"),
        ("[" * 100_000, "not JSON"),
        ('{"sglora_rows": 2}', "unsupported rows format 2, this version reads format 1"),
        ('{"sglora_rows": 1, "pack": "p", "backbone": "b"}', "labels must be an object"),
        ({"method": 3}, "method must be a printable string, got 3"),
        ({"task": "\x1b[31m"}, "task must be a printable string"),
        ({"k": 0}, "k must be an integer of at least 1, got 0"),
        ({"seed": True}, "seed must be an integer of at least 0, got True"),
        ({"direction": "T2T"}, "direction must be one of I2T, T2I, ACC, got 'T2T'"),
        ({"value": float("nan")}, "not JSON: NaN is not a number of JSON"),
        ({"value": 100.5}, "value must be a percentage from 0 to 100, got 100.5"),
        ({"hits": "9:IA=="}, "hits of 9 queries have 2 bytes, not 1"),
        ({"hits": "3:wA=="}, "value is 33.3333, but the hits give 66.6667"),
        ({"hits": [1]}, "expected string"),
    ],
)
def test_a_broken_line_is_named(file, line, message):
    text = line if isinstance(line, str) else json.dumps({**json.loads(row_line(ROW)), **line})
    append(file, [text + "\n"])
    with pytest.raises(BadFile, match=f"^{file}, line 3: .*".replace("\\", "\\\\")) as caught:
        read_rows(file)
    assert message in caught.value.message


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "x.jsonl"
    for data, message in ((b'{"image": "a.png"}\n', "line 1: a rows file starts"), (b"", "is empty"), (b"\xff", "UTF")):
        path.write_bytes(data)
        with pytest.raises(BadFile) as caught:
            read_rows(path)
        assert message in caught.value.message + caught.value.hint
    with pytest.raises(BadFile, match="does not exist"):
        read_rows(tmp_path / "none")


def test_a_torn_line_is_cut_off_and_nothing_else(file):
    whole = file.read_bytes()
    mend(file)
    assert file.read_bytes() == whole
    file.write_bytes(whole + b'{"method": "x", "da')
    mend(file)
    assert file.read_bytes() == whole


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100])
def test_hits_survive_packing(count):
    hits = [random.Random(count).random() < 0.5 for _ in range(count)]
    assert unpack_hits(pack_hits(hits)) == hits


@few
@given(st.lists(st.booleans(), max_size=70))
def test_hits_come_back(hits):
    assert unpack_hits(pack_hits(hits)) == hits


@few
@given(st.text(st.sampled_from("0123456789:=+/AZaz"), max_size=30))
def test_any_text_is_hits_or_a_value_error(text):
    try:
        hits = unpack_hits(text)
    except ValueError:
        return
    assert len(hits) == int(text.partition(":")[0])


def log(path):
    return Log(path, replace(HEADER, more={"plan": "one"}))


OTHER = replace(ROW, value=0.0, hits=pack_hits([False, False, False]))


@pytest.mark.parametrize("ending", ["\n", ""])
def test_rows_that_are_measured_otherwise_start_anew_behind_what_stood_before(file, ending):
    before = file.read_bytes()
    log(file).add([ROW])
    file.write_bytes(file.read_bytes().removesuffix(b"\n") + ending.encode())
    again = log(file)
    again.add([OTHER])
    again.add([replace(OTHER, task="tabby")])
    runs = read_rows(file)
    assert file.read_bytes().startswith(before)
    assert runs[-1].rows == [OTHER, replace(OTHER, task="tabby")]
    assert len(runs) == 2


@pytest.mark.parametrize("place", ["before", "behind"])
def test_rows_that_others_wrote_meanwhile_are_never_replaced(file, place):
    log(file).add([ROW])
    again = log(file)
    extra = b'{"sglora_rows": 1, "pack": "mine", "backbone": "x", "labels": {}}\n'
    written = extra + file.read_bytes() if place == "before" else file.read_bytes() + extra
    file.write_bytes(written)
    with pytest.raises(Unavailable, match="was changed by another program while rows were written into it"):
        again.add([OTHER])
    assert file.read_bytes() == written
