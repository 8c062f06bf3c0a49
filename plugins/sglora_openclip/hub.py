"""Download weights and tokenizers through open_clip. This is the only module of the plugin that uses a network.

Files in open_clip's cache are used without the network. Missing files are downloaded after a notice, and
SGLORA_OFFLINE=1 disables downloads. An unreachable Hub is detected early, because its client would retry for most of a
minute.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sglora_cli.api import SgloraWarning, Unavailable, hub_unreachable, no_network, read_json

from .agreement import tag_config
from .parts import configuration, part

if TYPE_CHECKING:
    from . import OpenClip

V = TypeVar("V")
OPENAI = {
    "ViT-B-32": "openai/clip-vit-base-patch32",
    "ViT-B-16": "openai/clip-vit-base-patch16",
    "ViT-L-14": "openai/clip-vit-large-patch14",
    "ViT-L-14-336": "openai/clip-vit-large-patch14-336",
}
"""Architectures of OpenAI's weights -> their names in transformers."""
_HUB = "hf-hub:"
_CONFIG = "open_clip_config.json"
REMEDY = "pass --weights FILE (or set SGLORA_WEIGHTS), or use the backbone starter, which needs no download"


def fetch_model(backbone: OpenClip) -> Any:
    """Return an open_clip model with the weights of its tag. Raises UnknownName, Mismatch for a tag, Unavailable."""
    import open_clip

    if on_hub := ":" in backbone.architecture:
        what = backbone.architecture
    else:
        tags = open_clip.list_pretrained_tags_by_model(backbone.architecture)
        if not backbone.tag:
            example = f"add a tag, such as open_clip:{backbone.architecture}/{tags[0]}, or " if tags else ""
            raise Unavailable(f"backbone {backbone.name!r} has no tag for its weights", f"{example}{REMEDY}")
        tag_config(backbone.architecture, backbone.tag)
        what = f"{backbone.architecture}/{backbone.tag}"
    tag = None if on_hub else backbone.tag
    return _fetched(lambda: open_clip.create_model(backbone.architecture, pretrained=tag), f"weights of {what}", REMEDY)


def cached(architecture: str, tag: str) -> list[Path]:
    """Return the cached weight file of a tag or Hub model, and its configuration if that is also a file.

    Returns [] if they are not all in the caches of this machine. Nothing is downloaded.
    """
    pretrained = part("pretrained")
    with suppress(Exception), quiet(), cache_only():  # if the cache is broken, the hub is tried next
        if ":" not in architecture:
            path = pretrained.download_pretrained(pretrained.get_pretrained_cfg(architecture, tag))
            return [Path(path)] if path else []
        model = architecture.removeprefix(_HUB)
        paths = (pretrained.download_pretrained_from_hf(model, filename=name) for name in (None, _CONFIG))
        return [Path(path) for path in paths]
    return []


def absent(backbone: OpenClip) -> str:
    """Return which weights of a backbone are not cached on this machine, or "". Nothing is downloaded."""
    if cached(backbone.architecture, backbone.tag):
        return ""
    name = f"{backbone.architecture}/{backbone.tag}".rstrip("/")
    return f"its weights {name} are not in open_clip's cache"


def names(backbone: OpenClip) -> list[str]:
    """Return other names of the requested model: in transformers, on open_clip's hub, and in open_clip."""
    if ":" in backbone.architecture:
        return [backbone.architecture]
    plain = backbone.architecture.removesuffix("-quickgelu")
    openai = OPENAI.get(plain, "") if backbone.tag == "openai" else ""
    hub = str(part("pretrained").get_pretrained_cfg(backbone.architecture, backbone.tag).get("hf_hub", "")).rstrip("/")
    own = [f"{name}/{backbone.tag}".rstrip("/") for name in dict.fromkeys((plain, backbone.architecture))]
    return list(dict.fromkeys(name for name in (backbone.hub_name, openai, hub, *own) if name))


def fetch_tokenizer(architecture: str) -> Any:
    """Return an architecture's tokenizer. CLIP's own is part of open_clip. Raises Unavailable."""
    if own := _clips_own(architecture):
        return own
    import open_clip

    remedy = "run this once with a network connection, or use the backbone starter"
    return _fetched(lambda: open_clip.get_tokenizer(architecture), f"the tokenizer of {architecture}", remedy)


@lru_cache(maxsize=1)
def cached_tokenizer(architecture: str) -> Any:
    """Like `fetch_tokenizer`, but without the network. Raises Unavailable."""
    if own := _clips_own(architecture):
        return own
    import open_clip

    try:
        with quiet(), cache_only():
            return open_clip.get_tokenizer(architecture)
    except Exception as error:  # as below
        raise Unavailable(
            f"the tokenizer of {architecture} is not on this machine", "a build downloads it with the weights"
        ) from error


def _clips_own(architecture: str) -> Any:
    """Return CLIP's tokenizer as open_clip's `get_tokenizer` does, or None if that returns another one."""
    config: Mapping[str, Any] = {}
    if ":" not in architecture:
        config = configuration(architecture)
    elif files := cached(architecture, ""):
        config = read_json(files[1]).get("model_cfg", {})
    text = config.get("text_cfg")
    if text is None or text.get("hf_tokenizer_name") or (":" not in architecture and "siglip" in architecture.lower()):
        return None
    tokenizer = part("tokenizer")
    length = text.get("context_length", tokenizer.DEFAULT_CONTEXT_LENGTH)
    return tokenizer.SimpleTokenizer(context_length=length, **text.get("tokenizer_kwargs", {}))


def _fetched(fetch: Callable[[], V], what: str, remedy: str) -> V:
    with suppress(Exception), quiet(), cache_only():  # if the cache is broken, the hub is tried next
        return fetch()
    reason = hub_unreachable()
    try:
        if not reason:
            warnings.warn(f"downloading {what}, not found in open_clip's cache", SgloraWarning, stacklevel=2)
            with quiet():
                return fetch()
    except Exception as error:  # the hub's client passes on errors of its network layer
        reason = str(error).partition("\n")[0] or type(error).__name__
    raise Unavailable(f"{what} could not be found in open_clip's cache or downloaded: {reason}", remedy)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence open_clip, which logs every step to the root logger, including errors that are raised here."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def cache_only() -> Iterator[None]:
    """Make open_clip use only the caches on this machine."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        with no_network():  # some weights are not downloaded from the Hub
            yield
    finally:
        constants.HF_HUB_OFFLINE = before
