"""The visual encoder of open_clip in three parts: tokens, blocks with T adapters at once, and pooling.

It supports open_clip's own VisionTransformer, and a timm trunk with a head (SigLIP and others).

Shapes: T adapters, N images (T * N with T adapters), L tokens, W width, I inputs of the projection, D embedding.
"""

from __future__ import annotations

import copy
import re
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sglora_cli.api import (
    AttentionSites,
    Mismatch,
    ProjectionUpdate,
    RuntimeConfig,
    Site,
    Update,
    packed_attention,
    project,
)


class VisualTower:
    """A visual encoder whose blocks accept updates. `blocks` run one by one, so that each can be
    recomputed in the backward pass.

    In bf16 and fp16, `blocks` are frozen copies in that precision. The encoder's own blocks keep their precision in CPU
    memory, and are then only used for fingerprints and checkpoints.
    """

    def __init__(self, visual: Any, runtime: RuntimeConfig, dtype: torch.dtype = torch.float32) -> None:
        """dtype: the precision of the blocks."""
        self.visual, self.dtype = visual, dtype
        self.stream = dtype
        """Precision of the residual sums of open_clip's own blocks in training. Without gradients it is float32."""
        self.timm = hasattr(visual, "trunk")
        encoder = visual.trunk if self.timm else visual
        if type(encoder).__name__ != "VisionTransformer":
            raise Mismatch(
                f"the visual encoder is a {type(encoder).__name__}, but adapters need a plain vision transformer",
                "choose an architecture that begins with ViT",
            )
        self.sites = AttentionSites(visual, site_name)
        proj = None if self.timm else visual.proj
        self.projection = None if proj is None else Site("visual_projection", proj.shape[1], proj.shape[0])
        """The last map of a CLIP by transformers' name. open_clip has it transposed, and not in every model."""
        originals = encoder.blocks if self.timm else encoder.transformer.resblocks
        self.own = not self.timm and all(map(is_own, originals))
        self.blocks = list(originals)
        if dtype != torch.float32:
            self.blocks = [frozen(block, dtype, self.own) for block in originals]
            originals.cpu()
        self._targets = AttentionSites(nn.ModuleList(self.blocks)).targets
        self.prefix = int(encoder.num_prefix_tokens) if self.timm else 1
        """Number of tokens before the patches."""
        self.checkpointing = runtime.checkpointing
        # Only the first token of the last block is used, so the others are not computed.
        self.one_token = not self.timm and visual.attn_pool is None and visual.pool_type == "tok"
        self._run = own_block if self.own else self._any_block
        self._all = self._through
        if runtime.compile and self.own:
            self._all = torch.compile(self._through)  # as one graph, to fuse across blocks
        elif runtime.compile:
            self._run = torch.compile(self._run)

    def tokens(self, pixels_N3HW: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, L, W), the part before the first block."""
        if not self.timm:
            tokens: Tensor = self.visual._embeds(pixels_N3HW)
            return tokens
        trunk = self.visual.trunk
        return trunk.norm_pre(trunk.patch_drop(trunk._pos_embed(trunk.patch_embed(pixels_N3HW))))

    def pooled(self, x_NLW: Tensor, updates: list[Update] | None = None) -> Tensor:
        """(N, L, W) -> (N, I) float32, everything before the head of a timm trunk or before the last projection.

        With updates of T adapters: (T, N, L, W), or shared (N, L, W), -> (T * N, I).
        """
        low = self.dtype != torch.float32
        learning = updates is not None and updates[0][0].requires_grad
        shared = updates is not None and x_NLW.ndim == 3
        x = x_NLW if x_NLW.ndim == 3 else x_NLW.flatten(0, 1)
        x = x.to(self.stream) if learning and self.own else x
        with torch.autocast(x.device.type, self.dtype, enabled=low and not self.own):
            x = self._all(x, updates, shared).float()
        with torch.autocast(x.device.type, self.dtype, enabled=low):
            if self.timm:
                trunk = self.visual.trunk
                read: Tensor = trunk.forward_head(trunk.norm(x))
            else:
                read = self.visual._pool(x)[0]
        return read.float()

    def _through(self, x: Tensor, updates: list[Update] | None, shared: bool) -> Tensor:
        """Run all blocks, (N, L, W) -> (N, L, W), or (N, 1, W) if only one token is used. shared: see `own_block`."""
        for number, block in enumerate(self.blocks):
            update = None if updates is None else updates[number]
            queries = 1 if self.one_token and number == len(self.blocks) - 1 else None
            if self.checkpointing and torch.is_grad_enabled():
                run = partial(checkpoint, self._run, use_reentrant=False, preserve_rng_state=False)  # nothing is random
                x = run(block, x, update, queries, shared)
            else:
                x = self._run(block, x, update, queries, shared)
            shared = False
        return x

    def project(self, pooled: Tensor, update: ProjectionUpdate | None = None) -> Tensor:
        """(N, I) -> (N, D), not normalised. With an update: (N, I) or (T, N, I) -> (T, N, D)."""
        if self.timm:
            projected: Tensor = self.visual.head(pooled)
            return projected
        return pooled if self.visual.proj is None else project(pooled, self.visual.proj.mT, update)

    def _any_block(
        self, block: nn.Module, x: Tensor, update: Update | None, queries: int | None, shared: bool
    ) -> Tensor:
        if update is None:
            return block(x)
        if shared:
            x = x.repeat(len(update[0]), 1, 1)
        with self.sites.attached([update], [self._targets[self.blocks.index(block)]]):
            return block(x)


def is_own(block: nn.Module) -> bool:
    """Return whether a block is open_clip's plain one, which `own_block` supports."""
    kinds = {"ln_1": nn.LayerNorm, "attn": nn.Module, "ls_1": nn.Module, "ln_2": nn.LayerNorm, "mlp": nn.Sequential}
    return all(isinstance(getattr(block, part, None), kind) for part, kind in {**kinds, "ls_2": nn.Module}.items())


def frozen(block: Any, dtype: torch.dtype, own: bool) -> nn.Module:
    """Return a copy of a block in `dtype`. Norms of other blocks than open_clip's own are unchanged, for autocast."""
    block = copy.deepcopy(block)
    if own:
        block.mlp = folded(block.mlp)
    for module in block.modules():
        if own or not isinstance(module, nn.LayerNorm):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)
    return block


def folded(layers: nn.Sequential) -> nn.Sequential:
    """Turn QuickGELU between two linears into SiLU, silu(1.702 x) / 1.702, with both factors folded into the linears.

    This saves two passes over the widest activations. The linears are changed in place, other layers are unchanged.
    """
    parts: list[Any] = [layer for layer in layers if not isinstance(layer, nn.Identity)]
    if [type(part).__name__ for part in parts] != ["Linear", "QuickGELU", "Linear"]:
        return layers
    first, _, last = parts
    for parameter in first.parameters():
        parameter.data = parameter.data * 1.702
    last.weight.data = last.weight.data / 1.702
    return nn.Sequential(first, nn.SiLU(), last)


def own_block(block: Any, x: Tensor, update: Update | None, queries: int | None, shared: bool) -> Tensor:
    """Run open_clip's residual block with updates of q, k, v. With `queries`, only its first tokens are returned.

    shared: x (N, L, W) is shared by all adapters, and T * N are returned. Its frozen q, k and v are computed once.
    The result has the dtype of x, which may be wider than the block's. Products use the block's dtype, sums that of x.
    """
    y = packed_attention(block.attn, normed(block.ln_1, x), update, queries, shared=shared)
    if hasattr(block, "ln_attn"):
        y = block.ln_attn(y)
    x = (x[:, :queries] + block.ls_1(y).unflatten(0, (-1, len(x)))).flatten(0, 1)
    return x + block.ls_2(mlp(block.mlp, normed(block.ln_2, x)))


def normed(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Compute layer norm in the dtype of x or better, and return the dtype of the norm's weights."""
    y = F.layer_norm(x, norm.normalized_shape, norm.weight.to(x.dtype), norm.bias.to(x.dtype), norm.eps)
    return y.to(norm.weight.dtype)


def mlp(layers: nn.Sequential, x: Tensor) -> Tensor:
    """Run the two linears of a block. QuickGELU, x sigmoid(1.702 x), equals silu(1.702 x) / 1.702, which needs one
    pass over memory instead of three, and keeps one tensor for the backward pass instead of two."""
    for layer in layers:
        x = F.silu(1.702 * x) / 1.702 if type(layer).__name__ == "QuickGELU" else layer(x)
    return x


def site_name(path: str, part: str) -> str:
    """Return the name of a site in transformers and PEFT, so that adapters fit CLIPModel unchanged."""
    number = re.search(r"\b(?:resblocks|blocks)\.(\d+)\.attn\b", path)
    return f"vision_model.encoder.layers.{number[1]}.self_attn.{part}_proj" if number else f"{path}.{part}"
