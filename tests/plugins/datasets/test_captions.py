"""Captions as rows of a table."""

from __future__ import annotations

import pytest
from photo_lists import photos_of

from sglora_cli.data.caption_file import read_captions
from sglora_cli.errors import BadFile
from sglora_datasets.folder import Folder

CSV = 'image,task,split,caption\na.jpg,pug,test,"black, small"\nb.jpg,pug,,one\na.jpg,pug,test,two\n'


def test_captions_may_be_rows_of_a_table(tmp_path):
    (tmp_path / "captions.csv").write_text("\ufeff" + CSV.replace("\n", "\r\n"), newline="")
    for name in "ab":
        (tmp_path / f"{name}.jpg").write_bytes(b"")
    assert photos_of(Folder().tasks(tmp_path)) == {
        "pug": {"train": [("b.jpg", ("one",))], "test": [("a.jpg", ("black, small", "two"))]}
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,task\na,b\n", "line 1: no column 'caption'"),
        ("", "line 1: no column 'caption'"),
        (CSV + "c.jpg,pug\n", "line 5: expected 4 columns"),
        (CSV + "c.jpg,pug,train,x,y\n", "line 5: expected 4 columns"),
        (CSV + "a.jpg,cat,test,x\n", "line 5: task of 'a.jpg' is 'cat', in line 2 'pug'"),
        (CSV + "c.jpg,,train,x\n", "line 5: 'task' must be a non-empty string, got ''"),
        (CSV + "c.jpg,cat,dev,x\n", "line 5: 'split' must be one of train, test, got 'dev'"),
        (CSV + "c.jpg,cat,train, \n", "line 5: image 'c.jpg' has no caption, or an empty one"),
        (CSV + 'c.jpg,cat,train,"x\n', "line 5: not CSV: unexpected end of data"),
        ("image,task,caption\n", " names no image"),
    ],
)
def test_a_broken_table_is_named_with_its_line(tmp_path, content, message):
    path = tmp_path / "captions.csv"
    path.write_text(content)
    with pytest.raises(BadFile) as error:
        read_captions(path)
    assert str(error.value).startswith(f"{path}")
    assert message in str(error.value)
