"""Photos in a folder, and names that can be printed."""

from __future__ import annotations

import os
from pathlib import Path

from sglora_cli.files.images import image_files, printable_name


def test_folders_in_the_folder_count_and_hidden_things_do_not(tmp_path):
    for name in ("b/c/x.JPG", "a.webp", ".hidden.png", ".git/y.png", "notes.txt", "b/z.jpeg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert list(image_files(tmp_path)) == ["a.webp", "b/z.jpeg", "b/c/x.JPG"]


def test_names_that_cannot_be_printed_are_made_printable():
    assert printable_name(Path(os.fsdecode(b"a\xff.png"))) == "a\ufffd.png"
    assert printable_name(Path("a\x1b[2J.png")) == "a\ufffd[2J.png"
