"""The base of an adapter: the model that it was trained on according to its file, compared with the backbone.

An adapter of a text encoder can have the same names and shapes as one of an image encoder, because transformers 5 saves
both without their tower. A CLIP with patches of 32 pixels has the same sites as one with patches of 16. Only the
recorded base distinguishes them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglora_cli.errors import Mismatch
from sglora_cli.plugin.contracts import Model, SaysNames

_LIBRARIES = {"transformers", "diffusers", "sentence_transformers"}
"""Class names of these libraries are conclusive. Classes of other libraries may have any name."""
_READS_IMAGES = re.compile(
    r"Vision|Visual|Image|ViT|VIT|Vit|CLIP|Clip|Siglip|SigLIP|BLIP|Blip|CoCa|Align|Beit|BEiT|Deit|DeiT|Dino|Eva|EVA"
    r"|Flava|Florence|Git|Idefics|Llava|LLaVA|Owl|PaliGemma|Swin|VL|Vlm|Aimv2|Perception"
)
_READS_TEXT = re.compile(r"Text\w*(Model|Encoder|Decoder|Transformer|Tower|Projection)")
_READS_BOTH = re.compile(r"Vision|Visual|Image")  # VisionTextDualEncoderModel
_OF_EITHER = re.compile(r"(?<!Vision)(?<!Image)(Encoder|EncoderLayer|Attention)$")
"""Classes that both towers of a CLIP share, such as CLIPEncoder."""
_LANGUAGE_TASKS = {"CAUSAL_LM", "SEQ_2_SEQ_LM", "SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS"}
_IMAGE_NAMES = re.compile("vis|image")
_TEXT_NAMES = re.compile(r"(^|\.)text(_model|_encoder|_tower)?\.")
_TRAIN = "train the adapter on the image encoder"

_WORDS = r"tiny|small|medium|base|large|huge|giant|gigantic|enormous|so\d+m"
_LETTERS = {"t": "tiny", "s": "small", "m": "medium", "b": "base", "l": "large", "h": "huge", "g": "giant"}
_LETTERS |= {"e": "enormous", "bigg": "gigantic", "gopt": "giant-opt"}
_SIZES = (
    re.compile(rf"(?<![a-z])({_WORDS})[-_]?patch[-_]?(\d+)"),  # clip-vit-base-patch16
    re.compile(rf"(?<![a-z\d])(?:vit[-_]?)?({'|'.join(_LETTERS)}|so\d+m)[-_/]?(8|14|16|28|32)(?![a-z\d])"),  # ViT-B-16
)
_RESOLUTION = re.compile(r"(?<![a-z\d])(224|240|256|280|320|336|378|384|448|512)(?:px|x\d+)?(?![a-z\d])")
_FAMILIES = (
    ("SigLIP 2", re.compile("siglip2")),
    ("SigLIP", re.compile("siglip")),
    ("EVA", re.compile(r"(?<![a-z])eva(?![a-z])|evaclip")),
    ("CoCa", re.compile(r"(?<![a-z])coca(?![a-z])")),
    ("CLIP", re.compile(r"clip(?![a-z])")),
)
"""The first family whose pattern matches is used."""
_CLASSES = re.compile(r"(CLIP|Siglip)2?(?=Vision|Model|For)")


@dataclass(frozen=True)
class Base:
    """The base that a file records. Fields are "" if they are not recorded."""

    name: str = ""
    """Name on a hub, or a path on the machine that trained the adapter."""
    model_class: str = ""
    library: str = ""
    """The module of the class."""
    task: str = ""
    encoder: str = ""
    """"text" if the file records that its updates are of the text encoder, as CLIP-LoRA does."""
    where: str = ""
    """The file that records the base."""

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "class": self.model_class, "library": self.library, "task": self.task}

    def __str__(self) -> str:
        if self.name and self.model_class:
            return f"{self.name}, a {self.model_class}"
        return self.name or (f"a {self.model_class}" if self.model_class else "unknown")

    def check_encoder(self, names: Collection[str]) -> None:
        """Raise Mismatch if the base is a text encoder, or if it does not read images.

        names: names of the updates, which identify the vision tower of a language model.
        """
        kind = self.model_class
        stated = f"auto_mapping.base_model_class = {kind}" if kind else f"encoder = {self.encoder}"
        if self.encoder == "text" or (_READS_TEXT.search(kind) and not _READS_BOTH.search(kind)):
            raise Mismatch(
                f"{self.where} has {stated}, so its updates are of the text encoder and none is of the image encoder",
                _TRAIN,
            )
        if names and all(map(_TEXT_NAMES.search, names)):
            raise Mismatch(
                f"all updates are of the text encoder, such as {min(names)}, and none is of the image encoder",
                _TRAIN,
            )
        if _READS_IMAGES.search(kind) or any(map(_IMAGE_NAMES.search, names)):
            return
        if kind and self.library.split(".")[0] in _LIBRARIES:
            raise Mismatch(f"{self.where} has {stated}, which is not a known image encoder", _TRAIN)
        if self.task in _LANGUAGE_TASKS:
            raise Mismatch(f"{self.where} has task_type = {self.task}, which is a task of language models", _TRAIN)

    def check_backbone(self, path: Path, names: Collection[str], model: Model, backbone: str = "") -> str:
        """Return a warning if the base may differ from the backbone; "" if it does not.

        path: the adapter's path.  names: names of the updates.  backbone: the name that the user gave.
        Raises Mismatch if the base has another architecture.
        """
        known = [*(model.base_names() if isinstance(model, SaysNames) else ()), model.hub_name, backbone]
        known = list(dict.fromkeys(name for name in known if name))
        ours = f"backbone {backbone!r}" if backbone else "the backbone"
        ours += f" ({known[0]})" if known and _plain(known[0]) != _plain(backbone) else ""
        if gap := self.gap(known):
            raise Mismatch(
                f"{self.where} records that the adapter was trained on {self}, which is not {ours}: {gap}",
                "pass --backbone with the backbone that it was made for, or correct the name in that file",
            )
        if not self.name:
            return f"{path} does not record which model it was trained on, assuming {ours}"
        if not any(_same(self.name, one) for one in known):
            return f"{path} was trained on {self}, which may not be {ours}"
        known_kind = _READS_IMAGES.search(self.model_class) and not _OF_EITHER.search(self.model_class)
        if not known_kind and not any(map(_IMAGE_NAMES.search, names)):
            return f"{path} does not record which encoder of {self} it is for, assuming the image encoder of {ours}"
        return ""

    def gap(self, known: Iterable[str]) -> str:
        """Return the contradiction between this base and the names of another model; "" if there is none."""
        theirs, ours = _traits([self.name]), _traits(known)
        for trait, value in ours.items():
            if trait in theirs and theirs[trait] != value:
                return f"its {trait} is {theirs[trait]}, not {value}"
        # transformers uses one class for SigLIP and most of SigLIP 2, and has only some models of the other families.
        named = _CLASSES.match(self.model_class) if self.library.split(".")[0] == "transformers" else None
        family = ours.get("family")
        if named and family in ("CLIP", "SigLIP", "SigLIP 2") and (named[1] == "CLIP") != (family == "CLIP"):
            return f"its class is {self.model_class}, not one of {family}"
        return ""


def _plain(name: str) -> str:
    """Normalise a model name: remove prefixes and cache paths, and ignore case.

    >>> _plain("/home/a/.cache/hub/models--openai--clip-vit-base-patch16/snapshots/57c2"), _plain("hf-hub:Org/Name/")
    ('openai/clip-vit-base-patch16', 'org/name')
    """
    name = name.strip().replace("\\", "/").casefold()
    name = re.sub(r"^(https://huggingface\.co/|hf-hub:|open_clip:)", "", name).rstrip("/")
    cached = re.search(r"(?:^|/)models--([^/]+)--([^/]+)", name)
    return f"{cached[1]}/{cached[2]}" if cached else name


def _is_path(plain: str) -> bool:
    return plain.startswith((".", "/", "~")) or plain.count("/") > 1 or re.match("[a-z]:/", plain) is not None


def _same(name: str, known: str) -> bool:
    """Whether two names refer to the same model. For a path, only its last part is compared.

    >>> _same("./models/clip-vit-base-patch16", "openai/clip-vit-base-patch16")
    True
    """
    one, other = _plain(name), _plain(known)
    return one == other or (_is_path(one) and one.rpartition("/")[2] == other.rpartition("/")[2])


def _traits(names: Iterable[str]) -> dict[str, str]:
    """Derive traits of an architecture from its names. Traits in which the names disagree are left out.

    >>> _traits(["laion/CLIP-ViT-L-14-laion2B-s32B-b82K"])
    {'family': 'CLIP', 'size': 'large', 'patch': '14'}
    """
    found: dict[str, set[str]] = {"family": set(), "size": set(), "patch": set(), "resolution": set()}
    for name in names:
        text = _plain(name)
        text = text.rpartition("/")[2] if _is_path(text) else text
        families = [family for family, pattern in _FAMILIES if pattern.search(text)]
        families += ["CLIP"] * (name.startswith("open_clip:") and not families)
        found["family"].update(families[:1])
        for pattern in _SIZES:
            for size, patch in pattern.findall(text):
                found["size"].add(_LETTERS.get(size, size))
                found["patch"].add(patch)
        found["resolution"].update(_RESOLUTION.findall(text))
    return {trait: values.pop() for trait, values in found.items() if len(values) == 1}
