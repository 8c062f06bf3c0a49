"""Train the starter backbone: `python -m sglora_starter.train --data DIR --out starter.safetensors`.

Symmetric contrastive loss between photos and sentences. A sentence that is also true of another
photo of the batch (the same words, or a class name they share) does not count that photo as
a negative. Half of each batch comes from a few groups, so that the model learns to tell
photos of one species apart: that is what tasks ask of it.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch
import torch.nn.functional as F
from torch import Tensor

from sglora_cli.api import knob, options_of, progress, read_image, save_tensors

from .corpus import VIEWS, Photo, add_colours, read, texts_of, view
from .stem import FEATURES, GRID, Stem, pixels
from .text import SentenceEncoder
from .tower import TOKENS, Tower


@dataclass(frozen=True)
class StarterTraining:
    """How the starter backbone is trained."""

    steps: int = knob(2400, "Optimiser steps.", least=1)
    batch: int = knob(192, "Photos in a step.")
    learning_rate: float = knob(1.5e-3, "Peak learning rate of AdamW.")
    weight_decay: float = knob(0.1, "Weight decay of AdamW.")
    kept_tokens: int = knob(36, "Of 49 grid cells, how many a training step looks at.")
    grouped: float = knob(0.5, "Part of a batch that comes from a few groups of like photos.")
    smoothing: float = knob(0.05, "Label smoothing of the contrastive loss.")
    seed: int = knob(0, "Seed of everything random.")


SOURCE_WEIGHTS = {"birds": 1.0, "flowers": 1.0, "caltech": 0.4, "imagenet": 1.2, "coco": 2.5}


@dataclass
class Corpus:
    """Photos with everything frozen already computed. V views, N photos, C texts."""

    photos: list[Photo]
    features_VNF77: Tensor
    texts: dict[str, int]
    sentences_CW: Tensor

    def rows(self, held_out: bool) -> list[int]:
        return [i for i, photo in enumerate(self.photos) if photo.held_out == held_out]


def prepare(data: Path, work: Path) -> Corpus:
    """Read the data, run the frozen encoders once, and keep the result in `work`."""
    photos = read(data)
    work.mkdir(parents=True, exist_ok=True)
    kept = work / f"features-{len(photos)}x{VIEWS}.pt"
    images_done = torch.load(kept, weights_only=True) if kept.exists() else None
    features = torch.empty(VIEWS, len(photos), FEATURES, GRID, GRID, dtype=torch.half)
    stem = None if images_done is not None else Stem.pretrained()

    def load(photo: Photo) -> list[Tensor]:
        image = read_image(photo.path)
        add_colours(photo, image)
        return [pixels(view(photo, image, v)) for v in range(VIEWS)] if stem else []

    with ThreadPoolExecutor(2) as pool, torch.inference_mode():
        for start in progress(list(range(0, len(photos), 16)), "stem features"):
            views = list(pool.map(load, photos[start : start + 16]))
            if stem:
                batch = stem(torch.stack([p for photo in views for p in photo])).half()
                features[:, start : start + 16] = batch.unflatten(0, (-1, VIEWS)).transpose(0, 1)
    if images_done is None:
        torch.save(features, kept)
    texts = texts_of(photos)
    click.echo(f"{len(photos)} photos, {len(texts)} different texts", err=True)
    sentences = SentenceEncoder.pretrained()(texts)
    return Corpus(
        photos, features if images_done is None else images_done, {t: i for i, t in enumerate(texts)}, sentences
    )


def batches(corpus: Corpus, config: StarterTraining) -> Iterator[list[int]]:
    """Rows of photos, for ever."""
    rng = random.Random(config.seed)
    rows = corpus.rows(held_out=False)
    weights = [SOURCE_WEIGHTS[corpus.photos[i].source] for i in rows]
    groups: dict[str, list[int]] = {}
    for i in rows:
        groups.setdefault(corpus.photos[i].group, []).append(i)
    large = [group for group in groups.values() if len(group) >= 16]
    while True:
        chosen: set[int] = set()
        while len(chosen) < config.grouped * config.batch:
            chosen.update(rng.sample(rng.choice(large), 16))
        while len(chosen) < config.batch:
            chosen.update(rng.choices(rows, weights, k=config.batch - len(chosen)))
        yield sorted(chosen)


def loss_of(tower: Tower, corpus: Corpus, rows: Sequence[int], config: StarterTraining, rng: random.Random) -> Tensor:
    """Symmetric contrastive loss of one batch, false negatives left out."""
    chosen, general = [], []
    for i in rows:
        photo = corpus.photos[i]
        own = photo.captions and (not photo.names or rng.random() < 0.8)
        chosen.append(rng.choice(photo.captions if own else photo.names))
        general.append(not own)
    text_C = torch.tensor([corpus.texts[t] for t in chosen])
    views = torch.tensor([rng.randrange(VIEWS) for _ in rows])
    features = corpus.features_VNF77[views, torch.tensor(rows)].float()
    mirrored = torch.tensor([not _sided(t) and rng.random() < 0.5 for t in chosen])
    features[mirrored] = features[mirrored].flip(-1)
    x = tower.tokens(features)
    kept = torch.randperm(TOKENS)[: config.kept_tokens] + 1
    image_ND = tower.images(x[:, torch.cat([torch.zeros(1, dtype=torch.long), kept])])
    logits_NC = image_ND @ tower.texts(corpus.sentences_CW[text_C]).T * tower.log_scale.exp().clamp(max=60)

    names = [corpus.photos[i].group for i in rows]
    number = {name: n for n, name in enumerate(dict.fromkeys(names))}
    group_N = torch.tensor([number[name] for name in names])
    true_NC = (text_C[:, None] == text_C) | ((group_N[:, None] == group_N) & torch.tensor(general))
    true_NC.fill_diagonal_(False)
    logits_NC = logits_NC.masked_fill(true_NC, -1e4)
    return (
        smooth_loss(logits_NC, true_NC, config.smoothing) + smooth_loss(logits_NC.T, true_NC.T, config.smoothing)
    ) / 2


def smooth_loss(logits_NC: Tensor, left_out_NC: Tensor, smoothing: float) -> Tensor:
    """Cross entropy with the diagonal as target; smoothing spreads over what is not left out."""
    logp = F.log_softmax(logits_NC, dim=1)
    spread = logp.masked_fill(left_out_NC, 0).sum(dim=1) / (~left_out_NC).sum(dim=1)
    return -((1 - smoothing) * logp.diagonal() + smoothing * spread).mean()


def _sided(text: str) -> bool:
    return "left" in text or "right" in text


@torch.no_grad()
def held_out_score(tower: Tower, corpus: Corpus) -> dict[str, float]:
    """Text-to-image recall among held-out photos of birds, and of everything that has a caption, in percent."""
    tower.eval()
    scores = {}
    for source in ("birds", "coco", "flowers"):
        rows = [
            i for i in corpus.rows(held_out=True) if corpus.photos[i].source == source and corpus.photos[i].captions
        ]
        image_ND = tower.images(tower.tokens(corpus.features_VNF77[0, rows]))
        text_ND = tower.texts(corpus.sentences_CW[[corpus.texts[corpus.photos[i].captions[0]] for i in rows]])
        scores_NN = text_ND @ image_ND.T
        rank_N = (scores_NN >= scores_NN.diagonal()[:, None]).sum(dim=1)
        for k in (1, 5, 10):
            scores[f"{source} T2I R@{k} of {len(rows)}"] = round(100 * float((rank_N <= k).float().mean()), 1)
    tower.train()
    return scores


def fit(corpus: Corpus, config: StarterTraining, checkpoint: Path | None = None) -> tuple[Tower, dict[str, object]]:
    """Train a tower; returns an average of its last weights, and what happened."""
    torch.manual_seed(config.seed)
    tower = Tower()
    mean, spread = _statistics(corpus)
    tower.mean.copy_(mean)
    tower.spread.copy_(spread)
    average: Any = torch.optim.swa_utils.AveragedModel(
        tower, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998)
    )
    matrices = [p for p in tower.parameters() if p.ndim == 2 and p.shape[0] > 1]
    others = [p for p in tower.parameters() if not (p.ndim == 2 and p.shape[0] > 1)]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
    )
    rng, start, step, used, last = random.Random(config.seed), time.monotonic(), 0, 0.0, 0.0
    if checkpoint and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        tower.load_state_dict(state["tower"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        step, start = state["step"], start - state["seconds"]
        rng, last = random.Random(config.seed + step), state["seconds"]
        click.echo(f"going on from step {step}", err=True)
    for rows in batches(corpus, config):
        if step >= config.steps:
            break
        used = time.monotonic() - start
        falling = (1 + math.cos(math.pi * step / config.steps)) / 2
        rate = config.learning_rate * min(1.0, (step + 1) / 100) * (0.01 + 0.99 * falling)
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = loss_of(tower, corpus, rows, config, rng)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimiser.step()
        average.update_parameters(tower)
        step += 1
        if used - last > 120:
            last = used
            click.echo(
                f"step {step}  {used / 60:.1f} min  loss {loss.item():.3f}  {held_out_score(average.module, corpus)}",
                err=True,
            )
            if checkpoint:
                torch.save(
                    {
                        "tower": tower.state_dict(),
                        "average": average.state_dict(),
                        "optimiser": optimiser.state_dict(),
                        "step": step,
                        "seconds": used,
                    },
                    checkpoint,
                )
    final = average.module.eval()
    return final, {
        "steps": step,
        "minutes": round((time.monotonic() - start) / 60, 1),
        "held_out": held_out_score(final, corpus),
    }


def _statistics(corpus: Corpus) -> tuple[Tensor, Tensor]:
    sample = corpus.features_VNF77[0, :: max(1, len(corpus.photos) // 1000)].float()
    return sample.mean(dim=(0, 2, 3)), sample.std(dim=(0, 2, 3)).clamp_min(1e-3)


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True),
    required=True,
    help="Folder with birds, coco_mini, coco_tiny, named.",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("starter.safetensors"), show_default=True)
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path(".sglora-train"),
    show_default=True,
    help="Features and checkpoint.",
)
@options_of(StarterTraining)
def main(data: Path, out: Path, work: Path, config: StarterTraining) -> None:
    """Train the starter backbone and write its weights (float16) and what they were made from."""
    corpus = prepare(data, work)
    tower, report = fit(corpus, config, work / "checkpoint.pt")
    metadata = {"kind": "backbone", "name": "starter", "config": asdict(config), "photos": len(corpus.photos), **report}
    save_tensors(out, {name: tensor.half() for name, tensor in tower.state_dict().items()}, metadata)
    click.echo(json.dumps(metadata, indent=2))


if __name__ == "__main__":
    main()
