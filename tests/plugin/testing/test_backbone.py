"""The conformance kit: built-ins and strangers pass it, and it finds what it is there to find."""

from __future__ import annotations

import pytest
import torch
from distributions import HERE, install
from small_clip import small_clip
from thirdparty.sglora_clipling import Clipling
from thirdparty.sglora_tiny import TinyModel

from sglora_cli.config import RuntimeConfig
from sglora_cli.errors import PluginError
from sglora_cli.lora.layout import Layout
from sglora_cli.testing import BACKBONE_CHECKS, adapters, check_backbone, images, layout_of, run_check


def starter():
    from sglora_starter import StarterBackbone

    return StarterBackbone().load(RuntimeConfig())


def hf():
    pytest.importorskip("transformers")
    from thirdparty.sglora_hf import HfBackbone

    return HfBackbone().load(RuntimeConfig(device="cpu"))


def openclip():
    return small_clip()


def siglip():
    return small_clip(timm=True)


MODELS = {
    "tiny": TinyModel,
    "clipling": Clipling,
    "starter": starter,
    "transformers": hf,
    "open_clip": openclip,
    "open_clip_timm": siglip,
}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return MODELS[request.param]()


@pytest.mark.parametrize("check", BACKBONE_CHECKS, ids=lambda check: check.__name__)
def test_backbones_pass(model, check):
    check(model)


class Deaf(TinyModel):
    """Ignores the updates of one site."""

    def _site(self, x, name, parts, layout):
        return super()._site(x, name, {} if name == "layers.1.k" else parts, layout)


class Unscaled(TinyModel):
    def _site(self, x, name, parts, layout):
        y = x @ self.weights[name].T
        return y + (x.flatten(1, -2) @ parts[name][1].mT @ parts[name][0].mT).view_as(y) if name in parts else y


class Merging(TinyModel):
    """Adds the first adapter into its weights, and forgets to take it out."""

    def encode_image(self, stem, layout=None, adapters_TP=None):
        if adapters_TP is not None:
            for name, (b, a) in layout.split(adapters_TP.detach()).items():
                self.weights[name] = self.weights[name] + (b @ a)[0]
        return super().encode_image(stem, layout, adapters_TP)


class FirstOnly(TinyModel):
    """Uses the first of several adapters for all."""

    def encode_image(self, stem, layout=None, adapters_TP=None):
        many = None if adapters_TP is None else adapters_TP[:1].expand_as(adapters_TP)
        return super().encode_image(stem, layout, many)


class Ageing(TinyModel):
    """Says of every fingerprint that it is an earlier one, its own among them."""

    def earlier(self, fingerprint):
        return "tiny 0"


class Long(TinyModel):
    def encode_text(self, texts):
        return 2 * super().encode_text(texts)


class Odd(Clipling):
    """Handles layouts of one kind, `broken`, in its own way."""

    broken = 0

    def encode_image(self, stem, layout=None, adapters_TP=None):
        if layout is not None and len(layout.sites) == self.broken:
            layout, adapters_TP = self.mistake(layout, adapters_TP)
        return super().encode_image(stem, layout, adapters_TP)


class Aside(Odd):
    """Forgets the projection beside other sites, whose update comes last."""

    broken = len(Clipling.sites) + 1

    def mistake(self, layout, adapters_TP):
        kept = layout.size - layout.rank * (self.projection.out_features + self.projection.in_features)
        return layout, adapters_TP * (torch.arange(layout.size) < kept)


class Halved(Odd):
    broken = 1

    def mistake(self, layout, adapters_TP):
        return Layout(layout.sites, layout.rank, layout.alpha / 2), adapters_TP


class Detached(Odd):
    broken = 1

    def mistake(self, layout, adapters_TP):
        return layout, adapters_TP.detach() + 0 * adapters_TP


class Biased(Clipling):
    def unprojected(self, stem):
        return super().unprojected(stem) + 0.1


class Transposed(Clipling):
    def projection_weight(self):
        return self.state["visual_projection.weight"].T

    def encode_image(self, stem, layout=None, adapters_TP=None):
        return torch.nn.functional.normalize(self.unprojected(stem) @ self.state["visual_projection.weight"].T, dim=-1)


@pytest.mark.parametrize(
    ("broken", "check", "message"),
    [
        (Deaf, "every_site_counts", "an update of site 'layers.1.k' changes nothing"),
        (Deaf, "gradients_reach_every_site", "no gradient reaches site 'layers.1.k'"),
        (Unscaled, "scaling_is_applied", "the update is not multiplied by alpha / rank"),
        (Merging, "nothing_stays_attached", "the model changed after an adapter was used"),
        (Ageing, "earlier_weights_are_others", "earlier must return None for the model's own fingerprint"),
        (FirstOnly, "many_adapters_are_each_alone", "adapter 1 of three gives different features than alone"),
        (Aside, "projection_goes_with_sites", "an adapter of sites and projection does not apply both updates"),
        (Halved, "projection_takes_updates", "adapter 0 of three does not add s B A to the projection"),
        (Detached, "projection_takes_updates", "no gradient reaches site 'visual_projection'"),
        (Biased, "projection_comes_last", "encode_image is not the normalised projection of unprojected"),
        (Transposed, "projection_comes_last", "projection_weight must return shape (12, 16), got (16, 12)"),
        (Long, "texts_are_unit_vectors", "encode_text must return unit vectors"),
    ],
)
def test_a_broken_backbone_is_found(broken, check, message):
    answers = {c.__name__: run_check(c, broken()) for c in BACKBONE_CHECKS}
    assert message in answers[check]


def test_a_broken_backbone_is_refused_with_all_that_is_wrong():
    check_backbone(TinyModel())
    broken = TinyModel()
    broken.scale, broken.fingerprint = 0.0, ""
    with pytest.raises(PluginError, match=r"^identity_is_complete: fingerprint must be a non-empty string$"):
        check_backbone(broken)


def test_a_model_that_raises_is_answered():
    class Crash(TinyModel):
        def stem(self, images):
            raise ZeroDivisionError("no")

    answers = [run_check(check, Crash()) for check in BACKBONE_CHECKS]
    assert "ZeroDivisionError: no" in answers


def test_the_command_line_runs_the_kit(run, site):
    install(site, "sglora-tiny", "sglora_tiny", (HERE / "thirdparty/sglora_tiny.py").read_text())
    result = run("plugins", "check", "tiny")
    assert result.exit_code == 0, result.output
    assert result.stdout == "".join(f"{'ok':<7} {check.__name__}\n" for check in BACKBONE_CHECKS)


def test_the_command_line_names_what_fails(run, site):
    source = (HERE / "thirdparty/sglora_tiny.py").read_text().replace("scale = 10.0", "scale = 0.0")
    install(site, "sglora-flat", "sglora_flat", source)
    result = run("plugins", "check", "tiny")
    assert result.exit_code == 7
    assert result.stderr == "error: backbone 'tiny': identity_is_complete: scale must be positive, got 0.0\n"


def test_a_check_that_passes_needs_an_adapter_that_matters():
    """The kit's adapters move the features of every model by far more than what it calls equal."""
    model = TinyModel()
    layout = layout_of(model)
    stem = model.stem(images())
    moved = model.encode_image(stem, layout, adapters(layout, 1))[0] - model.encode_image(stem)
    assert float(moved.abs().max()) > 1e-2
