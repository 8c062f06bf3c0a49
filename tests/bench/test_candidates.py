"""Files of adapters keep every number and where the adapters come from."""

from __future__ import annotations

from dataclasses import asdict, replace

import torch

from sglora_cli.bench.candidates import Candidate, load_candidates, save_candidates
from sglora_cli.lora.layout import Layout, Site

LAYOUT = Layout((Site("a", 3, 2), Site("b", 4, 4)), 2, 1.0)


def test_adapters_are_read_as_they_were_written(tmp_path):
    flat_SP = torch.randn(12, LAYOUT.size)
    same_P = flat_SP[0]
    other = replace(LAYOUT, alpha=3.0)
    written = [
        Candidate("x", LAYOUT, same_P),
        Candidate("x", LAYOUT, same_P, sample=1),  # shares memory with the one before
        Candidate("y", other, flat_SP[1].half(), seed=2, sentence="toys/mug"),
        Candidate("each", LAYOUT, flat_SP[2:5]),
        *(Candidate("z", LAYOUT, flat_P, sample) for sample, flat_P in enumerate(flat_SP)),  # 2 comes before 10
    ]
    path = tmp_path / "some.safetensors"
    save_candidates(path, written)
    read = load_candidates(path)
    assert len(read) == len(written)
    for one, two in zip(read, written, strict=True):
        assert asdict(replace(one, flat_P=None)) == asdict(replace(two, flat_P=None))
        assert one.flat_P.dtype == two.flat_P.dtype
        assert torch.equal(one.flat_P, two.flat_P)


def test_a_method_may_have_no_adapter(tmp_path):
    save_candidates(tmp_path / "none.safetensors", [])
    assert load_candidates(tmp_path / "none.safetensors") == []


def test_a_file_that_is_missing_or_damaged_has_no_adapters(tmp_path):
    path = tmp_path / "some.safetensors"
    assert load_candidates(path) is None
    save_candidates(path, [Candidate("x", LAYOUT, torch.randn(LAYOUT.size))])
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert load_candidates(path) is None
