"""Shared by all tests: one thread, user folders of their own, a third-party plugin, a toy data set."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from distributions import HERE, install
from toys import RECIPE, write_toys

from sglora_cli import network

torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs, so that tests give the same numbers on every machine: all but `pytest -m gpu`, which wants one."""
    if config.option.markexpr.strip() != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before anything asks CUDA, which reads it once


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the user's packs, cache or settings."""
    home = tmp_path_factory.mktemp("home")
    for name in [n for n in os.environ if n.startswith("SGLORA_") and n != "SGLORA_TEST_DATA"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SGLORA_HOME", str(home))
    monkeypatch.setattr(network, "_enforced", False)  # what one test forbids, the next may do
    return home


@pytest.fixture(autouse=True)
def hints_can_be_followed(monkeypatch: pytest.MonkeyPatch):
    """Every hint that the program prints in a test names commands and options that exist and are complete."""
    from sglora_cli.cli.main import Program

    printed: list[tuple[list[str], str]] = []
    leave = Program._leave

    def recorded(self, error):
        printed.extend(
            (self.words, one.hint) for one in (error, *error.parts) if "sglora" in one.hint or "--" in one.hint
        )
        leave(self, error)

    monkeypatch.setattr(Program, "_leave", recorded)
    yield
    if printed:
        from named_commands import faults

        assert [(hint, fault) for words, hint in printed for fault in faults(hint, words)] == []


@pytest.fixture(autouse=True)
def large_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk has room for every data set, whatever is free on the machine of the tests."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**13, 0, 10**13))


@pytest.fixture
def empty_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, for messages that depend on its files. README's first command leaves an adapter in it."""
    folder = tmp_path_factory.mktemp("empty")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run():
    """Run the program as its user does: `run("pack", "list")`."""
    from sglora_cli.cli.main import main

    def call(*args: object) -> Result:
        return CliRunner().invoke(main, [str(a) for a in args], catch_exceptions=True)

    return call


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch):
    """Run the program for a user at a terminal, who types this: `answer("n\\n", "pack", "remove", "toys")`."""
    import click.testing

    from sglora_cli.cli.main import main

    def call(text: str, *args: object) -> Result:
        with monkeypatch.context() as patch:
            patch.setattr(click.testing._NamedTextIOWrapper, "isatty", lambda self: True, raising=False)
            patch.setenv("NO_COLOR", "1")
            return CliRunner().invoke(main, [str(a) for a in args], input=text)

    return call


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path, to install distributions into."""
    folder = tmp_path_factory.mktemp("site")
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture
def tiny(site: Path) -> None:
    """The third-party backbone `tiny` is installed."""
    install(site, "sglora-tiny", "sglora_tiny", (HERE / "thirdparty/sglora_tiny.py").read_text())


@pytest.fixture
def clipling(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third-party backbone `clipling`, with CLIP's names, is installed and the default."""
    install(site, "sglora-clipling", "sglora_clipling", (HERE / "thirdparty/sglora_clipling.py").read_text())
    monkeypatch.setenv("SGLORA_BACKBONE", "clipling")


@pytest.fixture
def mug(tmp_path: Path, clipling: None) -> Path:
    """An adapter for `clipling`, as `mugs` has it."""
    from mugs import save_mug

    return save_mug(tmp_path)


@pytest.fixture
def toys(tmp_path: Path) -> Path:
    """A data folder with one data set `toys`: two-coloured pictures whose captions name the colours."""
    return write_toys(tmp_path)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "toys.toml"
    path.write_text(RECIPE)
    return path


_built: list[Path] = []


@pytest.fixture
def toy_pack(tiny: None, toys: Path, recipe: Path, run, own_home: Path, tmp_path_factory) -> str:
    """The name of a pack built from the toys. It is built for the first test; others get a copy of what that left."""
    if _built:
        shutil.copytree(_built[0], own_home, dirs_exist_ok=True)
    else:
        result = run("pack", "build", recipe, "--data", toys)
        assert result.exit_code == 0, result.output
        _built.append(shutil.copytree(own_home, tmp_path_factory.mktemp("built") / "home"))
    return "toys"


@pytest.fixture
def format_one(tiny: None, run, own_home: Path) -> Path:
    """The folder of a pack of format 1, which no version writes any more: the toys', built before there was another."""
    result = run("pack", "import", HERE / "pack/content/format-1.sglora.zip")
    assert result.exit_code == 0, result.output
    return own_home / "cache/packs/toys"


_toy_archive: dict[str, bytes] = {}


@pytest.fixture
def archive(request, tiny, run, tmp_path) -> Path:
    """The toy pack as a file, and no pack in the user's cache. It is built for the first test only."""
    path = tmp_path / "toys.sglora.zip"
    if not _toy_archive:
        assert run("pack", "export", request.getfixturevalue("toy_pack"), "-o", path).exit_code == 0
        assert run("pack", "remove", "toys", "--yes").exit_code == 0
        _toy_archive["toys"] = path.read_bytes()
    path.write_bytes(_toy_archive["toys"])
    return path


@pytest.fixture
def adapter(run, toy_pack, tmp_path) -> Path:
    """An adapter for `tiny`, strong enough to change ranks."""
    path = tmp_path / "mug.safetensors"
    assert run("generate", "a photo of a mug", "-o", path).exit_code == 0
    from sglora_cli.adapter.file import load_adapter, save_adapter

    loaded = load_adapter(path)
    save_adapter(path, loaded.layout, loaded.flat_P * 4, loaded.metadata)
    return path


@pytest.fixture
def rows_file(tmp_path):
    """Write a rows file: `rows_file(lines)`."""
    from made_rows import HEADER, write_made

    return lambda lines, header=HEADER, name="rows.jsonl": write_made(tmp_path / name, lines, header)


@pytest.fixture
def images(toys) -> Path:
    """The folder of all toy pictures."""
    return toys / "toys" / "images"


@pytest.fixture
def photos(tmp_path) -> Path:
    """A data set without a fault: tasks cat and dog, 3 images to train and 2 to test each, two captions an image."""
    from speckles import speckles, write_rows

    root = tmp_path / "data" / "photos"
    root.mkdir(parents=True)
    rows = []
    for n in range(10):
        name, task, split = f"{n}.png", ("cat", "dog")[n // 5], "train" if n % 5 < 3 else "test"
        speckles(n).save(root / name)
        rows.append({"image": name, "task": task, "split": split, "captions": [f"{task} {n}", f"number {n}"]})
    write_rows(root, rows)
    return root


@pytest.fixture
def check(run, photos):
    """Check the photos, with few test images allowed."""
    return lambda *args, dataset="folder": run("data", "check", dataset, "--path", photos, "--k", 1, *args)


@pytest.fixture
def parrot(site):
    """The third-party captioner `parrot` is installed."""
    install(site, "sglora-parrot", "sglora_parrot", (HERE / "thirdparty/sglora_parrot.py").read_text())
    return site


@pytest.fixture
def album(tmp_path) -> Path:
    """Folders of 12 photos without captions: 4 tasks of 3."""
    from trees import picture

    root = tmp_path / "album"
    for n in range(12):
        picture(root / "images" / ("pug", "red_fox", "cat", "owl")[n // 3] / f"{n}.jpg", n)
    return root


@pytest.fixture
def caption(run, parrot, album):
    """Write captions of the album with `parrot`."""
    return lambda *args: run("data", "caption", "folder", "--path", album, "--captioner", "parrot", *args)


def test_data() -> Path | None:
    """The development data, if this machine has it."""
    named = os.environ.get("SGLORA_TEST_DATA")
    folder = Path(named) if named else HERE.parent.parent / "shared" / "data"
    return folder if (folder / "splits.json").is_file() else None


@pytest.fixture
def data() -> Path:
    folder = test_data()
    if folder is None:
        pytest.skip("the development data is not here; name its folder in SGLORA_TEST_DATA")
    return folder


@pytest.fixture
def old_pack(toy_pack, own_home: Path) -> None:
    """The toys' pack, as it was built before packs kept what their experts look like."""
    from pack_folders import without

    without(own_home / "cache/packs/toys", "visual.safetensors")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on this machine, which huggingface_hub asks; nobody is logged in."""
    import huggingface_hub
    from hub_server import hub_serving
    from huggingface_hub import constants

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # an offline test may have set it for the process
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)  # a part that breaks off is written to the last chunk
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with hub_serving() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        yield server
        getattr(huggingface_hub, "close_session", lambda: None)()  # version 1 has it


@pytest.fixture
def toys_hub(hub, archive):
    """The hub with the pack of toys in ann/toys, at main and v1."""
    hub.repo("ann/toys", {"toys.sglora.zip": archive.read_bytes(), "README.md": b"# toys\n"}, "v1")
    return hub


@pytest.fixture
def key(tmp_path):
    """Make a key of that name; its public half is in NAME.pub."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed")

    def make(name: str = "key") -> Path:
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(tmp_path / name)]
        subprocess.run(command, check=True)
        return tmp_path / name

    return make
