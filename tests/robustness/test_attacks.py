"""Packs, data and rows that were made to do harm: what they try, and what is said instead."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from made_rows import HEADER, hand_made, write_made
from markdown_it import MarkdownIt
from pictures import EPS, png

from sglora_cli.adapter.peft import adapter_card
from sglora_cli.errors import BadFile
from sglora_cli.files.tensors import load_tensors, save_tensors
from sglora_cli.files.text import read_json
from sglora_cli.pack.content.tasks import Tasks
from sglora_cli.pack.pack import Pack
from sglora_cli.pack.writer import pack_card, write_manifest
from sglora_cli.plugin.values import Report, Row
from sglora_cli.system.paths import built_folder
from sglora_reports import as_csv
from sglora_reports.text import latex, markdown

NAMES = (
    "<script>alert(1)</script>",
    "=1+1",
    "a|b",
    "a\x1b[2Jb",
    "$\\frac{$",
    "\u202ekcab",
    "'\"><img src=x onerror=y>",
)


@pytest.fixture
def folder(toy_pack) -> Path:
    return built_folder() / toy_pack


@pytest.mark.parametrize("place", ["inside", "outside"])
def test_a_link_in_a_pack_is_named_and_goes_nowhere(run, folder, tmp_path, place):
    target = (tmp_path if place == "outside" else folder) / "elsewhere.safetensors"
    shutil.move(folder / "joint.safetensors", target)
    (folder / "joint.safetensors").symlink_to(target)  # its hash is right
    result = run("pack", "verify", "toys")
    assert result.exit_code == 4
    words = {"inside": "joint.safetensors is a link, not a file", "outside": "'joint.safetensors' leads out of"}
    assert words[place] in result.stderr
    result = run("pack", "export", "toys", "-o", tmp_path / "x.sglora.zip")
    assert result.exit_code == 4
    assert not (tmp_path / "x.sglora.zip").exists()


def test_an_expert_that_is_a_link_out_of_its_pack_is_not_read(folder, tmp_path):
    path = next((folder / "experts").iterdir())
    shutil.move(path, tmp_path / path.name)
    path.symlink_to(tmp_path / path.name)
    with pytest.raises(BadFile, match="leads out of"):
        Pack(folder).check_content()


def evaluation(folder: Path) -> Path:
    return sorted((folder / "evaluation").iterdir())[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors, metadata: tensors.pop("stem"), "no valid tensor 'stem' or 'text'"),
        (lambda tensors, metadata: tensors.update(text=torch.ones(8)), "no valid tensor 'stem' or 'text'"),
        (lambda tensors, metadata: metadata["image_of"].__setitem__(0, 10**6), "are inconsistent"),
        (lambda tensors, metadata: metadata["image_of"].__setitem__(0, -1), "are inconsistent"),
        (lambda tensors, metadata: metadata["captions"].pop(), "are inconsistent"),
        (lambda tensors, metadata: metadata.update(label_of=[0]), "are inconsistent"),
        (lambda tensors, metadata: metadata.update(image_of=[]), "are inconsistent"),
        (lambda tensors, metadata: tensors.update(oracle=torch.ones(3)), "the tensor 'oracle' has shape [3]"),
    ],
)
def test_an_evaluation_that_does_not_fit_itself_is_refused(folder, change, message):
    tensors, metadata = load_tensors(evaluation(folder))
    change(tensors, metadata)
    save_tensors(evaluation(folder), tensors, metadata)
    with pytest.raises(BadFile) as caught:
        list(Pack(folder).unseen())
    assert message in caught.value.message


@pytest.mark.parametrize("name", ["index", "stem", "text"])
def test_what_does_not_fit_the_backbone_is_refused_by_every_command(run, folder, name):
    path = folder / "experts/00000.safetensors" if name == "index" else evaluation(folder)
    tensors, metadata = load_tensors(path)
    save_tensors(path, {**tensors, name: tensors[name][..., :5]}, metadata)
    write_manifest(folder, read_json(folder / "pack.json"))  # its hashes are right
    for words in (
        ("generate", "a mug"),
        ("generate", "a mug", "--explain"),
        ("bench", "--resamples", 100),
        ("inspect", "toys"),
    ):
        result = run(*words)
        assert result.exit_code in (0, 4, 5), (words, result.exception)
    assert run("bench").exit_code in (4, 5)


def test_a_formula_in_a_csv_is_a_text():
    rows = [Row(name, "d", "t", 0, "I2T", 1, 50.0) for name in ("=1+1", "+1", "-1", "@x", "plain")]
    lines = as_csv(Report("p", rows, {}, {}, "top-k")).splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == ["'=1+1", "'+1", "'-1", "'@x", "plain"]


def test_names_stay_in_their_cells_of_markdown():
    rows = [Row("m", "a|b<script>", "t", 0, "I2T", 1, 50.0)]
    text = markdown(Report("p", rows, {"m": "x | y <b>"}, {}, "m", ["<script>"]))
    assert "<script>" not in text
    assert "<b>" not in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in tables} == {tables[0].replace("\\|", "").count("|")}


def test_a_task_stays_in_its_cell_of_a_model_card(folder):
    task = {**next(iter(Pack(folder).tasks)), "description": "a | b\n\n# <script>"}
    text = pack_card(read_json(folder / "pack.json"), Tasks({"expert": [task]}))
    assert "a \\| b # &lt;script>" in text


EVIL = "x\n\n<img src=https://evil.example/t.png> ![x](https://evil.example/t.png) [x](https://evil.example)"


def elements(text: str) -> set[str]:
    """The kinds of all parts of a page of Markdown."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    return {part.type for token in tokens for part in (token, *(token.children or []))}


def test_no_text_of_a_pack_makes_a_picture_or_link_in_its_model_card(folder):
    manifest = read_json(folder / "pack.json")
    good = elements(pack_card(manifest, Pack(folder).tasks))
    for key in ("name", "made_by", "backbone", "fingerprint"):
        manifest[key] = EVIL
    manifest["recipe"]["summary"] = EVIL
    manifest["generators"] = {EVIL: {}}
    manifest["prior"]["space"] = EVIL
    task = {**next(iter(Pack(folder).tasks)), "description": EVIL, "key": EVIL, "train_photos": EVIL}
    evil = pack_card(manifest, Tasks({"expert": [task]}))
    assert elements(evil) <= good
    assert not elements(evil) & {"html_inline", "html_block", "image", "link_open"}


def test_no_text_of_an_adapter_makes_a_picture_or_link_in_its_model_card():
    metadata = dict.fromkeys(("description", "backbone", "fingerprint", "pack", "generator"), EVIL)
    assert not elements(adapter_card(metadata, '"a"', "X")) & {"html_inline", "html_block", "image", "link_open"}


def test_no_label_makes_a_picture_or_an_argument_in_a_report():
    rows = [Row(method, "d", "t", 0, "I2T", 1, 50.0) for method in ("m", "n")]
    report = Report("p", rows, {"m": EVIL, "n": "[2cm] n"}, {}, "m", [EVIL])
    assert not elements(markdown(report)) & {"html_inline", "html_block", "image", "link_open"}
    lines = latex(report).splitlines()
    assert not [line for line in lines if line.startswith(("[", "*"))]
    assert all(line.startswith(("%", "\\", "method", "{[}2cm", "x ")) or not line for line in lines)


def tags(path: Path) -> set[str]:
    words: set[str] = set()
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: words.update([tag, *(name for name, _ in attributes)])
    parser.feed(path.read_text())
    return words


def test_hostile_names_and_images_in_a_data_set_are_reported_not_obeyed(run, photos):
    (photos / "eps.png").write_bytes(EPS)
    (photos / "bomb.png").write_bytes(png(60_000, 60_000))
    (photos / "large.png").write_bytes(png(9_500, 11_000))
    lines = (photos / "captions.jsonl").read_text().splitlines()
    images = ["eps.png", "bomb.png", "large.png", *(json.loads(line)["image"] for line in lines)]
    rows = [
        {"image": image, "task": NAMES[n % len(NAMES)], "split": "train", "captions": [f"{NAMES[n % len(NAMES)]} {n}"]}
        for n, image in enumerate(images)
    ]
    (photos / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = photos.parent / "page.html"
    result = run("data", "check", "folder", "--path", photos, "--report", page)
    assert result.exit_code in (0, 4), result.exception
    assert all(c.isprintable() or c == "\n" for c in result.output)
    assert all(name in result.output for name in ("eps.png", "bomb.png", "large.png"))
    assert not tags(page) & {"script", "onerror"}


def test_hostile_labels_in_rows_are_refused_or_shown_as_texts(run, tmp_path):
    labels = dict(
        zip(("zero-shot", "top-k", "a", "b", "c"), [name for name in NAMES if name.isprintable()], strict=False)
    )
    rows = [row | {"method": method} for method in labels for row in hand_made(("top-k",))]
    path = write_made(tmp_path / "rows.jsonl", rows, HEADER | {"labels": labels})
    result = run("report", path, "--out", tmp_path / "page.html", "--resamples", 100)
    assert result.exit_code == 0, result.exception
    assert not tags(tmp_path / "page.html") & {"script", "onerror"}
    write_made(path, rows, HEADER | {"labels": labels | {"a": "\x1b[2J"}})
    assert run("report", path).exit_code == 4


@pytest.mark.parametrize("sentence", ["a \x1b[2J mug", "a \ud800 mug", "\udcff mug", "a \0 mug", "a\u202emug"])
def test_a_sentence_cannot_steer_the_terminal(run, toy_pack, tmp_path, sentence):
    result = run("generate", sentence, "-o", tmp_path / "x.safetensors")
    assert result.exit_code in (0, 2), result.exception
    assert all(c.isprintable() or c == "\n" for c in result.output)
    if result.exit_code == 0:
        inspected = run("inspect", tmp_path / "x.safetensors")
        assert inspected.exit_code == 0
        assert all(c.isprintable() or c == "\n" for c in inspected.output)
