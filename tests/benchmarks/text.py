"""CLIP's text encoder without padding against open_clip's own, ViT-B/16's size: `python tests/benchmarks/text.py`.

Random weights, one thread, processor time. Rounds of the two alternate, and the median of each round's ratio counts.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

import open_clip
import torch

from sglora_cli.config import RuntimeConfig
from sglora_openclip.model import OpenClipModel

ARCHITECTURE = "ViT-B-16-quickgelu"
WORDS = ["a", "man", "dog", "wave", "red", "two", "standing", "in", "front", "of", "the", "street", "with", "table"]


def captions(count: int) -> list[str]:
    """Of about as many words as those of COCO."""
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=max(7, round(rng.gauss(10.5, 2.4))))) for _ in range(count)]


def processor_seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    clip = open_clip.create_model(ARCHITECTURE, load_weights=False)
    model, tokenizer = (
        OpenClipModel(clip, ARCHITECTURE, RuntimeConfig(device="cpu")),
        open_clip.get_tokenizer("ViT-B-16"),
    )

    def padded(texts: list[str]) -> torch.Tensor:
        with torch.no_grad():
            return clip.encode_text(tokenizer(texts), normalize=True)

    for texts in (["a photo of a pug"], captions(32), captions(256)):
        gap = float((model.encode_text(texts) - padded(texts)).abs().max())
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(processor_seconds(lambda texts=texts: model.encode_text(texts)))
            theirs.append(processor_seconds(lambda texts=texts: padded(texts)))
        ratio = statistics.median(t / o for o, t in zip(ours, theirs, strict=True))
        print(
            f"{len(texts)} text(s): ours {statistics.median(ours) * 1e3:.0f} ms, "
            f"padded {statistics.median(theirs) * 1e3:.0f} ms, ratio {ratio:.1f}; largest difference {gap:.1e}"
        )


if __name__ == "__main__":
    main()
