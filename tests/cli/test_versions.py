"""What is installed: `--version`."""

from __future__ import annotations

import subprocess
import sys

from program import program

from sglora_cli.cli.versions import Package, wanted


def test_version_says_what_is_installed_and_loads_nothing():
    done = program("--version")
    lines = done.stdout.decode().splitlines()
    assert lines[0] == "sglora 0.1.0"
    assert any(line.startswith("torch 2.") for line in lines)
    assert any(line.startswith("plugins of sglora 0.1.0: ") and "starter" in line for line in lines)
    code = "import sys; from sglora_cli.cli.versions import installed; installed(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_packages_that_are_missing_or_too_old_are_named():
    packages = wanted(["click>=8.1", "not-there>=1", "numpy>=999.1", "torch", 'pytest>=1; extra == "test"'])
    assert [package.wrong for package in packages] == [
        "",
        "not-there is not installed",
        f"numpy is {packages[2].version}, sglora needs 999.1 or later",
        "",
        "",
    ]
    assert packages[4].extra == "test"
    assert Package("a", "2.6", "2.14.1+cpu").wrong == ""
