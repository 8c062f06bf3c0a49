"""Features are named for the bytes they come from, and are those of these bytes."""

from __future__ import annotations

import hashlib
import shutil

import pytest
import torch
from PIL import Image
from thirdparty.sglora_tiny import TinyModel

from sglora_cli.data import features as module
from sglora_cli.data.features import Features, stems, task_tensors
from sglora_cli.errors import BadFile, Mismatch
from sglora_cli.files.tensors import save_tensors
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


def test_a_photo_that_is_replaced_between_planning_and_decoding_is_refused(tmp_path, own_home):
    photos = photos_in(tmp_path, "red", "blue")
    red = photos[0].path.read_bytes()
    planned = Features.of(MODEL, "a", photos)
    shutil.copy(photos[1].path, photos[0].path)
    with pytest.raises(BadFile, match=r"red\.png changed during processing"):
        planned.stored(MODEL)
    photos[0].path.write_bytes(red)
    assert torch.equal(task_tensors(MODEL, "a", photos).stem_N, stems(MODEL, photos))


def test_a_photo_that_is_replaced_after_decoding_has_the_features_of_its_old_bytes(tmp_path, own_home):
    photos = photos_in(tmp_path, "red", "blue")
    expected = stems(MODEL, photos)
    planned = Features.of(MODEL, "a", photos)
    planned.stored(MODEL)
    shutil.copy(photos[1].path, photos[0].path)
    assert torch.equal(planned.stored(MODEL).stem_N.to("cpu"), expected)
    assert torch.equal(task_tensors(MODEL, "a", photos).stem_N, stems(MODEL, photos))


def flipped(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 0x40
    path.write_bytes(data)


DAMAGE = {
    "a flipped byte of a photo": lambda path: flipped(path, -3),
    "a flipped byte of a text": lambda path: flipped(path, -120),
    "a flipped byte of the table": lambda path: flipped(path, 40),
    "half a file": lambda path: path.write_bytes(path.read_bytes()[:-50]),
    "an empty file": lambda path: path.write_bytes(b""),
    "no checksums": lambda path: save_tensors(
        path, {"stem": torch.zeros(2, 4, 12).half(), "text": torch.zeros(2, 8)}, {}
    ),
    "NaN and texts of another width": lambda path: save_tensors(
        path, {"stem": torch.full((2, 50, 192), float("nan")).half(), "text": torch.zeros(7, 3)}, {}
    ),
    "the features of other photos": lambda path: shutil.copy(path.with_name("other"), path),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_features_that_are_not_as_they_were_written_are_computed_again(tmp_path, own_home, damage):
    photos = photos_in(tmp_path, "red", "blue", "green")
    other = Features.of(MODEL, "b", photos[1:])
    other.stored(MODEL)
    planned = Features.of(MODEL, "a", photos[:2])
    expected = planned.stored(MODEL).to(MODEL.device)
    shutil.copy(other.path, planned.path.with_name("other"))
    damage(planned.path)
    again = planned.stored(MODEL).to(MODEL.device)
    assert torch.equal(again.stem_N, expected.stem_N)
    assert torch.equal(again.text_CD, expected.text_CD)


def test_damage_while_features_are_in_use_is_said(tmp_path, own_home):
    stored = Features.of(MODEL, "a", photos_in(tmp_path, "red", "blue")).stored(MODEL)
    flipped(stored.stem_N.path, -3)
    assert stored.stem_N[0].shape == (4, 12)
    with pytest.raises(BadFile, match="row 1 of 'stem' is damaged") as error:
        stored.stem_N[1]
    assert error.value.hint == "run the command again to recreate it"


def test_a_backbone_whose_numbers_are_not_finite_leaves_nothing_in_the_cache(tmp_path, own_home):
    class Broken(TinyModel):
        def stem(self, images):
            stem = super().stem(images)
            stem[-1, 0, 0] = float("inf")
            return stem

    planned = Features.of(Broken(), "a", photos_in(tmp_path, "red", "blue"))
    with pytest.raises(Mismatch, match=r"numbers that are not finite for .*blue\.png"):
        planned.stored(Broken())
    assert not planned.path.exists()


@pytest.mark.parametrize(("damaged", "start"), [(False, 3), (True, 0)])
def test_a_computation_goes_on_after_its_checkpoint_unless_that_is_damaged(
    tmp_path, own_home, monkeypatch, damaged, start
):
    photos = photos_in(tmp_path, "red", "blue", "green", "white")
    monkeypatch.setattr("sglora_cli.data.ahead.BATCH", 1)
    monkeypatch.setattr(module.Checkpoint, "due", True)
    planned = Features.of(MODEL, "a", photos)
    work = planned.compute(MODEL)
    assert [next(work) for _ in range(4)] == [0, 1, 1, 1]
    work.close()  # as if it were interrupted here
    if damaged:
        flipped(planned.path.with_suffix(".checkpoint"), -1)
    again = planned.compute(MODEL)
    assert next(again) == start
    list(again)
    assert torch.equal(planned.stored(MODEL).stem_N.to("cpu"), stems(MODEL, photos))
