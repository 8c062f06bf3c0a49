"""The whole way on toys: build, list, show, verify, generate, inspect, bench."""

from __future__ import annotations

import json


def test_a_built_pack_answers_every_command(run, toy_pack, toys, tmp_path):
    assert run("pack", "verify", toy_pack).exit_code == 0
    assert run("pack", "list").stdout == (
        "   starter  starter  36 experts  bundled\n*  toys     tiny     4 experts   built\n"
    )
    out = tmp_path / "mug.safetensors"
    result = run("generate", "a photo of a mug", "-o", out)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}\n"
    assert "pack       toys (newest built pack)" in result.stderr
    assert run("inspect", out).stdout.startswith(
        "adapter for 'a photo of a mug'\nbackbone   tiny, fingerprint tiny-1\n"
    )
    bench = run("bench", "--baselines", "all", "--json")
    assert bench.exit_code == 0, bench.output
    content = json.loads(bench.stdout)
    assert list(content["methods"]) == [
        "chance",
        "zero-shot",
        "oracle",
        "joint",
        "nearest",
        "model-soups",
        "adapter-soup",
        "top-k",
        "top-k-updates",
        "task-arithmetic",
        "ties",
        "dare-linear",
        "dare-ties",
        "knots",
        "model-stock",
        "lego",
        "semla",
        "semla-task",
        "cvae",
    ]
