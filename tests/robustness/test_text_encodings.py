"""Text files in every encoding that editors write: a byte order mark is skipped, other encodings name the remedy."""

from __future__ import annotations

import codecs
import json

import pytest
from made_rows import hand_made, write_made
from toys import RECIPE

from sglora_cli.adapter.peft_config import read_config
from sglora_cli.bench.rows_file import mend, read_rows
from sglora_cli.build.edit import experts_of_list
from sglora_cli.data.caption_file import read_captions, read_elsewhere
from sglora_cli.data.description import read_texts
from sglora_cli.errors import BadFile
from sglora_cli.files.text import decoded
from sglora_cli.pack.recipe_parser import read as read_recipe
from sglora_cli.search.photos import photo_list
from sglora_cli.system import settings
from sglora_openclip.beside import read_beside

PEFT = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q"]}
COCO = {"images": [{"id": 1, "file_name": "é.png"}], "annotations": [{"image_id": 1, "caption": "a café"}]}
KARPATHY = {"images": [{"filename": "é.png", "split": "train", "sentences": [{"raw": "a café"}]}]}
BESIDE = {"model_cfg": {"quick_gelu": True}, "preprocess_cfg": {}}
LINE = json.dumps({"image": "é.png", "captions": ["a café"]}, ensure_ascii=False)
EXPERT = json.dumps({"name": "é", "adapter": "a.safetensors", "text": "a café"}, ensure_ascii=False)


def parsed_settings(path):
    return settings.parsed(settings.decoded(path.read_bytes(), str(path)), path)


READERS = {
    "recipe.toml": (RECIPE.replace("[", "# é\n[", 1), lambda path: read_recipe(path).raw),
    "config.toml": ('# é\ndevice = "cpu"\n', parsed_settings),
    "adapter_config.json": (json.dumps({**PEFT, "é": None}, ensure_ascii=False), lambda path: read_config(path).values),
    "open_clip_config.json": (
        json.dumps({**BESIDE, "é": 1}, ensure_ascii=False),
        lambda path: read_beside(path.parent).quick_gelu,
    ),
    "captions.jsonl": (LINE, read_elsewhere),
    "captions.csv": ("image,caption\né.png,a café\n", lambda path: read_captions(path, ("image",))),
    "captions.json": (json.dumps(COCO, ensure_ascii=False), read_elsewhere),
    "dataset_flickr30k.json": (json.dumps(KARPATHY, ensure_ascii=False), read_elsewhere),
    "experts.jsonl": (EXPERT, experts_of_list),
    "sentences.txt": ("a café\na pug\n", read_texts),
    "sentences.json": ('["a café"]', read_texts),
}


@pytest.mark.parametrize("name", READERS)
def test_a_byte_order_mark_is_skipped(tmp_path, name):
    content, read = READERS[name]
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    plain = read(path)
    path.write_text(content, encoding="utf-8-sig")
    assert repr(read(path)) == repr(plain)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(("encoding", "source"), [("utf-16", "UTF-16"), ("cp1252", "WINDOWS-1252")])
def test_another_encoding_is_refused_with_a_command_that_converts_it(tmp_path, name, encoding, source):
    content, read = READERS[name]
    path = tmp_path / name
    path.write_bytes(content.encode(encoding))
    with pytest.raises(BadFile, match="UTF-8") as error:
        read(path)
    assert str(path) in error.value.message
    assert error.value.hint == f"save it as UTF-8, for example with: iconv -f {source} -t UTF-8 FILE > NEW"


def test_the_line_of_a_byte_that_is_not_utf_8_is_named():
    with pytest.raises(BadFile, match=r"^x\.csv is not UTF-8 text: invalid continuation byte in line 2$"):
        decoded(b"a,b\ncaf\xe9,1\n", "x.csv")


def test_a_list_of_photos_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "list.txt").write_bytes(codecs.BOM_UTF8 + b"a.png\n")
    assert list(photo_list(tmp_path / "list.txt").paths) == ["a.png"]


def test_rows_with_a_byte_order_mark_are_read_and_repaired(tmp_path):
    path = write_made(tmp_path / "rows.jsonl", hand_made())
    whole = path.read_bytes()
    runs = read_rows(path)
    path.write_bytes(codecs.BOM_UTF8 + whole + b'{"method": "to')
    mend(path)
    assert path.read_bytes() == codecs.BOM_UTF8 + whole
    assert repr(read_rows(path)) == repr(runs)
