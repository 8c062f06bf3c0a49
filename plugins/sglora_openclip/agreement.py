"""Check that weights, the files beside them, the architecture and the requested tag agree."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from sglora_cli.api import Mismatch, SgloraWarning, UnknownName

from .beside import Beside
from .said import CHOICES, Said, different, plain, size_of

ACTIVATION = {True: "QuickGELU", False: "GELU"}
_INERT = {
    "patch_dropout",
    "timm_model_pretrained",
    "timm_drop",
    "timm_drop_path",
    "hf_model_pretrained",
    "output_tokens",
    "tokenizer_kwargs",
}
"""Keys of open_clip's configuration that affect training or loading, but not the output of a loaded model."""
_ALONE = (
    "pass the architecture that the weights were made for with --backbone open_clip:ARCHITECTURE, "
    "or move them into their own folder with the files that belong to them"
)


def tag_config(architecture: str, tag: str) -> Mapping[str, Any]:
    """Return open_clip's settings for the weights of a tag, or {} without a tag.

    Raises UnknownName for an unknown tag, Mismatch if its activation is not the architecture's.
    """
    import open_clip

    if not tag:
        return {}
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag not in tags:
        raise UnknownName.of(f"weights of {architecture} in open_clip", tag, tags)
    config: Mapping[str, Any] = open_clip.get_pretrained_cfg(architecture, tag)
    if config.get("quick_gelu") and not (open_clip.get_model_config(architecture) or {}).get("quick_gelu"):
        other = f"{architecture}-quickgelu"
        known = tag in open_clip.list_pretrained_tags_by_model(other)
        raise Mismatch(
            f"the weights {tag!r} of open_clip were trained with {ACTIVATION[True]}, but architecture {architecture} "
            f"uses {ACTIVATION[False]}",
            f"pass --backbone open_clip:{other}/{tag}" if known else "pass another tag",
        )
    return config


def check_architecture(beside: Beside, architecture: str, config: Mapping[str, Any]) -> None:
    """Raise Mismatch if a file describes another architecture than the one with this open_clip configuration."""
    for said, own in [*_open_clips(beside.open_clip, config), *_transformers(beside.transformers, config)]:
        numbers = {type(said.value), type(own)} <= {int, float}
        close = numbers and math.isclose(said.value, own, rel_tol=1e-6)
        if plain(said.value) != plain(own) and not close:
            raise Mismatch(f"{said}, but architecture {architecture} has {plain(own)}", _ALONE)
    size = beside.preprocess.get("size")
    pixels = size_of(config.get("vision_cfg", {}).get("image_size", 224))
    if size and size_of(size.value) != pixels:
        raise Mismatch(f"{size}, but architecture {architecture} needs photos of {plain(pixels)} pixels", _ALONE)


def _open_clips(said: Said | None, config: Mapping[str, Any]) -> Iterator[tuple[Said, Any]]:
    """Yield values of open_clip's configuration with those of the architecture. Missing keys have their default."""
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    theirs = said.value if said else {}
    if said and "embed_dim" in theirs:
        yield Said(theirs["embed_dim"], f"{said.where}.embed_dim"), config.get("embed_dim")
    for part, kind in (("vision_cfg", CLIPVisionCfg), ("text_cfg", CLIPTextCfg)):
        if said and isinstance(theirs.get(part), dict):
            usual = {f.name: f.default for f in dataclasses.fields(kind)}
            one, two = ({**usual, **table} for table in (theirs[part], config.get(part, {})))
            for key in sorted({*one, *two} - _INERT):
                values = (_name(key, table.get(key)) for table in (one, two))
                yield Said(next(values), f"{said.where}.{part}.{key}"), next(values)


def _name(key: str, value: Any) -> Any:
    """Ignore the folder of a tokenizer, because tokenizers have moved into folders of their makers."""
    return value.rpartition("/")[2] if key == "hf_tokenizer_name" and isinstance(value, str) else value


def _transformers(said: Said | None, config: Mapping[str, Any]) -> Iterator[tuple[Said, Any]]:
    """Yield values of transformers' configuration with those of the architecture."""
    if said is None:
        return
    if "projection_dim" in said.value:
        yield Said(said.value["projection_dim"], f"{said.where}, projection_dim"), config.get("embed_dim")
    vision, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
    if "timm_model_name" in vision or "hf_model_name" in text:  # not open_clip's own towers
        return
    wide, narrow = vision.get("width", 768), text.get("width", 512)
    own: dict[str, dict[str, Any]] = {
        "vision_config": {
            "hidden_size": wide,
            "intermediate_size": int(wide * vision.get("mlp_ratio", 4.0)),
            "num_hidden_layers": vision.get("layers", 12),
            "num_attention_heads": wide // vision.get("head_width", 64),
            "patch_size": vision.get("patch_size", 16),
            "image_size": vision.get("image_size", 224),
            "layer_norm_eps": (vision.get("norm_kwargs") or {}).get("eps", 1e-5),
        },
        "text_config": {
            "hidden_size": narrow,
            "intermediate_size": int(narrow * text.get("mlp_ratio", 4.0)),
            "num_hidden_layers": text.get("layers", 12),
            "num_attention_heads": text.get("heads", 8),
            "max_position_embeddings": text.get("context_length", 77),
            "vocab_size": text.get("vocab_size", 49408),
            "layer_norm_eps": (text.get("norm_kwargs") or {}).get("eps", 1e-5),
        },
    }
    for part, values in own.items():
        theirs = said.value.get(part)
        for key, value in values.items():
            if isinstance(theirs, dict) and key in theirs:
                yield Said(theirs[key], f"{said.where}, {part}.{key}"), value


def preprocessing(architecture: str, tag: str, path: Any, beside: Beside) -> dict[str, Any]:
    """Return open_clip's preprocessing settings for weights from a file.

    They come from the files beside it, otherwise from the tag, otherwise from all tags of the architecture. If these
    tags disagree, OpenAI's settings are used with a warning. The size is the architecture's.

    Raises UnknownName for an unknown tag, Mismatch if tag and file disagree, and for settings that open_clip does not
    support.
    """
    import open_clip
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    usual = {key: value for key, value in asdict(PreprocessCfg()).items() if key != "size"}
    named = tag_config(architecture, tag)
    said = {key: one for key, one in beside.preprocess.items() if key != "size"}
    for key, one in said.items():
        _check_possible(key, one)
        if key in named and different(key, one.value, named[key]):
            text = f"{one}, but open_clip's weights {architecture}/{tag} have {plain(named[key])}"
            if key in ("mean", "std"):
                hint = f"pass --backbone open_clip:{architecture} to use the file's value, or fix the file"
                raise Mismatch(text, hint)
            warnings.warn(f"{text}. The file's value is used", SgloraWarning, stacklevel=3)
    if said:
        return dict(merge_preprocess_dict(usual, {key: one.value for key, one in said.items()}))
    tags = [tag] if tag else open_clip.list_pretrained_tags_by_model(architecture)
    known = [merge_preprocess_dict(usual, open_clip.get_pretrained_cfg(architecture, one)) for one in tags]
    if any(one != known[0] for one in known):
        warnings.warn(
            f"neither {path} nor a file beside it says how to prepare photos, and weights of {architecture} differ "
            f"in this, so OpenAI's preprocessing is used (pass a tag for another one, such as "
            f"open_clip:{architecture}/{tags[-1]})",
            SgloraWarning,
            stacklevel=3,
        )
        return usual
    return dict(known[0]) if known else usual


def _check_possible(key: str, said: Said) -> None:
    if said.value not in CHOICES.get(key, (said.value,)):
        raise Mismatch(
            f"{said}, which open_clip does not support",
            "remove the file to use open_clip's default",
        )
