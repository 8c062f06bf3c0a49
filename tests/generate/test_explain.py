"""`generate --explain`, and which samples are kept."""

from __future__ import annotations

import json

import pytest
import torch
from random_factors import dense_update

from sglora_cli.adapter.file import load_adapter
from sglora_cli.config import GenerateConfig
from sglora_cli.generate.explain import explanation
from sglora_cli.generate.session import Session


def test_every_figure_is_what_its_name_says(toy_pack):
    session = Session.open()
    pack, layout = session.pack, session.pack.layout
    generated = session.generate("a red mug", GenerateConfig(samples=3))
    facts = explanation(pack, generated, session.dependence)
    within, total = float(generated.prior.within_P.sum()), float(generated.prior.variance_P.sum())
    assert facts["prior"]["within"] == pytest.approx(within / total, rel=1e-5)
    assert facts["prior"]["between"] == pytest.approx(1 - within / total, rel=1e-5)
    others = session.seen_tasks.others_T
    at_most = sum(float(one) <= facts["coverage"]["closeness"] for one in others)
    assert facts["coverage"]["percentile"] == pytest.approx(100 * at_most / len(others))
    samples = [dense_update(layout, x) for x in generated.adapters_SP]
    experts = {n: dense_update(layout, x) for n, x in zip(pack.experts.names, pack.experts.means(), strict=True)}
    mean, joint = dense_update(layout, generated.prior.mean_P), dense_update(layout, pack.joint_P)
    for row, own in zip(facts["samples"], samples, strict=True):
        away = {n: float((own - x).norm() / x.norm()) for n, x in experts.items()}
        assert row["norm"] == pytest.approx(float(own.norm()), rel=1e-4)
        assert row["to_prior_mean"] == pytest.approx(float((own - mean).norm() / mean.norm()), rel=1e-3)
        assert row["to_joint"] == pytest.approx(float((own - joint).norm() / joint.norm()), rel=1e-3)
        assert row["nearest_expert"] == min(away, key=away.get)
        assert row["to_nearest_expert"] == pytest.approx(min(away.values()), rel=1e-3)
        assert row["copy_of"] is None
    norm = sum(float(x.norm()) for x in samples) / 3
    pairs = [float((samples[i] - samples[j]).norm()) / norm for i, j in ((0, 1), (0, 2), (1, 2))]
    spread = facts["diversity"]
    assert spread["mean"] == pytest.approx(sum(pairs) / 3, rel=1e-3)
    assert (spread["min"], spread["max"]) == pytest.approx((min(pairs), max(pairs)), rel=1e-3)


def test_a_copy_is_called_one(run, toy_pack):
    result = run("generate", "a photo of a ball", "--generator", "nearest", "--explain")
    assert "a copy of toys/ball\n" in result.stderr
    explained = json.loads(run("generate", "a ball", "--generator", "top-k", "--explain", "--json").stdout)["explained"]
    assert explained["samples"][0]["copy_of"] == "mu*"
    assert explained["diversity"] is None


def test_explain_prints_a_table(run, toy_pack):
    lines = run("generate", "a mug", "--samples", 2, "--explain").stderr.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("prior      K 2, tau 0.05, space embedding; "))
    assert lines[start + 1].startswith("coverage   closeness ")
    assert lines[start + 2] == "sample       norm  log density  to mu*  to joint  nearest expert"
    assert [line.split()[0] for line in lines[start + 3 : start + 6]] == ["0", "1", "diversity"]
    assert "prior      K" not in run("generate", "a mug").stderr


def test_the_best_samples_keep_the_numbers_of_their_draws(run, toy_pack, tmp_path):
    assert run("generate", "a mug", "-o", tmp_path / "all.safetensors", "--samples", 6).exit_code == 0
    report = json.loads(
        run(
            "generate", "a mug", "-o", tmp_path / "b.safetensors", "--samples", 6, "--best", 2, "--explain", "--json"
        ).stdout
    )
    rows = report["explained"]["samples"]
    assert rows[0]["log_density"] >= rows[1]["log_density"]
    for s, row in enumerate(rows):
        kept, drawn = load_adapter(tmp_path / f"b-{s}.safetensors"), tmp_path / f"all-{row['sample']}.safetensors"
        assert kept.metadata["sample"] == row["sample"]
        assert torch.equal(kept.flat_P, load_adapter(drawn).flat_P)


def test_a_joint_adapter_of_another_size_is_a_bad_file(run, toy_pack, own_home):
    from sglora_cli.files.tensors import load_tensors, save_tensors

    path = own_home / "cache/packs/toys/joint.safetensors"
    tensors, metadata = load_tensors(path)
    save_tensors(path, {"joint": tensors["joint"][:-1].clone()}, metadata)
    result = run("generate", "a photo of a mug", "--explain")
    assert result.exit_code == 4
    assert f"{path} has the shape (" in result.stderr
