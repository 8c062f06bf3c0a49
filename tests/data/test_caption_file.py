"""`sglora data caption --from`: captions that were made elsewhere."""

from __future__ import annotations

import json

import pytest
from trees import captioned

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
    rows = captioned(album)
    assert [row["image"] for row in rows] == ["images/cat/6.jpg", "images/owl/9.jpg"]
    assert [row["captions"] for row in rows] == [["one black cat", "two black cats"], ["an old owl"]]
    assert caption("--from", tmp_path / name).exit_code == 0  # the same again changes nothing
    assert captioned(album) == rows
    assert caption().exit_code == 0  # the rest by a captioner
    assert len(captioned(album)) == 12


def test_other_captions_are_replaced_only_by_force(caption, album, tmp_path):
    caption("--limit", 1)
    before = (album / "captions.jsonl").read_bytes()
    (tmp_path / "x.csv").write_text(FORMATS["x.csv"])
    result = caption("--from", tmp_path / "x.csv")
    assert result.exit_code == 2
    assert (album / "captions.jsonl").read_bytes() == before
    facts = json.loads(caption("--from", tmp_path / "x.csv", "--force", "--json").stdout)
    assert (facts["written"], facts["replaced"], facts["left"]) == (2, 1, 10)
    assert captioned(album)[0]["captions"] == ["one black cat", "two black cats"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", FORMATS["x.csv"] + "77.jpg,x\n", "x.csv, line 5: the data set has no image '77.jpg'"),
        ("x.jsonl", FORMATS["x.jsonl"] + "{", "x.jsonl, line 3: not JSON: "),
        ("x.jsonl", '{"image": "6.jpg", "captions": "a"}', "x.jsonl, line 1: 'captions' must be a list of strings"),
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
    assert [row["captions"] for row in captioned(album)] == [["a cat"], ["a cat"]]
    for title, count in (("too short", 2), ("repeated within an image", 1), ("without a word", 2)):
        assert f"warning: captions {title}: {count}\n" in result.stderr
    assert "error: images without a caption that could be kept: 1; the first: images/cat/8.jpg: " in result.stderr


def test_a_table_of_captions_is_not_hidden(caption, album):
    (album / "captions.csv").write_text("image,task,caption\nimages/cat/6.jpg,cat,one black cat\n")
    result = caption()
    assert result.exit_code == 2
    assert result.stderr.endswith(f"hint: pass --from {album}/captions.csv\n")
    assert caption("--from", album / "captions.csv").exit_code == 0
