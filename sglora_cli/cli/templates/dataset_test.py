"""Tests of the data set `example`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from sglora_cli.api import BadFile
from sglora_cli.testing import DATASET_CHECKS

from sglora_example import Example


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Create two tasks with ten images each."""
    for task in ("cat", "pug"):
        (tmp_path / task).mkdir()
        for n in range(10):
            Image.new("RGB", (16, 16), (20 * n, 100, 100)).save(tmp_path / task / f"{n}.png")
            (tmp_path / task / f"{n}.txt").write_text(f"a {task}\nnumber {n}\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("check", DATASET_CHECKS, ids=lambda check: check.__name__)
def test_it_passes_the_conformance_kit(check: Callable[..., None], folder: Path) -> None:
    check(Example(), folder)


def test_a_line_is_a_caption_and_every_fifth_image_is_for_testing(folder: Path) -> None:
    cat = Example().tasks(folder)[0]
    assert [photo.path.name for photo in cat.photos["test"]] == ["4.png", "9.png"]
    assert cat.photos["train"][0].captions == ("a cat", "number 0")


def test_an_image_without_captions_is_named(folder: Path) -> None:
    (folder / "pug" / "3.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(BadFile, match=r"3\.txt has no caption"):
        Example().tasks(folder)
