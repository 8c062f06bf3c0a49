"""The best low-rank approximation of dense matrices against their whole SVD, on spectra of all kinds."""

from __future__ import annotations

import pytest
import torch
from merge_rules import at_one_site
from random_factors import seeded

from sglora_merge import dense
from sglora_merge.dense import LEAST, truncated
from sglora_merge.rule import Rule

SIZE = LEAST + 44
TIES = Rule(prune="magnitude", density=0.2, elect="total")
DARE = Rule(prune="random", density=0.5, elect="total")


def rotations(rows: int, columns: int, seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Orthonormal columns and rows, min(rows, columns) of each."""
    rng, count = seeded(seed), min(rows, columns)
    u, v = (torch.linalg.qr(torch.randn(n, count, generator=rng, dtype=torch.float64)).Q for n in (rows, columns))
    return u, v.T


def with_values(values: torch.Tensor, rows: int = SIZE, columns: int = SIZE) -> torch.Tensor:
    u, vh = rotations(rows, columns)
    s = torch.zeros(min(rows, columns), dtype=torch.float64)
    s[: len(values)] = values
    return (u * s) @ vh


def merged(rule: Rule, count: int = 4, rank: int = 2, rows: int = SIZE, columns: int = SIZE) -> torch.Tensor:
    rng = seeded(7)
    b, a = torch.randn(count, rows, rank, generator=rng), torch.randn(count, rank, columns, generator=rng)
    return at_one_site(rule, torch.ones(count), b @ a, rng)


def hidden() -> torch.Tensor:
    """Its strongest direction is of one row and one column only."""
    matrix = torch.randn(SIZE, SIZE, generator=seeded(9), dtype=torch.float64)
    matrix[17], matrix[:, 40] = 0.0, 0.0
    matrix[17, 40] = 3 * SIZE**0.5
    return matrix


place = torch.arange(1, SIZE + 1, dtype=torch.float64)
MATRICES = {
    "noise": torch.randn(SIZE, SIZE, generator=seeded()),
    "noise, wide": torch.randn(LEAST, SIZE, generator=seeded()),
    "noise, tall": torch.randn(SIZE, LEAST, generator=seeded()),
    "ties": merged(TIES),
    "ties, wide": merged(TIES, rows=LEAST, columns=SIZE),
    "ties, tall": merged(TIES, rows=SIZE, columns=LEAST),
    "ties of many": merged(TIES, count=12, rank=4),
    "dare": merged(DARE),
    "slow decay": with_values(place**-0.1),
    "decay": with_values(place**-1),
    "steep": with_values(10.0**-place),
    "a strong one": with_values(torch.cat([torch.tensor([1.0, 1e-3]), torch.full((SIZE - 2,), 5e-4)])),
    "close": with_values(torch.cat([torch.tensor([1.0, 0.9, 0.9 - 1e-4]), torch.full((SIZE - 3,), 0.1)])),
    "equal behind": with_values(torch.cat([torch.tensor([1.0, 0.9]), torch.full((SIZE - 2,), 0.5)])),
    "rank one": with_values(torch.tensor([3.0])).float(),
    "rank two": with_values(torch.tensor([3.0, 0.1])).float(),
    "rank three": with_values(torch.tensor([3.0, 2.0, 1.0])).float(),
    "zero": torch.zeros(SIZE, SIZE),
    "tiny": 1e-30 * torch.randn(SIZE, SIZE, generator=seeded(1)),
    "large": 1e30 * torch.randn(SIZE, SIZE, generator=seeded(1)),
    "sparse": torch.randn(SIZE, SIZE, generator=seeded(2)) * (torch.rand(SIZE, SIZE, generator=seeded(3)) < 0.02),
    "hidden": hidden(),
}


def best(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vh[:rank]


EQUAL = {"a strong one", "close", "equal behind"}
"""Their eighth singular value is equal to the ninth."""


@pytest.mark.parametrize(
    ("name", "rank"), [(name, rank) for name in MATRICES for rank in (1, 2, 8) if rank < 8 or name not in EQUAL]
)
def test_it_is_what_the_whole_svd_gives(name, rank):
    matrix = MATRICES[name]
    ((b,), (a,)), expected = truncated(matrix[None], rank), best(matrix, rank)
    assert (b.shape, a.shape) == ((len(matrix), rank), (rank, matrix.shape[1]))
    assert b.dtype == a.dtype == torch.float32
    assert float((b.double() @ a.double() - expected).norm()) <= 2e-7 * float(expected.norm())
    assert torch.allclose(b.mT @ b, a @ a.mT, rtol=1e-4, atol=1e-6 * float(expected.norm()))


@pytest.mark.parametrize(
    ("shape", "rank"),
    [((9, 7), 2), ((7, 9), 7), ((5, 3), 4), ((3, 5), 8), ((1, 1), 1), ((60, LEAST), 60), ((300, 260), 80)],
)
def test_small_matrices_and_high_ranks_are_no_exception(shape, rank):
    matrix = torch.randn(*shape, generator=seeded())
    (b,), (a,) = truncated(matrix[None], rank)
    assert (b.shape, a.shape) == ((shape[0], rank), (rank, shape[1]))
    assert torch.allclose(b.double() @ a.double(), best(matrix, rank), atol=1e-5)


def test_of_equal_singular_values_any_are_as_good():
    matrix = with_values(torch.ones(SIZE))
    (b,), (a,) = truncated(matrix[None], 2)
    assert float((matrix - b.double() @ a.double()).square().sum()) == pytest.approx(SIZE - 2)
    assert float((b @ a).norm()) == pytest.approx(2**0.5)


def test_matrices_of_a_batch_are_as_alone():
    square = [matrix for matrix in MATRICES.values() if matrix.shape == (SIZE, SIZE)]
    b_SOR, a_SRI = truncated(torch.stack([matrix.double() for matrix in square]), 2)
    for matrix, b, a in zip(square, b_SOR, a_SRI, strict=True):
        (alone_b,), (alone_a,) = truncated(matrix[None], 2)
        alone = alone_b.double() @ alone_a.double()
        assert float((b.double() @ a.double() - alone).norm()) <= 1e-7 * float(alone.norm())


@pytest.mark.parametrize("name", ["ties", "ties of many", "dare", "slow decay", "rank two", "zero", "hidden"])
def test_no_matrix_needs_all_its_vectors_unless_values_are_equal(name, monkeypatch):
    left = []
    monkeypatch.setattr(dense, "_by_eigh", lambda matrices, rank: left.append(len(matrices)))
    truncated(MATRICES[name][None], 2)
    assert left == []


def test_what_is_not_found_is_left_to_eigh(monkeypatch):
    left, by_eigh = [], dense._by_eigh
    monkeypatch.setattr(dense, "_by_eigh", lambda matrices, rank: left.append(len(matrices)) or by_eigh(matrices, rank))
    matrices = torch.stack([with_values(torch.ones(SIZE)), MATRICES["ties"].double(), with_values(torch.ones(SIZE))])
    truncated(matrices, 2)
    assert left == [2]


def test_the_same_matrices_give_the_same_bytes_and_no_random_numbers_are_used():
    state = torch.get_rng_state()
    first, again = truncated(MATRICES["dare"][None], 2), truncated(MATRICES["dare"][None], 2)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
