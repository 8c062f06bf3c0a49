"""Plugins: strangers are welcome, broken ones are named and stop nobody."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from distributions import HERE, install

from sglora_cli.errors import Unavailable, UsageError
from sglora_cli.plugin.host import Host
from sglora_datasets.folder import Folder
from sglora_reports import sglora_reporters

LATE = "import sys, json; from click.testing import CliRunner; from sglora_cli.cli.main import main\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["plugins", "list"],
        ["generate", "--help"],
        ["try", "--help"],
        ["pack", "--help"],
        ["pack", "list"],
        ["pack", "recipes"],
        ["data", "list"],
        ["settings"],
        ["settings", "set", "pack", "starter"],
        ["cache", "info"],
        ["cache", "clean", "--yes"],
        ["completion", "bash"],
        ["schema"],
        ["doctor", "--help"],
        ["--version"],
    ],
)
def test_light_commands_do_not_import_torch(arguments):
    code = f"{LATE}r = CliRunner().invoke(main, {arguments!r})\nassert r.exit_code == 0, r.output\n"
    code += "assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_strangers_backbone_is_listed(run, tiny):
    lines = [" ".join(line.split()) for line in run("plugins", "list").stdout.splitlines()]
    assert "backbone tiny a stranger's backbone sglora-tiny" in lines
    assert "ok      sglora-tiny  [sglora-tiny 1.0]\n" in run("plugins", "doctor").stdout


def test_a_strangers_captioner_is_listed(run, site):
    source = (Path(__file__).parents[1] / "thirdparty/sglora_parrot.py").read_text()
    install(site, "sglora-parrot", "sglora_parrot", source)
    lines = [" ".join(line.split()) for line in run("plugins", "list").stdout.splitlines()]
    assert "captioner parrot a stranger's captioner sglora-parrot" in lines
    assert "captioner qwen2-vl Qwen2-VL 7B, as in the paper (transformers) qwen" in lines
    assert "ok      sglora-parrot  [sglora-parrot 1.0]\n" in run("plugins", "doctor").stdout


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("raise SystemExit(3)", "it calls sys.exit on import"),
        ("def", "SyntaxError: "),
        (
            "from sglora_cli.api import hookimpl\nclass B: name = 'b'\n@hookimpl\ndef sglora_backbones(): return [B()]",
            "sglora_backbones: B lacks load, summary, so it is not a backbone",
        ),
        (
            "from sglora_cli.api import hookimpl\n@hookimpl\ndef sglora_datasets(): return 1 / 0",
            "sglora_datasets: ZeroDivisionError: division by zero",
        ),
        (
            "from sglora_cli.api import hookimpl\n@hookimpl\ndef sglora_nothing(): return []",
            "there is no hook 'sglora_nothing'",
        ),
    ],
)
def test_a_broken_plugin_is_named_and_stops_nobody(run, site, source, reason):
    install(site, "bad-one", "bad_one", source)
    doctor = run("plugins", "doctor")
    assert doctor.exit_code == 7
    assert f"problem bad-one: {reason}" in doctor.stdout
    assert doctor.stderr == "error: broken: bad-one\nhint: see what mends them above; the other plugins work\n"
    listed = run("plugins", "list")
    assert listed.exit_code == 0
    assert "backbone   starter " in listed.stdout
    assert "warning: plugin 'bad-one' is broken: " in listed.stderr
    sys.modules.pop("bad_one", None)


def test_two_plugins_with_one_name_are_both_named(run, site, tiny):
    source = "from sglora_cli.api import hookimpl\nfrom sglora_tiny import TinyBackbone\n"
    install(site, "twin", "twin", source + "@hookimpl\ndef sglora_backbones(): return [TinyBackbone()]")
    doctor = run("plugins", "doctor")
    assert doctor.exit_code == 7
    assert "backbone 'tiny' is provided by both 'sglora-tiny' and 'twin'" in doctor.stdout
    assert " tiny " not in run("plugins", "list").stdout
    sys.modules.pop("twin", None)


def test_a_name_of_several_kinds_is_asked_for_its_kind():
    one = Host()
    one.reporters.add("a", "csv", sglora_reporters()[0])
    one.datasets.add("b", "csv", Folder())
    with pytest.raises(UsageError, match="'csv' is the name of several plugins: dataset or reporter"):
        one.registry_of("csv")
    assert one.registry_of("csv", "reporter") is one.reporters
    with pytest.raises(Unavailable):
        one.datasets["csv"].tasks(HERE / "nowhere")


def test_a_registry_shows_its_names(tiny):
    host = Host.load()
    assert repr(host.backbones).startswith("Registry(backbone: ")
    assert "'tiny'" in repr(host.backbones)
    assert "object at 0x" not in repr(host)


def test_in_a_notebook_nobody_is_advised_to_install_widgets():
    Host.load()
    warnings.warn("IProgress not found. Please update jupyter and ipywidgets.", stacklevel=1)  # as tqdm does
    with pytest.raises(UserWarning, match="another"):
        warnings.warn("another", stacklevel=1)
