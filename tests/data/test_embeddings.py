"""Embeddings from the cache are those that the model gives, whichever way they came there."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest
import torch
from PIL import Image
from thirdparty.sglora_clipling import Clipling
from thirdparty.sglora_tiny import TinyModel

from sglora_cli.data import ahead as ahead_module
from sglora_cli.data.embeddings import photo_embeddings
from sglora_cli.data.photo_store import PhotoStore, store_file
from sglora_cli.errors import BadFile, Mismatch
from sglora_cli.lora.layout import Layout

TINY, CLIPLING = TinyModel(), Clipling()
WHOLE = Layout(CLIPLING.sites, 2, 3.0)
PROJECTION = Layout((CLIPLING.projection,), 2, 3.0)


def adapter(layout: Layout, seed: int = 0) -> torch.Tensor:
    return 0.3 * torch.randn(layout.size, generator=torch.Generator().manual_seed(seed))


def obvious(model, path: Path, layout: Layout | None = None, flat_P: torch.Tensor | None = None) -> torch.Tensor:
    """One photo at a time."""
    stem = model.stem([Image.open(path).convert("RGB")]).half()
    if flat_P is None:
        return model.encode_image(stem)[0]
    return model.encode_image(stem, layout, flat_P[None]).reshape(-1)


@pytest.fixture
def photos(images) -> dict[str, Path]:
    paths = sorted(images.iterdir())[:40]
    for path in paths:
        os.utime(path, (1_000_000, 1_000_000))
    return {path.name: path for path in paths}


@pytest.fixture
def no_photo_is_read(monkeypatch):
    return lambda: monkeypatch.setattr(ahead_module, "read_image", lambda *photo: pytest.fail(f"{photo} was decoded"))


@pytest.mark.parametrize(
    ("model", "layout"),
    [
        (TINY, None),
        (TINY, Layout(TINY.sites, 2, 2.0)),
        (CLIPLING, None),
        (CLIPLING, WHOLE),
        (CLIPLING, PROJECTION),
        (CLIPLING, Layout((*CLIPLING.sites, CLIPLING.projection), 2, 3.0)),
    ],
)
def test_embeddings_are_those_of_one_photo_at_a_time_first_and_again(photos, no_photo_is_read, model, layout):
    flat_P = None if layout is None else adapter(layout)
    first = photo_embeddings(model, photos, layout, flat_P)
    no_photo_is_read()
    again = photo_embeddings(model, photos, layout, flat_P)
    assert (first.computed, again.computed) == (len(photos), 0)
    assert first.names == again.names == tuple(photos)
    plain_ND = torch.stack([obvious(model, path) for path in photos.values()])
    adapted_ND = torch.stack([obvious(model, path, layout, flat_P) for path in photos.values()])
    torch.testing.assert_close(first.plain_ND, plain_ND, atol=1e-5, rtol=0)
    torch.testing.assert_close(first.adapted_ND, adapted_ND, atol=1e-5, rtol=0)
    assert torch.equal(first.plain_ND, again.plain_ND)
    assert torch.equal(first.adapted_ND, again.adapted_ND)


def test_another_adapter_of_the_projection_needs_no_photo(photos, no_photo_is_read):
    photo_embeddings(CLIPLING, photos)
    no_photo_is_read()
    for seed in (1, 2):
        flat_P = adapter(PROJECTION, seed)
        found = photo_embeddings(CLIPLING, photos, PROJECTION, flat_P)
        assert found.computed == 0
        adapted_ND = torch.stack([obvious(CLIPLING, path, PROJECTION, flat_P) for path in photos.values()])
        torch.testing.assert_close(found.adapted_ND, adapted_ND, atol=1e-5, rtol=0)


def test_other_weights_another_precision_and_another_adapter_are_computed_anew(photos):
    photo_embeddings(CLIPLING, photos, WHOLE, adapter(WHOLE))
    other = Clipling(seed=4)
    other.fingerprint = "other"
    assert photo_embeddings(other, photos).computed == len(photos)
    assert photo_embeddings(CLIPLING, photos, precision="bf16").computed == len(photos)
    assert photo_embeddings(CLIPLING, photos, WHOLE, adapter(WHOLE, 1)).computed == len(photos)
    assert photo_embeddings(CLIPLING, photos, WHOLE, adapter(WHOLE)).computed == 0


def test_only_new_photos_are_computed_and_equal_bytes_once(photos, tmp_path):
    some = dict(list(photos.items())[:10])
    photo_embeddings(TINY, some)
    copy = tmp_path / "copy.png"
    shutil.copy(photos["ball_0.png"], copy)
    new = {**photos, "copy": copy}
    found = photo_embeddings(TINY, new)
    assert found.computed == len(photos) - 10
    assert torch.equal(found.plain_ND[found.names.index("copy")], found.plain_ND[found.names.index("ball_0.png")])


def test_photos_that_cannot_be_read_are_left_out_and_tried_again(photos, tmp_path):
    broken, missing = tmp_path / "broken.png", tmp_path / "missing.png"
    broken.write_bytes(b"no picture")
    found = photo_embeddings(TINY, {"missing": missing, **photos, "broken": broken})
    assert found.names == tuple(photos)
    assert found.computed == len(photos)
    assert found.skipped[0] == f"image {missing} does not exist"
    assert found.skipped[1].startswith(f"image {broken} cannot be decoded: ")
    shutil.copy(photos["ball_0.png"], broken)
    again = photo_embeddings(TINY, {**photos, "broken": broken})
    assert "broken" in again.names
    assert again.skipped == ()


def test_a_batch_of_broken_photos_at_the_end_loses_no_other(photos, tmp_path):
    broken = {}
    for n in range(40):
        broken[f"broken-{n}"] = tmp_path / f"{n}.png"
        broken[f"broken-{n}"].write_bytes(bytes([n]))
    found = photo_embeddings(TINY, {**photos, **broken})
    assert found.names == tuple(photos)
    assert len(found.skipped) == 40


def test_no_photo_at_all_is_an_error(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"no")
    with pytest.raises(BadFile, match=r"^image .* cannot be decoded"):
        photo_embeddings(TINY, {"x": path})


class Broken(TinyModel):
    fingerprint = "broken"

    def encode_image(self, stem, layout=None, adapters_TP=None):
        return super().encode_image(stem, layout, adapters_TP) * float("nan")


class BrokenBefore(Clipling):
    """Its projection gets numbers that are not finite."""

    fingerprint = "broken before"

    def unprojected(self, stem):
        return super().unprojected(stem) * float("nan")


@pytest.mark.parametrize("model", [Broken(), BrokenBefore()])
def test_numbers_that_are_not_finite_are_refused_and_not_kept(photos, model):
    for _ in range(2):
        with pytest.raises(Mismatch, match="an embedding of a photo is not finite"):
            photo_embeddings(model, photos)
    database = sqlite3.connect(store_file())
    assert database.execute("SELECT count(*) FROM vector").fetchone() == (0,)
    database.close()


@pytest.mark.parametrize("layout", [None, PROJECTION])
def test_a_collection_of_photos_is_read_in_one_piece_until_one_of_them_changes(photos, monkeypatch, layout):
    flat_P = None if layout is None else adapter(layout)
    first = photo_embeddings(CLIPLING, photos, layout, flat_P)
    vectors = PhotoStore.vectors
    monkeypatch.setattr(PhotoStore, "vectors", lambda *asked: pytest.fail("rows were read one by one"))
    again = photo_embeddings(CLIPLING, photos, layout, flat_P)
    assert (again.names, again.sha256s, again.skipped, again.computed) == (first.names, first.sha256s, (), 0)
    assert torch.equal(again.plain_ND, first.plain_ND)
    assert torch.equal(again.adapted_ND, first.adapted_ND)
    assert (again.adapted_ND is again.plain_ND) == (layout is None)
    monkeypatch.setattr(PhotoStore, "vectors", vectors)
    one, other = list(photos.values())[:2]
    shutil.copy(other, one)
    os.utime(one, (1_000_000, 1_000_000))
    changed = photo_embeddings(CLIPLING, photos, layout, flat_P)
    assert torch.equal(changed.plain_ND[0], first.plain_ND[1])
    assert torch.equal(changed.plain_ND[1:], first.plain_ND[1:])


def test_a_collection_with_a_photo_that_was_just_written_or_cannot_be_read_is_not_cached(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(PhotoStore, "put_collection", lambda *asked: pytest.fail("it was cached"))
    new, broken = tmp_path / "new.png", tmp_path / "broken.png"
    shutil.copy(photos["ball_0.png"], new)
    broken.write_bytes(b"no picture")
    os.utime(broken, (1_000_000, 1_000_000))
    photo_embeddings(TINY, {**photos, "new": new})
    photo_embeddings(TINY, {**photos, "broken": broken})
