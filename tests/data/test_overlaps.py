"""Photos that tasks share, counted by content."""

from __future__ import annotations

import hashlib
import random
from itertools import combinations

from sglora_cli.data.overlaps import Side, overlap_lines, overlaps, sides_of
from sglora_cli.plugin.values import ROLES, UNSEEN, Photo, Task


def sides_at_random(seed: int) -> list[Side]:
    rng = random.Random(seed)
    photos = [str(n) for n in range(12)]
    return [
        Side(f"t{n}", rng.choice(ROLES), split, frozenset(rng.sample(photos, rng.randint(0, 5))))
        for n in range(6)
        for split in ("train", "test")
    ]


def test_overlaps_are_every_two_sides_with_a_common_photo():
    for seed in range(30):
        sides = [s for s in sides_at_random(seed) if s.split == "train" or s.role == UNSEEN]
        expected = {(i, j, len(i.photos & j.photos)) for i, j in combinations(sides, 2) if i.photos & j.photos}
        found = overlaps(sides)
        assert {(one.first, one.second, one.photos) for one in found} == expected
        assert all((one.kind == "leak") == (one.first.split != one.second.split) for one in found)


def test_the_test_side_of_a_seen_task_overlaps_with_nothing():
    photos = frozenset({"a"})
    assert overlaps([Side("x", "expert", "test", photos), Side("y", UNSEEN, "test", photos)]) == []


def test_a_photo_of_three_tasks_counts_once_in_a_sentence():
    photos = frozenset({"a", "b"})
    sides = [
        Side("x", "expert", "train", photos),
        Side("y", "training", "train", photos),
        Side("z", UNSEEN, "test", {"a"}),
    ]
    assert overlap_lines(overlaps(sides)) == [
        "1 photo used to train a task and to test an unseen task (3 tasks)",
        "2 photos used to train several tasks (2 tasks)",
    ]
    assert overlap_lines(overlaps(sides[:1])) == []


def test_the_sides_of_a_plan_are_the_contents_of_its_photos(tmp_path):
    for name, content in (("a.jpg", b"one"), ("b.jpg", b"two"), ("copy of a.jpg", b"one")):
        (tmp_path / name).write_bytes(content)
    photo = {name: Photo(tmp_path / name, ("x",)) for name in ("a.jpg", "b.jpg", "copy of a.jpg", "gone.jpg")}
    pug = Task("d", "pug", "a pug", {"train": [photo["a.jpg"], photo["gone.jpg"]], "test": []})
    cat = Task("d", "cat", "a cat", {"train": [photo["b.jpg"]], "test": [photo["copy of a.jpg"]]})
    sides = sides_of({"expert": [pug], UNSEEN: [cat]})
    assert [str(side) for side in sides] == ["expert pug (train)", "unseen cat (train)", "unseen cat (test)"]
    (found,) = overlaps(sides)
    assert str(found) == "1 photo: expert pug (train) and unseen cat (test)"
    assert (found.kind, sides[0].photos) == ("leak", {hashlib.sha256(b"one").hexdigest()})
