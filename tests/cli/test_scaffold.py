"""`sglora plugins new`: what it writes works as it is, and passes what the project itself passes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from distributions import HERE, install

from sglora_cli.cli.scaffold import new_plugin, value_name
from sglora_cli.errors import UsageError
from sglora_cli.plugin.host import PLUGIN_KINDS

LONG = "abcdefghijklmnopqrstuvwx"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A distribution of each kind; the backbone has the longest name there can be."""
    parent = tmp_path_factory.mktemp("new")
    return {kind: new_plugin(LONG if kind == "backbone" else f"my-{kind}", kind, parent) for kind in PLUGIN_KINDS}


def test_their_tests_pass(written):
    path = os.pathsep.join(map(str, [*written.values(), HERE.parent, HERE.parent / "plugins"]))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(p / "tests" for p in written.values())]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=written["reporter"].parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_they_are_linted_and_formatted(written, tmp_path):
    ruff = shutil.which("ruff") or pytest.skip("ruff is not here")
    longest = [new_plugin(LONG, kind, tmp_path / kind) for kind in PLUGIN_KINDS]  # and no line becomes too long
    for folder in (*written.values(), *longest):
        for arguments in (["check"], ["format", "--check"]):
            done = subprocess.run([ruff, *arguments, "--no-cache", "."], cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout


def test_nothing_of_the_template_is_left(written):
    for folder in written.values():
        for path in folder.rglob("*.*"):
            for word in ("example", "Example", "KIND", "CHECK,"):
                assert word not in path.read_text() or path.name == "README.md"
                assert word not in path.name


@pytest.mark.parametrize("kind", [kind for kind in PLUGIN_KINDS if kind != "dataset"])
def test_once_installed_they_are_found_and_pass_the_kit(run, site, written, kind):
    name = LONG if kind == "backbone" else f"my-{kind}"
    module = f"sglora_{name}".replace("-", "_")
    install(site, f"sglora-{name}", module, "")
    (site / f"{module}.py").unlink()
    shutil.copytree(written[kind] / module, site / module)
    assert run("plugins", "doctor").stdout.count("problem") == 0
    assert "remark" not in run("plugins", "doctor").stdout
    result = run("plugins", "check", name)
    assert result.exit_code == 0, result.output
    for gone in [key for key in sys.modules if key.partition(".")[0] == module]:
        sys.modules.pop(gone)


def test_the_command_names_the_folder(run, tmp_path):
    result = run("plugins", "new", "Red_Birds", "--kind", "dataset", "-o", tmp_path)
    folder = tmp_path / "sglora-red-birds"
    assert (result.exit_code, result.stdout) == (0, f"{folder}\n")
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == [
        "README.md",
        "pyproject.toml",
        "sglora_red_birds/__init__.py",
        "sglora_red_birds/py.typed",
        "tests/test_sglora_red_birds.py",
    ]
    assert 'red-birds = "sglora_red_birds"' in (folder / "pyproject.toml").read_text()
    again = run("plugins", "new", "red-birds", "--kind", "dataset", "-o", tmp_path)
    assert (again.exit_code, again.stderr.splitlines()[0]) == (2, f"error: {folder} already exists")
    facts = json.loads(run("plugins", "new", "blue", "-o", tmp_path, "--json").stdout)
    assert facts == {"folder": str(tmp_path / "sglora-blue"), "kind": "generator", "name": "blue"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("",), "error: '' is not a valid plugin name\n"),
        (("../evil",), "error: '../evil' is not a valid plugin name\n"),
        (("7up",), "error: '7up' is not a valid plugin name\n"),
        (("a" * 25,), f"error: '{'a' * 25}' is not a valid plugin name\n"),
        (("starter", "--kind", "backbone"), "error: a backbone named 'starter' already exists in plugin 'starter'\n"),
        (("merge",), "error: a module 'sglora_merge' is already installed\n"),
    ],
)
def test_a_name_that_cannot_be_one_or_is_taken_is_refused(run, tmp_path, arguments, message):
    result = run("plugins", "new", *arguments, "-o", tmp_path)
    assert (result.exit_code, result.stdout, list(tmp_path.iterdir())) == (2, "", [])
    assert result.stderr.startswith(message)


@pytest.mark.parametrize("name", ["-a", "a-", "a--b", "sglora-", "a b", "é", "a/b"])
def test_names_follow_the_rules_of_package_indexes(name):
    with pytest.raises(UsageError):
        value_name(name)
