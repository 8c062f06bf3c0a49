"""Every format written, read back, and compared with what was meant."""

from __future__ import annotations

import json
import math

import pytest
import torch
from thirdparty.sglora_clipling import Clipling

from sglora_cli.adapter.file import AdapterFile, load_adapter
from sglora_cli.adapter.formats import FORMATS, format_of
from sglora_cli.adapter.read import read_adapter, recognise
from sglora_cli.adapter.write import write_adapter
from sglora_cli.errors import Mismatch, UnknownName, UsageError
from sglora_cli.lora.algebra import update_error
from sglora_cli.lora.layout import Layout

MODEL = Clipling()


def an_adapter(rank: int = 2, alpha: float = 3.0, seed: int = 0, **metadata) -> AdapterFile:
    layout = Layout(MODEL.sites, rank, alpha)
    flat = 0.3 * torch.randn(layout.size, generator=torch.Generator().manual_seed(seed))
    return AdapterFile(layout, flat, {"fingerprint": MODEL.fingerprint, "backbone": "clipling", **metadata})


def written(tmp_path, name: str, adapter: AdapterFile):
    path = tmp_path / f"made{FORMATS[name].suffix}"
    write_adapter(path, adapter, MODEL, FORMATS[name])
    return path


@pytest.mark.parametrize("rank", [1, 2, 5])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_adapter_back(tmp_path, name, rank):
    adapter = an_adapter(rank, description="a mug")
    path = written(tmp_path, name, adapter)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    foreign = read_adapter(path, MODEL, rank=rank)
    fitted_P, lost = foreign.fitted(adapter.layout)
    assert update_error(adapter.layout, fitted_P, adapter.flat_P) <= FORMATS[name].tolerance
    assert lost == 0 or (name == "open_clip" and lost < 1e-5)
    if name in ("safetensors", "peft", "peft-flat"):
        assert torch.equal(fitted_P, adapter.flat_P)
        assert foreign.layout() == adapter.layout
    if name != "clip-lora":
        assert foreign.metadata["description"] == "a mug"


@pytest.mark.parametrize("name", FORMATS)
def test_equal_adapters_are_equal_bytes(tmp_path, name):
    contents = []
    for folder in ("one", "two"):
        path = written(tmp_path / folder, name, an_adapter())
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        contents.append([(file.name, file.read_bytes()) for file in files])
    assert contents[0] == contents[1]


def test_formats_are_recognised_by_content(tmp_path):
    expected = {"peft-flat": "peft"}
    for name in FORMATS:
        assert recognise(written(tmp_path / name, name, an_adapter())).kind == expected.get(name, name)
    assert recognise(tmp_path / "peft/made/adapter_model.safetensors").kind == "safetensors"


def test_the_ending_means_a_format(tmp_path):
    for ending, name in ((".safetensors", "safetensors"), (".pt", "clip-lora"), ("", "peft")):
        assert format_of(tmp_path / f"x{ending}").name == name
    with pytest.raises(UsageError, match=r"the suffix of format 'clip-lora' must be \.pt, got x\.safetensors"):
        format_of(type(tmp_path)("x.safetensors"), "clip-lora")
    with pytest.raises(UnknownName, match="no format named 'pefd'"):
        format_of(tmp_path / "x", "pefd")


def test_the_names_are_those_of_the_vision_tower_only(tmp_path):
    import re

    for name, prefix in (("peft", "vision_model."), ("peft-flat", "")):
        config = json.loads((written(tmp_path / name, name, an_adapter()) / "adapter_config.json").read_text())
        module = prefix + "encoder.layers.11.self_attn.v_proj"
        assert re.fullmatch(config["target_modules"], module)
        for other in ("text_model." + module, module.replace("11", "12"), module.replace("v_proj", "out_proj")):
            assert not re.fullmatch(config["target_modules"], other)
        assert (config["r"], config["lora_alpha"], config["peft_type"]) == (2, 3, "LORA")


def test_clip_lora_writes_the_metadata_its_loader_wants(tmp_path):
    adapter = an_adapter(2, 3.0)
    content = torch.load(written(tmp_path, "clip-lora", adapter), weights_only=True)
    assert content["metadata"] == {
        "r": 2,
        "alpha": 1,
        "encoder": "vision",
        "params": ["q", "k", "v"],
        "position": "all",
        "backbone": "clipling",  # its loader asks for the keys above alone
        "fingerprint": MODEL.fingerprint,
    }
    assert list(content["weights"]) == [f"layer_{i}" for i in range(12)]
    for i, layer in enumerate(content["weights"].values()):
        for name, factors in layer.items():
            b, a = adapter.layout.split(adapter.flat_P)[f"vision_model.encoder.layers.{i}.self_attn.{name}"]
            theirs = 1 / math.sqrt(2) * factors["w_lora_B"] @ factors["w_lora_A"]
            assert torch.allclose(theirs, 1.5 * b @ a, atol=1e-6)


def test_a_merged_checkpoint_is_the_sum(tmp_path):
    from safetensors.torch import load_file

    adapter = an_adapter()
    state = load_file(written(tmp_path, "open_clip", adapter))
    assert set(state) == set(MODEL.state)
    name = MODEL.sites[7].name
    b, a = adapter.layout.split(adapter.flat_P)[name]
    assert torch.allclose(state[f"{name}.weight"], MODEL.state[f"{name}.weight"] + 1.5 * b @ a)


def test_the_rank_of_a_merged_checkpoint_is_found(tmp_path):
    path = written(tmp_path, "open_clip", an_adapter(3))
    assert read_adapter(path, MODEL).rank == 4
    with pytest.raises(Mismatch, match="differs from the backbone by more than an update of rank 2"):
        read_adapter(path, MODEL, rank=2)


@pytest.mark.parametrize("name", FORMATS)
def test_an_adapter_without_effect_is_written_nowhere(tmp_path, name):
    adapter = an_adapter()
    zero = AdapterFile(adapter.layout, adapter.layout.initial(0), adapter.metadata)
    with pytest.raises(Mismatch, match="update is zero, so it would change nothing"):
        write_adapter(tmp_path / "x", zero, MODEL, FORMATS[name])
    assert list(tmp_path.iterdir()) == []


def test_an_effect_on_no_feature_is_refused(tmp_path):
    class Blind(Clipling):
        def encode_image(self, stem, layout=None, adapters_TP=None):
            plain = super().encode_image(stem)
            return plain if adapters_TP is None else plain[None]

    with pytest.raises(Mismatch, match="has no effect on the features of probe images"):
        write_adapter(tmp_path / "x", an_adapter(), Blind(), FORMATS["peft"])
    assert list(tmp_path.iterdir()) == []


def test_a_backbone_that_merges_wrongly_is_caught(tmp_path):
    class Doubling(Clipling):
        def merged(self, layout, flat_P):
            return super().merged(layout, 2 * flat_P)

    path = tmp_path / "x.safetensors"
    path.write_text("old")
    with pytest.raises(Mismatch, match="the update differs by 3"):
        write_adapter(path, an_adapter(), Doubling(), FORMATS["open_clip"])
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_backbone_without_a_checkpoint_says_so(tmp_path):
    class Bare(Clipling):
        merged = unmerged = None

    with pytest.raises(Mismatch, match="no checkpoint to merge into"):
        write_adapter(tmp_path / "x.safetensors", an_adapter(), Bare(), FORMATS["open_clip"])


def test_a_folder_is_replaced_whole(tmp_path):
    path = written(tmp_path, "peft", an_adapter(seed=1))
    written(tmp_path, "peft", an_adapter(seed=2))
    fitted_P, _ = read_adapter(path, MODEL).fitted(an_adapter().layout)
    assert torch.equal(fitted_P, an_adapter(seed=2).flat_P)
    assert sorted(p.name for p in path.iterdir()) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert [p.name for p in tmp_path.iterdir()] == ["made"]


def test_the_native_file_in_a_folder_is_an_adapter_of_its_own(tmp_path):
    adapter = an_adapter()
    loaded = load_adapter(written(tmp_path, "peft", adapter) / "adapter_model.safetensors")
    assert torch.equal(loaded.flat_P, adapter.flat_P)
    assert loaded.layout == adapter.layout
