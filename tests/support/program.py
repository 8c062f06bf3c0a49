"""The program in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys


def program(*arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run in a process of its own, piped."""
    return subprocess.run(
        [sys.executable, "-m", "sglora_cli.cli.main", *map(str, arguments)],
        capture_output=True,
        env={**os.environ, **environment},
        check=False,
    )
