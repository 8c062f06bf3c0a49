"""Which methods are measured: by name, by set of names, in the asked order."""

from __future__ import annotations

import json
import os

import pytest

from sglora_cli.bench.methods import PartKeys
from sglora_cli.pack.loaded import LoadedPack
from sglora_cli.plugin.host import Host


def test_the_papers_methods_and_more_are_asked_at_once(run, toy_pack):
    names = json.loads(run("bench", "--baselines", "paper,joint,top-k", "--dry-run", "--json").stdout)["methods"]
    assert names == ["zero-shot", "oracle", "model-soups", "adapter-soup", "top-k", "cvae", "joint"]


def test_chosen_methods_in_the_asked_order(run, toy_pack):
    out = run("bench", "--baselines", "top-k, zero-shot", "--as", "csv").stdout.splitlines()
    assert out[0] == "method,dataset,task,sample,direction,k,value,seed,sentence"
    assert {line.split(",")[0] for line in out[1:]} == {"top-k", "zero-shot", "chance"}


@pytest.mark.parametrize("name", ["cvae", "joint+cvae"])
def test_what_a_method_made_is_not_remembered_for_another_file_of_its_generator(toy_pack, name):
    def keys() -> list[str]:
        loaded = LoadedPack.open(Host.load())
        of = PartKeys(loaded)
        return [of(name, 1), of("top-k", 1), of(name, 2)]

    before = keys()
    assert len(set(before)) == 3
    assert keys() == before
    path = LoadedPack.open(Host.load()).pack.folder / "generators/cvae.safetensors"
    os.utime(path, ns=(1, 1))
    after = keys()
    assert (after[0] != before[0], after[1] == before[1]) == (True, True)
