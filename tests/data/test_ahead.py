"""Photos are made ready ahead of whoever asks for them: in order, and not too far."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageOps
from thirdparty.sglora_tiny import TinyModel

from sglora_cli.data.ahead import BATCH, ahead, looked_at
from sglora_cli.errors import BadFile
from sglora_cli.files.hashes import file_hash


def test_results_come_in_order_whoever_is_done_first():
    def work(n: int) -> int:
        time.sleep(0.002 * (n % 3))
        return n * n

    assert list(ahead(work, range(40), 5)) == [n * n for n in range(40)]
    assert list(ahead(work, [], 5)) == []


def test_no_more_than_asked_for_waits():
    begun = []
    results = ahead(begun.append, range(100), 7)
    for asked in range(1, 20):
        next(results)
        time.sleep(0.01)
        assert len(begun) <= asked + 7
    results.close()
    assert len(begun) < 40  # what waits is given up


def test_work_is_done_while_the_device_computes():
    """While the first result is looked at, the second is made: with one after the other this would never end."""
    second = threading.Event()

    def work(n: int) -> int:
        if n:
            second.set()
        return n

    results = ahead(work, range(2), 1)
    next(results)
    assert second.wait(10)


def test_an_error_comes_where_its_photo_is():
    def work(n: int) -> int:
        if n == 3:
            raise BadFile("three")
        return n

    results, seen = ahead(work, range(10), 8), []
    with pytest.raises(BadFile, match="three"):
        seen += results
    assert next(results, None) is None


def picture(path: Path, colour: tuple[int, int, int] = (200, 30, 40)) -> Path:
    image = Image.new("RGB", (24, 16), colour)
    image.putpixel((0, 0), (255, 255, 255))
    image.save(path)
    return path


class Preparing(TinyModel):
    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def prepare(self, image):
        return super().stem([image])[0]

    def stem_of(self, prepared):
        self.batches.append(len(prepared))
        return torch.stack(list(prepared))

    def stem(self, images):
        return self.stem_of([self.prepare(image) for image in images])


@pytest.mark.parametrize("kind", [TinyModel, Preparing])
@pytest.mark.parametrize("mirrored", [False, True])
def test_stems_are_those_of_one_photo_after_another(tmp_path, kind, mirrored):
    paths = [picture(tmp_path / f"{n}.png", colour=(7 * n % 256, n, 90)) for n in range(BATCH + 3)]
    model = kind()
    stems = list(looked_at(model, [(path, file_hash(path)) for path in paths], mirrored))
    images = [Image.open(path).convert("RGB") for path in paths]
    obvious = TinyModel().stem([ImageOps.mirror(image) if mirrored else image for image in images])
    assert [len(stem) for stem in stems] == [BATCH, 3]
    assert torch.equal(torch.cat(stems), obvious)
    if kind is Preparing:
        assert model.batches == [BATCH, 3]


def test_a_photo_of_other_bytes_is_refused(tmp_path):
    path = picture(tmp_path / "a.png")
    with pytest.raises(BadFile, match="changed during processing"):
        list(looked_at(TinyModel(), [(path, "0" * 64)]))


def test_after_an_error_no_thread_is_left(tmp_path):
    """Although the error's traceback holds the frames that made them."""
    for n in range(5):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{n}.png")
    (tmp_path / "2.png").write_bytes(b"broken")
    photos = [(tmp_path / f"{n}.png", "") for n in range(5)]
    before = threading.active_count()
    with pytest.raises(BadFile, match="cannot be decoded") as error:
        list(looked_at(TinyModel(), photos))
    assert threading.active_count() == before
    assert error.value.__traceback__ is not None
