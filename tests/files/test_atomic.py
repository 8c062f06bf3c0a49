"""Files that are whole or absent: whatever their names, and whoever else writes them."""

from __future__ import annotations

import os

import pytest

from sglora_cli.files.atomic import put_folder, scratch_folder, write_bytes

LONG_NAMES = ["漢" * 85, "a" * 255, "é" * 127]


@pytest.mark.parametrize("name", LONG_NAMES)
def test_a_file_and_a_folder_may_have_the_longest_name(tmp_path, name):
    write_bytes(tmp_path / "files" / name, b"x")
    for _ in range(2):
        with scratch_folder(tmp_path / "folders" / name) as folder:
            write_bytes(folder / "y", b"y")
            put_folder(folder, tmp_path / "folders" / name)
    assert os.listdir(tmp_path / "files") == os.listdir(tmp_path / "folders") == [name]
