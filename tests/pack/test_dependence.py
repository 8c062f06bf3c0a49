"""How much adapters depend on the sentence, against dense updates, and what is kept of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from sglora_cli.generate.session import Session
from sglora_cli.lora.algebra import inner_products
from sglora_cli.lora.layout import Layout, Site
from sglora_cli.pack.dependence import dependence, of_products, report
from sglora_cli.pack.loaded import LoadedPack
from sglora_cli.plugin.host import Host


def dense(layout: Layout, flat_P: torch.Tensor) -> np.ndarray:
    """All updates of an adapter, one behind the other."""
    parts = layout.split(flat_P.double()).values()
    return np.concatenate([(layout.scaling * b @ a).flatten().numpy() for b, a in parts])


def test_it_is_that_of_dense_updates():
    layout = Layout((Site("a", 5, 7), Site("b", 4, 6)), 2, 6.0)
    flat_TP = torch.randn(4, layout.size) + 1
    updates = [dense(layout, flat_P) for flat_P in flat_TP]
    cosines = [
        one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        for t, one in enumerate(updates)
        for other in updates[t + 1 :]
    ]
    common = np.mean(updates, axis=0)
    own = np.mean([np.sum((one - common) ** 2) for one in updates]) / np.mean([one @ one for one in updates])
    found = of_products(inner_products(layout, flat_TP))
    assert found.sentences == 4
    assert (found.cosine, found.lowest, found.own) == pytest.approx((np.mean(cosines), min(cosines), own), abs=1e-6)


def test_equal_adapters_do_not_depend_and_zero_or_one_cannot_be_said():
    equal = of_products(torch.full((3, 3), 2.0))
    assert (equal.cosine, equal.own, equal.hardly) == (pytest.approx(1.0), pytest.approx(0.0), True)
    assert of_products(torch.zeros(3, 3)) is None
    assert of_products(torch.ones(1, 1)) is None
    assert of_products(torch.full((2, 2), torch.nan)) is None


def test_it_is_measured_once_and_a_damaged_file_is_measured_again(toy_pack, own_home, monkeypatch):
    loaded = LoadedPack.open(Host.load(), "toys")
    first = dependence(loaded, "top-k")
    (path,) = (own_home / "cache/measured/dependence").iterdir()

    def refuse(texts):
        raise AssertionError("a sentence was encoded again")

    with monkeypatch.context() as patched:
        patched.setattr(type(loaded.model), "encode_text", lambda self, texts: refuse(texts))
        assert dependence(LoadedPack.open(Host.load(), "toys"), "top-k") == first
    path.write_text(path.read_text().replace(str(first.cosine)[:5], "0.123"))
    assert dependence(LoadedPack.open(Host.load(), "toys"), "top-k") == first


def test_an_adapter_that_ignores_the_sentence_is_said_to(run, toy_pack):
    result = run("generate", "a photo of a mug", "--generator", "joint", "--explain")
    assert "depends    adapters for 2 tasks' sentences have a mean cosine of 1.000" in result.stderr
    assert (
        "warning: adapters from 'joint' with pack 'toys' hardly depend on the sentence: those for 2 tasks have a mean "
        "cosine of 1.000; measure the sentence gain with `sglora bench`\n" in result.stderr
    )
    explained = json.loads(run("generate", "a photo of a mug", "--generator", "joint", "--explain", "--json").stdout)
    assert explained["explained"]["dependence"]["cosine"] == 1.0


def test_what_needs_photos_or_changes_nothing_has_none(toy_pack):
    loaded = LoadedPack.open(Host.load(), "toys")
    assert dependence(loaded, "semla") is None
    assert dependence(loaded, "zero-shot") is None
    assert Session.open("toys", generator="zero-shot").dependence is None


def test_inspect_says_it_of_the_packs_generators(run, toy_pack):
    lines = [line for line in run("inspect", "toys").stdout.splitlines() if line.startswith("depends")]
    said = json.loads(run("inspect", "toys", "--json").stdout)["dependence"]
    assert [line.split()[1].rstrip(":") for line in lines] == list(said)
    assert all(0 <= one["own"] <= 1 for one in said.values())


def test_a_generator_that_fails_does_not_hide_the_others(toy_pack, monkeypatch):
    loaded = LoadedPack.open(Host.load(), "toys")
    loaded.pack.manifest["generators"]["gone"] = {}
    found = report(loaded)
    assert isinstance(found["gone"], str)
    assert not isinstance(found["cvae"], str)
