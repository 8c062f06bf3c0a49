"""Which methods are measured: by name, by set of names, in the asked order."""

from __future__ import annotations

import json


def test_the_papers_methods_and_more_are_asked_at_once(run, toy_pack):
    names = json.loads(run("bench", "--baselines", "paper,joint,top-k", "--dry-run", "--json").stdout)["methods"]
    assert names == ["zero-shot", "oracle", "model-soups", "adapter-soup", "top-k", "cvae", "joint"]


def test_chosen_methods_in_the_asked_order(run, toy_pack):
    out = run("bench", "--baselines", "top-k, zero-shot", "--as", "csv").stdout.splitlines()
    assert out[0] == "method,dataset,task,sample,direction,k,value,seed,sentence"
    assert {line.split(",")[0] for line in out[1:]} == {"top-k", "zero-shot", "chance"}
