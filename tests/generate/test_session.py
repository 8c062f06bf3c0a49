"""Generation: what is said, what is written, and that it depends on what it should."""

from __future__ import annotations

import json

import pytest
import torch

from sglora_cli.adapter.file import load_adapter


def generated(run, tmp_path, *arguments: object):
    result = run("generate", *arguments)
    assert result.exit_code == 0, result.output
    return result


def test_same_seed_same_bytes_other_seed_other_adapter(run, toy_pack, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        generated(run, tmp_path, "a photo of a mug", "-o", tmp_path / f"{name}.safetensors", "--seed", seed)
    first, again, other = ((tmp_path / f"{name}.safetensors").read_bytes() for name in "abc")
    assert first == again
    assert first != other


def test_without_o_the_adapter_goes_to_the_cache(run, toy_pack, tmp_path, own_home):
    path = generated(run, tmp_path, "a", "mug").stdout.strip()
    assert path.startswith(str(own_home / "cache/adapters/"))
    assert load_adapter(__import__("pathlib").Path(path)).metadata["description"] == "a mug"


def test_samples_are_numbered_and_differ(run, toy_pack, tmp_path):
    result = generated(run, tmp_path, "a mug", "-o", tmp_path / "m.safetensors", "--samples", 2, "--json")
    files = json.loads(result.stdout)["files"]
    assert files == [str(tmp_path / "m-0.safetensors"), str(tmp_path / "m-1.safetensors")]
    one, two = (load_adapter(tmp_path / f"m-{i}.safetensors").flat_P for i in (0, 1))
    assert not torch.equal(one, two)


def test_temperature_zero_takes_the_mean(run, toy_pack, tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        generated(run, tmp_path, "a mug", "-o", tmp_path / f"{name}.safetensors", "--seed", seed, "--temperature", 0)
    assert torch.equal(*(load_adapter(tmp_path / f"{n}.safetensors").flat_P for n in "ab"))


def test_top_k_writes_the_weighted_mean_of_the_experts_it_names(run, toy_pack, tmp_path, own_home):
    from sglora_cli.pack.pack import Pack

    facts = json.loads(
        generated(run, tmp_path, "a mug", "-o", tmp_path / "m.safetensors", "--generator", "top-k", "--json").stdout
    )
    pack = Pack(own_home / "cache/packs/toys")
    expected = sum(e["weight"] * pack.experts.means([pack.experts.names.index(e["task"])])[0] for e in facts["experts"])
    assert torch.allclose(load_adapter(tmp_path / "m.safetensors").flat_P, expected, atol=1e-4)
    assert sum(e["weight"] for e in facts["experts"]) == pytest.approx(1, abs=1e-5)


def test_experts_are_compared_by_meaning_where_that_is_asked_for(run, toy_pack, tmp_path):
    from sglora_cli.pack.loaded import LoadedPack
    from sglora_cli.plugin.host import Host

    pack = LoadedPack.open(Host.load(), "toys").pack
    asked = ["generate", "a mug", "-o", tmp_path / "m.safetensors", "--force", "--json"]
    plain, by_meaning = (json.loads(run(*asked, *more).stdout) for more in ([], ["--space", "meaning"]))
    assert plain["experts"] == by_meaning["experts"]  # the toys' backbone has no other encoder
    assert by_meaning["about"]["prior"]["space"] == "meaning"
    centred = {one["task"]: one for one in json.loads(run(*asked, "--space", "centred").stdout)["experts"]}
    (own,) = LoadedPack.open(Host.load(), "toys").model.encode_text(["a mug"]).double()
    mean = pack.index_ED.double().mean(dim=0)
    for name, expert in centred.items():
        other = pack.index_ED[pack.experts.names.index(name)].double() - mean
        cosine = float(other @ (own - mean) / (other.norm() * (own - mean).norm()))
        assert expert["similarity"] == pytest.approx(cosine, abs=1e-5)


def test_an_adapter_that_changes_nothing_is_warned_about(run, toy_pack, tmp_path):
    result = generated(run, tmp_path, "a mug", "-o", tmp_path / "m.safetensors", "--generator", "zero-shot")
    assert "warning: generator 'zero-shot' produced a zero update, so the adapter has no effect\n" in result.stderr


def test_a_pack_of_another_backbone_is_refused(run, toy_pack, own_home):
    manifest = own_home / "cache/packs/toys/pack.json"
    manifest.write_text(manifest.read_text().replace('"tiny-1"', '"tiny-2"'))
    result = run("generate", "a mug")
    assert result.exit_code == 5
    assert result.stderr.startswith(
        "error: pack 'toys' was built for backbone 'tiny' with fingerprint tiny-2, this one has tiny-1"
    )


def test_a_far_sentence_is_warned_about(toy_pack):
    from sglora_cli.generate.session import Session
    from sglora_cli.pack.coverage import Coverage

    session = Session.open()
    adapters = torch.ones(1, session.pack.layout.size)
    others = torch.linspace(0.5, 0.9, 41)  # 19 of 20 are above 0.52
    assert not any("far from" in warning for warning in session._warnings(Coverage(0.53, others), adapters))
    assert session._warnings(Coverage(0.51, others), adapters)[0].startswith(
        "the sentence is far from the tasks the pack has seen: closeness 0.51, while 19 of 20 of these tasks reach 0.52"
    )


def test_a_backbone_can_be_named_instead_of_a_pack(run, toy_pack, tmp_path):
    result = generated(run, tmp_path, "a photo of a pug", "-o", tmp_path / "p.safetensors", "--backbone", "starter")
    assert result.stderr.startswith("pack       starter (the pack of starter)\n")
    result = generated(run, tmp_path, "a mug", "-o", tmp_path / "m.safetensors", "--backbone", "tiny")
    assert result.stderr.startswith("pack       toys (the pack of tiny)\n")
