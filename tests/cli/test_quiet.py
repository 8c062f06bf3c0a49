"""--quiet: no progress, no notes; warnings, errors and results stay."""

from __future__ import annotations

import pytest
from commands import commands

from sglora_cli.system import progress


def test_every_command_takes_quiet():
    for path, command in commands():
        assert any("-q" in option.opts for option in command.params), path


@pytest.mark.parametrize("before", [True, False])
def test_quiet_leaves_the_result_only(run, tmp_path, before):
    words = ["generate", "a photo of a pug", "--force", "-o", tmp_path / "pug.safetensors"]
    loud = run(*words)
    quiet = run("-q", *words) if before else run(*words, "--quiet")
    assert "generator  " in loud.stderr
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, loud.stdout, "")


def test_quiet_is_over_with_its_command(run):
    run("-q", "pack", "list")
    assert not run("pack", "list").stderr
    assert not progress.is_quiet()
    assert run("doctor").stderr == "checking, this takes a few seconds ...\n"


def test_quiet_says_errors_and_warnings(run, own_home, monkeypatch):
    assert run("-q", "pack", "show", "strater").stderr == (
        "error: no pack named 'strater'\nhint: did you mean 'starter'?\n"
    )
    monkeypatch.setenv("SGLORA_PACK", "starter")
    assert run("-q", "settings", "unset", "pack").stderr == (
        "warning: the environment variable SGLORA_PACK takes precedence: 'starter'\n"
    )


def test_a_recipes_errors_are_all_said(run, recipe):
    recipe.write_text(recipe.read_text().replace("[train]", "[train]\nepoch = 3\nbatsh = 4"))
    loud, quiet = run("inspect", recipe), run("-q", "inspect", recipe)
    assert len(loud.stderr.splitlines()) >= 3
    assert quiet.stderr == loud.stderr
