"""What describes a task: several sentences, weights, files, class names, photos, standard input."""

from __future__ import annotations

import json
import math

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from sglora_cli.adapter.file import load_adapter
from sglora_cli.data.description import Description, read_texts, weighted
from sglora_cli.data.encode import mean_direction
from sglora_cli.errors import BadFile, Mismatch, SgloraError, UsageError
from sglora_cli.generate.session import Session
from sglora_cli.pack.content.format_two import save_visual


@pytest.fixture
def feed():
    """Run the program with a standard input: `feed(b"a mug", "generate", "-")`."""
    from sglora_cli.cli.main import main

    return lambda data, *args: CliRunner().invoke(main, [str(a) for a in args], input=data)


def facts(run, *arguments: object) -> dict:
    result = run("generate", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_embedding_is_the_weighted_mean_of_unit_vectors():
    unit = torch.nn.functional.normalize(torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    total = [sum(w * float(row[d]) for w, row in zip((2.0, 1.0, 0.5), unit, strict=True)) for d in range(5)]
    length = sum(x * x for x in total) ** 0.5
    assert mean_direction((2.0, 1.0, 0.5), unit).tolist() == pytest.approx([x / length for x in total], abs=1e-6)
    assert torch.equal(mean_direction((7.0,), unit[:1]), unit[0])
    with pytest.raises(Mismatch, match="cancel each other out"):
        mean_direction((1.0, 1.0), torch.stack([unit[0], -unit[0]]))


def test_the_session_uses_that_mean(toy_pack):
    session = Session.open()
    generated = session.generate(Description.of("3 | a red mug", "a blue nest"))
    both = session.model.encode_text(["a red mug", "a blue nest"])
    expected = torch.nn.functional.normalize(3 * both[0] + both[1], dim=0)
    assert torch.allclose(generated.prior.embedding_D, expected, atol=1e-6)


def test_sentences_come_from_all_places_in_order(run, toy_pack, tmp_path):
    (tmp_path / "more.txt").write_text("\ufeff0.5 | a mug on a floor\n\na mug | a cup\n", encoding="utf-8")
    metadata = facts(run, "a", "mug", "--also", "2|a blue mug", "--name", "mug", "--file", tmp_path / "more.txt")[
        "about"
    ]
    assert metadata["described_by"] == [
        [1.0, "a mug"],
        [1.0, "a photo of a mug"],
        [2.0, "a blue mug"],
        [0.5, "a mug on a floor"],
        [1.0, "a mug | a cup"],
    ]
    assert metadata["description"] == "a mug; a photo of a mug; a blue mug; a mug on a floor; a mug | a cup"


def test_a_name_fills_the_packs_template(run, toy_pack, own_home):
    manifest = own_home / "cache/packs/toys/pack.json"
    content = json.loads(manifest.read_text())
    content["recipe"]["template"] = "toys: {name} {name.__class__}"
    manifest.write_text(json.dumps(content))
    assert facts(run, "--name", "mug")["about"]["description"] == "toys: mug {name.__class__}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('["a mug", "a cup"]', [(1.0, "a mug"), (1.0, "a cup")]),
        ('{"a mug": 2, "a cup": 0.5}', [(2.0, "a mug"), (0.5, "a cup")]),
        ('"a mug"', [(1.0, "a mug")]),
    ],
)
def test_json_lists_and_tables_are_read(tmp_path, text, expected):
    (tmp_path / "d.json").write_text(text)
    assert read_texts(tmp_path / "d.json") == expected


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("d.json", b"[1]", "is not a sentence with a weight"),
        ("d.json", b'{"a": true}', "is not a sentence with a weight"),
        ("d.json", b"[]", "has no sentence"),
        ("d.json", b"{", "d.json"),
        ("d.txt", b"\n\n", "has no sentence"),
        ("d.txt", b"\xff", "is not UTF-8 text: invalid start byte in line 1"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadFile, match=message):
        read_texts(tmp_path / name)
    with pytest.raises(BadFile, match="does not exist"):
        read_texts(tmp_path / "missing.txt")


@pytest.mark.parametrize("line", ["0 | a mug", "-1 | a mug", "1e999 | a mug"])
def test_a_weight_is_positive_and_finite(line):
    with pytest.raises(UsageError, match="a weight must be positive and finite"):
        Description.of(line)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the description is missing"),
        (["a mug", "--images", "x"], "--images cannot be combined with sentences"),
        (["-", "--name", "mug"], "`-` reads all descriptions from standard input"),
        (["-", "-o", "m.safetensors"], "-o has no {n} to name several adapters"),
        (["a mug", "--best", 2], "cannot keep the best 2 of 1 samples"),
    ],
)
def test_what_does_not_go_together_is_refused(run, toy_pack, arguments, message):
    result = run("generate", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {message}")


def test_photos_need_a_pack_that_knows_its_experts_looks(run, old_pack, images):
    result = run("generate", "--images", images)
    assert result.exit_code == 6
    assert result.stderr == (
        "error: pack 'toys' has no visual embeddings of its experts\nhint: describe the task in words\n"
    )


def test_photos_are_compared_with_the_experts_photos(run, toy_pack, own_home, toys, tmp_path):
    """A pack with `visual` (E, D): the task whose photos are given is found."""
    from sglora_cli.data.encode import visual_embedding

    session = Session.open()
    photos = {name: sorted((toys / "toys/images").glob(f"{name}_*.png")) for name in ("ball", "box", "cup", "hat")}
    save_visual(session.pack.folder, torch.stack([visual_embedding(session.model, p) for p in photos.values()]))
    for name, paths in photos.items():
        (tmp_path / name).mkdir()
        for path in paths:
            (tmp_path / name / path.name).write_bytes(path.read_bytes())
        report = facts(run, "--images", tmp_path / name)
        assert report["experts"][0]["task"] == f"toys/{name}"
        assert report["experts"][0]["similarity"] == pytest.approx(1, abs=1e-5)
        assert report["about"]["description"] == f"8 images of {name!r}"


def test_a_line_is_an_adapter_as_if_generated_alone(feed, run, toy_pack, tmp_path):
    result = feed(b"a mug\n\n  a red nest\r\n", "generate", "-", "-o", tmp_path / "{n}.safetensors")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path}/1.safetensors\n{tmp_path}/3.safetensors\n"
    for number, sentence in ((1, "a mug"), (3, "a red nest")):
        assert run("generate", sentence, "-o", tmp_path / "alone.safetensors", "--force").exit_code == 0
        assert (tmp_path / f"{number}.safetensors").read_bytes() == (tmp_path / "alone.safetensors").read_bytes()


def test_a_bad_line_is_named_and_the_others_go_on(feed, toy_pack):
    result = feed(b"a mug\n???\n\xff\na nest\n", "generate", "-", "--json")
    assert result.exit_code == 2
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["line"] for row in rows] == [1, 2, 3, 4]
    assert ["error" in row for row in rows] == [False, True, True, False]
    assert rows[1]["error"]["message"] == "the sentence has no words: '???'"
    last = {"message": "2 of 4 lines failed, starting with line 2", "hint": "fix these lines"}
    assert json.loads(result.stderr) == {"error": {"class": "UsageError", **last, "exit_code": 2}}
    lines = feed(b"a mug\n???\n\xff\na nest\n", "generate", "-").stderr.splitlines()
    assert "error: line 2: the sentence has no words: '???'" in lines
    assert "error: line 3: the line is not UTF-8 text" in lines
    assert lines[-2:] == ["error: 2 of 4 lines failed, starting with line 2", "hint: fix these lines"]


def test_more_lines_than_are_encoded_at_once(feed, toy_pack, tmp_path, monkeypatch):
    monkeypatch.setattr("sglora_cli.generate.many.AT_ONCE", 2)
    result = feed(b"".join(b"mug %d\n" % n for n in range(5)), "generate", "-", "-o", tmp_path / "{n}.safetensors")
    assert result.exit_code == 0
    descriptions = [load_adapter(tmp_path / f"{n}.safetensors").metadata["description"] for n in range(1, 6)]
    assert descriptions == [f"mug {n}" for n in range(5)]


@settings(max_examples=150, derandomize=True, database=None, deadline=None)
@given(st.text(st.sampled_from("0123456789.eE+-|a \u0663"), min_size=1, max_size=20))
def test_a_weighted_line_has_a_positive_weight_or_is_refused(line):
    try:
        weight, text = weighted(line)
    except SgloraError:
        return
    assert 0 < weight < math.inf
    assert text in line
