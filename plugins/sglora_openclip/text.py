"""The text encoder of CLIP, a transformer with causal attention whose output is read at the end token.

Tokens after the end token have no effect and are not computed. Texts are encoded in batches of similar lengths, padded
to the longest text of the batch, whereas open_clip pads every text to 77 tokens. Only its tensors are needed, so a
sentence can be encoded without importing open_clip, which takes longer than everything else.

Shapes: C texts, L tokens, W width, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_FEW, _MANY = 512, 8192
"""Tokens per forward pass on a CPU, which has a small cache, and on a GPU. A single longer text is allowed."""
_CLOSE = 1e-5
"""Largest difference of unit vectors that are equal up to rounding."""
_BLOCK = [
    f"{part}{kind}"
    for part in ("ln_1.", "attn.in_proj_", "attn.out_proj.", "ln_2.", "mlp.c_fc.", "mlp.c_proj.")
    for kind in ("weight", "bias")
]
_ENDS = ["token_embedding.weight", "positional_embedding", "ln_final.weight", "ln_final.bias", "text_projection"]


@dataclass(frozen=True)
class TextShape:
    """Properties of a text encoder that its tensors do not show."""

    heads: int
    quick_gelu: bool
    eps: float
    """Epsilon of its layer norms."""
    end: int | None
    """The end token's id. None if it is the largest id of a text."""


class TextTower:
    """Maps token ids to unit vectors."""

    def __init__(self, state: Mapping[str, Tensor], shape: TextShape, device: torch.device | str = "cpu") -> None:
        """state: the result of `text_state`."""
        self._state = {name: tensor.to(device).float().contiguous() for name, tensor in state.items()}
        self._shape, self._device = shape, torch.device(device)
        self._layers = sum(name.endswith(".attn.in_proj_weight") for name in state)

    @torch.no_grad()
    def __call__(self, ids_CL: Tensor) -> Tensor:
        """Return unit vectors (C, D), float32, on the CPU. ids_CL: padded ids from open_clip's tokenizers."""
        end = self._shape.end
        end_C = (ids_CL if end is None else (ids_CL == end).int()).argmax(-1)
        sorted_C, order_C = end_C.sort(stable=True)
        parts = []
        at_once = _FEW if self._device.type == "cpu" else _MANY
        for rows in batches((sorted_C + 1).tolist(), at_once):
            some, length = order_C[rows], int(sorted_C[rows.stop - 1]) + 1
            parts.append(self._encode(ids_CL[some, :length].to(self._device), end_C[some].to(self._device)).cpu())
        return torch.cat(parts)[order_C.argsort()]

    def _encode(self, ids_CL: Tensor, end_C: Tensor) -> Tensor:
        x_CLW = self._state["token_embedding.weight"][ids_CL] + self._state["positional_embedding"][: ids_CL.shape[1]]
        for number in range(self._layers):
            x_CLW = self._block(x_CLW, f"transformer.resblocks.{number}.")
        read_CW = self._norm(x_CLW[torch.arange(len(end_C), device=end_C.device), end_C], "ln_final.")
        return F.normalize(read_CW @ self._state["text_projection"], dim=-1)

    def _block(self, x: Tensor, name: str) -> Tensor:
        packed = F.linear(self._norm(x, f"{name}ln_1."), *self._pair(f"{name}attn.in_proj_"))
        q, k, v = (part.unflatten(-1, (self._shape.heads, -1)).transpose(1, 2) for part in packed.chunk(3, dim=-1))
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + F.linear(seen, *self._pair(f"{name}attn.out_proj."))
        hidden = F.linear(self._norm(x, f"{name}ln_2."), *self._pair(f"{name}mlp.c_fc."))
        hidden = hidden * torch.sigmoid(1.702 * hidden) if self._shape.quick_gelu else F.gelu(hidden)
        return x + F.linear(hidden, *self._pair(f"{name}mlp.c_proj."))

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], *self._pair(name), self._shape.eps)

    def _pair(self, name: str) -> tuple[Tensor, Tensor]:
        return self._state[f"{name}weight"], self._state[f"{name}bias"]


def batches(lengths: Sequence[int], at_once: int) -> Iterator[slice]:
    """Yield slices of texts, sorted by length in tokens. Padded to its longest text, each has at most `at_once` tokens.

    >>> list(batches([7, 7, 70, 400, 5000], at_once=1024))
    [slice(0, 3, None), slice(3, 4, None), slice(4, 5, None)]
    """
    start = 0
    for stop in range(1, len(lengths) + 1):
        if stop == len(lengths) or (stop + 1 - start) * lengths[stop] > at_once:
            yield slice(start, stop)
            start = stop


def is_text(name: str) -> bool:
    """Return whether a tensor, by open_clip's or transformers' name, belongs to the text encoder of a CLIP model."""
    return not name.startswith(("visual.", "logit_", "vision_model.", "visual_projection."))


def text_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the text encoder's tensors in the state of an open_clip model, by CLIP's names."""
    return {name.removeprefix("text."): tensor for name, tensor in state.items() if is_text(name)}


def text_shape(clip: Any) -> TextShape | None:
    """Return the shape of an open_clip model's text encoder, or None if TextTower does not reproduce it.

    This is decided by its tensors, and by comparing both encoders on the same tokens.
    """
    state, text = text_state(clip.state_dict()), getattr(clip, "text", clip)
    layers = sum(name.endswith(".attn.in_proj_weight") for name in state)
    blocks = [f"transformer.resblocks.{number}.{part}" for number in range(layers) for part in _BLOCK]
    pooling = getattr(text, "pool_type", getattr(text, "text_pool_type", ""))
    if not layers or set(state) != {*_ENDS, *blocks} or pooling not in ("argmax", "eos"):
        return None
    block = text.transformer.resblocks[0]
    end = int(getattr(text, "eos_id", getattr(text, "text_eos_id", 0))) if pooling == "eos" else None
    quick = type(block.mlp.gelu).__name__ == "QuickGELU"
    shape = TextShape(int(block.attn.num_heads), quick, float(text.ln_final.eps), end)
    ids_CL = _probes(len(state["token_embedding.weight"]), len(state["positional_embedding"]), end)
    device = state["text_projection"].device
    with torch.no_grad():
        theirs_CD = clip.encode_text(ids_CL.to(device), normalize=True).float().cpu()
    gap = float((TextTower(state, shape, device)(ids_CL) - theirs_CD).abs().max())
    return shape if gap < _CLOSE else None


def _probes(words: int, length: int, end: int | None) -> Tensor:
    """Return ids of two texts, one of full length and one that is padded."""
    end = words - 1 if end is None else end
    ids_CL = torch.randint(1, words - 1, (2, length), generator=torch.Generator().manual_seed(0))
    ids_CL[ids_CL == end] = 1 if end != 1 else 2
    ids_CL[0, -1] = ids_CL[1, length // 4] = end
    ids_CL[1, length // 4 + 1 :] = 0
    return ids_CL
