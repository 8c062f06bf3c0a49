"""Train the starter backbone: `python -m sglora_starter.train --data DIR --out starter.safetensors`.

The loss is symmetric and contrastive, between photos and sentences. A sentence that is also true of another photo of
the batch (the same text, or a shared class name) does not treat that photo as a negative. A sentence with a similar
meaning treats it as partly correct. Many batches contain groups of similar photos, so that the model learns to
distinguish photos of the same topic or species, as tasks require.

Shapes: N photos of a step, M sentences per photo, F features, W = 384 of a sentence vector, D embedding.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch
import torch.nn.functional as F
from torch import Tensor

from sglora_cli.api import BadFile, knob, options_of, save_tensors

from .corpus import SOURCE_WEIGHTS, Photo, flickr8k, hold_out, texts_of
from .features import Corpus, prepare, sentence_vectors, stem_views
from .tower import TOKENS, Tower


@dataclass(frozen=True)
class StarterTraining:
    """Settings for training the starter backbone."""

    steps: int = knob(500, "Optimiser steps.", least=1)
    branches: int = knob(3, "Runs from the trunk whose weights are averaged.", least=1)
    branch_from: int = knob(300, "Steps of the shared trunk.", least=0)
    horizon_steps: int = knob(1500, "Steps after which the learning rate would be zero.", least=1)
    batch: int = knob(224, "Photos per step.")
    flickr: int = knob(176, "Photos of Flickr8k among them.")
    views: int = knob(4, "Views of a Flickr8k photo, the complete photo and crops. Others have one.", least=1)
    sentences: int = knob(2, "Sentences per photo in a step.", least=1)
    grouped: float = knob(0.5, "Share of batches with groups of similar photos.")
    grouped_from: int = knob(300, "Steps before the first grouped batch.", least=0)
    kept_tokens: int = knob(25, "Number of the 49 grid cells that a training step uses.")
    dropout: float = knob(0.1, "Dropout of every residual branch.")
    alike: float = knob(0.3, "Share of the target that depends on sentence similarity.")
    alike_temperature: float = knob(0.1, "Temperature of the sentence similarity.")
    learning_rate: float = knob(1.5e-3, "Peak learning rate of AdamW.")
    warmup_steps: int = knob(100, "Steps until the peak learning rate.", least=1)
    weight_decay: float = knob(0.2, "Weight decay of AdamW.")
    average: float = knob(0.995, "Decay of the moving average of the weights.")
    held_out: int = knob(200, "Held-out photos of Flickr8k for evaluation.", least=0)
    seed: int = knob(0, "Random seed.")


@dataclass
class Chooser:
    """Samples batches of photo rows."""

    photos: Sequence[Photo]
    rows: Sequence[int]
    config: StarterTraining
    rng: random.Random

    def __post_init__(self) -> None:
        self.flickr = [i for i in self.rows if self.photos[i].source == "flickr8k"]
        self.others = [i for i in self.rows if self.photos[i].source != "flickr8k"]
        self.weights = [SOURCE_WEIGHTS[self.photos[i].source] for i in self.others]
        self.topics = _large_groups(self.photos, self.flickr, 48)
        self.species = _large_groups(self.photos, self.others, 16)

    def batch(self, grouped: bool) -> list[int]:
        """Sample rows of `config.batch` photos. A grouped batch includes two topics of Flickr8k and two species."""
        chosen: set[int] = set()
        if grouped:
            for topic in self.rng.sample(self.topics, 2):
                chosen.update(self.rng.sample(topic, 44))
        while len(chosen) < self.config.flickr:
            chosen.add(self.rng.choice(self.flickr))
        if grouped:
            for species in self.rng.sample(self.species, 2):
                chosen.update(self.rng.sample(species, 12))
        while len(chosen) < self.config.batch:
            chosen.update(self.rng.choices(self.others, self.weights))
        return sorted(chosen)


def _large_groups(photos: Sequence[Photo], rows: Sequence[int], least: int) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for i in rows:
        groups.setdefault(photos[i].group, []).append(i)
    return [group for group in groups.values() if len(group) >= least]


def loss_of(tower: Tower, corpus: Corpus, rows: Sequence[int], config: StarterTraining, rng: random.Random) -> Tensor:
    """Return the contrastive loss of one batch, in both directions."""
    chosen, general = [], []
    for i in rows:
        photo = corpus.photos[i]
        named = not photo.captions or (bool(photo.names) and rng.random() < 0.2)
        texts = photo.names if named else photo.captions
        chosen.append(rng.sample(texts, min(config.sentences, len(texts))))
        chosen[-1] += [rng.choice(texts) for _ in range(config.sentences - len(texts))]
        general.append(named)
    text_NM = torch.tensor([[corpus.texts[t] for t in texts] for texts in chosen])
    features_NF77 = corpus.features(rows, [rng.randrange(config.views) for _ in rows])
    mirrored_N = torch.tensor([not any(map(_sided, texts)) and rng.random() < 0.5 for texts in chosen])
    features_NF77[mirrored_N] = features_NF77[mirrored_N].flip(-1)

    kept = torch.randperm(TOKENS)[: config.kept_tokens] + 1
    x = tower.tokens(features_NF77)[:, torch.cat([torch.zeros(1, dtype=torch.long), kept])]
    sentences_NMW = corpus.sentences_CW[text_NM]
    text_CD = tower.texts(sentences_NMW.flatten(0, 1))
    logits_NC = tower.images(x) @ text_CD.T * tower.log_scale.exp().clamp(max=60)

    numbers = {name: n for n, name in enumerate(dict.fromkeys(corpus.photos[i].group for i in rows))}
    group_N = torch.tensor([numbers[corpus.photos[i].group] for i in rows])
    own_NC = torch.eye(len(rows), dtype=torch.bool).repeat_interleave(config.sentences, dim=1)
    same_NC = (text_NM[:, :, None] == text_NM.flatten()).any(dim=1)
    shared_NC = (group_N[:, None] == group_N) & torch.tensor(general)
    true_NC = (same_NC | shared_NC.repeat_interleave(config.sentences, dim=1)) & ~own_NC
    cosine_NC = F.normalize(sentences_NMW.mean(dim=1), dim=1) @ sentences_NMW.flatten(0, 1).T
    return (
        soft_loss(logits_NC, own_NC, true_NC, cosine_NC, config)
        + soft_loss(logits_NC.T, own_NC.T, true_NC.T, cosine_NC.T, config)
    ) / 2


def soft_loss(logits: Tensor, own: Tensor, left_out: Tensor, cosine: Tensor, config: StarterTraining) -> Tensor:
    """Return the cross entropy of each row. The target combines the row's own columns with the cosines.

    All four are (rows, columns). Columns in left_out count as neither correct nor wrong.
    """
    logp = logits.masked_fill(left_out, -1e4).log_softmax(dim=1)
    by_cosine = (cosine / config.alike_temperature).masked_fill(left_out, -1e4).softmax(dim=1)
    target = (1 - config.alike) * own / own.sum(dim=1, keepdim=True) + config.alike * by_cosine
    return -(target * logp.masked_fill(left_out, 0)).sum(dim=1).mean()


def _sided(text: str) -> bool:
    return "left" in text or "right" in text


@torch.no_grad()
def recalls(tower: Tower, features_NF77: Tensor, captions: Sequence[Sequence[Tensor]]) -> dict[str, list[float]]:
    """Return Recall@1, 5 and 10 in percent among photos and all their captions, I2T and T2I.

    captions: the sentence vectors (M, W) of each photo.  I2T: the best ranked caption of a photo counts.
    """
    was = tower.training
    tower.eval()
    image_ND = torch.cat([tower.images(tower.tokens(part)) for part in features_NF77.split(200)])
    text_CD = tower.texts(torch.cat([torch.stack(list(own)) for own in captions]))
    tower.train(was)
    own_C = torch.tensor([n for n, own in enumerate(captions) for _ in own])
    scores_CN = text_CD @ image_ND.T
    ahead_C = (scores_CN >= scores_CN.gather(1, own_C[:, None])).sum(dim=1) - 1
    right_CN = own_C[:, None] == torch.arange(len(image_ND))
    best_N = scores_CN.masked_fill(~right_CN, -2).amax(dim=0)
    ahead_N = (scores_CN.masked_fill(right_CN, -2) >= best_N).sum(dim=0)
    return {
        way: [round(100 * float((ahead < k).float().mean()), 1) for k in (1, 5, 10)]
        for way, ahead in (("I2T", ahead_N), ("T2I", ahead_C))
    }


class Run:
    """Training from a random start: a trunk, followed by branches from its end with different batches.

    Branches of the same trunk end in the same basin, so the mean of their weights is better than each (model soups,
    Wortsman et al. 2022).
    """

    def __init__(self, corpus: Corpus, config: StarterTraining, checkpoint: Path) -> None:
        """Resumes from the file `checkpoint` if it exists, with the same next batches."""
        self.corpus, self.config, self.checkpoint = corpus, config, checkpoint
        torch.manual_seed(config.seed)
        self.tower = Tower(config.dropout)
        sample = corpus.views[0].features_NF77[::6].float()
        self.tower.mean.copy_(sample.mean(dim=(0, 2, 3)))
        self.tower.spread.copy_(sample.std(dim=(0, 2, 3)).clamp_min(1e-3))
        self.average: Any = torch.optim.swa_utils.AveragedModel(self.tower, multi_avg_fn=_averaging(config.average))
        matrices = [p for p in self.tower.parameters() if p.ndim == 2 and p.shape[0] > 1]
        others = [p for p in self.tower.parameters() if not (p.ndim == 2 and p.shape[0] > 1)]
        self.optimiser = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
            betas=(0.9, 0.98),
        )
        self.held_out = hold_out(corpus.photos, config.held_out)
        left = set(self.held_out)
        self.rng = random.Random(config.seed)
        self.chooser = Chooser(corpus.photos, [i for i in range(len(corpus.photos)) if i not in left], config, self.rng)
        self.step, self.seconds, self.branch = 0, 0.0, -1
        self.trunk: dict[str, Any] = {}
        self.ends: list[dict[str, Tensor]] = []
        if checkpoint.exists():
            self.restore(torch.load(checkpoint, weights_only=True))
            click.echo(f"resuming at step {self.step}", err=True)

    def state(self) -> dict[str, Any]:
        """Return the state needed to resume exactly, without the trunk and the ends of branches."""
        parts = {"tower": self.tower, "average": self.average, "optimiser": self.optimiser}
        return {name: deepcopy(part.state_dict()) for name, part in parts.items()} | {
            "step": self.step,
            "seconds": self.seconds,
            "branch": self.branch,
            "draws": [self.rng.getstate(), torch.get_rng_state()],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        for name in ("tower", "average", "optimiser"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.seconds, self.branch = state["step"], state["seconds"], state["branch"]
        self.trunk, self.ends = state.get("trunk", self.trunk), state.get("ends", self.ends)
        self.rng.setstate(state["draws"][0])
        torch.set_rng_state(state["draws"][1])

    def until(self, last: int) -> None:
        """Train until a step."""
        while self.step < last:
            start = time.monotonic()
            config = self.config
            falling = (1 + math.cos(math.pi * min(1.0, self.step / config.horizon_steps))) / 2
            rate = config.learning_rate * min(1.0, (self.step + 1) / config.warmup_steps) * (0.01 + 0.99 * falling)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            grouped = self.step > config.grouped_from and self.rng.random() < config.grouped
            loss = loss_of(self.tower, self.corpus, self.chooser.batch(grouped), config, self.rng)
            self.optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.tower.parameters(), 1.0)
            self.optimiser.step()
            self.average.update_parameters(self.tower)
            self.step, self.seconds = self.step + 1, self.seconds + time.monotonic() - start
            if self.step % 50 == 0 or self.step == last:
                report = held_out_recalls(self.average.module, self.corpus, self.held_out)
                minutes = self.seconds / 60
                click.echo(f"step {self.step}  {minutes:.1f} min  loss {loss.item():.3f}  {report}", err=True)
                torch.save(self.state() | {"trunk": self.trunk, "ends": self.ends}, self.checkpoint)

    def fork(self, number: int) -> None:
        """Start a branch from the end of the trunk, with other random numbers."""
        seconds = self.seconds
        self.restore(self.trunk)
        self.seconds, self.branch = seconds, number
        self.rng.seed(f"{self.config.seed} {number}")
        torch.manual_seed(self.config.seed + number)


def fit(corpus: Corpus, config: StarterTraining, checkpoint: Path) -> tuple[Tower, dict[str, object]]:
    """Train a tower. Returns the mean of the branches' averaged weights, and measurements."""
    run = Run(corpus, config, checkpoint)
    run.until(min(config.branch_from, config.steps))
    run.trunk = run.trunk or run.state()
    while (number := len(run.ends)) < config.branches:
        if run.branch != number:
            run.fork(number)
        run.until(config.steps)
        run.ends.append(deepcopy(run.average.module.state_dict()))
    mean = {name: torch.stack([end[name].double() for end in run.ends]).mean(dim=0) for name in run.ends[0]}
    tower = Tower()
    tower.load_state_dict(mean)
    report = held_out_recalls(tower, corpus, run.held_out)
    return tower.eval(), {"steps": run.step, "minutes": round(run.seconds / 60, 1), "held_out": report}


def _averaging(decay: float) -> Any:
    """Return a moving average with `decay`, faster at first, so that the random weights are soon forgotten."""

    @torch.no_grad()
    def update(average: list[Tensor], now: list[Tensor], seen: Tensor) -> None:
        torch._foreach_lerp_(average, now, 1 - min(decay, (1 + int(seen)) / (10 + int(seen))))

    return update


def held_out_recalls(tower: Tower, corpus: Corpus, rows: Sequence[int]) -> dict[str, list[float]]:
    """Return recalls of the complete held-out photos, or {} if there are none."""
    if not rows:
        return {}
    captions = [[corpus.sentences_CW[corpus.texts[t]] for t in corpus.photos[i].captions] for i in rows]
    return recalls(tower, corpus.features(rows, [0] * len(rows)), captions)


def flickr8k_test(tower: Tower, data: Path, work: Path) -> dict[str, list[float]]:
    """Return the standard benchmark: recalls among Flickr8k's 1,000 test photos and their 5,000 captions."""
    photos = flickr8k(data, "test")
    if not photos:
        raise BadFile(f"no Flickr8k test photos found in {data}")
    features_NF77 = stem_views(photos, 0, work / "test.pt").features_NF77.float()
    texts = texts_of(photos)
    vectors = dict(zip(texts, sentence_vectors(texts, work / "test-texts.pt"), strict=True))
    return recalls(tower, features_NF77, [[vectors[t] for t in photo.captions] for photo in photos])


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True),
    required=True,
    help="Folder with flickr8k, birds, coco_mini, coco_tiny, named, and the tasks to exclude.",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("starter.safetensors"), show_default=True)
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path(".sglora-train"),
    show_default=True,
    help="Folder for features, sentence vectors and the checkpoint.",
)
@click.option("--test", is_flag=True, help="Evaluate the final weights on Flickr8k's test photos.")
@options_of(StarterTraining)
def main(data: Path, out: Path, work: Path, test: bool, config: StarterTraining) -> None:
    """Train the starter backbone and write its weights in float16 with their training metadata."""
    corpus = prepare(data, work, config.views)
    tower, report = fit(corpus, config, work / "checkpoint.pt")
    metadata = {"kind": "backbone", "name": "starter", "config": asdict(config), "photos": len(corpus.photos), **report}
    save_tensors(out, {name: tensor.half() for name, tensor in tower.state_dict().items()}, metadata)
    click.echo(json.dumps(metadata | ({"test": flickr8k_test(tower, data, work)} if test else {}), indent=2))


if __name__ == "__main__":
    main()
