"""Features are named for the bytes they come from, and are those of these bytes."""

from __future__ import annotations

import hashlib

from PIL import Image
from thirdparty.sglora_tiny import TinyModel

from sglora_cli.data.features import Features
from sglora_cli.plugin.values import Photo

MODEL = TinyModel()


def photos_in(folder, *colours):
    """A photo of each colour, with a caption."""
    for colour in colours:
        Image.new("RGB", (8, 8), colour).save(folder / f"{colour}.png")
    return [Photo(folder / f"{colour}.png", (f"a {colour} square",)) for colour in colours]


def test_features_have_the_hash_of_each_photo_in_the_photos_order(tmp_path, own_home):
    features = Features.of(MODEL, "a", photos_in(tmp_path, "red", "blue"))
    expected = [hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("red.png", "blue.png")]
    assert list(features.hashes) == expected
    assert features.mirror().hashes == features.hashes
