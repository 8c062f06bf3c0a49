"""Images that look alike: every pair is found once, against comparing all of them."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image
from speckles import speckles

from sglora_cli.config import CheckConfig
from sglora_cli.data.near_duplicates import hasher, near_pairs


def obvious_pairs(hashes: list[int], distance: int) -> list[tuple[int, int, int]]:
    pairs = ((i, j, (hashes[i] ^ hashes[j]).bit_count()) for j in range(len(hashes)) for i in range(j))
    return sorted(pair for pair in pairs if pair[2] <= distance)


@pytest.mark.parametrize("distance", range(9))
@pytest.mark.parametrize("seed", range(3))
def test_every_pair_within_the_distance_is_found_once(distance, seed):
    rng = random.Random(f"{seed} {distance}")
    hashes = [rng.getrandbits(64) for _ in range(40)]
    for _ in range(160):  # relatives of relatives, equal ones and ones just too far among them
        bits = rng.sample(range(64), rng.randint(0, distance + 2))
        hashes.append(rng.choice(hashes) ^ sum(1 << bit for bit in bits))
    expected = obvious_pairs(hashes, distance)
    assert len(expected) > 50
    assert sorted(near_pairs(np.array(hashes, dtype=np.uint64), distance)) == expected


@pytest.mark.parametrize("hashes", [[], [7], [0, 2**64 - 1]])
def test_few_hashes_have_no_pairs(hashes):
    assert list(near_pairs(np.array(hashes, dtype=np.uint64), 4)) == []


def test_the_hash_survives_size_and_compression_and_tells_images_apart():
    hash_of = hasher()
    image = speckles(1, 256)
    packed = io.BytesIO()
    image.resize((120, 120)).save(packed, "JPEG", quality=60)
    assert (hash_of(image) ^ hash_of(Image.open(packed))).bit_count() <= CheckConfig().distance
    others = [hash_of(speckles(seed, 256)) for seed in range(2, 30)]
    assert min((hash_of(image) ^ other).bit_count() for other in others) > 8
