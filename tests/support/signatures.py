"""Signatures made by the real ssh-keygen."""

from __future__ import annotations

import subprocess
from pathlib import Path


def sign(path: Path, key: Path, namespace: str = "sglora") -> Path:
    command = ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", str(key), str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return Path(f"{path}.sig")


def allow(key: Path, options: str = "") -> Path:
    path = key.with_name("allowed_signers")
    path.write_text(f"ann@example.org {options} {key.with_suffix('.pub').read_text()}")
    return path
