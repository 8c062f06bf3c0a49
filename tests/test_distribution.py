"""The wheel and the sdist: what is in them, and that the tests run what is installed.

`.ci/run` builds both and names their folder in SGLORA_TEST_DIST: the sdist and the wheel made from it, and in its
`again` a second wheel, made from the checkout.
"""

from __future__ import annotations

import os
import tarfile
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.metadata import Metadata

import sglora_cli

ROOT = Path(__file__).parent.parent
FOLDER = os.environ.get("SGLORA_TEST_DIST")
UNSAVED = {"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", "sglora.egg-info"}
MEGABYTES = 60


@pytest.fixture
def dist() -> Path:
    if not FOLDER:
        pytest.skip("nothing was built; `.ci/run` names the folder in SGLORA_TEST_DIST")
    return Path(FOLDER)


@pytest.fixture
def wheel(dist) -> Path:
    (path,) = dist.glob("*.whl")
    return path


def files_of(*places: str) -> set[str]:
    """Files of the checkout in `places`, without what tools leave behind."""
    files = {f for place in places for f in (ROOT / place).rglob("*") if f.is_file()}
    files |= {ROOT / place for place in places if (ROOT / place).is_file()}
    return {f.relative_to(ROOT).as_posix() for f in files if not UNSAVED & set(f.relative_to(ROOT).parts)}


def test_the_wheel_has_the_program_and_nothing_else(wheel):
    wanted = {name.removeprefix("plugins/"): name for name in files_of("sglora_cli", "plugins")}
    wanted |= {f"sglora_{name}": name for name in files_of("packs")}
    del wanted["README.md"]  # plugins/README.md, for readers of the repository
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert names == set(wanted)
        for name, source in wanted.items():
            assert archive.read(name) == (ROOT / source).read_bytes(), name


def test_the_wheel_has_a_licence_types_and_what_runs_offline(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        for name in ("sglora_cli/py.typed", "sglora_starter/starter.safetensors", "sglora_packs/starter/pack.json"):
            assert name in names
        (licence,) = [name for name in names if name.endswith("licenses/LICENSE")]
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
    assert wheel.stat().st_size < MEGABYTES * 10**6


def test_the_wheel_of_the_sdist_is_the_wheel_of_the_checkout(dist, wheel):
    """In order, with the same dates and bytes; modes are those of the checkout, which a umask decides."""
    (again,) = (dist / "again").glob("*.whl")
    with zipfile.ZipFile(again) as one, zipfile.ZipFile(wheel) as other:
        entries = [[(e.filename, e.date_time, file.read(e)) for e in file.infolist()] for file in (one, other)]
    assert entries[0] == entries[1]


def test_the_sdist_has_the_whole_checkout(dist):
    (path,) = dist.glob("*.tar.gz")
    top = f"sglora-{sglora_cli.__version__}/"
    with tarfile.open(path) as archive:
        names = {member.name.removeprefix(top) for member in archive if member.isfile()}
    generated = {"PKG-INFO", "setup.cfg"} | {name for name in names if "sglora.egg-info/" in name}
    kept = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "pyproject.toml")
    kept += (".gitignore", ".mkdocs.yml")
    assert names - generated == files_of(*kept, ".ci", ".github", "packs", "plugins", "sglora_cli", "tests")


def test_the_metadata_is_valid_and_has_the_version_of_the_program(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = Metadata.from_email(archive.read(name), validate=True)
    assert str(metadata.version) == sglora_cli.__version__
    assert (metadata.license_expression, metadata.license_files) == ("Apache-2.0", ["LICENSE"])
    assert metadata.description == (ROOT / "README.md").read_text()


def test_what_is_tested_is_what_was_installed(dist):
    installed = distribution("sglora")
    for file in installed.files or []:
        assert Path(str(installed.locate_file(file))).exists(), file
    assert Path(sglora_cli.__file__) == Path(str(installed.locate_file("sglora_cli/__init__.py")))
    assert not Path(sglora_cli.__file__).is_relative_to(ROOT)
