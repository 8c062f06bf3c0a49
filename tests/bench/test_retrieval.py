"""Recall against the slow, obvious definition: sort, look, count."""

from __future__ import annotations

import pytest
import torch
from recalls import recalls

from sglora_cli.bench import retrieval
from sglora_cli.bench.retrieval import chance, ranks_of, right_class
from sglora_cli.errors import Mismatch


def obvious(scores_NC: torch.Tensor, image_of: list[int], k: int) -> tuple[float, float]:
    i2t = [any(image_of[c] == n for c in row.argsort(descending=True)[:k]) for n, row in enumerate(scores_NC)]
    t2i = [image_of[c] in column.argsort(descending=True)[:k] for c, column in enumerate(scores_NC.T)]
    return 100 * sum(i2t) / len(i2t), 100 * sum(t2i) / len(t2i)


def of_scores(scores_NC: torch.Tensor, image_of: list[int]) -> tuple[list[int], list[int]]:
    """Ranks of given scores: captions are unit vectors."""
    i2t_N, t2i_C = ranks_of(scores_NC, torch.eye(scores_NC.shape[1]), image_of)
    return i2t_N.tolist(), t2i_C.tolist()


@pytest.mark.parametrize("seed", range(5))
def test_recall_is_that_of_sorting(seed, monkeypatch):
    monkeypatch.setattr(retrieval, "_SCORES", 1)  # chunks of 16 images and 16 captions
    rng = torch.Generator().manual_seed(seed)
    images, texts = torch.randn(37, 4, generator=rng), torch.randn(90, 4, generator=rng)
    image_of = [int(i) for i in torch.randint(37, (90,), generator=rng)]
    measured = recalls(images, texts, image_of)
    for k in (1, 5, 10):
        assert (measured["I2T", k], measured["T2I", k]) == pytest.approx(obvious(images @ texts.T, image_of, k))


@pytest.mark.parametrize("images", [3, 16, 17, 50])
def test_ranks_are_counted_whatever_the_chunks_ties_too(images, monkeypatch):
    """Against counting one by one; scores are whole numbers, so many tie."""
    monkeypatch.setattr(retrieval, "_SCORES", 1)
    rng = torch.Generator().manual_seed(images)
    scores = torch.randint(4, (images, 2 * images + 1), generator=rng).float()
    image_of = torch.randint(images, (2 * images + 1,), generator=rng).tolist()
    i2t, t2i = of_scores(scores, image_of)
    for n, row in enumerate(scores.tolist()):
        own = [s for s, owner in zip(row, image_of, strict=True) if owner == n]
        ahead = sum(s >= max(own) for s, owner in zip(row, image_of, strict=True) if owner != n) if own else len(row)
        assert i2t[n] == 1 + ahead
    for c, column in enumerate(scores.T.tolist()):
        assert t2i[c] == 1 + sum(s >= column[image_of[c]] for n, s in enumerate(column) if n != image_of[c])


def test_memory_is_bounded_for_few_images_of_very_many_captions():
    """The largest tensor the allocator is asked for: comparisons are counted as whole numbers of 8 bytes."""
    from torch.profiler import ProfilerActivity, profile

    captions = 400_000
    images, texts = torch.randn(40, 2), torch.randn(captions, 2)
    image_of = [0] * (captions // 2) + [n % 40 for n in range(captions // 2)]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        ranks_of(images, texts, image_of)
    largest = max(event.self_cpu_memory_usage for event in seen.events())
    assert largest <= 8 * retrieval._SCORES < 8 * 16 * captions / 3


def test_ties_and_nan_count_against_the_model():
    assert of_scores(torch.full((2, 4), 0.5), [0, 0, 1, 1]) == ([3, 3], [2, 2, 2, 2])
    nan = float("nan")
    assert of_scores(torch.tensor([[nan, nan], [0.0, 2.0]]), [0, 1]) == ([2, 1], [2, 2])


@pytest.mark.parametrize("width", [5, 64, 512])
def test_a_caption_that_another_image_has_too_is_wrong_there_and_ties(width):
    rng = torch.Generator().manual_seed(0)
    images, texts = torch.randn(203, width, generator=rng), torch.randn(201, width, generator=rng)
    image_of = [*range(201), 201, 202]  # the last two images have the first caption again
    i2t = ranks_of(images, torch.cat([texts, texts[:1], texts[:1]]), image_of)[0]
    for n in (0, 201, 202):
        scores = (images[n] @ texts.T).tolist()
        assert int(i2t[n]) == 3 + sum(s > scores[0] for s in scores[1:])


def test_an_image_without_a_caption_is_never_right():
    assert of_scores(torch.ones(2, 1), [0])[0] == [1, 2]


def test_a_caption_of_no_image_is_refused():
    with pytest.raises(Mismatch, match="image_of must name one of 2 images"):
        of_scores(torch.ones(2, 1), [2])
    with pytest.raises(Mismatch, match="at least one image"):
        ranks_of(torch.ones(0, 3), torch.ones(1, 3), [0])


@pytest.mark.oracle
def test_recalls_are_those_of_clip_benchmark():
    retrieval_of_clip = pytest.importorskip("clip_benchmark.metrics.zeroshot_retrieval")
    rng = torch.Generator().manual_seed(1)
    images, texts = (torch.nn.functional.normalize(torch.randn(n, 24, generator=rng), dim=1) for n in (60, 180))
    scores, measured = texts @ images.T, recalls(images, texts, [c // 3 for c in range(180)])
    right = torch.zeros_like(scores, dtype=torch.bool)
    right[torch.arange(180), torch.arange(180) // 3] = True
    for (direction, k), value in measured.items():
        side = (scores, right) if direction == "T2I" else (scores.T, right.T)
        hit = retrieval_of_clip.recall_at_k(*side, k) > 0
        assert value == pytest.approx(100 * float(hit.double().mean()))


def test_chance_is_what_random_scores_give():
    image_of = [0, 0, 1, 2, 2, 2, 3]
    rng = torch.Generator().manual_seed(0)
    hits = torch.zeros(2)
    for _ in range(4000):
        i2t, t2i = ranks_of(torch.rand(4, 7, generator=rng), torch.eye(7), image_of)
        hits += torch.tensor([(i2t <= 5).float().mean(), (t2i <= 1).float().mean()])
    expected = chance(4, image_of)
    assert (hits / 40).tolist() == pytest.approx([expected["I2T", 5], expected["T2I", 1]], abs=1.5)


def test_a_class_that_ties_or_is_no_number_is_wrong():
    images = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 2.0], [float("nan"), 0.0]])
    assert right_class(images, torch.eye(2), [0, 0, 1, 1]).tolist() == [True, False, True, False]
    assert right_class(images[:1], torch.eye(2), [1]).tolist() == [False]
