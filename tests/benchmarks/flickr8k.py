"""Methods on a set without a category: `python tests/benchmarks/flickr8k.py --data DIR PACK ...`.

Flickr8k's 1,000 test photos and their 5,000 captions are one task. It is described as the paper describes Flickr30K: d*
is the mean of the text embeddings of one caption an image, the first. Several packs are builds of one recipe, and
recalls are means over them. Differences to zero-shot have a 95 % bootstrap interval over the sessions in which the
photos were taken together, and over builds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from sglora_cli.api import GenerateConfig, Photo, Session
from sglora_cli.bench.retrieval import DIRECTIONS, KS, hits
from sglora_cli.data.description import Description
from sglora_cli.data.encode import encode_images
from sglora_cli.data.features import Features

METHODS = "nearest,adapter-soup,model-soups,top-k,joint,calibrated,cvae,all-but-the-task,top-k+all-but-the-task"
RESAMPLES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packs", nargs="+", metavar="PACK")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--methods", default=METHODS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in (options.data / "flickr8k/captions.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["split"] == "test"]
    photos = [Photo(options.data / "flickr8k" / row["image"], tuple(row["captions"])) for row in rows]
    names = list(dict.fromkeys(row["session"] for row in rows))
    session_N = torch.tensor([names.index(row["session"]) for row in rows])
    found = {"zero-shot": []} | {name: [] for name in options.methods.split(",")}
    for pack in options.packs:
        for name, hit in measured(pack, photos, list(found)[1:]).items():
            found[name].append(hit)
    print(f"{len(photos)} photos of {len(names)} sessions, {len(options.packs)} builds\n")
    cells = [(direction, k) for direction in DIRECTIONS for k in KS]
    print("| method | " + " | ".join(f"{d} R@{k}" for d, k in cells) + " | R@1 - zero-shot, I2T / T2I |")
    print("|---|" + "---|" * (len(cells) + 1))
    for name, builds in found.items():
        values = [torch.stack([100 * hit[cell].double().mean() for hit in builds]).mean() for cell in cells]
        gains = [interval(builds, found["zero-shot"], d, session_N) for d in DIRECTIONS] if name != "zero-shot" else []
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in values) + f" | {' / '.join(gains)} |")


def measured(pack: str, photos: list[Photo], methods: list[str]) -> dict[str, dict[tuple[str, int], Tensor]]:
    """method -> (direction, k) -> of each photo, the share of its queries that are right: (N,)."""
    session = Session.open(pack)
    features = Features.of(session.model, "flickr8k", photos)
    content = features.tensors(session.model)
    first = Description.of(*[photo.captions[0] for photo in photos])
    found, layout = {}, session.pack.layout
    image_ND = encode_images(session.model, layout, content, torch.zeros(1, layout.size))[0]
    found["zero-shot"] = shares(image_ND.float(), content)
    for name in methods:
        one = Session(session.loaded, name)
        made = one.generate(first, GenerateConfig(samples=5 if one.generator.draws else 1))
        images_SND = encode_images(one.model, made.layout, content, made.adapters_SP)
        draws = [shares(image_ND.float(), content) for image_ND in images_SND]
        found[name] = {cell: torch.stack([draw[cell] for draw in draws]).mean(dim=0) for cell in draws[0]}
    return found


def shares(image_ND: Tensor, content) -> dict[tuple[str, int], Tensor]:
    """(direction, k) -> (N,)."""
    owner_C = torch.tensor(content.image_of)
    count_N = torch.bincount(owner_C).double()
    found = {cell: hit.double() for cell, hit in hits(image_ND, content.text_CD.float(), content.image_of).items()}
    for cell in [cell for cell in found if cell[0] == "T2I"]:
        found[cell] = torch.zeros_like(count_N).index_add(0, owner_C, found[cell]) / count_N
    return found


def interval(builds: list, zero: list, direction: str, session_N: Tensor) -> str:
    """Of the difference at R@1, sessions and builds drawn again."""
    rng = torch.Generator().manual_seed(0)
    difference_BN = torch.stack([b[direction, 1] - z[direction, 1] for b, z in zip(builds, zero, strict=True)])
    sessions = int(session_N.max()) + 1
    sum_BS = torch.zeros(len(builds), sessions, dtype=torch.float64).index_add(1, session_N, difference_BN)
    size_S = torch.bincount(session_N, minlength=sessions).double()
    means = []
    for _ in range(RESAMPLES):
        drawn_S = torch.randint(sessions, (sessions,), generator=rng)
        drawn_B = torch.randint(len(builds), (len(builds),), generator=rng)
        means.append(sum_BS[drawn_B][:, drawn_S].sum() / (size_S[drawn_S].sum() * len(builds)))
    low, high = (100 * torch.stack(means).quantile(q).item() for q in (0.025, 0.975))
    text = f"{100 * difference_BN.mean().item():+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


if __name__ == "__main__":
    main()
