"""Captions by Qwen2-VL with transformers (extra `caption`).

The paper names "Qwen2-VL" without a size. The default is the instruction-tuned 7B model. Smaller machines can use the
2B model with `--captioner qwen2-vl-2b`. Weights come from `--weights FOLDER` (in the format of save_pretrained), then
from the Hugging Face cache, then from the Hub. A download is announced, and SGLORA_OFFLINE=1 disables it. Only
safetensors files are read.
"""

from __future__ import annotations

import json
import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglora_cli.api import (
    BadFile,
    CaptionerCost,
    RuntimeConfig,
    SgloraWarning,
    Unavailable,
    hookimpl,
    hub_unreachable,
)

if TYPE_CHECKING:
    from PIL.Image import Image

SGLORA_API = "1.0"

ASK = "Describe the photo in one sentence, in the manner of these examples.\n"
LONGEST_SIDE = 1024
"""Larger photos are scaled down, because the model's cost grows with their area."""
MOST_TOKENS = 96
SAMPLING = {"do_sample": True, "temperature": 1.0, "top_p": 0.9, "top_k": 0}
"""The model's default settings are almost greedy, which would return the same caption several times."""
_FILES = ["*.json", "*.safetensors", "*.txt", "*.jinja"]
_REMEDY = "pass --weights FOLDER, import captions with --from FILE, or use --captioner names"
_INSTALL = 'pip install "sglora[caption]"'
_TOKENIZER_BYTES = 12_000_000
"""Total size of tokenizer.json, vocab.json and merges.txt on the Hub."""
_TOKEN_PIXELS, _PATCHES = 28 * 28, 4
"""Pixels per token of the language model, and patches of the vision tower merged into one token (the model's
config.json: patches of 14 x 14, merged 2 x 2)."""
_PROMPT_TOKENS = 150
"""Approximate length of the question with two demonstrations."""
_HEADER_LIMIT = 16 << 20
"""Bytes read at most from the header of a safetensors file."""
_FEWEST_TOKENS = 20
"""Tokens of a caption of one short sentence."""


@dataclass(frozen=True)
class Qwen2VL:
    name: str
    summary: str
    hub_name: str
    parameters: int
    """All parameters, from the model card. The weights on the Hub have two bytes each."""
    vision_parameters: int
    """Parameters of the vision tower."""
    embedding_parameters: int
    """Parameters of the token embeddings at both ends, which take no computation while reading a photo."""

    def caption_cost(self, runtime: RuntimeConfig, pixels: int, captions: int) -> CaptionerCost:
        """Estimate the cost as two operations per parameter and token or patch."""
        folder = Path(runtime.weights) if runtime.weights else _cached(self.hub_name)
        parameters = _parameters_in(folder) if runtime.weights and folder else self.parameters
        share = parameters / self.parameters  # for a model of another size in a folder
        tokens = min(pixels, LONGEST_SIDE**2) / _TOKEN_PIXELS
        language = self.parameters - self.vision_parameters - self.embedding_parameters
        operations = 2 * (self.vision_parameters * _PATCHES * tokens + language * (tokens + _PROMPT_TOKENS))
        lacks = "" if find_spec("transformers") else f"transformers: {_INSTALL}"
        if not folder and not lacks and (reason := hub_unreachable()):
            lacks = f"its weights cannot be downloaded: {reason}"
        return CaptionerCost(
            model=str(folder) if runtime.weights else self.hub_name,
            parameters=parameters,
            download_bytes=0 if folder else 2 * self.parameters + _TOKENIZER_BYTES,
            photo_operations=operations * share * captions,  # each answer reads the photo again
            caption_tokens=(_FEWEST_TOKENS, MOST_TOKENS),
            lacks=lacks,
        )

    def load(self, runtime: RuntimeConfig) -> QwenModel:
        """Raises Unavailable without transformers or weights, BadFile if the folder does not contain the model."""
        try:
            from transformers import AutoProcessor, Qwen2VLForConditionalGeneration
        except (ImportError, RuntimeError) as error:  # RuntimeError: a part built for another torch
            raise Unavailable(f"transformers cannot be used: {error}", _INSTALL) from None
        from sglora_cli.api import pick_device, pick_precision  # these import torch

        device = pick_device(runtime.device)
        folder = Path(runtime.weights) if runtime.weights else _from_hub(self.hub_name)
        if not (folder / "config.json").is_file():
            raise Unavailable(f"{folder} contains no config.json, so it is not a model", _REMEDY)
        try:
            with _quiet():
                processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
                model = Qwen2VLForConditionalGeneration.from_pretrained(
                    folder,
                    local_files_only=True,
                    use_safetensors=True,
                    dtype=pick_precision(runtime.precision, device),
                )
        except Exception as error:  # transformers raises many error types for wrong files
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise BadFile(f"{folder} is not a complete Qwen2-VL model: {reason}", _REMEDY) from None
        return QwenModel(model.to(device).eval(), processor)  # type: ignore[arg-type]


class QwenModel:
    """A loaded Qwen2-VL."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor

    def write(self, image: Image, prompt: str, count: int, seed: int) -> list[str]:
        """Sample `count` answers in one batch, so that the vision tower reads the photo as one batch."""
        import torch

        image = image.copy()
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        content = [{"type": "image"}, {"type": "text", "text": ASK + prompt}]
        chat = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = self.processor(images=[image], text=[chat], return_tensors="pt").to(self.model.device)
        cuda = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(cuda), torch.inference_mode():  # do not change the caller's random generator
            torch.manual_seed(seed)
            tokens = self.model.generate(**inputs, **SAMPLING, max_new_tokens=MOST_TOKENS, num_return_sequences=count)
        answers = tokens[:, inputs["input_ids"].shape[1] :]
        texts = self.processor.batch_decode(answers, skip_special_tokens=True)
        return [self._ended(text, answer) for text, answer in zip(texts, answers.tolist(), strict=True)]

    def _ended(self, text: str, tokens: list[int]) -> str:
        """Return the answer. If the token limit cut it, drop the incomplete last sentence when there are others."""
        end = self.model.generation_config.eos_token_id
        if len(tokens) < MOST_TOKENS or set(tokens) & set(end if isinstance(end, list) else [end]):
            return text
        whole = text[: max(text.rfind(mark) for mark in ".!?") + 1]
        return whole or text


def _parameters_in(folder: Path) -> int:
    """Count the parameters of the weights in a folder from the headers of its files. 0 if there are none."""
    count = 0
    for path in folder.glob("*.safetensors"):
        with suppress(OSError, ValueError, KeyError, TypeError, struct.error), path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, _HEADER_LIMIT)))
            count += sum(prod(one["shape"]) for name, one in header.items() if name != "__metadata__")
    return count


def _cached(name: str) -> Path | None:
    """Return the folder of a complete model in the Hugging Face cache, or None."""
    with suppress(Exception):  # if the cache is broken, the Hub is tried next
        from huggingface_hub import snapshot_download

        if _is_whole(folder := Path(snapshot_download(name, local_files_only=True, allow_patterns=_FILES))):
            return folder
    return None


def _from_hub(name: str) -> Path:
    """Return the folder of a model in the Hugging Face cache, downloading it if necessary. Raises Unavailable."""
    from huggingface_hub import snapshot_download

    if folder := _cached(name):
        return folder
    reason = hub_unreachable()
    if not reason:
        warnings.warn(f"{name} is not in the Hugging Face cache, downloading it", SgloraWarning, stacklevel=2)
        try:
            return Path(snapshot_download(name, allow_patterns=_FILES))
        except Exception as error:  # the Hub's client passes on errors of its network layer
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
    raise Unavailable(f"weights {name} are not in the Hugging Face cache and cannot be downloaded: {reason}", _REMEDY)


def _is_whole(folder: Path) -> bool:
    """Return whether all weight files are present. After an interrupted download, a cache has only some of them."""
    index = folder / "model.safetensors.index.json"
    names = set(json.loads(index.read_bytes())["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    return all((folder / name).is_file() for name in {*names, "config.json"})


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers, which logs its errors and draws its own progress bar."""
    from transformers.utils import logging as theirs

    before, bars = logging.root.manager.disable, theirs.is_progress_bar_enabled()
    logging.disable(logging.ERROR)
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        logging.disable(before)
        if bars:
            theirs.enable_progress_bar()


@hookimpl
def sglora_captioners() -> list[Qwen2VL]:
    return [
        Qwen2VL(
            "qwen2-vl",
            "Qwen2-VL 7B, as in the paper (transformers)",
            "Qwen/Qwen2-VL-7B-Instruct",
            parameters=8_291_375_616,
            vision_parameters=675_759_104,
            embedding_parameters=2 * 544_997_376,
        ),
        Qwen2VL(
            "qwen2-vl-2b",
            "Qwen2-VL 2B, for smaller machines (transformers)",
            "Qwen/Qwen2-VL-2B-Instruct",
            parameters=2_208_985_600,
            vision_parameters=665_271_296,
            embedding_parameters=233_373_696,
        ),
    ]
