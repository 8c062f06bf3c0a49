"""sglora in Python: ten lines, in a notebook too; attached to models of others; objects that print short."""

from __future__ import annotations

import inspect
import json
import shutil

import pytest
import torch
from html_page import Page
from recalls import recalls
from small_clip import small_clip
from torch.utils._python_dispatch import TorchDispatchMode

import sglora_cli.api
from sglora_cli.api import GenerateConfig, Pack, Session, attached, queries, read_adapter, read_image
from sglora_cli.errors import Mismatch, UnknownName
from sglora_cli.lora.layout import Layout, Site
from sglora_cli.lora.projection import split_projection
from sglora_cli.plugin.sites import site_choices
from sglora_cli.testing import adapters, images
from sglora_datasets.folder import Folder

CELLS = [
    "from sglora_cli.api import Session\nsession = Session.open('starter', generator='top-k')",
    "generated = session.generate('a photo of a pug')\nprint(generated)",
    "generated.save('pug.safetensors')",
    "print(session.evaluate(generated, 'toilet')['adapter'].keys())",
    "stem = session.model.stem(photos)",
    "with generated.attached(session.model) as adapted:\n    image_ND = adapted.encode_image(stem)",
    "print(image_ND @ adapted.encode_text(['a photo of a pug']).T)",
]


def test_ten_lines_in_the_cells_of_a_notebook(tmp_path, monkeypatch, capfd):
    """Cells share names, as in a notebook; nothing but what is printed appears, neither bars nor warnings."""
    monkeypatch.chdir(tmp_path)
    names = {"photos": images(2)}
    for cell in CELLS:
        exec(compile(cell, "cell", "exec"), names)
    out, err = capfd.readouterr()
    assert err == ""
    first, second, *_ = out.splitlines()
    assert first.startswith("Generated('a photo of a pug': 1 adapter of 9216 parameters; ")
    assert second == "dict_keys(['I2T R@1', 'I2T R@5', 'I2T R@10', 'T2I R@1', 'T2I R@5', 'T2I R@10'])"
    assert (tmp_path / "pug.safetensors").is_file()
    assert sum(cell.count("\n") + 1 for cell in CELLS) <= 10


@pytest.fixture(scope="module")
def session():
    return Session.open("starter", generator="top-k")


def test_evaluate_is_what_bench_measures(session, run, tmp_path):
    generated = session.generate("a photo of a mug")
    generated.save(tmp_path / "x.safetensors")
    values = session.evaluate(generated, "toilet")
    assert session.evaluate(generated, "coco/toilet") == values
    arguments = ("--adapter", tmp_path / "x.safetensors", "--tasks", "toilet", "--resamples", 100)
    averages = json.loads(run("bench", *arguments, "--json").stdout)["averages"]
    assert (values["zero-shot"], values["adapter"]) == (averages["zero-shot"], averages["x"])
    with pytest.raises(UnknownName, match="no unseen task in pack 'starter' named 'Fisch Crow'"):
        session.evaluate(generated, "Fisch Crow")


def test_evaluate_takes_tasks_of_a_data_set(session, toys):
    generated = session.generate("a photo of a mug")
    mug = next(task for task in Folder().tasks(toys / "toys") if task.name == "mug")
    photos = mug.photos["test"]
    stem_N = session.model.stem([read_image(photo.path) for photo in photos]).half()
    text_CD = session.model.encode_text([caption for photo in photos for caption in photo.captions])
    owner = [n for n, photo in enumerate(photos) for _ in photo.captions]
    with torch.no_grad(), generated.attached(session.model) as adapted:
        image_ND = adapted.encode_image(stem_N)
    wanted = recalls(image_ND, text_CD, owner)
    assert session.evaluate(generated, mug)["adapter"] == pytest.approx(
        {f"{d} R@{k}": v for (d, k), v in wanted.items()}
    )


def test_an_adapter_is_attached_to_the_backbone_and_taken_off(session):
    generated = session.generate("a photo of a mug")
    stem = session.model.stem(images())
    before_ND = session.model.encode_image(stem)
    with generated.attached(session.model) as adapted:
        assert torch.equal(
            adapted.encode_image(stem), session.model.encode_image(stem, generated.layout, generated.adapters_SP)[0]
        )
        assert adapted.fingerprint == session.model.fingerprint
    assert torch.equal(session.model.encode_image(stem), before_ND)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("kind", [0, 1, 2], ids=["attention", "projection", "both"])
def test_an_adapter_is_attached_to_a_clip_of_open_clip(whole, kind):
    ours = small_clip()
    layout = Layout(site_choices(ours)[kind], 2, 4.0)
    flat_P, pixels = adapters(layout, 1)[0], torch.randn(2, 3, 32, 32)
    visual = ours.clip.visual
    with torch.no_grad():
        wanted_ND = ours.encode_image(ours.tower.tokens(pixels), layout, flat_P[None])[0]
        before_ND = visual(pixels)
        with attached(ours.clip if whole else visual, layout, flat_P):
            found_ND = torch.nn.functional.normalize(visual(pixels), dim=-1)
            with attached(visual, layout, -flat_P):
                visual(pixels)
            assert torch.equal(torch.nn.functional.normalize(visual(pixels), dim=-1), found_ND)  # after an inner block
        assert torch.allclose(found_ND, wanted_ND, atol=1e-5)
        assert torch.equal(visual(pixels), before_ND)
        assert isinstance(visual.proj, torch.nn.Parameter)


def test_the_gradient_of_an_attached_projection_reaches_the_adapter():
    ours = small_clip()
    layout = Layout((ours.projection,), 2, 4.0)
    flat_P = adapters(layout, 1)[0].requires_grad_()
    with attached(ours.clip, layout, flat_P):
        ours.clip.visual(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert float(flat_P.grad.abs().min()) > 0


def test_a_clip_without_a_projection_takes_no_adapter_of_one():
    ours = small_clip(timm=True)
    layout = Layout((Site("visual_projection", 192, 192),), 2, 4.0)
    with pytest.raises(Mismatch, match=r"the adapter has 1 sites, .* and no projection after them"):
        attached(ours.clip, layout, torch.zeros(layout.size)).__enter__()


@pytest.mark.parametrize("kind", ["attention", "projection", "both"])
def test_an_adapter_is_attached_to_a_clip_of_transformers(kind):
    pytest.importorskip("transformers")
    from thirdparty.sglora_hf import HfModel

    ours = HfModel(torch.device("cpu"))
    last, pixels = Site("visual_projection", 16, 32), torch.randn(2, 3, 32, 32)
    layout = Layout({"attention": ours.sites, "projection": (last,), "both": (*ours.sites, last)}[kind], 2, 4.0)
    flat_P = adapters(layout, 1)[0]
    elsewhere = Layout(
        tuple(type(s)(f"x{n}", s.out_features, s.in_features) for n, s in enumerate(layout.sites)), 2, 4.0
    )
    with torch.no_grad(), attached(ours.clip, elsewhere, flat_P) as clip:
        found_ND = ours._encode(pixels)
        assert clip is ours.clip
    attention, update = split_projection(layout, flat_P[None], last)
    if update:
        with torch.no_grad():
            ours.clip.visual_projection.weight += (update[0] @ update[1])[0].mT
    wanted_ND = ours.encode_image(pixels, *attention)[0] if attention else ours.encode_image(pixels)
    assert torch.allclose(found_ND, wanted_ND, atol=1e-5)


def test_a_model_of_another_kind_is_refused(session):
    generated = session.generate("a photo of a mug")
    clip = small_clip().clip
    with pytest.raises(
        Mismatch, match=r"the adapter has 12 sites, the first .* VisionTransformer has 12, the first \(32, 32\)"
    ):
        generated.attached(clip).__enter__()


def test_objects_say_what_they_are_in_a_line(session, tmp_path):
    generated = session.generate("a photo of a mug")
    task = next(session.pack.unseen())
    (path,) = generated.save(tmp_path / "mug.safetensors")
    for thing in (
        session,
        session.pack,
        generated,
        generated.prior,
        generated.layout,
        generated.coverage,
        task,
        task.tensors,
        generated.adapter(),
        read_adapter(path),
        queries(session.model, ["a mug"])[0],
        session.pack.gauge,
    ):
        text = repr(thing)
        assert "tensor(" not in text
        assert len(text) < 300
        assert "\n" not in text


def test_a_line_and_a_table_say_what_was_generated(session):
    draws = session.generate("a photo of a pug", GenerateConfig(samples=2, seed=7))
    names = [session.pack.experts.names[row] for row in draws.prior.rows]
    weights = [f"{float(weight):.3f}" for weight in draws.prior.alpha_K]
    first = ", ".join(f"{name} {weight}" for name, weight in zip(names[:3], weights[:3], strict=True))
    assert repr(draws) == (
        "Generated('a photo of a pug': 2 adapters of 9216 parameters; backbone 'starter', generator 'top-k'; "
        f"{first} and 1 more)"
    )
    page = Page(draws._repr_html_())
    texts = [text.strip() for text in page.texts if text.strip()]
    assert texts[0] == "adapter for 'a photo of a pug'"
    facts = dict(zip(texts[1::2], texts[2::2], strict=False))
    assert (facts["generator"], facts["seed"], facts["adapters"]) == ("top-k", "7", "2")
    assert texts[-8::2] == names
    shares = [float(value) for name, value in page.attributes if name == "value"]
    assert shares == pytest.approx(draws.prior.alpha_K.tolist(), abs=5e-4)


class NoWork(TorchDispatchMode):
    """Inside the block, every computation of torch is an error."""

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        raise AssertionError(f"{function} was called")


def test_nothing_is_computed_read_or_loaded_to_show_an_object(session, tmp_path):
    folder = shutil.copytree(session.pack.folder, tmp_path / "pack")
    new, generated = Session.open(str(folder)), session.generate("a photo of a mug")
    (path,) = generated.save(tmp_path / "mug.safetensors")
    things = [new, new.pack, Pack(folder), generated, generated.adapter(), read_adapter(path)]
    shutil.rmtree(folder)
    path.unlink()
    with NoWork():
        for thing in things:
            assert "\n" not in repr(thing)
            Page(thing._repr_html_())
    assert repr(new).endswith("backbone 'starter' not loaded yet)")
    assert "starter, not loaded yet" in new._repr_html_()
    assert repr(session).endswith("backbone 'starter' loaded)")


def test_every_public_name_is_explained():
    for name in sglora_cli.api.__all__:
        value = getattr(sglora_cli.api, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            doc = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
            assert doc, name
            assert not doc.startswith(f"{name}("), f"{name} has only what dataclass wrote"
