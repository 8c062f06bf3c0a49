"""Weights and tokenizers that open_clip fetches from a hub: the only place where this plugin uses a network.

What is in open_clip's cache is taken from there, and the network is not touched. What is not is fetched, which is said
first. SGLORA_OFFLINE=1 forbids it; a machine that cannot reach the hub is found out early: its client would try again
for most of a minute.
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
"""Architectures of OpenAI's weights -> where transformers finds these."""
_HUB = "hf-hub:"
_CONFIG = "open_clip_config.json"
REMEDY = (
    "put the weights into a file and pass --weights FILE (or set SGLORA_WEIGHTS); --backbone starter works without any"
)


def fetch_model(backbone: OpenClip) -> Any:
    """An open_clip model with the weights its tag names. Raises UnknownName, Mismatch for a tag, Unavailable."""
    import open_clip

    if on_hub := ":" in backbone.architecture:
        what = backbone.architecture
    else:
        tags = open_clip.list_pretrained_tags_by_model(backbone.architecture)
        if not backbone.tag:
            example = f"add a tag, as in open_clip:{backbone.architecture}/{tags[0]}, or " if tags else ""
            raise Unavailable(f"backbone {backbone.name!r} names no weights", f"{example}{REMEDY}")
        tag_config(backbone.architecture, backbone.tag)
        what = f"{backbone.architecture}/{backbone.tag}"
    tag = None if on_hub else backbone.tag
    return _fetched(lambda: open_clip.create_model(backbone.architecture, pretrained=tag), f"weights of {what}", REMEDY)


def cached(architecture: str, tag: str) -> list[Path]:
    """The file of weights that a tag names, or a model of the hub, and its configuration if that is a file, too.

    They are looked for in the caches of this machine. [] if they are not all there: nothing is fetched.
    """
    pretrained = part("pretrained")
    with suppress(Exception), quiet(), cache_only():  # whatever is wrong with the cache, the hub is asked next
        if ":" not in architecture:
            path = pretrained.download_pretrained(pretrained.get_pretrained_cfg(architecture, tag))
            return [Path(path)] if path else []
        model = architecture.removeprefix(_HUB)
        paths = (pretrained.download_pretrained_from_hf(model, filename=name) for name in (None, _CONFIG))
        return [Path(path) for path in paths]
    return []


def absent(backbone: OpenClip) -> str:
    """Which of a backbone's weights are not in the caches of this machine; "" if they are. Nothing is fetched."""
    if cached(backbone.architecture, backbone.tag):
        return ""
    name = f"{backbone.architecture}/{backbone.tag}".rstrip("/")
    return f"its weights {name} are not in open_clip's cache"


def names(backbone: OpenClip) -> list[str]:
    """What others call the model that the user named: in transformers, on open_clip's hub, in open_clip."""
    if ":" in backbone.architecture:
        return [backbone.architecture]
    plain = backbone.architecture.removesuffix("-quickgelu")
    openai = OPENAI.get(plain, "") if backbone.tag == "openai" else ""
    hub = str(part("pretrained").get_pretrained_cfg(backbone.architecture, backbone.tag).get("hf_hub", "")).rstrip("/")
    own = [f"{name}/{backbone.tag}".rstrip("/") for name in dict.fromkeys((plain, backbone.architecture))]
    return list(dict.fromkeys(name for name in (backbone.hub_name, openai, hub, *own) if name))


def fetch_tokenizer(architecture: str) -> Any:
    """The tokenizer of an architecture; that of CLIP is part of open_clip. Raises Unavailable."""
    if own := _clips_own(architecture):
        return own
    import open_clip

    remedy = "fetch it once with a network; --backbone starter works without any"
    return _fetched(lambda: open_clip.get_tokenizer(architecture), f"the tokenizer of {architecture}", remedy)


@lru_cache(maxsize=1)
def cached_tokenizer(architecture: str) -> Any:
    """The same, and the network is never asked. Raises Unavailable."""
    if own := _clips_own(architecture):
        return own
    import open_clip

    try:
        with quiet(), cache_only():
            return open_clip.get_tokenizer(architecture)
    except Exception as error:  # as below
        raise Unavailable(
            f"the tokenizer of {architecture} is not on this machine", "a build fetches it with the weights"
        ) from error


def _clips_own(architecture: str) -> Any:
    """CLIP's tokenizer, as open_clip's `get_tokenizer` makes it; None where it makes another one."""
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
    with suppress(Exception), quiet(), cache_only():  # whatever is wrong with the cache, the hub is asked next
        return fetch()
    reason = hub_unreachable()
    try:
        if not reason:
            warnings.warn(f"{what} not in open_clip's cache: fetching from its hub", SgloraWarning, stacklevel=2)
            with quiet():
                return fetch()
    except Exception as error:  # the hub's client raises whatever its network layer does
        reason = str(error).partition("\n")[0] or type(error).__name__
    raise Unavailable(
        f"{what} cannot be had: not in open_clip's cache on this machine, and not from its hub ({reason})", remedy
    )


@contextmanager
def quiet() -> Iterator[None]:
    """open_clip logs its every step to the root logger, errors too, which are raised here."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def cache_only() -> Iterator[None]:
    """open_clip asks the caches on this machine and nobody else."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        with no_network():  # some weights come from elsewhere than the hub
            yield
    finally:
        constants.HF_HUB_OFFLINE = before
