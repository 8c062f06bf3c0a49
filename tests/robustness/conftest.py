"""What the commands of `writing_commands` write to."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def stage(archive, run, own_home, tmp_path) -> Path:
    """A folder with the user's home, its pack `toys`, an archive of it, and an adapter as PEFT writes it."""
    assert run("pack", "import", archive).exit_code == 0
    assert run("generate", "a photo of a mug", "--pack", "toys", "-o", tmp_path / "mug.safetensors").exit_code == 0
    assert run("export", tmp_path / "mug.safetensors", "-o", f"{tmp_path}/mug-peft/").exit_code == 0
    return tmp_path
