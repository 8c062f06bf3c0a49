"""A CLIP small enough for tests: random weights, transformers' names, merged checkpoints, no transformers."""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F

from sglora_cli.api import Mismatch, Site, hookimpl, project, split_projection

DEPTH, WIDTH, HEADS, HIDDEN, SIDE, PATCH, EMBED = 12, 16, 2, 24, 16, 8, 12
TOWER = "vision_model."
LAYER = TOWER + "encoder.layers.{}."


def weights(seed: int) -> dict[str, torch.Tensor]:
    """The state of transformers' CLIPVisionModelWithProjection."""
    rng = torch.Generator().manual_seed(seed)
    state = {}

    def linear(name, out, into, bias=True):
        state[f"{name}.weight"] = torch.randn(out, into, generator=rng) / into**0.5
        if bias:
            state[f"{name}.bias"] = torch.randn(out, generator=rng) / 10

    def norm(name):
        state[f"{name}.weight"], state[f"{name}.bias"] = torch.ones(WIDTH), torch.zeros(WIDTH)

    state[TOWER + "embeddings.class_embedding"] = torch.randn(WIDTH, generator=rng)
    patch = torch.randn(WIDTH, 3, PATCH, PATCH, generator=rng) / 6
    state[TOWER + "embeddings.patch_embedding.weight"] = patch
    tokens = (SIDE // PATCH) ** 2 + 1
    state[TOWER + "embeddings.position_embedding.weight"] = torch.randn(tokens, WIDTH, generator=rng) / 4
    norm(TOWER + "pre_layrnorm")
    for i in range(DEPTH):
        layer = LAYER.format(i)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(f"{layer}self_attn.{name}", WIDTH, WIDTH)
        norm(f"{layer}layer_norm1")
        norm(f"{layer}layer_norm2")
        linear(f"{layer}mlp.fc1", HIDDEN, WIDTH)
        linear(f"{layer}mlp.fc2", WIDTH, HIDDEN)
    norm(TOWER + "post_layernorm")
    linear("visual_projection", EMBED, WIDTH, bias=False)
    return state


class Clipling:
    fingerprint = "clipling-1"
    scale = 10.0
    loss_scale = 1.0
    hub_name = ""
    device = torch.device("cpu")
    sites = tuple(Site(f"{LAYER.format(i)}self_attn.{name}_proj", WIDTH, WIDTH) for i in range(DEPTH) for name in "qkv")

    projection = Site("visual_projection", EMBED, WIDTH)

    def __init__(self, seed=3):
        self.state = weights(seed)
        self.letters = torch.randn(EMBED, 256, generator=torch.Generator().manual_seed(seed))

    def pixels(self, images):
        """(N, 3, SIDE, SIDE)"""
        import numpy

        grids = [numpy.array(image.convert("RGB").resize((SIDE, SIDE))) / 255 - 0.5 for image in images]
        return torch.tensor(numpy.stack(grids)).permute(0, 3, 1, 2).float()

    def stem(self, images):
        x = F.conv2d(self.pixels(images), self.state[TOWER + "embeddings.patch_embedding.weight"], stride=PATCH)
        x = x.flatten(2).mT
        first = self.state[TOWER + "embeddings.class_embedding"].expand(len(x), 1, WIDTH)
        x = torch.cat([first, x], dim=1) + self.state[TOWER + "embeddings.position_embedding.weight"]
        return self._norm(x, TOWER + "pre_layrnorm")

    def encode_image(self, stem, layout=None, adapters_TP=None):
        x, attention, update = stem.float(), None, None
        if adapters_TP is not None:
            attention, update = split_projection(layout, adapters_TP, self.projection)
        return F.normalize(project(self._encode(x, attention), self.projection_weight(), update), dim=-1)

    def projection_weight(self):
        return self.state["visual_projection.weight"]

    def unprojected(self, stem):
        return self._encode(stem.float())

    def _encode(self, x, attention=None):
        """(N, WIDTH), or (T, N, WIDTH) of T adapters at q, k and v."""
        layout, adapters_TP = attention or (None, None)
        parts = layout.split(adapters_TP) if layout else {}
        if layout and x.ndim == 3:
            x = x.expand(len(adapters_TP), *x.shape)
        for i in range(DEPTH):
            layer = LAYER.format(i)
            h = self._norm(x, f"{layer}layer_norm1")
            q, k, v = (self._site(h, f"{layer}self_attn.{name}_proj", parts, layout) for name in "qkv")
            q, k, v = (y.unflatten(-1, (HEADS, -1)).transpose(-2, -3) for y in (q, k, v))
            h = F.scaled_dot_product_attention(q, k, v).transpose(-2, -3).flatten(-2)
            x = x + self._linear(h, f"{layer}self_attn.out_proj")
            h = self._linear(self._norm(x, f"{layer}layer_norm2"), f"{layer}mlp.fc1")
            x = x + self._linear(h * torch.sigmoid(1.702 * h), f"{layer}mlp.fc2")
        return self._norm(x[..., 0, :], TOWER + "post_layernorm")

    def _norm(self, x, name):
        return F.layer_norm(x, (WIDTH,), self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def _linear(self, x, name):
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def _site(self, x, name, parts, layout):
        y = self._linear(x, name)
        if name in parts:
            b_TOR, a_TRI = parts[name]
            y = y + layout.scaling * (x.flatten(1, -2) @ a_TRI.mT @ b_TOR.mT).view_as(y)
        return y

    def merged(self, layout, flat_P):
        state = dict(self.state)
        for name, (b, a) in layout.split(flat_P).items():
            state[f"{name}.weight"] = state[f"{name}.weight"] + layout.scaling * b @ a
        return state

    def unmerged(self, tensors):
        sites = {f"{site.name}.weight" for site in (*self.sites, self.projection)}
        if set(tensors) != set(self.state):
            raise Mismatch("the checkpoint is not one of clipling")
        if any(tensors[name].shape != own.shape for name, own in self.state.items()):
            raise Mismatch("the checkpoint has other shapes than clipling")
        for name in set(self.state) - sites:
            if not torch.equal(tensors[name], self.state[name]):
                raise Mismatch(f"the checkpoint differs from clipling in {name}")
        return {name.removesuffix(".weight"): tensors[name] - self.state[name] for name in sorted(sites)}

    def encode_text(self, texts):
        counts = torch.zeros(len(texts), 256)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                counts[row, hashlib.sha256(word.encode()).digest()[0]] += 1
        return F.normalize(counts @ self.letters.T, dim=-1)


class CliplingBackbone:
    name = "clipling"
    summary = "a CLIP small enough for tests"

    def load(self, runtime):
        return Clipling()


SGLORA_API = "1.0"


@hookimpl
def sglora_backbones():
    return [CliplingBackbone()]
