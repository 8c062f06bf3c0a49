"""Adapters of the user cache are called by their sentences, and found by these names."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

from sglora_cli.adapter.file import load_adapter
from sglora_cli.adapter.library import found, keep, kept_folder
from sglora_cli.files.names import sentence_stem


def made(run, *arguments: object) -> Path:
    result = run("generate", *arguments)
    assert result.exit_code == 0, result.output
    return Path(result.stdout.strip())


def test_an_adapter_is_called_by_its_sentence(run, toy_pack):
    path = made(run, "a photo of a mug")
    assert path == kept_folder() / "a-photo-of-a-mug.safetensors"
    assert load_adapter(path).metadata["description"] == "a photo of a mug"


def test_the_same_adapter_is_the_same_file(run, toy_pack):
    path = made(run, "a photo of a mug")
    before = path.stat()
    assert made(run, "a photo of a mug") == path
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_another_adapter_of_that_name_gets_the_next_number(run, toy_pack):
    names = [
        made(run, "a photo of a mug").name,
        made(run, "a photo of a mug", "--generator", "nearest").name,
        made(run, "A photo: of a MUG!").name,
        made(run, "a photo of a mug", "--generator", "nearest").name,
    ]
    assert names == [f"a-photo-of-a-mug{n}.safetensors" for n in ("", "-2", "-3", "-2")]


def test_every_sample_has_a_file(run, toy_pack):
    files = run("generate", "a mug", "--generator", "cvae", "--samples", 3).stdout.splitlines()
    assert [Path(file).name for file in files] == ["a-mug.safetensors", "a-mug-2.safetensors", "a-mug-3.safetensors"]


@pytest.mark.parametrize(
    ("sentence", "stem"),
    [
        ("a photo of a pug", "a-photo-of-a-pug"),
        ("../../etc/passwd", "etc-passwd"),
        ("-rf", "rf"),
        ("cafe\u0301", "caf\u00e9"),
        ("一张哈巴狗的照片", "一张哈巴狗的照片"),
        ("हिन्दी कुत्ता", "हिन्दी-कुत्ता"),
        ("word " * 100, "-".join(["word"] * 16)),
        ("x" * 300, "x" * 80),
    ],
)
def test_a_name_has_the_words_of_its_sentence(sentence, stem):
    assert sentence_stem(sentence) == stem


@pytest.mark.parametrize("sentence", ["nul", "COM1", "\u2603 \u2603"])
def test_a_sentence_that_no_name_can_hold_gets_a_hash(sentence):
    stem = sentence_stem(sentence)
    assert re.fullmatch("adapter-[0-9a-f]{16}", stem)
    assert sentence_stem(f"{sentence} ") != stem


def test_letters_that_the_file_system_cannot_hold_give_a_hash(monkeypatch):
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    assert sentence_stem("a pug") == "a-pug"
    assert sentence_stem("哈巴狗").startswith("adapter-")


def test_a_folder_in_the_way_is_passed_over(own_home):
    (kept_folder() / "a-pug.safetensors").mkdir(parents=True)
    assert keep(b"x", "a pug").name == "a-pug-2.safetensors"


def test_a_name_means_what_is_there_before_what_is_in_the_cache(own_home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = keep(b"kept", "a pug")
    assert found(Path("a-pug")) == found(Path("a-pug.safetensors")) == kept
    Path("a-pug.safetensors").write_bytes(b"mine")
    assert found(Path("a-pug.safetensors")) == Path("a-pug.safetensors")
    assert found(Path("a-pug")) == Path("a-pug.safetensors")
    assert found(Path("other/a-pug")) == Path("other/a-pug")  # a path, no name
    assert found(Path("a-cat")) == Path("a-cat")


def test_adapters_are_listed_with_their_sentences(run, toy_pack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.utime(made(run, "a photo of a mug"), (1_000_000_000, 1_000_000_000))
    made(run, "a photo of a nest", "-o", "nest.safetensors")
    assert run("export", "nest.safetensors", "-o", "nest-peft/").exit_code == 0
    os.utime("nest-peft/adapter_model.safetensors", (1_000_000_001, 1_000_000_001))
    Path("other.safetensors").write_bytes(b"no adapter")
    result = run("list")
    assert (result.exit_code, result.stderr) == (0, "")
    assert [re.split("  +", line) for line in result.stdout.splitlines()] == [
        ["nest.safetensors", "a photo of a nest", "cvae", "tiny"],
        ["nest-peft", "a photo of a nest", "cvae", "tiny"],
        ["a-photo-of-a-mug.safetensors", "a photo of a mug", "cvae", "tiny"],
    ]
    facts = json.loads(run("list", "--json").stdout)["adapters"]
    assert [(one["name"], one["description"], one["backbone"]) for one in facts] == [
        ("nest.safetensors", "a photo of a nest", "tiny"),
        ("nest-peft", "a photo of a nest", "tiny"),
        ("a-photo-of-a-mug.safetensors", "a photo of a mug", "tiny"),
    ]
    for one in facts:  # what is listed is what commands take
        assert run("diff", one["name"], one["path"]).exit_code == 0
        assert run("inspect", one["name"]).exit_code == 0


def test_a_kept_adapter_that_another_file_hides_is_listed_by_its_path(run, toy_pack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = made(run, "a mug")
    Path(kept.name).write_bytes(kept.read_bytes())
    names = {one["name"] for one in json.loads(run("list", "--json").stdout)["adapters"]}
    assert names == {kept.name, str(kept)}


def test_nothing_to_list_says_how_to_make_one(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("list")
    hint = 'no adapters yet; make one with: sglora generate "a photo of a pug"\n'
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", hint)
    result = run("list", "nowhere")
    assert (result.exit_code, result.stderr.splitlines()[0]) == (2, "error: the folder nowhere does not exist")
