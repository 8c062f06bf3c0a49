"""A stranger's plugin around a vision-text model of transformers, on one screen. (Random weights: a real one
would call from_pretrained, and take the model's own tokenizer and processor.)"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sglora_cli.api import AttentionSites, content_hash, hookimpl, pick_device


class HfModel:
    scale = 14.3
    loss_scale = 1.0
    hub_name = ""

    def __init__(self, device):
        from transformers import CLIPConfig, CLIPModel

        torch.manual_seed(0)
        small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        vision = {**small, "image_size": 32, "patch_size": 8}
        config = CLIPConfig(
            text_config={**small, "vocab_size": 300, "eos_token_id": 299}, vision_config=vision, projection_dim=16
        )
        self.clip = CLIPModel(config).requires_grad_(False).eval().to(device)
        self.device = device
        self.attention = AttentionSites(self.clip.vision_model, lambda path, part: f"vision_model.{path}.{part}_proj")
        self.sites = self.attention.sites
        self.fingerprint = content_hash(*self.clip.state_dict().values())[:16]

    def stem(self, images):
        import numpy

        squares = [torch.from_numpy(numpy.array(i.convert("RGB").resize((32, 32)))) for i in images]
        return torch.stack(squares).permute(0, 3, 1, 2) / 127.5 - 1

    def encode_image(self, stem, layout=None, adapters_TP=None):
        x = stem.to(self.device).float()
        if adapters_TP is None:
            return self._encode(x)
        x = x.expand(len(adapters_TP), *x.shape) if x.ndim == 4 else x
        with self.attention.attached(self.attention.updates(layout, adapters_TP.to(self.device))):
            return self._encode(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def _encode(self, pixels):
        return F.normalize(self.clip.visual_projection(self.clip.vision_model(pixels).pooler_output), dim=-1)

    @torch.no_grad()
    def encode_text(self, texts):
        rows = [[1, *text.encode()[:74], 299] for text in texts]  # bytes; 299 ends a text
        tokens = torch.tensor([row + [299] * (76 - len(row)) for row in rows]).to(self.device)
        pooled = self.clip.text_model(tokens).pooler_output
        return F.normalize(self.clip.text_projection(pooled), dim=-1).cpu()


class HfBackbone:
    name = "hf-small"
    summary = "a CLIP model of transformers"

    def load(self, runtime):
        return HfModel(pick_device(runtime.device))


SGLORA_API = "1.0"


@hookimpl
def sglora_backbones():
    return [HfBackbone()]
