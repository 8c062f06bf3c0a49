"""Recall against the slow, obvious definition: sort, look, count."""

from __future__ import annotations

import pytest
import torch

from sglora_cli.errors import Mismatch
from sglora_cli.retrieval import chance, ranks, recalls


def obvious(scores_NC: torch.Tensor, image_of: list[int], k: int) -> tuple[float, float]:
    i2t = [any(image_of[c] == n for c in row.argsort(descending=True)[:k]) for n, row in enumerate(scores_NC)]
    t2i = [image_of[c] in column.argsort(descending=True)[:k] for c, column in enumerate(scores_NC.T)]
    return 100 * sum(i2t) / len(i2t), 100 * sum(t2i) / len(t2i)


@pytest.mark.parametrize("seed", range(5))
def test_recall_is_that_of_sorting(seed):
    dice = torch.Generator().manual_seed(seed)
    images, texts = torch.randn(7, 4, generator=dice), torch.randn(20, 4, generator=dice)
    image_of = [int(i) for i in torch.randint(7, (20,), generator=dice)]
    found = recalls(images, texts, image_of)
    for k in (1, 5, 10):
        assert (found["I2T", k], found["T2I", k]) == pytest.approx(obvious(images @ texts.T, image_of, k))


def test_ties_and_nan_count_against_the_model():
    i2t, t2i = ranks(torch.full((2, 4), 0.5), [0, 0, 1, 1])
    assert i2t.tolist() == [3, 3]
    assert t2i.tolist() == [2, 2, 2, 2]
    i2t, t2i = ranks(torch.tensor([[float("nan"), 1.0], [0.0, 2.0]]), [0, 1])
    assert i2t.tolist() == [2, 1]
    assert t2i.tolist() == [2, 1]


def test_an_image_without_a_caption_is_never_right():
    i2t, _ = ranks(torch.ones(2, 1), [0])
    assert i2t.tolist() == [1, 2]


def test_a_caption_of_no_image_is_refused():
    with pytest.raises(Mismatch, match="image_of must name one of 2 images"):
        ranks(torch.ones(2, 1), [2])


def test_chance_is_what_random_scores_give():
    image_of = [0, 0, 1, 2, 2, 2, 3]
    dice = torch.Generator().manual_seed(0)
    hits = torch.zeros(2)
    for _ in range(4000):
        i2t, t2i = ranks(torch.rand(4, 7, generator=dice), image_of)
        hits += torch.tensor([(i2t <= 5).float().mean(), (t2i <= 1).float().mean()])
    expected = chance(4, image_of)
    assert (hits / 40).tolist() == pytest.approx([expected["I2T", 5], expected["T2I", 1]], abs=1.5)
