"""`sglora diff`, as its user sees it."""

from __future__ import annotations

import json
import re
import sys

import pytest
import torch
from mugs import LAYOUT, MODEL
from safetensors.torch import load_file, save_file

from sglora_cli.adapter.file import load_adapter, save_adapter
from sglora_cli.cli.main import main
from sglora_cli.lora.layout import Layout, Site

SMALL = Layout((Site("q", 2, 2), Site("k", 2, 2)), 1, 1.0)
MADE = {"backbone": "toy", "fingerprint": "toy-1", "pack": "p", "generator": "cvae", "prior": {"k": 4, "tau": 0.05}}
PUG = {**MADE, "description": "a pug", "draw": {"seed": 0}, "experts": [["pets/boxer", 0.75], ["pets/birman", 0.25]]}
CAT = {**MADE, "description": "a cat", "draw": {"seed": 7}, "experts": [["pets/boxer", 0.25], ["pets/birman", 0.75]]}


def save(path, *numbers, **metadata):
    """B, then A of each site; the update of a site is B A."""
    save_adapter(path, SMALL, torch.tensor(numbers, dtype=torch.float32), metadata)
    return path


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """Updates [3 4; 0 0] and [5 0; 0 0] at q: their cosine is 3/5. At k the second is zero."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "pug.safetensors", 1, 0, 3, 4, 0, 1, 0, 12, **PUG)
    save(tmp_path / "cat.safetensors", 1, 0, 5, 0, 0, 0, 1, 1, **CAT)
    return "pug.safetensors", "cat.safetensors"


def test_two_adapters_side_by_side(run, pair):
    # In all: <X, Y> = 15, ||X|| = 13, ||Y|| = 5, ||X - Y||^2 = (-2)^2 + 4^2 + 12^2 = 164.
    result = run("diff", *pair)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "A          pug.safetensors",
        "B          cat.safetensors",
        "description         a pug   a cat",
        "seed                0       7",
        "expert pets/boxer   75.00%  25.00%",
        "expert pets/birman  25.00%  75.00%",
        "equal      backbone toy, fingerprint toy-1, pack p, generator cvae, K 4, tau 0.05, format safetensors, rank 1",
        "cosine     0.2308: the two adapters have almost nothing in common: 5% of each squared norm lies along the "
        "other update",
        "norm       13.000 of A, 5.000 of B",
        "difference 12.806, 98.5% of the norm of A",
        "q  0.6000   5.000  5.000",
        "k       -  12.000  0.000",
    ]


def test_the_same_file_twice(run, pair):
    assert run("diff", pair[0], pair[0]).stdout.splitlines()[2:] == [
        "differs    no recorded fact",
        "equal      description a pug, backbone toy, fingerprint toy-1, pack p, generator cvae, K 4, tau 0.05, seed 0, "
        "format safetensors, rank 1, expert pets/boxer 75.00%, expert pets/birman 25.00%",
        "cosine     1.0000: the two adapters are the same update",
        "norm       13.000 of A, 13.000 of B",
        "difference 0.000, 0.0% of the norm of A",
        "q  1.0000   5.000   5.000",
        "k  1.0000  12.000  12.000",
    ]


def test_two_updates_of_zero(run, pair, tmp_path):
    save(tmp_path / "zero.safetensors", *[0] * 8, **PUG)
    assert run("diff", "zero.safetensors", "zero.safetensors").stdout.splitlines()[4:] == [
        "cosine     undefined: both updates are zero, so neither adapter changes anything",
        "norm       0.000 of A, 0.000 of B",
        "difference 0.000",
        "q  -  0.000  0.000",
        "k  -  0.000  0.000",
    ]


def test_json_has_everything(run, pair):
    content = json.loads(run("diff", *pair, "--json").stdout)
    assert content["a"]["file"] == "pug.safetensors"
    assert content["b"]["made_from"]["seed"] == 7
    assert content["b"]["experts"] == {"pets/boxer": 0.25, "pets/birman": 0.75}
    assert content["differs"] == ["description", "seed", "expert pets/boxer", "expert pets/birman"]
    assert content["cosine"] == pytest.approx(15 / 65)
    assert content["relative_difference"] == pytest.approx(164**0.5 / 13)
    assert [site["cosine"] for site in content["sites"]] == [pytest.approx(0.6), None]
    assert content["notes"] == []


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_a_narrow_terminal_cuts_no_number(tmp_path, monkeypatch, capsys, columns):
    site = "vision_model.encoder.layers.0.self_attn.q_proj"
    for name, size in (("a", 1000.0), ("b", 0.001)):
        numbers = size * torch.tensor([1.0, 0, 1, 0])
        save_adapter(tmp_path / f"{name}.safetensors", Layout((Site(site, 2, 2),), 1, 1.0), numbers, {})
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    main(["diff", str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")])
    table = capsys.readouterr().out.partition("site ")[2]
    assert table.split()[:7] == ["cosine", "norm", "of", "A", "norm", "of", "B"]
    assert re.search(r"  1\.0000  1000000\.000  1\.00e-06", table)
    assert "".join(line.split(" ")[0] for line in table.splitlines()[1:]) == site


def test_an_export_is_the_same_update(run, mug, tmp_path):
    run("export", mug, "-o", tmp_path / "peft")
    run("export", mug, "-o", tmp_path / "merged.safetensors", "--format", "open_clip")
    lines = run("diff", mug, tmp_path / "peft").stdout.splitlines()
    assert lines[2] == "format     safetensors  peft"
    assert lines[4] == "cosine     1.0000: the two adapters are the same update"
    result = run("diff", tmp_path / "merged.safetensors", tmp_path / "peft")
    assert result.exit_code == 0
    assert "the same update up to rounding" in result.stdout
    assert result.stderr == ""


def test_a_strangers_merged_checkpoint_needs_a_backbone_that_fits(run, mug, tmp_path, monkeypatch):
    state = MODEL.merged(LAYOUT, load_adapter(mug).flat_P)
    save_file({name: x.contiguous() for name, x in state.items()}, tmp_path / "merged.safetensors")
    monkeypatch.setenv("SGLORA_BACKBONE", "starter")
    assert run("diff", tmp_path / "merged.safetensors", tmp_path / "merged.safetensors").exit_code == 5
    result = run("diff", mug, tmp_path / "merged.safetensors")  # the mug names its backbone
    assert (result.exit_code, result.stderr) == (0, "")
    result = run("diff", tmp_path / "merged.safetensors", tmp_path / "merged.safetensors", "--backbone", "clipling")
    assert "cosine     1.0000: the two adapters are the same update\n" in result.stdout


def test_a_stranger_has_a_note_and_its_base(run, mug, tmp_path):
    run("export", mug, "-o", tmp_path / "peft")
    weights, stated = tmp_path / "peft/adapter_model.safetensors", tmp_path / "peft/adapter_config.json"
    save_file(load_file(weights), weights)
    base = {"base_model_name_or_path": "me/clip"}
    stated.write_text(json.dumps({**json.loads(stated.read_text()), **base}))
    result = run("diff", tmp_path / "peft", mug)
    assert result.stderr == (
        f"note       the backbone of {tmp_path / 'peft'} is unknown, so sites are compared by name and shape; "
        "pass --backbone to check it\n"
    )
    assert "base         me/clip  -\n" in result.stdout


@pytest.mark.parametrize(
    ("other", "code", "message", "hint"),
    [
        ("cta.safetensors", 4, "cta.safetensors does not exist", "did you mean 'cat.safetensors'?"),
        (
            "other.safetensors",
            5,
            "pug.safetensors is for backbone toy with fingerprint toy-1, but other.safetensors for toy with "
            "fingerprint toy-2",
            "generate one of them again for the other's backbone; only adapters of one backbone can be compared",
        ),
        (
            "sites.safetensors",
            5,
            "the sites differ: pug.safetensors has 2, sites.safetensors has 1, and 1 of them are only in one "
            "file, such as k of pug.safetensors",
            "pass --backbone NAME if both are for one backbone; missing updates then count as zero",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(run, pair, tmp_path, other, code, message, hint):
    save(tmp_path / "other.safetensors", *range(8), **PUG | {"fingerprint": "toy-2"})
    save_adapter(tmp_path / "sites.safetensors", Layout(SMALL.sites[:1], 1, 1.0), torch.ones(4), PUG)
    result = run("diff", pair[0], other)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr == f"error: {message}\nhint: {hint}\n"


def test_a_name_cannot_steer_the_terminal(run, pair, tmp_path):
    save(tmp_path / "odd.safetensors", *range(8), **PUG | {"description": "a \x1b[2J mug", "\x1bkey": "\x07"})
    for order in (("pug.safetensors", "odd.safetensors"), ("odd.safetensors", "odd.safetensors")):
        result = run("diff", *order)
        assert result.exit_code == 0
        assert all(c.isprintable() or c == "\n" for c in result.output)
