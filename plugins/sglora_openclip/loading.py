"""Load a model from a file, from open_clip's caches, or with open_clip from its hub.

Facts about files are cached (see `stored`), so that open_clip is imported only for photos.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sglora_cli.api import BadFile, Mismatch, RuntimeConfig, SgloraWarning, UsageError

from . import OpenClip
from .agreement import ACTIVATION, check_architecture, preprocessing, tag_config
from .beside import files_beside
from .hub import cache_only, cached, fetch_model, names, quiet
from .model import OpenClipModel
from .names import matched
from .parts import configuration, part
from .stored import Known, Stored
from .weights import find, read, read_whole

_FORMAT = 2
"""Version of the cached facts. Increase it with every change to the checks or to the content of `Known`."""


def load(backbone: OpenClip, runtime: RuntimeConfig) -> OpenClipModel:
    """Load weights from the file in the runtime settings, otherwise from open_clip's cache or hub."""
    if runtime.weights and ":" in backbone.architecture:
        raise UsageError(
            f"backbone {backbone.name!r} does not accept --weights",
            "use --backbone open_clip:ARCHITECTURE with --weights",
        )
    config = {} if ":" in backbone.architecture else configuration(backbone.architecture)
    if runtime.weights:
        path = find(Path(os.path.expanduser(runtime.weights)))
        files = [path, *files_beside(path.parent)]
        stored: Stored | None = _stored(backbone, config, files, lambda: _from_file(backbone, path, config))
    else:
        stored = _of_caches(backbone, config)
    for text in stored.known.warnings if stored else ():
        warnings.warn(text, SgloraWarning, stacklevel=2)
    model = OpenClipModel(stored or fetch_model(backbone), backbone.architecture, runtime)
    model.hub_name = "" if runtime.weights else backbone.hub_name  # the origin of a file's weights is unknown
    model.names = lambda: names(backbone)
    return model


def _stored(
    backbone: OpenClip, config: Mapping[str, Any], files: Sequence[Path], build: Callable[[], nn.Module]
) -> Stored:
    architecture = backbone.architecture

    def look(clip: nn.Module) -> Known:
        model = OpenClipModel(clip, architecture, RuntimeConfig(device="cpu", precision="fp32"))
        projection = getattr(model, "projection", None)
        return Known(model.fingerprint, model.sites, projection, model.scale, model.text_shape)

    what = ["open_clip", _FORMAT, part("version").__version__, architecture, backbone.tag, config]
    return Stored(what, files, build, look)


def _of_caches(backbone: OpenClip, config: Mapping[str, Any]) -> Stored | None:
    """Return the model in open_clip's caches, or None if its weights are missing or do not match tensor by tensor.

    open_clip can load some of the latter, because it converts weights of its older versions.
    """
    if not (files := cached(backbone.architecture, backbone.tag)):
        return None
    stored = _stored(backbone, config, files, lambda: _from_cache(backbone, files[0]))
    with suppress(Exception):  # open_clip tries to load them next and reports errors
        _ = stored.known
        return stored
    return None


def _from_cache(backbone: OpenClip, path: Path) -> nn.Module:
    """Return the model that open_clip creates from a cached file, with its preprocessing."""
    tag = None if ":" in backbone.architecture else backbone.tag
    if tag:
        tag_config(backbone.architecture, tag)
    with cache_only():
        model = _undrawn(backbone.architecture, pretrained=tag)
    return _put(model, path, read_whole(path), backbone)


def _from_file(backbone: OpenClip, path: Path, config: Mapping[str, Any]) -> nn.Module:
    checkpoint = read(path)
    wanted = bool(config.get("quick_gelu", False))
    check_architecture(checkpoint.beside, backbone.architecture, config)
    said = checkpoint.beside.quick_gelu
    if said and said.value != wanted:
        other = backbone.architecture.removesuffix("-quickgelu") + ("-quickgelu" if said.value else "")
        raise Mismatch(
            f"the weights {checkpoint.path} were trained with {ACTIVATION[said.value]}, "
            f"but backbone {backbone.name!r} uses {ACTIVATION[wanted]} ({said})",
            f"pass --backbone open_clip:{other}",
        )
    if said is None:
        warnings.warn(
            f"{checkpoint.path} does not say which activation it was trained with. {ACTIVATION[wanted]} is used, "
            f"as in {backbone.architecture}. The wrong activation reduces accuracy "
            "(a config.json or open_clip_config.json beside the file can define it)",
            SgloraWarning,
            stacklevel=2,
        )
    photos = preprocessing(backbone.architecture, backbone.tag, checkpoint.path, checkpoint.beside)
    model = _undrawn(backbone.architecture, force_preprocess_cfg=photos)
    return _put(model, checkpoint.path, checkpoint.state, backbone)


def _undrawn(architecture: str, **settings: Any) -> nn.Module:
    """Return an open_clip model with uninitialised parameters, which take no memory."""
    import open_clip

    with quiet(), _NoDraw():
        model: nn.Module = open_clip.create_model(architecture, load_weights=False, pretrained_text=False, **settings)
    return model


class _NoDraw(TorchFunctionMode):
    """Skips parameter initialisation in the block. It takes a second for CLIP ViT-B/16, and weights replace it anyway.

    The meta device would skip it, too, but would lose buffers that are not in a checkpoint.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ in ("normal_", "uniform_", "kaiming_uniform_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _put(model: nn.Module, path: Path, state: Mapping[str, Tensor], backbone: OpenClip) -> nn.Module:
    """Load a state that matches the model tensor by tensor. Raises Mismatch for the first one that does not."""
    own = model.state_dict()
    state = matched(own, state)
    hint = "pass their architecture with --backbone open_clip:ARCHITECTURE"
    for name in sorted(set(own) | set(state)):
        if name not in state or name not in own:
            what = "lack" if name in own else "have"
            raise Mismatch(f"the weights {path} do not match {backbone.architecture}: they {what} {name}", hint)
        if own[name].shape != state[name].shape:
            raise Mismatch(
                f"the weights {path} do not match {backbone.architecture}: {name} has shape "
                f"{tuple(state[name].shape)}, expected {tuple(own[name].shape)}",
                hint,
            )
        if not bool(torch.isfinite(state[name]).all()):
            raise BadFile(f"{path}: {name} has non-finite numbers", "download it again")
    numbers = {name: tensor.to(own[name].dtype).contiguous() for name, tensor in state.items()}
    model.load_state_dict(numbers, assign=True)
    return model
