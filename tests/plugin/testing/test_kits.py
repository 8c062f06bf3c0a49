"""The kits of all kinds, and the command that runs them."""

from __future__ import annotations

import sys

import pytest
from distributions import HERE, install

from sglora_cli.plugin.host import PLUGIN_KINDS
from sglora_cli.testing import KITS


def test_every_kind_has_a_kit():
    assert tuple(KITS) == PLUGIN_KINDS


def test_the_command_checks_whatever_it_is_named(run, photos, site):
    install(site, "sglora-parrot", "sglora_parrot", (HERE / "thirdparty/sglora_parrot.py").read_text())
    for kind, arguments in (
        ("dataset", ("folder", "--path", photos)),
        ("generator", ("top-k",)),
        ("generator", ("ties:density=0.5",)),
        ("captioner", ("parrot",)),
        ("reporter", ("csv",)),
    ):
        result = run("plugins", "check", *arguments)
        assert result.exit_code == 0, result.output
        assert result.stdout == "".join(f"{'ok':<7} {check.__name__}\n" for check in KITS[kind])
    sys.modules.pop("sglora_parrot", None)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("folder",), 2, "error: checking data set 'folder' needs its folder\nhint: pass --path DIR\n"),
        (("strater",), 3, "error: no plugin named 'strater'\nhint: did you mean 'starter'?\n"),
        (("starter", "--kind", "reporter"), 3, "error: no reporter named 'starter'\n"),
    ],
)
def test_the_command_answers_mistakes(run, arguments, code, message):
    result = run("plugins", "check", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith(message)
