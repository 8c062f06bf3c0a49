"""Two adapters compared, in all formats and against dense updates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mugs import FLAT, LAYOUT, MODEL, OUT
from random_factors import dense_update, seeded
from safetensors.torch import load_file, save_file

from sglora_cli.adapter.compare import Comparison, compare_adapters, summary
from sglora_cli.adapter.file import AdapterFile, save_adapter
from sglora_cli.adapter.formats import FORMATS
from sglora_cli.adapter.made_from import made_from
from sglora_cli.adapter.provenance import expert_weights
from sglora_cli.adapter.read import read_adapter
from sglora_cli.adapter.write import write_adapter
from sglora_cli.config import RuntimeConfig
from sglora_cli.errors import BadFile, Mismatch, SgloraWarning
from sglora_cli.lora.algebra import Similarity
from sglora_cli.lora.layout import Layout
from sglora_cli.plugin.host import Host

MADE = {"backbone": "clipling", "fingerprint": MODEL.fingerprint}
RANK_3 = Layout(MODEL.sites, 3, 1.0)
CUP = 0.2 * torch.randn(RANK_3.size, generator=seeded(1))


def compare(a: Path, b: Path, **options) -> Comparison:
    return compare_adapters(Host.load(), a, b, RuntimeConfig(), **options)


@pytest.fixture
def cup(tmp_path: Path, clipling: None) -> Path:
    """An adapter of another rank than the mug's."""
    save_adapter(tmp_path / "cup.safetensors", RANK_3, CUP, {**MADE, "description": "a cup"})
    return tmp_path / "cup.safetensors"


def written(folder: Path, name: str, metadata=None, flat=FLAT, layout=LAYOUT) -> Path:
    path = folder / f"as-{name}" / OUT[name]
    path.parent.mkdir(exist_ok=True)
    write_adapter(path, AdapterFile(layout, flat, MADE | (metadata or {})), MODEL, FORMATS[name])
    return path


def strangers(folder: Path, keep=lambda name: True, rename=lambda name: name, **config) -> Path:
    """The mug as a PEFT folder that does not say what it was made from."""
    made = written(folder, "peft")
    weights, stated = made / "adapter_model.safetensors", made / "adapter_config.json"
    save_file({rename(name): x for name, x in load_file(weights).items() if keep(name)}, weights)
    stated.write_text(json.dumps({**json.loads(stated.read_text()), **config}))
    return made


def test_updates_of_other_ranks_are_compared_as_dense_ones(mug, cup):
    compared = compare(mug, cup)
    x, y = dense_update(LAYOUT, FLAT), dense_update(RANK_3, CUP)
    assert compared.total.cosine == pytest.approx(float(x @ y / x.norm() / y.norm()), rel=1e-5)
    assert compared.total.norm_x == pytest.approx(float(x.norm()), rel=1e-5)
    assert compared.total.norm_y == pytest.approx(float(y.norm()), rel=1e-5)
    assert compared.relative == pytest.approx(float((x - y).norm() / x.norm()), rel=1e-5)
    assert list(compared.sites) == [site.name for site in LAYOUT.sites]
    for one, x_site, y_site in zip(compared.sites.values(), x.chunk(36), y.chunk(36), strict=True):
        assert one.cosine == pytest.approx(float(x_site @ y_site / x_site.norm() / y_site.norm()), rel=1e-4)
    assert compared.notes == ()


@pytest.mark.parametrize("name", FORMATS)
def test_an_adapter_in_any_format_is_the_same_update(mug, tmp_path, name):
    other = written(tmp_path, name)
    for pair in ((mug, other), (other, mug)):
        compared = compare(*pair)
        assert compared.total.cosine == pytest.approx(1.0, abs=1e-6)
        assert compared.relative < 1e-5
        assert len(compared.sites) == 36
        assert summary(compared.total).startswith("the two adapters are the same update")
        assert compared.notes == ()


def test_the_same_file_twice_has_cosine_1_and_no_difference(mug):
    compared = compare(mug, mug)
    assert {one.cosine for one in compared.sites.values()} == {1.0}
    assert (compared.total.cosine, compared.total.difference, compared.relative) == (1.0, 0.0, 0.0)
    assert compared.to_json()["differs"] == []


def test_a_stranger_is_compared_by_its_sites_and_its_backbone_is_called_unknown(mug, tmp_path):
    made = strangers(tmp_path)
    for pair in ((mug, made), (made, mug)):
        compared = compare(*pair)
        assert compared.total.cosine == 1.0
        (note,) = compared.notes
        assert f"the backbone of {made} is unknown" in note


def test_names_of_a_flat_or_wrapped_model_are_found(mug, tmp_path):
    for change in (
        lambda name: name.replace("vision_model.", ""),
        lambda name: name.replace(".vision", ".clip.vision"),
    ):
        made = strangers(tmp_path, rename=change, target_modules=["q_proj", "k_proj", "v_proj"])
        assert compare(mug, made).total.cosine == 1.0
        assert compare(made, mug).total.cosine == 1.0


def test_a_state_without_its_configuration_has_a_cosine_and_a_note_about_its_norm(mug, tmp_path):
    save_file(load_file(mug), tmp_path / "bare.safetensors")
    compared = compare(mug, tmp_path / "bare.safetensors")
    assert compared.total.cosine == 1.0
    assert compared.total.norm_x == pytest.approx(3 * compared.total.norm_y)  # the mug's lora_alpha is 3
    assert "assumes a lora_alpha of 1" in compared.notes[0]
    assert summary(compared.total) == (
        "the two updates have nearly the same direction, and the update of B is 0.333 times as large"
    )


def test_adapters_of_two_backbones_are_refused_by_their_fingerprints(mug, tmp_path):
    save_adapter(tmp_path / "x.safetensors", LAYOUT, FLAT, {"backbone": "other", "fingerprint": "other-1"})
    with pytest.raises(Mismatch) as caught:
        compare(mug, tmp_path / "x.safetensors")
    assert f"{mug} is for backbone clipling with fingerprint clipling-1" in caught.value.message
    assert f"{tmp_path / 'x.safetensors'} for other with fingerprint other-1" in caught.value.message
    assert caught.value.hint


def test_a_file_of_another_format_is_refused_by_its_fingerprint_too(mug, tmp_path):
    save_adapter(tmp_path / "x.safetensors", LAYOUT, FLAT, {"backbone": "other", "fingerprint": "other-1"})
    with pytest.raises(Mismatch, match=r"fingerprint other-1, .* for clipling with fingerprint clipling-1"):
        compare(tmp_path / "x.safetensors", written(tmp_path, "clip-lora"))


def test_bases_that_contradict_each_other_are_refused(clipling, tmp_path):
    folders = []
    for patch in (16, 32):
        (tmp_path / str(patch)).mkdir()
        base = {"base_model_name_or_path": f"openai/clip-vit-base-patch{patch}"}
        folders.append(strangers(tmp_path / str(patch), **base))
    with pytest.raises(Mismatch, match="its patch is 16, not 32"):
        compare(*folders)
    assert compare(folders[0], folders[0]).total.cosine == 1.0


def test_other_sites_are_refused_and_with_the_backbone_they_are_zero(mug, tmp_path):
    made = strangers(tmp_path, keep=lambda name: "k_proj" not in name, target_modules=["q_proj", "v_proj"])
    with pytest.raises(Mismatch) as caught:
        compare(mug, made)
    first = "vision_model.encoder.layers.0.self_attn.k_proj"
    assert caught.value.message == (
        f"the sites differ: {mug} has 36, {made} has 24, and 12 of them are only in one file, such as {first} of {mug}"
    )
    assert "--backbone" in caught.value.hint
    with pytest.raises(Mismatch, match=f"{first} of {mug}"):
        compare(made, mug)
    with pytest.warns(SgloraWarning, match="does not record which model"):
        compared = compare(mug, made, backbone="clipling")
    assert compared.sites[first].cosine is None
    assert sum(one.cosine == 1.0 for one in compared.sites.values()) == 24
    kept = torch.cat([x for n, x in enumerate(dense_update(LAYOUT, FLAT).chunk(36)) if n % 3 != 1])
    assert compared.total.cosine == pytest.approx(float(kept.norm() / dense_update(LAYOUT, FLAT).norm()), rel=1e-5)


def test_other_shapes_are_refused_with_the_first(mug, tmp_path):
    def other(site, n):
        return type(site)(site.name, 20 if n >= 30 else site.out_features, site.in_features)

    layout = Layout(tuple(other(site, n) for n, site in enumerate(LAYOUT.sites)), 2, 3.0)
    save_adapter(tmp_path / "x.safetensors", layout, torch.ones(layout.size), {})
    with pytest.raises(Mismatch) as caught:
        compare(mug, tmp_path / "x.safetensors")
    assert caught.value.message == (
        "6 of 36 sites differ in shape, such as vision_model.encoder.layers.10.self_attn.q_proj, "
        f"16 x 16 in {mug} and 20 x 16 in {tmp_path / 'x.safetensors'}"
    )


def test_a_text_tower_is_left_out_if_asked(mug, tmp_path):
    made = strangers(tmp_path)
    weights = made / "adapter_model.safetensors"
    tensors = load_file(weights)
    text = {name.replace("vision_model", "text_model"): x.clone() for name, x in tensors.items()}
    save_file(tensors | text, weights)
    config = json.loads((made / "adapter_config.json").read_text())
    names = ["q_proj", "k_proj", "v_proj"]
    (made / "adapter_config.json").write_text(json.dumps({**config, "target_modules": names}))
    assert len(compare(made, made).sites) == 72
    with pytest.raises(Mismatch, match=r"has 36, .* has 72"):
        compare(mug, made)
    with pytest.raises(Mismatch, match="outside the visual encoder"):
        compare(mug, made, backbone="clipling")
    with pytest.warns(SgloraWarning, match="does not record which model"):
        assert compare(mug, made, visual_only=True).total.cosine == 1.0


def test_updates_of_zero_have_no_cosine(mug, tmp_path):
    parts = {name: (b * ("layers.0." not in name), a) for name, (b, a) in LAYOUT.split(FLAT).items()}
    for name, flat in (("part", LAYOUT.join(parts)), ("none", torch.zeros(LAYOUT.size))):
        save_adapter(tmp_path / f"{name}.safetensors", LAYOUT, flat, MADE)
    part, none = (tmp_path / f"{name}.safetensors" for name in ("part", "none"))
    compared = compare(mug, part)
    assert [one.cosine for one in compared.sites.values()][:4] == [None, None, None, 1.0]
    assert 0.9 < compared.total.cosine < 1
    assert compare(mug, none).total.cosine is None
    assert compare(mug, none).relative == pytest.approx(1.0)
    assert compare(none, mug).relative is None
    assert summary(compare(none, mug).total) == "the update of A is zero, so that adapter changes nothing"
    assert summary(compare(none, none).total) == "both updates are zero, so neither adapter changes anything"
    assert compare(none, none, backbone="clipling").total.cosine is None


def test_an_update_too_large_for_a_norm_is_a_bad_file(mug, tmp_path):
    state = {name: x.double() * 1e160 for name, x in load_file(mug).items()}
    save_file(state, tmp_path / "large.safetensors")
    with pytest.raises(BadFile, match=r"large.safetensors: the norm of the update is not finite"):
        compare(mug, tmp_path / "large.safetensors")


def test_an_adapter_that_is_not_whole_is_refused(mug, tmp_path):
    made = strangers(tmp_path, target_modules=["q_proj", "k_proj", "v_proj", "out_proj"])
    with pytest.raises(BadFile, match="no update of 'out_proj'"):
        compare(mug, made)


def test_what_differs_is_named(mug, tmp_path):
    made = {
        **MADE,
        "pack": "p",
        "prior": {"k": 4, "tau": 0.05},
        "draw": {"seed": 0},
        "experts": [["a", 0.75], ["b", 0.25]],
    }
    other = {**made, "prior": {"k": 4, "tau": 0.1}, "draw": {"seed": 1}, "experts": [["a", 0.75], ["c", 0.25]]}
    for name, metadata in (("a", made), ("b", other)):
        save_adapter(tmp_path / f"{name}.safetensors", LAYOUT, FLAT, metadata)
    compared = compare(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert compared.to_json()["differs"] == ["tau", "seed", "expert b", "expert c"]
    assert compared.facts["K"] == (4, 4)
    assert compared.experts == {"expert a": (0.75, 0.75), "expert b": (0.25, 0.0), "expert c": (0.0, 0.25)}


def test_a_file_may_say_anything_of_itself(mug, tmp_path):
    odd = {
        "prior": [1],
        "draw": {"seed": 4, "deep": [float("nan")]},
        "experts": [["a"]],
        "seed": 3,
        "nan": float("nan"),  # which JSON does not have, so that the file has null
    }
    save_adapter(tmp_path / "odd.safetensors", LAYOUT, FLAT, MADE | odd)
    facts = made_from(read_adapter(tmp_path / "odd.safetensors"))
    assert facts["prior"] == "[1]"
    assert facts["nan"] is None
    assert (facts["seed"], facts["draw seed"], facts["deep"]) == (3, 4, "[null]")
    assert facts["experts"] == '[["a"]]'
    assert expert_weights({"experts": [["a", float("inf")]]}) == []
    json.dumps(compare(mug, tmp_path / "odd.safetensors").to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("cosine", "size", "words"),
    [
        (0.98, 1.0, "nearly the same update"),
        (0.99, 3.0, "nearly the same direction, and the update of B is 3 times as large"),
        (0.97994, 1.0, "are similar: 96%"),
        (0.5, 1.0, "partly alike: 25%"),
        (0.0, 1.0, "almost nothing in common: 0%"),
        (-0.5, 1.0, "partly oppose each other: 25%"),
        (-1.0, 1.0, "nearly opposite directions"),
    ],
)
def test_the_numbers_are_put_into_words(cosine, size, words):
    assert words in summary(Similarity(1.0, size**2, cosine * size, 1 + size**2 - 2 * cosine * size))
