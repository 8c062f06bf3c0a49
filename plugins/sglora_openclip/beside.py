"""Settings in the files beside weights: activation, architecture, and preprocessing of photos.

Reads open_clip_config.json, and transformers' config.json and preprocessor_config.json, whichever are present, because
repositories on the Hub may have all three. Files of these names with unrelated content are ignored.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sglora_cli.api import BadFile, Mismatch, SgloraWarning, read_json

from .processor import prepared
from .said import CHOICES, Said, different, numbers_of_channels, size_of

ACTIVATIONS = {"quick_gelu": True, "gelu": False, "gelu_python": False}
"""transformers' activation name -> whether it is QuickGELU."""
_FILES = ("open_clip_config.json", "config.json", "preprocessor_config.json", "processor_config.json")
_ALONE = "remove the wrong file, or keep these weights in their own folder"


@dataclass(frozen=True)
class Beside:
    """Settings with the files and keys they come from."""

    quick_gelu: Said | None = None
    preprocess: Mapping[str, Said] = field(default_factory=dict)
    """By open_clip's names: size, mean, std, interpolation, resize_mode, fill_color."""
    open_clip: Said | None = None
    """open_clip's `model_cfg`."""
    transformers: Said | None = None
    """transformers' config of a CLIPModel."""

    def joined(self, other: Beside) -> Beside:
        """Combine settings. Raises Mismatch if they differ, except for resizing, where this object's value is used."""
        one, two = self.quick_gelu, other.quick_gelu
        if one and two and one.value != two.value:
            raise Mismatch(f"{one}, but {two}, which are different activations", _ALONE)
        preprocess = dict(self.preprocess)
        for key, said in other.preprocess.items():
            if key in preprocess and different(key, preprocess[key].value, said.value):
                if key not in CHOICES:
                    raise Mismatch(f"{preprocess[key]}, but {said}, which are different ways to prepare photos", _ALONE)
                text = f"{preprocess[key]}, but {said}. The first is used"
                warnings.warn(text, SgloraWarning, stacklevel=2)
            preprocess.setdefault(key, said)
        return Beside(
            one or two, preprocess, self.open_clip or other.open_clip, self.transformers or other.transformers
        )


def read_beside(folder: Path) -> Beside:
    """Read the settings in a folder of weights.

    Raises BadFile with file and key for an invalid value, Mismatch if two values contradict each other.
    """
    beside = Beside()
    for path in files_beside(folder):
        content = read_json(path)
        if isinstance(content, dict):
            beside = beside.joined((_processor if "processor" in path.name else _configuration)(path, content))
    return beside


def files_beside(folder: Path) -> list[Path]:
    """Return the files in a folder of weights that may contain settings."""
    return [path for name in _FILES if (path := folder / name).is_file()]


def _configuration(path: Path, content: dict[str, Any]) -> Beside:
    """Read a model configuration of open_clip, or of a CLIP in transformers."""
    if "model_cfg" in content:
        config = _table(content, "model_cfg", path)
        quick = config.get("quick_gelu", False)
        if not isinstance(quick, bool):
            raise BadFile(f"{path}: model_cfg.quick_gelu must be true or false, got {quick!r:.100}")
        photos = _table(content, "preprocess_cfg", path) if content.get("preprocess_cfg") is not None else {}
        said = Said(quick, f"{path}, model_cfg.quick_gelu")
        return Beside(said, dict(_preprocess(path, photos)), open_clip=Said(config, f"{path}, model_cfg"))
    if content.get("model_type", "clip") != "clip" or not isinstance(content.get("vision_config"), dict):
        return Beside()
    vision = _activation(path, "vision_config", content["vision_config"])
    if isinstance(content.get("text_config"), dict) and content["text_config"]:
        text = _activation(path, "text_config", content["text_config"])
        if text.value != vision.value:
            raise Mismatch(
                f"{vision}, but {text}, and open_clip supports only one activation",
                "use a model with a single activation",
            )
    return Beside(vision, transformers=Said(content, str(path)))


def _activation(path: Path, part: str, config: Mapping[str, Any]) -> Said:
    name = config.get("hidden_act", "quick_gelu")  # transformers' default
    where = f"{path}, {part}.hidden_act"
    if not isinstance(name, str):
        raise BadFile(f"{where} must be the name of an activation, got {name!r:.100}")
    if name not in ACTIVATIONS:
        raise Mismatch(f"{where} is {name!r}, but open_clip's CLIP has {' or '.join(ACTIVATIONS)}", "use other weights")
    return Said(ACTIVATIONS[name], where, name)


def _preprocess(path: Path, config: Mapping[str, Any]) -> Iterator[tuple[str, Said]]:
    """Yield open_clip's `preprocess_cfg`, checked."""
    for key, value in config.items():
        where = f"{path}, preprocess_cfg.{key}"
        if value is None:  # open_clip then uses its default
            continue
        if key in ("mean", "std"):
            value = numbers_of_channels(value, where, least=0.0 if key == "std" else None)
        elif key == "size":
            size_of(value, where)
        elif key in CHOICES:
            if value not in CHOICES[key]:
                raise BadFile(f"{where} must be one of {', '.join(CHOICES[key])}, got {value!r:.100}")
        elif key == "mode":
            if value != "RGB":
                raise BadFile(f"{where} must be RGB, got {value!r:.100}")
        elif key == "fill_color":
            if type(value) is not int or not 0 <= value <= 255:
                raise BadFile(f"{where} must be a whole number from 0 to 255, got {value!r:.100}")
        else:
            warnings.warn(f"{where} is unknown to open_clip and is ignored", SgloraWarning, stacklevel=2)
            continue
        yield key, Said(value, where)


def _processor(path: Path, content: dict[str, Any]) -> Beside:
    """Read transformers' image processor, alone or inside a processor of photos and texts."""
    inner = content.get("image_processor")
    table, where = (inner, f"{path}, image_processor") if isinstance(inner, dict) else (content, str(path))
    return Beside(preprocess=prepared(table, where))


def _table(content: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = content.get(key)
    if not isinstance(value, dict):
        raise BadFile(f"{path}: {key} must be a table, got {value!r:.100}")
    return value
