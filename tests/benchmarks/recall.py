"""Recall on 5,000 images x 25,010 captions, ours against clip-benchmark's: `python tests/benchmarks/recall.py`.

Random unit embeddings (512 wide, captions pulled to their image so that recalls are neither 0 nor 100),
saved once; each contestant runs in a process of its own, so that its peak memory is its own. Times
are of the function alone; peaks are of the whole process, Python and torch included. Values must agree.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

IMAGES, CAPTIONS, WIDTH = 5_000, 25_010, 512
KS = [1, 5, 10]


def embeddings() -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    rng = torch.Generator().manual_seed(0)
    image_of = [min(c // 5, IMAGES - 1) for c in range(CAPTIONS)]
    images = torch.nn.functional.normalize(torch.randn(IMAGES, WIDTH, generator=rng), dim=1)
    texts = images[image_of] + 6 * torch.nn.functional.normalize(torch.randn(CAPTIONS, WIDTH, generator=rng), dim=1)
    return images, torch.nn.functional.normalize(texts, dim=1), image_of


def ours(images: torch.Tensor, texts: torch.Tensor, image_of: list[int]) -> dict[str, float]:
    from sglora_cli.bench.retrieval import hits, percent

    return {f"{d} R@{k}": percent(hit) for (d, k), hit in hits(images, texts, image_of, KS).items()}


def theirs(images: torch.Tensor, texts: torch.Tensor, image_of: list[int]) -> dict[str, float]:
    """clip-benchmark's `evaluate`, with a model that hands out the embeddings and batches of 64 images."""
    from clip_benchmark.metrics.zeroshot_retrieval import evaluate

    class Given:
        encode_image = staticmethod(lambda rows: images[rows])
        encode_text = staticmethod(lambda rows: texts[rows])

    own = [list(range(5 * n, 5 * n + 5)) for n in range(IMAGES)]
    own[-1] += range(5 * IMAGES, CAPTIONS)
    starts = range(0, IMAGES, 64)
    batches = [(torch.arange(s, min(s + 64, IMAGES)), own[s : s + 64]) for s in starts]
    metrics = evaluate(Given, batches, torch.tensor, "cpu", amp=False, recall_k_list=KS)
    names = {"I2T": "text_retrieval", "T2I": "image_retrieval"}
    return {f"{d} R@{k}": 100 * metrics[f"{name}_recall@{k}"] for d, name in names.items() for k in KS}


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def contestant(which: str, threads: int, folder: Path) -> None:
    torch.set_num_threads(threads)
    images, texts, image_of = torch.load(folder / "embeddings.pt", weights_only=True)
    function = {"ours": ours, "clip-benchmark": theirs}[which]
    small = min(256, IMAGES)
    if which == "ours":  # imports and the first product are nobody's business
        ours(images[:small], texts[: 5 * small], image_of[: 5 * small])
    else:
        import clip_benchmark.metrics.zeroshot_retrieval  # noqa: F401
    start = time.perf_counter()
    values = function(images, texts, image_of)
    print(json.dumps({"seconds": time.perf_counter() - start, "mib": peak_mib(), "recalls": values}))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        torch.save(embeddings(), Path(name) / "embeddings.pt")
        for threads in (1, 2):
            got = {}
            for which in ("ours", "clip-benchmark"):
                command = [sys.executable, __file__, which, str(threads), name]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                got[which] = json.loads(done.stdout)
                print(f"{threads} thread(s), {which}: {got[which]['seconds']:.2f} s, {got[which]['mib']:.0f} MiB")
            a, b = got["ours"], got["clip-benchmark"]
            print(f"  {b['seconds'] / a['seconds']:.1f} times faster, {b['mib'] / a['mib']:.1f} times less memory")
            gap = max(abs(a["recalls"][cell] - b["recalls"][cell]) for cell in a["recalls"])
            print(f"  largest difference of a recall: {gap:.6f} points; {a['recalls']}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        contestant(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
