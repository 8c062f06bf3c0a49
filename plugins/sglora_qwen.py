"""Captions by Qwen2-VL through transformers (extra `caption`).

The paper says "Qwen2-VL" and no more. The default is the 7B model that is tuned to instructions; the one of 2B is for
machines that cannot hold it: `--captioner qwen2-vl-2b`. Weights come from `--weights FOLDER` (what save_pretrained
writes), else from the hub's cache, else from the hub, which is said first and which SGLORA_OFFLINE=1 forbids. Only
safetensors are read.
"""

from __future__ import annotations

import json
import logging
import struct
import warnings
from collections.abc import Iterator, Sequence
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
    Terms,
    Unavailable,
    hookimpl,
    hub_unreachable,
)

if TYPE_CHECKING:
    from PIL.Image import Image

SGLORA_API = "1.0"

ASK = "Describe the photo in one sentence, in the manner of these examples.\n"
LONGEST_SIDE = 1024
"""Larger photos are shrunk: the model's cost grows with their area."""
MOST_TOKENS = 96
SAMPLING = {"do_sample": True, "temperature": 1.0, "top_p": 0.9, "top_k": 0}
"""The model's own settings are all but greedy: four captions would be one, four times."""
_FILES = ["*.json", "*.safetensors", "*.txt", "*.jinja"]
_REMEDY = "pass --weights FOLDER, or --from FILE for captions made elsewhere, or --captioner names for colours only"
_INSTALL = 'pip install "sglora[caption]"'
_TOKENIZER_BYTES = 12_000_000
"""tokenizer.json, vocab.json and merges.txt on the hub."""
_TOKEN_PIXELS, _PATCHES = 28 * 28, 4
"""Pixels of a token of the language model, and the patches of the vision tower that it is merged from (the model's
config.json: patches of 14 x 14, merged 2 x 2)."""
_PROMPT_TOKENS = 150
"""The question with two demonstrations, about."""
_HEADER_LIMIT = 16 << 20
"""Bytes of a safetensors file's header."""
_FEWEST_TOKENS = 20
"""Of a caption of one short sentence."""


@dataclass(frozen=True)
class Qwen2VL:
    name: str
    summary: str
    hub_name: str
    parameters: int
    """All of them, as the model's card has it: the weights on the hub are two bytes each."""
    vision_parameters: int
    """Those of the vision tower."""
    embedding_parameters: int
    """Those of the tables of tokens at both ends, which cost nothing while a photo is read."""

    def caption_cost(self, runtime: RuntimeConfig, pixels: int, captions: int) -> CaptionerCost:
        """Counted from the parameters: two operations for each of them and each token or patch."""
        folder = Path(runtime.weights) if runtime.weights else _cached(self.hub_name)
        parameters = _parameters_in(folder) if runtime.weights and folder else self.parameters
        share = parameters / self.parameters  # of a model of another size in a folder
        tokens = min(pixels, LONGEST_SIDE**2) / _TOKEN_PIXELS
        language = self.parameters - self.vision_parameters - self.embedding_parameters
        operations = 2 * (self.vision_parameters * _PATCHES * tokens + language * (tokens + _PROMPT_TOKENS))
        lacks = "" if find_spec("transformers") else f"transformers: {_INSTALL}"
        if not folder and not lacks and (reason := hub_unreachable()):
            lacks = f"its weights, which cannot be fetched: {reason}"
        return CaptionerCost(
            model=str(folder) if runtime.weights else self.hub_name,
            parameters=parameters,
            download_bytes=0 if folder else 2 * self.parameters + _TOKENIZER_BYTES,
            photo_operations=operations * share * captions,  # each answer reads the photo anew
            caption_tokens=(_FEWEST_TOKENS, MOST_TOKENS),
            lacks=lacks,
        )

    def terms(self) -> Sequence[Terms]:
        return [Terms("weights", "Apache-2.0", f"https://huggingface.co/{self.hub_name}")]

    def load(self, runtime: RuntimeConfig) -> QwenModel:
        """Raises Unavailable without transformers or weights, BadFile if the folder holds something else."""
        try:
            from transformers import AutoProcessor, Qwen2VLForConditionalGeneration
        except (ImportError, RuntimeError) as error:  # RuntimeError: a part built for another torch
            raise Unavailable(f"transformers cannot be used: {error}", _INSTALL) from None
        from sglora_cli.api import pick_device, pick_precision  # they bring torch

        device = pick_device(runtime.device)
        folder = Path(runtime.weights) if runtime.weights else _from_hub(self.hub_name)
        if not (folder / "config.json").is_file():
            raise Unavailable(f"{folder} holds no config.json, so no model", _REMEDY)
        try:
            with _quiet():
                processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
                model = Qwen2VLForConditionalGeneration.from_pretrained(
                    folder,
                    local_files_only=True,
                    use_safetensors=True,
                    dtype=pick_precision(runtime.precision, device),
                )
        except Exception as error:  # transformers raises whatever a wrong file leads it to
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise BadFile(f"{folder} is not a whole Qwen2-VL model: {reason}", _REMEDY) from None
        return QwenModel(model.to(device).eval(), processor)  # type: ignore[arg-type]


class QwenModel:
    """A loaded Qwen2-VL."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor

    def write(self, image: Image, prompt: str, count: int, seed: int) -> list[str]:
        """`count` answers, sampled at once: the photo is read by the vision tower as one batch."""
        import torch

        image = image.copy()
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        content = [{"type": "image"}, {"type": "text", "text": ASK + prompt}]
        chat = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = self.processor(images=[image], text=[chat], return_tensors="pt").to(self.model.device)
        cuda = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(cuda), torch.inference_mode():  # the caller's random numbers stay its own
            torch.manual_seed(seed)
            tokens = self.model.generate(**inputs, **SAMPLING, max_new_tokens=MOST_TOKENS, num_return_sequences=count)
        answers = tokens[:, inputs["input_ids"].shape[1] :]
        texts = self.processor.batch_decode(answers, skip_special_tokens=True)
        return [self._ended(text, answer) for text, answer in zip(texts, answers.tolist(), strict=True)]

    def _ended(self, text: str, tokens: list[int]) -> str:
        """The answer; up to its last whole sentence, if there is one, where the limit of tokens cut it off."""
        end = self.model.generation_config.eos_token_id
        if len(tokens) < MOST_TOKENS or set(tokens) & set(end if isinstance(end, list) else [end]):
            return text
        whole = text[: max(text.rfind(mark) for mark in ".!?") + 1]
        return whole or text


def _parameters_in(folder: Path) -> int:
    """The parameters of the weights in a folder, by the headers of its files; 0 if there are none."""
    count = 0
    for path in folder.glob("*.safetensors"):
        with suppress(OSError, ValueError, KeyError, TypeError, struct.error), path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, _HEADER_LIMIT)))
            count += sum(prod(one["shape"]) for name, one in header.items() if name != "__metadata__")
    return count


def _cached(name: str) -> Path | None:
    """The folder of a whole model in the hub's cache; None if it is not there."""
    with suppress(Exception):  # whatever is wrong with the cache, the hub is asked next
        from huggingface_hub import snapshot_download

        if _is_whole(folder := Path(snapshot_download(name, local_files_only=True, allow_patterns=_FILES))):
            return folder
    return None


def _from_hub(name: str) -> Path:
    """The folder of a model in the hub's cache, fetched into it if need be. Raises Unavailable."""
    from huggingface_hub import snapshot_download

    if folder := _cached(name):
        return folder
    reason = hub_unreachable()
    if not reason:
        warnings.warn(f"{name} is not in the hub's cache on this machine: fetching it", SgloraWarning, stacklevel=2)
        try:
            return Path(snapshot_download(name, allow_patterns=_FILES))
        except Exception as error:  # the hub's client raises whatever its network layer does
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
    raise Unavailable(f"weights {name} cannot be had: not in the hub's cache, and not from the hub ({reason})", _REMEDY)


def _is_whole(folder: Path) -> bool:
    """Whether all weights are there: a cache keeps what an interrupted download brought."""
    index = folder / "model.safetensors.index.json"
    names = set(json.loads(index.read_bytes())["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    return all((folder / name).is_file() for name in {*names, "config.json"})


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers logs what it raises, and draws a bar of its own."""
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
