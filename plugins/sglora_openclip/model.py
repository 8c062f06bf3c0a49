"""An open_clip model for the host.

Shapes: N images, T adapters, C texts, D embedding, P parameters of an adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sglora_cli.api import (
    Layout,
    Mismatch,
    RuntimeConfig,
    content_hash,
    drop_tokens,
    pick_device,
    pick_precision,
    split_projection,
)

from . import tokens
from .hub import fetch_tokenizer
from .names import matched, to_open_clip
from .stored import Stored
from .text import TextShape, TextTower, is_text, text_shape, text_state
from .tower import VisualTower

if TYPE_CHECKING:
    from PIL.Image import Image

_TEXTS = 128
_PROJ = "visual.proj"
"""The projection in a checkpoint: (I, D)."""


class OpenClipModel:
    """A Model (see contracts) around any open_clip model with a vision transformer."""

    hub_name = ""
    names: Callable[[], list[str]] = list

    def __init__(self, clip: Any, architecture: str, runtime: RuntimeConfig) -> None:
        """clip: an open_clip model, or a Stored one, which is loaded on first use. Encoding texts does not load it."""
        self.device = pick_device(runtime.device)
        self.dtype = pick_precision(runtime.precision, self.device)
        self.loss_scale = 1024.0 if self.dtype == torch.float16 else 1.0
        self.architecture = architecture
        self._given, self._runtime = clip, runtime
        self._known = clip.known if isinstance(clip, Stored) else None
        self.sites = self._known.sites if self._known else self.tower.sites.sites
        projection = self._known.projection if self._known else self.tower.projection
        if projection:  # without one, the model must not fulfil HasProjection
            self.projection = projection
        self.scale = self._known.scale if self._known else float(clip.logit_scale.exp())

    @cached_property
    def clip(self) -> Any:
        """The complete model. Raises BadFile if its files have changed."""
        clip = self._given.clip() if self._known else self._given
        vars(self).pop("_text", None)  # share these tensors with the text encoder from now on
        return clip.requires_grad_(False).eval().to(self.device)

    @cached_property
    def tower(self) -> VisualTower:
        return VisualTower(self.clip.visual, self._runtime, self.dtype)

    @cached_property
    def text_shape(self) -> TextShape | None:
        return self._known.text if self._known else text_shape(self.clip)

    @cached_property
    def _text(self) -> TextTower | None:
        if self.text_shape is None:
            return None
        state = text_state(self.clip.state_dict()) if "clip" in vars(self) else self._given.text()
        return TextTower(state, self.text_shape, self.device)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of every weight (independent of its file), the activation and the preprocessing."""
        if self._known:
            return self._known.fingerprint
        state = self.clip.state_dict()
        activations = sorted({type(m).__name__ for m in self.clip.modules() if type(m).__name__.endswith("GELU")})
        settings = [activations, self._preprocessing_config(), sorted(state)]
        return content_hash(settings, *(state[name].float() for name in sorted(state)))[:16]

    def _preprocessing_config(self) -> Any:
        return {"size": self.clip.visual.image_size, **getattr(self.clip.visual, "preprocess_cfg", {})}

    @cached_property
    def _preprocess(self) -> Any:
        from open_clip.transform import PreprocessCfg, image_transform_v2

        return image_transform_v2(PreprocessCfg(**self._preprocessing_config()), is_train=False)

    @cached_property
    def _tokenizer(self) -> Any:
        return fetch_tokenizer(self.architecture)

    def base_names(self) -> list[str]:
        """Return its names on hubs and in open_clip."""
        return self.names()

    def stem(self, images: Sequence[Image]) -> Tensor:
        """Return (N, L, W) float32: patches, positions and the norm before the first block."""
        return self.stem_of([self.prepare(image) for image in images])

    def prepare(self, image: Image) -> Tensor:
        """Prepare a photo as (3, H, W)."""
        pixels_3HW: Tensor = self._preprocess(image)
        return pixels_3HW

    @torch.no_grad()
    def stem_of(self, prepared: Sequence[Tensor]) -> Tensor:
        return self.tower.tokens(torch.stack(list(prepared)).to(self.device)).float().cpu()

    def hide(self, stem: Tensor, share: float, rng: torch.Generator) -> Tensor:
        """Drop tokens, (N, L, W) -> (N, fewer, W). A class token stays."""
        return drop_tokens(stem, share, self.tower.prefix, rng)

    def encode_image(self, stem: Tensor, layout: Layout | None = None, adapters_TP: Tensor | None = None) -> Tensor:
        x = stem.to(self.device).float()
        if adapters_TP is None or layout is None:
            with torch.no_grad():
                return F.normalize(self.tower.project(self.tower.pooled(x)).float(), dim=-1)
        attention, update = split_projection(layout, adapters_TP.to(self.device), self.tower.projection)
        if attention is None:
            read = self._pooled(x) if x.ndim == 3 else self._pooled(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        else:
            pooled = self.tower.pooled(x, self.tower.sites.updates(*attention))
            read = pooled.unflatten(0, (len(adapters_TP), -1))
        return F.normalize(self.tower.project(read, update).float(), dim=-1)

    @torch.no_grad()
    def _pooled(self, x: Tensor) -> Tensor:
        """Encode without an update of a block. The result is the same for all adapters and has no gradient."""
        return self.tower.pooled(x)

    def projection_weight(self) -> Tensor:
        weight_DI: Tensor = self.clip.visual.proj.detach().mT
        return weight_DI.float().cpu().contiguous()

    def unprojected(self, stem: Tensor) -> Tensor:
        """Return (N, I), the output of the last block before `visual.proj`."""
        return self._pooled(stem.to(self.device).float())

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        ids_CL = self._tokenizer(list(texts))
        if self._text:
            return self._text(ids_CL)
        parts = [self.clip.encode_text(some.to(self.device), normalize=True) for some in ids_CL.split(_TEXTS)]
        return torch.cat(parts).float().cpu()

    def check_text(self, text: str) -> None:
        """Raise Mismatch for a text with more tokens than the text encoder reads."""
        (count,), most = tokens.count(self._tokenizer, [text]), tokens.limit(self._tokenizer)
        if count > most:
            raise Mismatch(f"the sentence has {count} tokens, the limit is {most}", "shorten it")

    def merged(self, layout: Layout, flat_P: Tensor) -> dict[str, Tensor]:
        """Return the complete open_clip checkpoint with the update added."""
        state = {name: tensor.cpu() for name, tensor in self.clip.state_dict().items()}
        attention, update = split_projection(layout, flat_P[None].cpu(), self.tower.projection)
        if attention is None:
            merged = {name: weight.clone() for name, weight in state.items()}
        else:
            merged = self.tower.sites.merged(state, attention[0], attention[1][0], "visual.")
        if update:
            a_TIR, b_TRD = update
            merged[_PROJ] += (a_TIR @ b_TRD)[0].to(merged[_PROJ])
        return merged

    def unmerged(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return {site name: (O, I)} of a checkpoint created by `merged`, or of a merged model of transformers."""
        state = {name: tensor.cpu() for name, tensor in self.clip.state_dict().items()}
        tensors = to_open_clip(tensors)
        if not any(map(is_text, tensors)):  # the image encoder alone, as a CLIPVisionModelWithProjection is saved
            state = {name: tensor for name, tensor in state.items() if name.startswith("visual.")}
        tensors = matched(state, tensors)
        projection = self.tower.projection
        gaps = self.tower.sites.unmerged(state, tensors, "visual.", also=(_PROJ,) if projection else ())
        if projection:
            gaps[projection.name] = (tensors[_PROJ].double() - state[_PROJ].double()).float().mT.contiguous()
        return gaps
