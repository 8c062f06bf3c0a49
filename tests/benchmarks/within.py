"""What `sglora search --within` gains beside an adapter: `python tests/benchmarks/within.py --data DIR`.

Inside each task of the starter pack that no expert has, every caption of the test photos looks for its photo (T2I R@1)
with a share of the direction of the task's sentence taken out of it, without and with the task's adapter. The share is
chosen on training tasks, and reported on unseen ones. Differences are to neither, with standard errors over tasks.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from sglora_cli.api import Session
from sglora_cli.bench.retrieval import hits
from sglora_cli.data.embeddings import photo_embeddings
from sglora_cli.pack.recipe import TEMPLATE
from sglora_cli.pack.recipe_parser import read
from sglora_cli.plugin.values import TRAINING, UNSEEN, Photo
from sglora_cli.search.query import without_direction

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
FEWEST = 4
"""Test photos of a task."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    session = Session.open("starter")
    for role in (TRAINING, UNSEEN):
        tasks = tasks_of(session, options.data, role)
        found = torch.stack([recalls(session, name, photos) for name, photos in tasks])  # (T, 2, strengths)
        print(f"\n{len(tasks)} {role} tasks, T2I R@1\n\n| strength | without adapter | with adapter |\n|---|---|---|")
        gap = found - found[:, :1, :1]
        error = gap.std(dim=0) / len(tasks) ** 0.5
        for n, strength in enumerate(STRENGTHS):
            cells = [f"{found[:, s, n].mean():.1f} ({gap[:, s, n].mean():+.1f}, {error[s, n]:.1f})" for s in (0, 1)]
            print(f"| {strength} | {' | '.join(cells)} |")


def tasks_of(session: Session, data: Path, role: str) -> list[tuple[str, list[Photo]]]:
    """The name of each task and its test photos."""
    host, found = session.loaded.host, []
    for source in read(host.recipe_folders[0] / "starter.toml").sources:
        known = {task.name: task for task in host.datasets[source.dataset].tasks(data / source.path)}
        photos = {name: list(known[name].photos.get("test", ())) for name in source.roles[role] if name in known}
        found += [(name, some) for name, some in photos.items() if len(some) >= FEWEST]
    return found


def recalls(session: Session, name: str, photos: list[Photo]) -> Tensor:
    """T2I R@1 in percent without and with the adapter, for each strength: (2, strengths)."""
    sentence = TEMPLATE.format(name=name)
    generated = session.generate(sentence)
    paths = {str(n): photo.path for n, photo in enumerate(photos)}
    seen = photo_embeddings(session.model, paths, generated.layout, generated.adapters_SP[0])
    captions = [caption for photo in photos for caption in photo.captions]
    owner = [n for n, photo in enumerate(photos) for _ in photo.captions]
    caption_CD, (shared_D,) = session.model.encode_text(captions), session.model.encode_text([sentence])
    values = []
    for image_ND in (seen.plain_ND, seen.adapted_ND):
        for strength in STRENGTHS:
            query_CD = torch.stack([without_direction(one_D, shared_D, strength) for one_D in caption_CD])
            values.append(100 * hits(image_ND, query_CD, owner)["T2I", 1].double().mean())
    return torch.stack(values).reshape(2, -1)


if __name__ == "__main__":
    main()
