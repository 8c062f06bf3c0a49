"""Three ways to train LoRAs on the visual encoder of CLIP ViT-B/16, same size, rank and batch, random weights.

Ours: T tasks in one batched loop over one frozen model, stems and text embeddings computed once.
Peft: transformers' CLIPModel with PEFT's LoraModel, one task, as in PEFT's documentation.
Dense: open_clip in a plain loop that adds B A as a dense matrix, as CLIP-LoRA does; one task.

The last two take pictures and captions anew in every step (`cached=False`, what such loops do), or get
pixels and text embeddings ready-made (`cached=True`, more than they offer).
"""

from __future__ import annotations

import io

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from sglora_cli.build.losses import contrastive_loss
from sglora_cli.build.training import RowAdam
from sglora_cli.config import RuntimeConfig, TrainConfig
from sglora_cli.lora.layout import Layout

ARCHITECTURE, RANK, ALPHA = "ViT-B-16-quickgelu", 2, 2.0
CAPTION = "the dog has a fawn coat, a black mask and a curled tail, and looks to the left number"


def new_clip() -> nn.Module:
    import open_clip

    torch.manual_seed(0)
    return open_clip.create_model(ARCHITECTURE, load_weights=False, pretrained_text=False)


def photos(count: int) -> list[bytes]:
    """JPEG files of 320 x 240 pixels."""
    files = []
    for _ in range(count):
        file = io.BytesIO()
        Image.effect_noise((320, 240), 60).convert("RGB").save(file, "JPEG")
        files.append(file.getvalue())
    return files


class Ours:
    """Step of T tasks at once, `batch` photos of each."""

    def __init__(self, tasks: int, batch: int, runtime: RuntimeConfig) -> None:
        from sglora_openclip.model import OpenClipModel

        self.model = OpenClipModel(new_clip(), ARCHITECTURE, runtime)
        self.layout = Layout(self.model.sites, RANK, ALPHA)
        device = self.model.device
        self.stem = torch.randn(tasks, batch, 197, 768, device=device).half()
        self.text = F.normalize(torch.randn(tasks, batch, 512, device=device), dim=-1)
        self.real = torch.ones(tasks, batch, dtype=torch.bool, device=device)
        self.adapters_TP = self.layout.initial(0).to(device).repeat(tasks, 1).requires_grad_()
        self.adam = RowAdam(self.adapters_TP, TrainConfig())
        self.rows, self.images = torch.arange(tasks), tasks * batch

    def step(self) -> None:
        image = self.model.encode_image(self.stem, self.layout, self.adapters_TP)
        loss = contrastive_loss(image, self.text, self.real, self.model.scale).sum()
        (gradient,) = torch.autograd.grad(loss, self.adapters_TP)
        self.adam.step(gradient, self.rows)


class Plain:
    """One task, one step: what Peft and Dense share."""

    def __init__(self, batch: int, device: torch.device, dtype: torch.dtype, cached: bool) -> None:
        import open_clip

        self.device, self.dtype, self.cached, self.images = device, dtype, cached, batch
        self.files, self.captions = photos(batch), [f"{CAPTION} {n}" for n in range(batch)]
        self.preprocess = open_clip.image_transform((224, 224), is_train=False)
        self.tokenize = open_clip.get_tokenizer(ARCHITECTURE)
        self.pixels = self._pixels()
        self.text = F.normalize(torch.randn(batch, 512, device=device), dim=-1)

    def _pixels(self) -> Tensor:
        return torch.stack([self.preprocess(Image.open(io.BytesIO(f))) for f in self.files]).to(self.device)

    def loss(self, image_ND: Tensor, text_ND: Tensor) -> Tensor:
        logits = 14.3 * F.normalize(image_ND.float(), dim=-1) @ F.normalize(text_ND.float(), dim=-1).T
        target = torch.arange(len(logits), device=self.device)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

    def step(self) -> None:
        pixels = self.pixels if self.cached else self._pixels()
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            text = self.text if self.cached else self.encode_text(self.tokenize(self.captions).to(self.device))
            image = self.encode_image(pixels)
        self.optimiser.zero_grad()
        self.loss(image, text).backward()
        self.optimiser.step()


class Peft(Plain):
    def __init__(self, batch: int, device: torch.device, dtype: torch.dtype, cached: bool) -> None:
        from peft import LoraConfig, get_peft_model
        from transformers import CLIPConfig, CLIPModel

        super().__init__(batch, device, dtype, cached)
        config = CLIPConfig()
        config.vision_config.patch_size = 16
        where = r".*vision_model\.encoder\.layers\.\d+\.self_attn\.(q_proj|k_proj|v_proj)"
        lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=where)
        self.model = get_peft_model(CLIPModel(config), lora).to(device)
        self.optimiser = torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad], lr=1e-3)

    def encode_image(self, pixels: Tensor) -> Tensor:
        return _tensor(self.model.get_image_features(pixel_values=pixels))

    def encode_text(self, tokens: Tensor) -> Tensor:
        with torch.no_grad():
            return _tensor(self.model.get_text_features(input_ids=tokens))


def _tensor(output: object) -> Tensor:
    return output if isinstance(output, Tensor) else output.pooler_output  # transformers 5 gives an object


class DenseLora(nn.Module):
    """A linear whose B A is built in full, and so is the gradient of it."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias
        self.a = nn.Parameter(torch.rand(RANK, weight.shape[1], device=weight.device) / weight.shape[1] ** 0.5)
        self.b = nn.Parameter(torch.zeros(weight.shape[0], RANK, device=weight.device))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias) + x @ (self.b @ self.a).T * (ALPHA / RANK)


class DenseAttention(nn.Module):
    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        parts = zip(attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True)
        self.q, self.k, self.v = (DenseLora(w.detach(), b.detach()) for w, b in parts)
        self.out, self.heads = attention.out_proj, attention.num_heads

    def forward(self, x: Tensor, *_: object, **__: object) -> tuple[Tensor, None]:
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)), None


class Dense(Plain):
    def __init__(self, batch: int, device: torch.device, dtype: torch.dtype, cached: bool) -> None:
        super().__init__(batch, device, dtype, cached)
        self.model = new_clip().requires_grad_(False).to(device)
        for block in self.model.visual.transformer.resblocks:
            block.attn = DenseAttention(block.attn)
        self.optimiser = torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad], lr=1e-3)

    def encode_image(self, pixels: Tensor) -> Tensor:
        return self.model.encode_image(pixels)

    def encode_text(self, tokens: Tensor) -> Tensor:
        with torch.no_grad():
            return self.model.encode_text(tokens)
