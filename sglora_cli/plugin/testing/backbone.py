"""Conformance checks of backbones.

Shapes: N images, T adapters, C texts, D embedding, I inputs of the projection, P parameters of an adapter.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from sglora_cli.lora.algebra import joined
from sglora_cli.lora.layout import Layout
from sglora_cli.plugin.contracts import HasProjection, KnowsEarlier, Model, PreparesPhotos
from sglora_cli.plugin.testing.toys import ask, images, run_all

TEXTS = ("a photo of a pug", "a photo of a tiger lily", "a traffic light at night")
CLOSE = 2e-5
"""Largest difference in fp32 between components of unit vectors that should be equal."""


def layout_of(model: Model) -> Layout:
    return Layout(tuple(model.sites), 2, 4.0)


def adapters(layout: Layout, count: int) -> Tensor:
    """Return (T, P) adapters that change the features well beyond rounding, about as large as trained ones."""
    return torch.randn(count, layout.size, generator=_seeded()) * 0.1


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def identity_is_complete(model: Model) -> None:
    """The model has a fingerprint, device, positive scales, hub name, and sites with unique names and valid sizes."""
    ask(isinstance(model.fingerprint, str) and model.fingerprint != "", "fingerprint must be a non-empty string")
    ask(isinstance(model.device, torch.device), f"device must be a torch.device, got {model.device!r}")
    ask(model.scale > 0, f"scale must be positive, got {model.scale}", "it is exp(logit_scale) in CLIP")
    ask(model.loss_scale > 0, f"loss_scale must be positive, got {model.loss_scale}", "1.0 in fp32 and bf16")
    ask(isinstance(model.hub_name, str), f"hub_name must be a string, got {model.hub_name!r}", 'set hub_name = ""')
    names = [site.name for site in model.sites]
    ask(len(names) > 0, "the model has no sites", "AttentionSites finds q, k and v in a torch module")
    ask(len(set(names)) == len(names), f"two sites are called {_twice(names)!r}")
    ask(all(min(s.out_features, s.in_features) > 0 for s in model.sites), "a site has no features")


def texts_are_unit_vectors(model: Model) -> None:
    """encode_text returns float32 unit vectors on the CPU that do not depend on the other texts of a call."""
    together_CD = model.encode_text(TEXTS)
    _unit(together_CD, (len(TEXTS),), "encode_text")
    ask(together_CD.device.type == "cpu", f"encode_text must return its result on the CPU, got {together_CD.device}")
    alone_CD = torch.cat([model.encode_text([text]) for text in TEXTS])
    _equal(together_CD, alone_CD, "a text's vector depends on the other texts")
    ask(not torch.allclose(together_CD[0], together_CD[1], atol=1e-4), "different texts have the same vector")


def images_are_unit_vectors(model: Model) -> None:
    """encode_image returns float32 unit vectors of encode_text's width, also from a stem cached as float16."""
    stem_N = model.stem(images())
    ask(len(stem_N) == 3 and stem_N.device.type == "cpu", "stem must return one entry per image, on the CPU")
    image_ND = model.encode_image(stem_N)
    _unit(image_ND, (3,), "encode_image")
    width = model.encode_text(TEXTS[:1]).shape[1]
    ask(image_ND.shape[1] == width, f"image vectors have width {image_ND.shape[1]}, text vectors {width}")
    kept_ND = model.encode_image(stem_N.half())
    _equal(image_ND, kept_ND, "a stem cached as float16 gives different features", within=2e-2)
    alone_ND = torch.cat([model.encode_image(model.stem([image])) for image in images()])
    _equal(image_ND, alone_ND, "an image's vector depends on the other images")


def photos_are_prepared_one_by_one(model: Model) -> None:
    """stem_of returns for prepared photos what stem returns for the photos, even if prepared in threads."""
    if not isinstance(model, PreparesPhotos):
        return
    with ThreadPoolExecutor(3) as pool:
        ready = list(pool.map(model.prepare, images()))
    ask(all(isinstance(one, Tensor) and one.device.type == "cpu" for one in ready), "prepare must return CPU tensors")
    _equal(model.stem(images()), model.stem_of(ready), "stem_of differs from stem", within=1e-6)


def zero_adapter_changes_nothing(model: Model) -> None:
    """An adapter with B = 0 gives the same features as no adapter."""
    layout, stem_N = layout_of(model), model.stem(images())
    with torch.no_grad():
        adapted_TND = model.encode_image(stem_N, layout, layout.initial(0)[None])
    _equal(model.encode_image(stem_N)[None], adapted_TND, "an adapter with B = 0 changes the features")


def every_site_counts(model: Model) -> None:
    """An update of any single site changes the features."""
    layout, stem_N = layout_of(model), model.stem(images(1))
    plain_ND = model.encode_image(stem_N)
    with torch.no_grad():
        full_P = adapters(layout, 1)[0]
        for site in layout.sites:
            parts = {
                name: (b * (name == site.name), a) for name, (b, a) in layout.split(full_P).items()
            }  # B is zero elsewhere
            adapted_ND = model.encode_image(stem_N, layout, layout.join(parts)[None])[0]
            moved = float((adapted_ND - plain_ND).abs().max())
            ask(
                moved > 1e-7,
                f"an update of site {site.name!r} changes nothing",
                "apply it to the weight that the site names",
            )


def scaling_is_applied(model: Model) -> None:
    """Doubling alpha has the same effect as doubling B: h = W x + (alpha / rank) B A x."""
    layout, stem_N = layout_of(model), model.stem(images(2))
    flat_P = adapters(layout, 1)[0]
    doubled_P = torch.where(layout.b_mask(), 2 * flat_P, flat_P)
    louder = Layout(layout.sites, layout.rank, 2 * layout.alpha)
    with torch.no_grad():
        one, other = (
            model.encode_image(stem_N, lay, flat[None]) for lay, flat in ((layout, doubled_P), (louder, flat_P))
        )
    _equal(one, other, "the update is not multiplied by alpha / rank", within=1e-4)


def many_adapters_are_each_alone(model: Model) -> None:
    """T adapters at once give the same features as each alone, on shared images and with images of their own."""
    layout, flat_TP = layout_of(model), adapters(layout_of(model), 3)
    stem_N = model.stem(images(2))
    other_N = model.stem(images(3)[1:])
    own_TN = torch.stack([stem_N, other_N, stem_N])
    with torch.no_grad():
        shared_TND = model.encode_image(stem_N, layout, flat_TP)
        own_TND = model.encode_image(own_TN, layout, flat_TP)
        _unit(shared_TND, (3, 2), "encode_image with adapters")
        for t in range(3):
            alone = model.encode_image(stem_N, layout, flat_TP[t : t + 1])[0]
            _equal(shared_TND[t], alone, f"adapter {t} of three gives different features than alone", within=1e-4)
            alone = model.encode_image(own_TN[t], layout, flat_TP[t : t + 1])[0]
            _equal(own_TND[t], alone, f"adapter {t} of three gives different features on its own images", within=1e-4)


def gradients_reach_every_site(model: Model) -> None:
    """encode_image is differentiable with respect to the adapters, at A and B of every site. Each adapter's features
    depend on that adapter only."""
    _gradients_arrive(model, layout_of(model))


def nothing_stays_attached(model: Model) -> None:
    """After using adapters, the features without an adapter are bit-identical, and so is the fingerprint."""
    layout, stem_N = layout_of(model), model.stem(images())
    before_ND, name = model.encode_image(stem_N), model.fingerprint
    model.encode_image(stem_N, layout, adapters(layout, 2).requires_grad_()).sum().backward()
    ask(torch.equal(before_ND, model.encode_image(stem_N)), "the model changed after an adapter was used")
    ask(model.fingerprint == name, "the fingerprint changed after an adapter was used")


def earlier_weights_are_others(model: Model) -> None:
    """If a model recognises earlier weights, neither its own fingerprint nor an unknown one is among them."""
    if not isinstance(model, KnowsEarlier):
        return
    ask(model.earlier(model.fingerprint) is None, "earlier must return None for the model's own fingerprint")
    ask(model.earlier("none of them") is None, "earlier must return None for an unknown fingerprint")


def projection_comes_last(model: Model) -> None:
    """If a model has a projection, encode_image without an adapter is the normalised projection of `unprojected`."""
    if not isinstance(model, HasProjection):
        return
    site, weight_DI = model.projection, model.projection_weight()
    ask(site.name not in [s.name for s in model.sites], f"projection has the name {site.name!r} of another site")
    shape = (site.out_features, site.in_features)
    ask(tuple(weight_DI.shape) == shape, f"projection_weight must return shape {shape}, got {tuple(weight_DI.shape)}")
    ask(weight_DI.dtype == torch.float32, f"projection_weight must return float32, got {weight_DI.dtype}")
    ask(weight_DI.device.type == "cpu", f"projection_weight must be on the CPU, got {weight_DI.device}")
    stem_N = model.stem(images())
    x_NI = model.unprojected(stem_N)
    ask(tuple(x_NI.shape) == (3, shape[1]), f"unprojected must return shape {(3, shape[1])}, got {tuple(x_NI.shape)}")
    ask(x_NI.dtype == torch.float32, f"unprojected must return float32, got {x_NI.dtype}")
    made_ND = _mapped(x_NI, weight_DI)
    _equal(model.encode_image(stem_N), made_ND, "encode_image is not the normalised projection of unprojected")


def projection_takes_updates(model: Model) -> None:
    """If a model has a projection, an adapter of the projection alone adds s B A to its weight.

    T adapters at once equal each alone, on shared and own images. They have gradients, and B = 0 changes nothing.
    """
    if not isinstance(model, HasProjection):
        return
    layout, weight_DI = Layout((model.projection,), 2, 4.0), model.projection_weight()
    stem_N, other_N = model.stem(images(2)), model.stem(images(3)[1:])
    flat_TP = adapters(layout, 3)
    with torch.no_grad():
        zero_TND = model.encode_image(stem_N, layout, layout.initial(0)[None])
        shared_TND = model.encode_image(stem_N, layout, flat_TP)
        own_TND = model.encode_image(torch.stack([stem_N, other_N, stem_N]), layout, flat_TP)
        _equal(
            model.encode_image(stem_N)[None], zero_TND, "an adapter of the projection with B = 0 changes the features"
        )
        _unit(shared_TND, (3, 2), "encode_image with adapters of the projection")
        _unit(own_TND, (3, 2), "encode_image with adapters of the projection")
        for t, (b, a) in enumerate(zip(*layout.split(flat_TP)[model.projection.name], strict=True)):
            adapted_DI = weight_DI + layout.scaling * b @ a
            made_ND = _mapped(model.unprojected(stem_N), adapted_DI)
            _equal(shared_TND[t], made_ND, f"adapter {t} of three does not add s B A to the projection", within=1e-4)
            made_ND = _mapped(model.unprojected(other_N if t == 1 else stem_N), adapted_DI)
            _equal(own_TND[t], made_ND, f"adapter {t} of three does not add s B A on its own images", within=1e-4)
    _gradients_arrive(model, layout)


def projection_goes_with_sites(model: Model) -> None:
    """If a model has a projection, adapters of `sites` and the projection apply both updates, with gradients."""
    if not isinstance(model, HasProjection):
        return
    sites, alone = layout_of(model), Layout((model.projection,), 2, 4.0)
    stem_N, flat_TP, weight_DI = model.stem(images(2)), adapters(sites, 2), model.projection_weight()
    b_TDR, c_TRD = (torch.randn(2, *shape, generator=_seeded()) for shape in ((len(weight_DI), 2), (2, len(weight_DI))))
    b_TDR = 0.1 * b_TDR / len(weight_DI) ** 0.5
    some_TP = alone.join({model.projection.name: (b_TDR, c_TRD @ weight_DI)})
    layout, both_TP = joined(sites, flat_TP, alone, some_TP)
    with torch.no_grad():
        # With A = C W, updating the projection is the same as updating its result: (W + s B C W) x = (1 + s B C) W x.
        image_TND = model.encode_image(stem_N, sites, flat_TP).cpu()
        turned_TND = image_TND + alone.scaling * image_TND @ c_TRD.mT @ b_TDR.mT
        both_TND = model.encode_image(stem_N, layout, both_TP)
        expected_TND = torch.nn.functional.normalize(turned_TND, dim=-1).to(both_TND.device)
        _equal(both_TND, expected_TND, "an adapter of sites and projection does not apply both updates", within=1e-4)
    _gradients_arrive(model, layout)


BACKBONE_CHECKS: tuple[Callable[[Model], None], ...] = (
    identity_is_complete,
    texts_are_unit_vectors,
    images_are_unit_vectors,
    photos_are_prepared_one_by_one,
    zero_adapter_changes_nothing,
    every_site_counts,
    scaling_is_applied,
    many_adapters_are_each_alone,
    gradients_reach_every_site,
    nothing_stays_attached,
    earlier_weights_are_others,
    projection_comes_last,
    projection_takes_updates,
    projection_goes_with_sites,
)


def check_backbone(model: Model) -> None:
    """Raise PluginError listing everything that is wrong with a loaded backbone."""
    run_all(BACKBONE_CHECKS, model)


def _gradients_arrive(model: Model, layout: Layout) -> None:
    stem_N, flat_TP = model.stem(images(2)), adapters(layout, 2).requires_grad_()
    image_TND = model.encode_image(stem_N, layout, flat_TP)
    weight_D = torch.linspace(-1, 1, image_TND.shape[-1], device=image_TND.device)
    (gradient_TP,) = torch.autograd.grad((image_TND[0] * weight_D).sum(), flat_TP)
    ask(bool(torch.isfinite(gradient_TP).all()), "the gradient of an adapter is not finite")
    for name, (b, a) in layout.split(gradient_TP[0]).items():
        ask(float(b.abs().max()) > 0 and float(a.abs().max()) > 0, f"no gradient reaches site {name!r}")
    ask(float(gradient_TP[1].abs().max()) == 0, "the features of one adapter depend on another adapter")


def _mapped(x_NI: Tensor, weight_DI: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x_NI @ weight_DI.to(x_NI.device).mT, dim=-1)


def _twice(names: list[str]) -> str:
    return next((name for name in names if names.count(name) > 1), "")


def _unit(vectors: Tensor, shape: tuple[int, ...], what: str) -> None:
    ask(vectors.shape[:-1] == shape, f"{what} must return shape {(*shape, 'D')}, got {tuple(vectors.shape)}")
    ask(vectors.dtype == torch.float32, f"{what} must return float32, got {vectors.dtype}")
    ask(bool(torch.isfinite(vectors).all()), f"{what} returns numbers that are not finite")
    length = vectors.detach().norm(dim=-1)
    ask(torch.allclose(length, torch.ones_like(length), atol=1e-3), f"{what} must return unit vectors")


def _equal(one: Tensor, other: Tensor, message: str, within: float = CLOSE) -> None:
    gap = float((one.detach() - other.detach()).abs().max())
    ask(gap <= within, f"{message} (difference {gap:.2g}, tolerance {within:g})")
