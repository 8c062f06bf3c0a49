"""What the starter learns from, and what is kept away from it."""

from __future__ import annotations

import hashlib
import json

import pytest

from sglora_starter.corpus import MOVED, Photo, every_task_photo, hold_out, read, without_tasks


def a_folder(data, name: str, rows: list[dict]) -> None:
    (data / name).mkdir(parents=True)
    (data / name / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def small(tmp_path):
    """Each family with one photo, and Flickr8k with one to learn from and one to test with."""
    coco = {"images": [{"filepath": "train2014", "filename": "COCO_train2014_000000000049.jpg"}]}
    (tmp_path / "coco/train2014").mkdir(parents=True)
    (tmp_path / "coco/dataset_coco.json").write_text(json.dumps(coco))
    (tmp_path / "coco/train2014/COCO_train2014_000000000049.jpg").write_bytes(b"coco")
    for name in ("birds", "flowers", "oxford-iiit-pet"):
        a_folder(tmp_path, name, [{"image": "x.jpg", "task": "x", "captions": ["x"]}])
        (tmp_path / name / "x.jpg").write_bytes(name.encode())
    both = [{"image": f"{s}.jpg", "task": "dog", "split": s, "captions": [s], "session": 1} for s in ("train", "test")]
    a_folder(tmp_path, "flickr8k", both)
    for row in both:
        (tmp_path / "flickr8k" / row["image"]).write_bytes(row["split"].encode())
    return tmp_path


@pytest.mark.parametrize("content", [b"coco", b"flowers", b"oxford-iiit-pet", b"birds", b"test"])
def test_a_photo_of_a_task_is_left_out_whatever_it_is_called(small, content):
    (small / "named").mkdir()
    (small / "named/a.jpg").write_bytes(content)
    (small / "named/b.jpg").write_bytes(b"another")
    photos = [Photo(small, f"named/{name}.jpg", "imagenet", name) for name in "ab"]
    assert [photo.group for photo in without_tasks(small, photos)] == ["b"]


def test_a_photo_of_coco_is_left_out_by_its_number(small):
    """Other editions shrink and compress the same photo in other ways, so that its bytes differ."""
    for number in (49, 50):
        path = small / f"coco_mini/train2017/{number:012}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(str(number).encode())
    photos = [Photo(small, f"coco_mini/train2017/{n:012}.jpg", "coco", str(n)) for n in (49, 50)]
    assert [photo.group for photo in without_tasks(small, photos)] == ["50"]


def test_a_bird_of_the_backbone_does_not_keep_itself_out(small):
    photos = [Photo(small, "birds/x.jpg", "birds", "x")]
    assert without_tasks(small, photos) == photos


def test_a_session_is_held_out_whole(tmp_path):
    photos = [Photo(tmp_path, str(n), "flickr8k", "dog", session=n // 7) for n in range(700)]
    photos.insert(0, Photo(tmp_path, "bird", "birds", "x"))
    held = hold_out(photos, 50)
    sessions = {photos[row].session for row in held}
    assert held == [row for row, photo in enumerate(photos) if photo.session in sessions]
    assert len(held) == 56  # eight sessions of seven


@pytest.mark.data
def test_no_photo_of_a_task_is_learned_from(data):
    """Also none of another name: no hash is on both sides."""
    photos = read(data)
    keys = {photo.key for photo in photos}
    own = {hashlib.sha256(photo.path.read_bytes()).hexdigest() for photo in photos}
    tasks = {hashlib.sha256((data / key).read_bytes()).hexdigest() for key in every_task_photo(data) if key not in keys}
    assert not own & tasks
    splits = json.loads((data / "splits.json").read_text())["birds"]
    birds = {photo.group for photo in photos if photo.source == "birds"}
    assert birds == {*splits["backbone"], *MOVED}
    assert not birds & set(splits["unseen"])
    assert {photo.key.partition("/")[0] for photo in photos} == {"flickr8k", "coco_mini", "coco_tiny", "birds", "named"}
