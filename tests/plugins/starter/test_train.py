"""The starter's training: its loss and its measure, each against the slow way."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sglora_starter.corpus import Photo
from sglora_starter.features import Corpus, Views
from sglora_starter.stem import FEATURES, GRID
from sglora_starter.train import Run, StarterTraining, fit, recalls, soft_loss


def test_without_the_soft_part_the_loss_is_cross_entropy_over_what_is_not_left_out():
    rng = torch.Generator().manual_seed(0)
    logits, cosine = torch.randn(5, 5, generator=rng), torch.randn(5, 5, generator=rng)
    left_out = torch.zeros(5, 5, dtype=torch.bool)
    left_out[0, 3] = left_out[2, 1] = True
    found = soft_loss(logits, torch.eye(5, dtype=torch.bool), left_out, cosine, StarterTraining(alike=0.0))
    rows = []
    for n in range(5):
        kept = [c for c in range(5) if not left_out[n, c]]
        rows.append(F.cross_entropy(logits[n, kept], torch.tensor(kept.index(n))))
    assert float(found) == pytest.approx(float(torch.stack(rows).mean()), rel=1e-5)


def test_the_soft_part_wants_scores_in_proportion_to_the_cosines():
    """The loss is least, and then the target's entropy, where logits are the cosines over their temperature."""
    cosine = torch.tensor([[0.9, 0.3, 0.5], [0.1, 0.8, 0.2]])
    own, none = torch.tensor([[True, False, False], [False, True, False]]), torch.zeros(2, 3, dtype=torch.bool)
    config = StarterTraining(alike=1.0, alike_temperature=0.5)
    target = (cosine / 0.5).softmax(dim=1)
    best = soft_loss(cosine / 0.5, own, none, cosine, config)
    assert float(best) == pytest.approx(float(-(target * target.log()).sum(dim=1).mean()), rel=1e-5)
    assert soft_loss(torch.eye(2, 3) * 9, own, none, cosine, config) > best


def test_several_sentences_of_a_photo_share_its_target():
    logits = torch.randn(1, 4, generator=torch.Generator().manual_seed(0))
    own, none = torch.tensor([[True, True, False, False]]), torch.zeros(1, 4, dtype=torch.bool)
    found = soft_loss(logits, own, none, logits, StarterTraining(alike=0.0))
    logp = logits.log_softmax(dim=1)[0]
    assert float(found) == pytest.approx(float(-(logp[0] + logp[1]) / 2), rel=1e-5)


class Known:
    """A tower whose embeddings are what it is asked about."""

    training = False

    def eval(self):
        return self

    def train(self, on):
        return self

    def tokens(self, features):
        return features

    def images(self, x):
        return F.normalize(x, dim=-1)

    texts = images


def test_recalls_are_those_of_their_definition():
    rng = torch.Generator().manual_seed(0)
    images, texts = torch.randn(30, 8, generator=rng), torch.randn(30, 5, 8, generator=rng)
    texts += 0.7 * images[:, None]
    found = recalls(Known(), images, list(texts))
    scores = F.normalize(texts.flatten(0, 1), dim=1) @ F.normalize(images, dim=1).T
    for place, k in enumerate((1, 5, 10)):
        t2i = [n // 5 in scores[n].topk(k).indices.tolist() for n in range(150)]
        i2t = [any(c // 5 == n for c in scores[:, n].topk(k).indices.tolist()) for n in range(30)]
        assert found["T2I"][place] == pytest.approx(100 * sum(t2i) / 150, abs=0.06)
        assert found["I2T"][place] == pytest.approx(100 * sum(i2t) / 30, abs=0.06)


@pytest.fixture
def corpus(tmp_path):
    """Twelve photos of noise with a sentence each."""
    rng = torch.Generator().manual_seed(0)
    photos = [Photo(tmp_path, f"{n}.png", "flickr8k", str(n), [f"photo {n}"]) for n in range(12)]
    features = torch.randn(12, FEATURES, GRID, GRID, generator=rng).half()
    views = Views([photo.key for photo in photos], features)
    texts = {f"photo {n}": n for n in range(12)}
    return Corpus(photos, [views], texts, torch.randn(12, 384, generator=rng))


SHORT = StarterTraining(
    steps=4, branches=2, branch_from=2, batch=6, flickr=6, views=1, sentences=1, grouped=0.0, held_out=0, warmup_steps=1
)


def test_the_weights_are_the_mean_of_branches_that_part_where_the_trunk_ends(corpus, tmp_path):
    tower, report = fit(corpus, SHORT, tmp_path / "whole.pt")
    run = Run(corpus, SHORT, tmp_path / "whole.pt")
    assert report["steps"] == 4
    assert run.branch == 1
    ends = [run.ends[0], run.average.module.state_dict()]  # the second branch was not put away when it was written
    assert not torch.equal(ends[0]["project_image.weight"], ends[1]["project_image.weight"])
    for name, tensor in tower.state_dict().items():
        torch.testing.assert_close(tensor, (ends[0][name] + ends[1][name]) / 2, rtol=1e-4, atol=1e-6)


def test_a_training_that_was_interrupted_ends_as_if_it_had_not_been(corpus, tmp_path, monkeypatch):
    whole, _ = fit(corpus, SHORT, tmp_path / "whole.pt")
    fork = Run.fork

    def killed(self, number):
        if number == 1:
            raise KeyboardInterrupt
        fork(self, number)

    monkeypatch.setattr(Run, "fork", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(corpus, SHORT, tmp_path / "cut.pt")
    monkeypatch.undo()
    again, _ = fit(corpus, SHORT, tmp_path / "cut.pt")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
