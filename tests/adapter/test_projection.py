"""Adapters that update the last projection: written, read back, and refused where a format or a model has none."""

from __future__ import annotations

import json

import pytest
import torch
from mugs import save_mug
from random_factors import factors
from small_clip import small_clip
from thirdparty.sglora_clipling import EMBED, WIDTH, Clipling
from thirdparty.sglora_tiny import TinyModel

from sglora_cli.adapter.file import AdapterFile, save_adapter
from sglora_cli.adapter.formats import FORMATS
from sglora_cli.adapter.read import read_adapter
from sglora_cli.adapter.write import write_adapter
from sglora_cli.errors import BadFile, Mismatch
from sglora_cli.lora.algebra import update_error
from sglora_cli.lora.layout import Layout, Site

MODEL = Clipling()
ALONE, BOTH = (MODEL.projection,), (*MODEL.sites, MODEL.projection)
KINDS = pytest.mark.parametrize("sites", [ALONE, BOTH], ids=["alone", "both"])


def an_adapter(sites, rank: int = 2, model=MODEL, **metadata) -> AdapterFile:
    layout = Layout(tuple(sites), rank, 3.0)
    flat_P = 0.3 * torch.randn(layout.size, generator=torch.Generator().manual_seed(rank))
    return AdapterFile(layout, flat_P, {"fingerprint": model.fingerprint, "backbone": "clipling", **metadata})


@KINDS
@pytest.mark.parametrize("name", ["safetensors", "peft", "open_clip"])
def test_a_format_that_holds_the_projection_gives_it_back(tmp_path, name, sites):
    adapter = an_adapter(sites)
    path = tmp_path / f"made{FORMATS[name].suffix}"
    write_adapter(path, adapter, MODEL, FORMATS[name])
    foreign = read_adapter(path, MODEL, rank=2)
    fitted_P, _ = foreign.fitted(adapter.layout)
    assert foreign.layout().sites == adapter.layout.sites
    if name == "open_clip":
        assert update_error(adapter.layout, fitted_P, adapter.flat_P) < 1e-5
    else:
        assert torch.equal(fitted_P, adapter.flat_P)


@pytest.mark.parametrize("kind", ["alone", "both"])
def test_a_checkpoint_of_open_clip_holds_it_transposed(tmp_path, kind):
    from safetensors.torch import load_file

    model = small_clip()
    sites = (model.projection,) if kind == "alone" else (*model.sites, model.projection)
    adapter = an_adapter(sites, model=model)
    write_adapter(tmp_path / "made.safetensors", adapter, model, FORMATS["open_clip"])
    b_DR, a_RI = adapter.layout.split(adapter.flat_P)["visual_projection"]
    found_ID, own_ID = load_file(tmp_path / "made.safetensors")["visual.proj"], model.clip.visual.proj
    assert torch.allclose(found_ID, own_ID + 1.5 * (b_DR @ a_RI).T, atol=1e-5)
    again = read_adapter(tmp_path / "made.safetensors", model, rank=2)
    assert again.layout().sites == tuple(sites)
    assert update_error(adapter.layout, again.fitted(adapter.layout)[0], adapter.flat_P) < 1e-4


def test_a_checkpoint_without_an_update_of_it_is_read_as_before(tmp_path):
    model = small_clip()
    write_adapter(tmp_path / "x.safetensors", an_adapter(model.sites, model=model), model, FORMATS["open_clip"])
    assert read_adapter(tmp_path / "x.safetensors", model, rank=2).layout().sites == tuple(model.sites)


@KINDS
@pytest.mark.parametrize("name", ["peft-flat", "clip-lora"])
def test_a_format_that_cannot_hold_it_names_one_that_can(tmp_path, name, sites):
    with pytest.raises(Mismatch, match="the adapter has an update of the last projection, ") as caught:
        write_adapter(tmp_path / f"made{FORMATS[name].suffix}", an_adapter(sites), MODEL, FORMATS[name])
    assert caught.value.hint == "use --format peft"
    assert list(tmp_path.iterdir()) == []


def test_other_sets_of_sites_are_refused():
    for sites in ((MODEL.projection, *MODEL.sites), MODEL.sites[:3], (*MODEL.sites[:3], MODEL.projection)):
        with pytest.raises(Mismatch, match="the adapter's sites differ from the backbone's"):
            an_adapter(sites).check_model(MODEL)


def test_a_model_without_a_projection_refuses_an_adapter_of_one():
    model = TinyModel()
    adapter = an_adapter((*model.sites, Site("head", 8, 12)), model=model)
    with pytest.raises(Mismatch, match="the adapter's sites differ from the backbone's"):
        adapter.check_model(model)


# PEFT folders as others write them


def folder(tmp_path, targets, shapes):
    """A PEFT folder of rank 2 with updates of these modules: name -> (O, I)."""
    from safetensors.torch import save_file

    state = {}
    for seed, (name, shape) in enumerate(shapes.items()):
        b_OR, a_RI = factors(*shape, rank=2, seed=seed)
        state[f"base_model.model.{name}.lora_A.weight"] = a_RI
        state[f"base_model.model.{name}.lora_B.weight"] = b_OR
    save_file(state, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": targets}
    mapping = {"base_model_class": "CLIPModel", "parent_library": "transformers.models.clip.modeling_clip"}
    about = {"base_model_name_or_path": "clipling", "auto_mapping": mapping}
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, **about}))
    return tmp_path


QUERY = "vision_model.encoder.layers.0.self_attn.q_proj"
LAST, TEXT, MLP = "visual_projection", "text_projection", "vision_model.encoder.layers.0.mlp.fc1"
SHAPES = {QUERY: (WIDTH, WIDTH), LAST: (EMBED, WIDTH), TEXT: (EMBED, WIDTH), MLP: (24, WIDTH)}


def made(tmp_path, *names, targets=None):
    return folder(tmp_path, targets or list(names), {n: SHAPES[n] for n in names})


@pytest.mark.parametrize(
    ("names", "sites"),
    [((LAST,), ALONE), ((QUERY, LAST), BOTH), ((QUERY,), tuple(MODEL.sites))],
    ids=["alone", "both", "neither"],
)
def test_what_is_named_decides_on_the_layout(tmp_path, names, sites):
    foreign = read_adapter(made(tmp_path, *names), MODEL, backbone="clipling")
    assert foreign.layout().sites == sites
    b_OR, a_RI = factors(*SHAPES[names[0]], rank=2)
    assert torch.equal(foreign.parts[names[0]][0], b_OR.double())
    assert torch.equal(foreign.parts[names[0]][1], a_RI.double())


def test_an_update_of_the_text_projection_is_outside_the_visual_encoder(tmp_path):
    path = made(tmp_path, LAST, TEXT)
    with pytest.raises(Mismatch, match="1 update outside the visual encoder, such as text_projection"):
        read_adapter(path, MODEL, backbone="clipling")
    assert read_adapter(path, MODEL, backbone="clipling", visual_only=True).layout().sites == ALONE


@pytest.mark.parametrize("visual_only", [False, True])
def test_what_else_the_vision_tower_has_is_not_left_out(tmp_path, visual_only):
    path = made(tmp_path, LAST, MLP)
    with pytest.raises(Mismatch, match=r"mlp\.fc1 has an update but is not a site of the backbone"):
        read_adapter(path, MODEL, backbone="clipling", visual_only=visual_only)


@pytest.mark.parametrize("visual_only", [False, True])
def test_a_backbone_without_a_projection_does_not_leave_its_update_out(tmp_path, visual_only):
    class Without:
        """All that a backbone has, and no projection."""

        def __getattr__(self, name):
            if name in ("projection", "unprojected", "projection_weight"):
                raise AttributeError(name)
            return getattr(MODEL, name)

    with pytest.raises(Mismatch, match="visual_projection has an update but is not a site of the backbone"):
        read_adapter(made(tmp_path, QUERY, LAST), Without(), backbone="clipling", visual_only=visual_only)


def test_an_update_that_the_configuration_claims_is_missed(tmp_path):
    path = made(tmp_path, QUERY, targets=r".*layers\.0\.self_attn\.q_proj|visual_projection")
    with pytest.raises(BadFile, match=r"the update of visual_projection is missing, but adapter_config\.json lists it"):
        read_adapter(path, MODEL, backbone="clipling")


def test_a_flat_model_has_no_projection_to_miss(tmp_path):
    flat = QUERY.removeprefix("vision_model.")
    path = folder(tmp_path, r".*q_proj|.*projection", {flat: (WIDTH, WIDTH)})
    with pytest.raises(BadFile, match=r"the update of encoder\.layers\.1\.self_attn\.q_proj is missing"):
        read_adapter(path, MODEL, backbone="clipling")
    path = folder(tmp_path, r".*layers\.0\.self_attn\.q_proj|.*ion", {flat: (WIDTH, WIDTH)})
    assert read_adapter(path, MODEL, backbone="clipling").layout().sites == tuple(MODEL.sites)


def test_a_projection_of_another_width_is_refused(tmp_path):
    path = folder(tmp_path, [LAST], {LAST: (WIDTH, EMBED)})
    with pytest.raises(
        Mismatch, match="the update of visual_projection is 16 x 12, but the backbone's weight is 12 x 16"
    ):
        read_adapter(path, MODEL, backbone="clipling")


# Commands


@pytest.fixture
def pugs(run, clipling, tmp_path):
    """Adapter files for `clipling`: of the projection alone, of everything, and without it."""
    paths = {"plain": save_mug(tmp_path)}
    for name, sites in (("alone", ALONE), ("both", BOTH)):
        adapter = an_adapter(sites, description="a mug")
        paths[name] = tmp_path / f"{name}.safetensors"
        save_adapter(paths[name], adapter.layout, adapter.flat_P, adapter.metadata)
    return paths


@pytest.mark.parametrize("kind", ["alone", "both"])
def test_commands_take_adapters_with_a_projection(run, pugs, tmp_path, toys, kind):
    path = pugs[kind]
    assert ("1 site, " if kind == "alone" else "37 sites, ") in run("inspect", path).stdout
    for format, out in (("peft", "there"), ("open_clip", "there.safetensors")):
        result = run("export", path, "-o", tmp_path / out, "--format", format)
        assert result.exit_code == 0, result.output
        back = run("import", tmp_path / out, "-o", tmp_path / f"{format}.safetensors")
        assert back.exit_code == 0, back.output
    assert "visual_projection" in run("inspect", tmp_path / "there", "--json").stdout
    card = (tmp_path / "there/README.md").read_text()
    assert "CLIPVisionModelWithProjection.from_pretrained" in card
    for refused in ("peft-flat", "clip-lora"):
        result = run("export", path, "-o", tmp_path / f"no{FORMATS[refused].suffix}", "--format", refused)
        assert result.exit_code == 5
        assert result.stderr.endswith("hint: use --format peft\n")
    tried = run("try", path, "--images", next(p for p in toys.iterdir() if p.is_dir()))
    assert tried.exit_code == 0, tried.output


def test_bench_measures_adapters_of_every_kind_side_by_side(run, pugs, toys):
    result = run(
        "bench",
        "--adapter",
        ",".join(map(str, pugs.values())),
        "--data",
        toys / "toys",
        "--dataset",
        "folder",
        "--json",
    )
    assert result.exit_code == 0, result.output
    values = {}
    for row in json.loads(result.stdout)["rows"]:
        values.setdefault(row["method"], []).append(row["value"])
    assert set(values) == {"zero-shot", "chance", "mug", "alone", "both"}
    assert len(set(map(tuple, values.values()))) == len(values)
