"""What is here of a data set: whole, in part, interrupted, without captions, half captioned."""

from __future__ import annotations

import json
import shutil

import pytest
from trees import captioned, pets_tree

from sglora_cli.errors import BadFile, Unavailable
from sglora_cli.reproduce.sources import source_state
from sglora_datasets.folder import Folder
from sglora_datasets.pets import Pets


@pytest.fixture
def pets(tmp_path):
    """A folder of pets, and its state."""
    root = tmp_path / "oxford-iiit-pet"
    root.mkdir()
    pets_tree(root)

    def state(**how):
        return source_state("pets", Pets(), root, tmp_path, **how)

    return root, state


def test_what_is_whole_is_ready(pets):
    _, state = pets
    assert state().ready
    assert (state().waiting, state().remarks) == ([], ())


def test_what_is_not_there_says_its_size_and_that_captions_are_not_part_of_it(tmp_path):
    state = source_state("pets", Pets(), tmp_path / "oxford-iiit-pet", tmp_path)
    assert (state.here, state.captioned, state.photos) == (False, False, 7349)
    assert state.plan.left == 811_092_049
    assert state.errors == ()


def test_a_path_that_fetch_does_not_fill_is_in_the_way(tmp_path):
    state = source_state("pets", Pets(), tmp_path / "mine", tmp_path)
    (error,) = state.errors
    assert error.message.startswith("`sglora data fetch pets` downloads into ")
    assert error.hint == 'write path = "oxford-iiit-pet" in its [[source]]'


def test_what_nobody_can_fetch_is_in_the_way(tmp_path):
    (tmp_path / "mine").mkdir()
    state = source_state("folder", Folder(), tmp_path / "mine", tmp_path)
    assert not state.here
    assert [type(error) for error in state.errors] == [Unavailable]


def test_photos_that_are_missing_are_their_users_choice(pets):
    root, state = pets
    next((root / "images").iterdir()).unlink()
    assert state().ready
    assert state().remarks[0] == "pets: 7 of the 8 images in its annotations exist"


def test_a_part_of_a_download_means_that_it_was_interrupted(pets):
    root, state = pets
    next((root / "images").iterdir()).unlink()
    (root / "images.tar.gz.part").write_bytes(b"x" * 100)
    assert not state().here
    assert state().plan.left == 791_918_971 - 100


def test_an_interrupted_fetch_is_known(pets):
    root, state = pets
    next((root / "images").iterdir()).unlink()
    assert not state(interrupted=True).here


def test_without_captions_all_photos_wait(pets):
    root, state = pets
    (root / "captions.jsonl").unlink()
    found = state()
    assert (found.here, found.captioned, found.photos) == (True, False, 8)
    assert not found.ready


@pytest.mark.parametrize(("by", "waits"), [("parrot 12", True), ("", False)])
def test_only_what_a_captioner_began_is_its_work(pets, by, waits):
    root, state = pets
    rows = [{**row, **({"by": by} if by else {})} for row in captioned(root)]
    (root / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:5]))
    found = state()
    assert (found.captioned, len(found.waiting)) == (not waits, 3 * waits)
    assert found.remarks == (() if waits else ("3 of 8 photos have no captions and are ignored",))


def test_what_is_broken_is_in_the_way(pets):
    root, state = pets
    (root / "annotations/test.txt").write_text("x\n")
    (error,) = state().errors
    assert isinstance(error, BadFile)
    shutil.rmtree(root)
    assert not state().here
