"""A model of open_clip as the host sees it, and how it is loaded.

Shapes: N images, T adapters, C texts, D embedding, P numbers of an adapter.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
    Unavailable,
    UnknownName,
    content_hash,
    pick_device,
    pick_precision,
)

from . import OpenClip
from .tower import VisualTower
from .weights import Checkpoint, read

if TYPE_CHECKING:
    from PIL.Image import Image

ACTIVATION = {True: "QuickGELU", False: "GELU"}
_TEXTS = 128


def load(backbone: OpenClip, runtime: RuntimeConfig) -> OpenClipModel:
    with _quiet():
        if runtime.weights:
            model, quick_gelu = _from_file(backbone, Path(runtime.weights).expanduser())
        else:
            model, quick_gelu = _from_hub(backbone)
    return OpenClipModel(model, backbone.architecture, quick_gelu, runtime)


def _from_file(backbone: OpenClip, path: Path) -> tuple[nn.Module, bool]:
    import open_clip

    config = _known(backbone.architecture)
    checkpoint = read(path)
    wanted = bool(config.get("quick_gelu", False))
    if checkpoint.quick_gelu is not None and checkpoint.quick_gelu != wanted:
        other = backbone.architecture.removesuffix("-quickgelu") + ("-quickgelu" if checkpoint.quick_gelu else "")
        raise Mismatch(
            f"the weights {checkpoint.path} were trained with {ACTIVATION[checkpoint.quick_gelu]}, "
            f"backbone {backbone.name!r} computes {ACTIVATION[wanted]}",
            f"pass --backbone open_clip:{other}",
        )
    if checkpoint.quick_gelu is None:
        warnings.warn(
            f"{checkpoint.path} does not say which activation it was trained with; {ACTIVATION[wanted]} is taken, "
            f"as in {backbone.architecture}; the wrong one costs accuracy",
            SgloraWarning,
            stacklevel=2,
        )
    model = open_clip.create_model(backbone.architecture, load_weights=False, pretrained_text=False)
    _put(model, checkpoint, backbone)
    return model, wanted


def _known(architecture: str) -> Mapping[str, Any]:
    import open_clip

    config: Mapping[str, Any] | None = open_clip.get_model_config(architecture) if ":" not in architecture else None
    if config is None:
        raise UnknownName.of("architecture in open_clip", architecture, open_clip.list_models())
    return config


def _put(model: nn.Module, checkpoint: Checkpoint, backbone: OpenClip) -> None:
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


def _from_hub(backbone: OpenClip) -> tuple[nn.Module, bool]:
    import open_clip

    remedy = (
        "put the weights into a file and pass --weights FILE (or set SGLORA_WEIGHTS); "
        "--backbone starter works without any"
    )
    on_hub = ":" in backbone.architecture
    if not on_hub:
        config = _known(backbone.architecture)
        tags = open_clip.list_pretrained_tags_by_model(backbone.architecture)
        if not backbone.tag:
            raise Unavailable(
                f"backbone {backbone.name!r} names no weights",
                f"add a tag, as in open_clip:{backbone.architecture}/{tags[0]}" if tags else remedy,
            )
        if backbone.tag not in tags:
            raise UnknownName.of(f"weights of {backbone.architecture} in open_clip", backbone.tag, tags)
    try:
        model = open_clip.create_model(backbone.architecture, pretrained=backbone.tag or None)
    except Exception as error:  # the hub's client raises whatever its network layer does
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Unavailable(
            f"weights of {backbone.name!r} are not on this machine: open_clip looked for "
            f"{backbone.architecture + ('' if on_hub else '/' + backbone.tag)} in its cache and on its hub ({reason})",
            remedy,
        ) from None
    return model, False if on_hub else bool(config.get("quick_gelu", False))


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip logs its every step to the root logger, errors too, which are raised here."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


class OpenClipModel:
    """A Model (see contracts) around any open_clip model with a vision transformer."""

    def __init__(self, clip: Any, architecture: str, quick_gelu: bool, runtime: RuntimeConfig) -> None:
        self.device = pick_device(runtime.device)
        self.dtype = pick_precision(runtime.precision, self.device)
        self.loss_scale = 1024.0 if self.dtype == torch.float16 else 1.0
        self.clip = clip.requires_grad_(False).eval().to(self.device)
        self.architecture, self.quick_gelu = architecture, quick_gelu
        self.tower = VisualTower(clip.visual, runtime)
        self.sites = self.tower.sites.sites
        self.scale = float(clip.logit_scale.exp())

    @cached_property
    def fingerprint(self) -> str:
        """Of every weight, whatever file it came from, the activation and the preprocessing."""
        state = self.clip.state_dict()
        about = [self.quick_gelu, self._preprocessing_config(), sorted(state)]
        return content_hash(about, *(state[name].float() for name in sorted(state)))[:16]

    def _preprocessing_config(self) -> Any:
        return getattr(self.clip.visual, "preprocess_cfg", {})

    @cached_property
    def _preprocess(self) -> Any:
        from open_clip.transform import PreprocessCfg, image_transform_v2

        return image_transform_v2(PreprocessCfg(**self._preprocessing_config()), is_train=False)

    @cached_property
    def _tokenizer(self) -> Any:
        import open_clip

        try:
            with _quiet():
                return open_clip.get_tokenizer(self.architecture)
        except Exception as error:  # as in _from_hub
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise Unavailable(
                f"the tokenizer of {self.architecture!r} is not on this machine ({reason})",
                "fetch it once with a network; --backbone starter works without any",
            ) from None

    @torch.no_grad()
    def stem(self, images: Sequence[Image]) -> Tensor:
        """(N, L, W) float32: patches, positions and the norm before the first block."""
        pixels_N3HW = torch.stack([self._preprocess(image) for image in images])
        return self.tower.tokens(pixels_N3HW.to(self.device)).float().cpu()

    def encode_image(self, stem: Tensor, layout: Layout | None = None, adapters_TP: Tensor | None = None) -> Tensor:
        x = stem.to(self.device).float()
        if adapters_TP is None or layout is None:
            with torch.no_grad(), self._numbers():
                return F.normalize(self.tower(x).float(), dim=-1)
        updates = self.tower.sites.updates(layout, adapters_TP.to(self.device))
        tasks = len(adapters_TP)
        if x.ndim == 3:
            x = x.expand(tasks, *x.shape)
        with self._numbers():
            y = self.tower(x.flatten(0, 1), updates)
        return F.normalize(y.float(), dim=-1).unflatten(0, (tasks, -1))

    def _numbers(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        parts = [
            self.clip.encode_text(self._tokenizer(list(texts[first : first + _TEXTS])).to(self.device), normalize=True)
            for first in range(0, len(texts), _TEXTS)
        ]
        return torch.cat(parts).float().cpu()

    def check_text(self, text: str) -> None:
        """Raises Mismatch for a text that has more tokens than the text encoder reads."""
        tokenizer, most = self._tokenizer, int(self._tokenizer.context_length)
        if hasattr(tokenizer, "encode"):
            count = len(tokenizer.encode(text)) + 2
        else:
            count = len(tokenizer.tokenizer(text)["input_ids"])
        if count > most:
            raise Mismatch(f"the sentence has {count} tokens, more than {most}", "shorten it")

    def merged(self, layout: Layout, flat_P: Tensor) -> dict[str, Tensor]:
        """The whole open_clip checkpoint with the update added."""
        state = {name: tensor.cpu() for name, tensor in self.clip.state_dict().items()}
        return self.tower.sites.merged(state, layout, flat_P.cpu(), "visual.")

    def unmerged(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{site name: (O, I)} of a checkpoint that `merged` could have made."""
        state = {name: tensor.cpu() for name, tensor in self.clip.state_dict().items()}
        return self.tower.sites.unmerged(state, tensors, "visual.")
