"""A CLIP of open_clip, small enough for tests."""

from __future__ import annotations

import torch


def small_clip(timm: bool = False, quick_gelu: bool = True, device: str = "cpu", **runtime):
    """A backbone of open_clip with random weights, small enough for tests: its own tower, or a timm trunk."""
    import open_clip

    from sglora_cli.config import RuntimeConfig
    from sglora_openclip.model import OpenClipModel

    torch.manual_seed(0)
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    if timm:
        vision = {"image_size": 224, "timm_model_name": "vit_tiny_patch16_224", "timm_pool": "map", "timm_proj": "none"}
        clip = open_clip.CustomTextCLIP(192, vision, text)
    else:
        vision = {"image_size": 32, "layers": 4, "width": 32, "head_width": 8, "patch_size": 8}
        clip = open_clip.CLIP(16, vision, text, quick_gelu=quick_gelu)
    return OpenClipModel(clip, "ViT-B-16", RuntimeConfig(device=device, **runtime))


def named(architecture: str, tag: str = ""):
    """The backbone `open_clip:ARCHITECTURE`, not loaded."""
    from sglora_openclip import OpenClip

    return OpenClip(f"open_clip:{architecture}", architecture, tag, "")
