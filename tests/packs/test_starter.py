"""The bundled pack: whole, matching its backbone, free of leaks, and measured alike from photos and from itself."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sglora_cli.data.features import Features
from sglora_cli.generate.session import Session


def test_it_is_whole(run):
    assert run("pack", "verify", "starter").stdout.startswith("healthy    starter: ")


def test_a_newcomers_first_command(run, tmp_path):
    out = tmp_path / "pug.safetensors"
    result = run("generate", "a photo of a pug", "-o", out)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}\n"
    lines = result.stderr.splitlines()
    assert lines[0] == "pack       starter (bundled; no pack is built yet)"
    assert lines[1].startswith("generator  all-but-the-task: ")
    assert len(lines) == 2  # it mixes no experts, and warns of nothing
    from sglora_cli.adapter.file import load_adapter

    load_adapter(out).check_model(Session.open().model)


@pytest.mark.parametrize(
    ("sentence", "far"),
    [
        ("a photo of a yorkshire terrier", False),
        ("a photo of a rose", False),
        ("stock market report", True),
        ("a flowchart of a court case", True),
        ("x ray of a lung", True),
    ],
)
def test_a_sentence_far_from_every_expert_is_warned_about(run, sentence, far):
    assert ("warning: the sentence is far from the tasks the pack has seen" in run("generate", sentence).stderr) == far


def test_every_method_of_the_paper_is_measured(run):
    result = run("bench", "--baselines", "all", "--json", "--samples", "2", "--wrong-sentences", "0")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert set(content["methods"]) >= {"zero-shot", "oracle", "joint", "model-soups", "adapter-soup", "top-k", "cvae"}
    average = content["averages"]
    assert average["zero-shot"]["I2T R@1"] > 1.3 * average["chance"]["I2T R@1"]
    assert len({(row["dataset"], row["task"]) for row in content["rows"]}) == 30


def test_no_unseen_task_is_an_expert_or_taught_the_generator():
    tasks = Session.open("starter").pack.tasks
    roles = {role: {t["key"] for t in tasks if t["role"] == role} for role in ("expert", "training", "unseen")}
    assert not roles["unseen"] & (roles["expert"] | roles["training"])
    assert [len(roles[r]) for r in ("expert", "training", "unseen")] == [36, 39, 30]


@pytest.mark.data
def test_photos_and_the_pack_agree(run, data, monkeypatch):
    read = Features.tensors

    def as_carried(*what):  # captions in float16, which can break a tie
        content = read(*what)
        return replace(content, text_CD=content.text_CD.half().float())

    monkeypatch.setattr(Features, "tensors", as_carried)
    names = "zero-shot,oracle,top-k"
    carried, measured = (
        json.loads(run("bench", "--json", "--baselines", names, "--dataset", "flowers", *more).stdout)["averages"]
        for more in ([], ["--data", data])
    )
    assert set(measured) >= {"zero-shot", "oracle", "top-k"}
    assert measured == carried


@pytest.mark.data
def test_the_roles_are_those_of_the_data(data):
    splits = json.loads((data / "splits.json").read_text())
    tasks = Session.open("starter").pack.tasks
    for family in ("flowers", "pets"):
        for role in ("expert", "training", "unseen"):
            mine = {t["name"] for t in tasks if (t["dataset"], t["role"]) == (family, role)}
            assert mine == set(splits[family][role])


def test_its_default_generator_is_asked_by_a_sentence_and_mixes_no_experts(run, tmp_path):
    from speckles import speckles

    speckles(1).save(tmp_path / "a.png")
    result = run("generate", "--images", tmp_path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "error: 'all-but-the-task' needs a sentence, or its sites or ranks differ from the experts'\n"
        "hint: describe the task in words, or use a generator that mixes experts: --generator cvae\n"
    )
    assert run("generate", "--images", tmp_path, "--generator", "cvae").exit_code == 0
    out = tmp_path / "rose.safetensors"
    facts = json.loads(run("generate", "a photo of a rose", "-o", out, "--explain", "--json").stdout)
    assert (facts["experts"], facts["explained"]["prior"]["used"]) == ([], False)
    assert "experts    none" in run("inspect", out).stdout.splitlines()
    mixed = json.loads(run("generate", "a photo of a rose", "--generator", "cvae", "--explain", "--json").stdout)
    assert (len(mixed["experts"]), mixed["explained"]["prior"]["used"]) == (4, True)
