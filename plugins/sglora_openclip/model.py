"""A model of open_clip as the host sees it, and how it is loaded.

Shapes: N images, T adapters, C texts, D embedding, P numbers of an adapter.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sglora_cli.api import (
    BadFile,
    Layout,
    Mismatch,
    RuntimeConfig,
    SgloraWarning,
    UnknownName,
    UsageError,
    content_hash,
    drop_tokens,
    pick_device,
    pick_precision,
    split_projection,
)

from . import OpenClip, tokens
from .agreement import ACTIVATION, check_architecture, preprocessing
from .hub import fetch_model, fetch_tokenizer, names, quiet
from .tower import VisualTower
from .weights import ClipWeights, read

if TYPE_CHECKING:
    from PIL.Image import Image

_TEXTS = 128
_PROJ = "visual.proj"
"""The projection in a checkpoint: (I, D)."""


def load(backbone: OpenClip, runtime: RuntimeConfig) -> OpenClipModel:
    """Weights from a file where the runtime names one, else from open_clip's cache or hub."""
    if runtime.weights and ":" in backbone.architecture:
        raise UsageError(f"backbone {backbone.name!r} takes no --weights", "use open_clip:ARCHITECTURE with them")
    config = _config(backbone.architecture)
    if runtime.weights:
        clip = _from_file(backbone, Path(runtime.weights).expanduser(), config)
    else:
        clip = fetch_model(backbone)
    model = OpenClipModel(clip, backbone.architecture, runtime)
    model.hub_name = "" if runtime.weights else backbone.hub_name  # whose a file's weights are, nobody knows
    model.names = names(backbone)
    return model


def _from_file(backbone: OpenClip, path: Path, config: Mapping[str, Any]) -> nn.Module:
    import open_clip

    checkpoint = read(path)
    wanted = bool(config.get("quick_gelu", False))
    check_architecture(checkpoint.beside, backbone.architecture, config)
    said = checkpoint.beside.quick_gelu
    if said and said.value != wanted:
        other = backbone.architecture.removesuffix("-quickgelu") + ("-quickgelu" if said.value else "")
        raise Mismatch(
            f"the weights {checkpoint.path} were trained with {ACTIVATION[said.value]}, "
            f"backbone {backbone.name!r} computes {ACTIVATION[wanted]} ({said})",
            f"pass --backbone open_clip:{other}",
        )
    if said is None:
        warnings.warn(
            f"{checkpoint.path} does not say which activation it was trained with; {ACTIVATION[wanted]} is taken, "
            f"as in {backbone.architecture}, and the wrong one costs accuracy "
            "(a config.json or open_clip_config.json beside it says it)",
            SgloraWarning,
            stacklevel=2,
        )
    photos = preprocessing(backbone.architecture, backbone.tag, checkpoint.path, checkpoint.beside)
    with quiet():
        model: nn.Module = open_clip.create_model(
            backbone.architecture, load_weights=False, pretrained_text=False, force_preprocess_cfg=photos
        )
    _put(model, checkpoint, backbone)
    return model


def _config(architecture: str) -> Mapping[str, Any]:
    """Raises UnknownName for an architecture that open_clip does not know. That of a hub's model lies there."""
    import open_clip

    config: Mapping[str, Any] | None = {} if ":" in architecture else open_clip.get_model_config(architecture)
    if config is None:
        raise UnknownName.of("architecture in open_clip", architecture, open_clip.list_models())
    return config


def _put(model: nn.Module, checkpoint: ClipWeights, backbone: OpenClip) -> None:
    """Load a state that fits tensor by tensor. Raises Mismatch with the first that does not."""
    own, state = model.state_dict(), checkpoint.state
    if any(name.startswith("text.") for name in own) and not any(name.startswith("text.") for name in state):
        outside = ("visual.", "logit_")
        state = {name if name.startswith(outside) else f"text.{name}": tensor for name, tensor in state.items()}
    hint = "name the architecture they were made for: --backbone open_clip:ARCHITECTURE"
    for name in sorted(set(own) | set(state)):
        if name not in state or name not in own:
            what = "lack" if name in own else "have"
            raise Mismatch(
                f"the weights {checkpoint.path} are not of {backbone.architecture}: they {what} {name}", hint
            )
        if own[name].shape != state[name].shape:
            raise Mismatch(
                f"the weights {checkpoint.path} are not of {backbone.architecture}: {name} has shape "
                f"{tuple(state[name].shape)}, {tuple(own[name].shape)} is wanted",
                hint,
            )
        if not bool(torch.isfinite(state[name]).all()):
            raise BadFile(f"{checkpoint.path}: {name} has numbers that are not finite", "fetch it again")
    model.load_state_dict(state)


class OpenClipModel:
    """A Model (see contracts) around any open_clip model with a vision transformer."""

    hub_name = ""
    names: Sequence[str] = ()

    def __init__(self, clip: Any, architecture: str, runtime: RuntimeConfig) -> None:
        self.device = pick_device(runtime.device)
        self.dtype = pick_precision(runtime.precision, self.device)
        self.loss_scale = 1024.0 if self.dtype == torch.float16 else 1.0
        self.clip = clip.requires_grad_(False).eval().to(self.device)
        self.architecture = architecture
        self.tower = VisualTower(clip.visual, runtime, self.dtype)
        self.sites = self.tower.sites.sites
        if self.tower.projection:  # without one, it is no model that HasProjection
            self.projection = self.tower.projection
        self.scale = float(clip.logit_scale.exp())

    @cached_property
    def fingerprint(self) -> str:
        """Of every weight, whatever file it came from, the activation and the preprocessing."""
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
        """Its names on hubs and in open_clip."""
        return list(self.names)

    @torch.no_grad()
    def stem(self, images: Sequence[Image]) -> Tensor:
        """(N, L, W) float32: patches, positions and the norm before the first block."""
        pixels_N3HW = torch.stack([self._preprocess(image) for image in images])
        return self.tower.tokens(pixels_N3HW.to(self.device)).float().cpu()

    def hide(self, stem: Tensor, share: float, rng: torch.Generator) -> Tensor:
        """(N, L, W) -> (N, fewer, W): a class token stays."""
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
        """Without an update of a block: the same for all adapters, and nothing has a gradient."""
        return self.tower.pooled(x)

    def projection_weight(self) -> Tensor:
        weight_DI: Tensor = self.clip.visual.proj.detach().mT
        return weight_DI.float().cpu().contiguous()

    def unprojected(self, stem: Tensor) -> Tensor:
        """(N, I): the read-out of the last block, before `visual.proj`."""
        return self._pooled(stem.to(self.device).float())

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        parts = [
            self.clip.encode_text(self._tokenizer(list(texts[first : first + _TEXTS])).to(self.device), normalize=True)
            for first in range(0, len(texts), _TEXTS)
        ]
        return torch.cat(parts).float().cpu()

    def check_text(self, text: str) -> None:
        """Raises Mismatch for a text that has more tokens than the text encoder reads."""
        (count,), most = tokens.count(self._tokenizer, [text]), tokens.limit(self._tokenizer)
        if count > most:
            raise Mismatch(f"the sentence has {count} tokens, more than {most}", "shorten it")

    def merged(self, layout: Layout, flat_P: Tensor) -> dict[str, Tensor]:
        """The whole open_clip checkpoint with the update added."""
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
        """{site name: (O, I)} of a checkpoint that `merged` could have made."""
        state = {name: tensor.cpu() for name, tensor in self.clip.state_dict().items()}
        projection = self.tower.projection
        gaps = self.tower.sites.unmerged(state, tensors, "visual.", also=(_PROJ,) if projection else ())
        if projection:
            gaps[projection.name] = (tensors[_PROJ].double() - state[_PROJ].double()).float().mT.contiguous()
        return gaps
