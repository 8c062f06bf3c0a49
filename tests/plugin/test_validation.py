"""What plugins give is checked when they are loaded, in words for their authors."""

from __future__ import annotations

import json
import sys
from typing import Protocol

import pytest
from distributions import HERE, install

from sglora_cli.plugin import contracts, validation
from sglora_cli.plugin.contracts import POWERS
from sglora_cli.plugin.host import Host

HEAD = "from sglora_cli.api import hookimpl\nSGLORA_API = '1.0'\n"


@pytest.fixture
def problems(site):
    """Install a plugin of this source; its problems and remarks, as (reason, hint)."""

    def ask(source: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        install(site, "strange", "strange", source)
        host = Host.load()
        sys.modules.pop("strange", None)
        return tuple([(p.reason, p.hint) for p in reported] for reported in (host.problems, host.remarks))  # type: ignore

    return ask


def giving(hook: str, value: str, body: str = "") -> str:
    return f"{HEAD}{body}\n@hookimpl\ndef sglora_{hook}(): return {value}\n"


REPORTER = "class R:\n name = 'r'\n summary = 's'\n def render(self, report): return ''\n"
GENERATOR = """class G:
 name = summary = label = "g"
 learns = False
 draws = False
 needs = ""
 config = None
 def fit(self, material, settings): return None
 def restore(self, experts, tensors): return None
"""
BACKBONE = "class B:\n name = 'b'\n summary = 's'\n def load(self, runtime): return None\n"


@pytest.mark.parametrize(
    ("source", "reason", "hint"),
    [
        (giving("reporters", "R()", REPORTER), "sglora_reporters: it must return a list, got R", "return [...], even"),
        (giving("reporters", "None"), "sglora_reporters: it must return a list, got nothing", "return [...]"),
        (giving("reporters", "[R]", REPORTER), "sglora_reporters: R is a class, not a reporter", "return R()"),
        (giving("reporters", "[3]"), "sglora_reporters: int lacks name, render, summary, so it is not a reporter", ""),
        (
            giving("reporters", "[R()]", REPORTER.replace("render", "rendered")),
            "sglora_reporters: R lacks render, so it is not a reporter",
            "render: is 'rendered' meant to be this?",
        ),
        (
            giving("reporters", "[R()]", REPORTER.replace("(self, report)", "(self)")),
            "R is not a valid reporter: render() cannot be called as render(report)",
            "",
        ),
        (
            giving("generators", "[G()]", GENERATOR.replace("draws = False", "pass").replace("config = None", "pass")),
            "G lacks config, draws, so it is not a generator",
            "set config = None unless a recipe has settings for it; set draws = True if samples differ, else False",
        ),
        (
            giving("generators", "[G()]", GENERATOR.replace('needs = ""', 'needs = "money"')),
            "G is not a valid generator: needs must be one of '', 'shots', 'images', got 'money'",
            "",
        ),
        (
            giving("generators", "[G()]", GENERATOR.replace("config = None", "config = {'steps': 3}")),
            "G is not a valid generator: config must be a dataclass or None, got {'steps': 3}",
            "",
        ),
        (
            giving("generators", "[G()]", GENERATOR.replace("draws = False", "draws = 0")),
            "G is not a valid generator: draws must be True or False, got 0",
            "",
        ),
        (
            giving("reporters", "[R()]", REPORTER.replace("'r'", "'a,b'")),
            "the name 'a,b' must start with a letter or digit",
            "",
        ),
        (giving("reporters", "[R()]", REPORTER.replace("'r'", "''")), "name must be one line of text, got ''", ""),
        (giving("reporters", "[R()]", REPORTER.replace("'r'", "3")), "name must be a string, got 3", ""),
        (
            giving("reporters", "[R()]", REPORTER.replace("'s'", r"'two\nlines'")),
            r"summary must be one line of text, got 'two\nlines'",
            "",
        ),
        (
            giving("backbones", "[B()]", BACKBONE + " def member(self): return self\n"),
            "B is not a valid backbone: member() cannot be called as member(name)",
            "",
        ),
        (
            giving("reporters", "[R(), R()]", REPORTER),
            "reporter 'r' is provided by both 'strange' and 'strange'",
            "uninst",
        ),
        (giving("recipes", "['/nowhere/at/all']"), "sglora_recipes: /nowhere/at/all is not a folder of recipes", ""),
        (giving("backbone", "[]"), "there is no hook 'sglora_backbone'", "did you mean 'sglora_backbones'?"),
        (
            HEAD + "@hookimpl\ndef sglora_reporters(host): return []\n",
            "the hook sglora_reporters must be a function without arguments",
            "def sglora_reporters(): return [...]",
        ),
        (giving("reporters", "exit(3)"), "sglora_reporters: it calls sys.exit in this hook", "uninstall"),
        ("SGLORA_API = '2'", "it needs version 2 of the plugin API, but this sglora has 1.0", "--upgrade sglora"),
        ("SGLORA_API = '1.7'", "it needs version 1.7 of the plugin API", "pip install --upgrade sglora"),
        ("SGLORA_API = '0.9'", "it needs version 0.9 of the plugin API", "pip install --upgrade strange"),
        ("SGLORA_API = 1", "SGLORA_API must be a string like '1.0', got 1", 'SGLORA_API = "1.0"'),
        (
            "SGLORA_API = '3.1'\nfrom sglora_cli.api import Telepathy\n",
            "it needs version 3.1 of the plugin API, but this sglora has 1.0",
            "pip install --upgrade sglora",
        ),
    ],
)
def test_what_is_wrong_with_a_plugin_is_said_to_its_author(problems, source, reason, hint):
    reported, _ = problems(source)
    assert len(reported) == 1
    assert reason in reported[0][0]
    assert hint in reported[0][1]


def test_a_good_value_beside_a_wrong_one_is_kept(problems, site):
    source = giving("reporters", "[R(), 3]", REPORTER)
    reported, remarks = problems(source)
    assert [reason for reason, _ in reported] == [
        "sglora_reporters: int lacks name, render, summary, so it is not a reporter"
    ]
    assert not remarks
    assert "r" in Host.load().reporters
    sys.modules.pop("strange", None)


@pytest.mark.parametrize(
    ("source", "remark"),
    [
        (
            giving("reporters", "[R()]", REPORTER).replace("SGLORA_API", "OTHER"),
            "it does not declare its plugin",
        ),
        (giving("reporters", "[R()]", "print('hello')\n" + REPORTER), "it prints to standard output: 'hello'"),
        (
            giving("reporters", "[R()]", "import warnings\nwarnings.warn('beware')\n" + REPORTER),
            "it warns: 'UserWarning: beware'",
        ),
        (
            giving("backbones", "[B()]", BACKBONE + " def members(self, name): return self\n"),
            "backbone 'b' has 'members', which is never used. Did you mean 'member'?",
        ),
    ],
)
def test_what_stops_nothing_is_remarked(problems, source, remark):
    reported, remarks = problems(source)
    assert not reported
    assert [reason for reason, _ in remarks if remark in reason]


def test_built_ins_and_the_examples_in_tests_have_no_problem_and_no_remark(site):
    assert (Host.load().problems, Host.load().remarks) == ([], [])
    for path in sorted((HERE / "thirdparty").glob("*.py")):
        install(site, path.stem.replace("_", "-"), path.stem, path.read_text())
    host = Host.load()
    assert (host.problems, host.remarks) == ([], [])


def test_a_plugin_that_prints_does_not_spoil_json(run, site):
    install(site, "loud", "loud", giving("reporters", "[print('asked') or R()]", "print('hello')\n" + REPORTER))
    names = [row["name"] for row in json.loads(run("plugins", "list", "--json").stdout)["plugins"]]
    assert "r" in names
    sys.modules.pop("loud", None)
    doctor = run("plugins", "doctor")
    assert doctor.exit_code == 0
    assert "remark  loud: it prints to standard output: 'hello'\nfix     loud: drop the print\n" in doctor.stdout
    sys.modules.pop("loud", None)


def test_an_interruption_passes(site):
    install(site, "slow", "slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        Host.load()


def test_a_plugin_for_another_version_is_named_with_what_mends_it(run, site):
    install(site, "future", "future", "SGLORA_API = '2.0'\nimport something_new")
    listed = run("plugins", "list")
    assert listed.exit_code == 0
    assert listed.stderr == (
        "warning: plugin 'future' is broken: it needs version 2.0 of the plugin API, but this sglora has 1.0 "
        "(pip install --upgrade sglora)\n"
    )
    doctor = run("plugins", "doctor")
    assert doctor.exit_code == 7
    assert "fix     future: pip install --upgrade sglora\n" in doctor.stdout


@pytest.mark.parametrize("declared", ["1", "1.0"])
def test_a_plugin_for_this_version_fits(declared):
    validation.check_version(declared, "any")


def test_every_protocol_is_a_contract_or_an_optional_part_of_one():
    protocols = {k for k in vars(contracts).values() if isinstance(k, type) and issubclass(k, Protocol)} - {Protocol}
    own = {kind for kind in protocols if kind.__module__ == contracts.__name__}
    # A job is what the host gives to an executor.
    assert own == {contracts.Job, *POWERS, *(power for powers in POWERS.values() for power in powers)}
