"""The visual encoder of open_clip in three parts: tokens, blocks with T adapters at once, read-out.

Two towers: open_clip's own VisionTransformer, and a timm trunk with a head (SigLIP and others).

Shapes: N images (T * N with T adapters), L tokens, W width, D embedding.
"""

from __future__ import annotations

import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sglora_cli.api import AttentionSites, Mismatch, RuntimeConfig, Update, packed_attention


class VisualTower:
    """A visual encoder whose blocks take updates. `blocks` are run one by one, so that each can be
    compiled, or recomputed in the backward pass."""

    def __init__(self, visual: Any, runtime: RuntimeConfig) -> None:
        self.visual = visual
        self.timm = hasattr(visual, "trunk")
        encoder = visual.trunk if self.timm else visual
        if type(encoder).__name__ != "VisionTransformer":
            raise Mismatch(
                f"the visual encoder {type(encoder).__name__} is no plain vision transformer and takes no adapters here",
                "name an architecture that begins with ViT",
            )
        self.sites = AttentionSites(visual, site_name)
        self.blocks = list(encoder.blocks if self.timm else encoder.transformer.resblocks)
        self.checkpointing = runtime.checkpointing
        # Only the first token of the last block is read out, so only that one is computed.
        self.one_token = not self.timm and visual.attn_pool is None and visual.pool_type == "tok"
        self._run = torch.compile(self._block) if runtime.compile else self._block

    def tokens(self, pixels_N3HW: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, L, W): everything before the first block."""
        if not self.timm:
            tokens: Tensor = self.visual._embeds(pixels_N3HW)
            return tokens
        trunk = self.visual.trunk
        return trunk.norm_pre(trunk.patch_drop(trunk._pos_embed(trunk.patch_embed(pixels_N3HW))))

    def __call__(self, x_NLW: Tensor, updates: list[Update] | None = None) -> Tensor:
        """(N, L, W) -> (N, D), not normalised."""
        x = x_NLW
        for number in range(len(self.blocks)):
            update = None if updates is None else updates[number]
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(self._run, number, x, update, use_reentrant=False)
            else:
                x = self._run(number, x, update)
        if self.timm:
            trunk = self.visual.trunk
            return self.visual.head(trunk.forward_head(trunk.norm(x)))
        pooled, _ = self.visual._pool(x)
        return pooled if self.visual.proj is None else pooled @ self.visual.proj

    def _block(self, number: int, x: Tensor, update: Update | None) -> Tensor:
        block: Any = self.blocks[number]
        if self.timm or not isinstance(getattr(block, "mlp", None), nn.Sequential) or not hasattr(block, "ls_1"):
            if update is None:
                return block(x)
            with self.sites.attached([update], [self.sites.targets[number]]):
                return block(x)
        queries = 1 if self.one_token and number == len(self.blocks) - 1 else None
        y = packed_attention(block.attn, block.ln_1(x), update, queries)
        x = x[:, :queries] + block.ls_1(getattr(block, "ln_attn", nn.Identity())(y))
        return x + block.ls_2(mlp(block.mlp, block.ln_2(x)))


def mlp(layers: nn.Sequential, x: Tensor) -> Tensor:
    """The two linears of a block. QuickGELU, x sigmoid(1.702 x), is silu(1.702 x) / 1.702: one pass
    over memory where three would be, and one tensor kept for the backward pass where two would be."""
    for layer in layers:
        x = F.silu(1.702 * x) / 1.702 if type(layer).__name__ == "QuickGELU" else layer(x)
    return x


def site_name(path: str, part: str) -> str:
    """transformers' name of a site, which is PEFT's: an adapter then fits CLIPModel as it is."""
    number = re.search(r"\b(?:resblocks|blocks)\.(\d+)\.attn\b", path)
    return f"vision_model.encoder.layers.{number[1]}.self_attn.{part}_proj" if number else f"{path}.{part}"
