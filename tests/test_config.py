"""A number that a user can turn stands once: its option, its TOML key, its range and its help follow from one line."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass

import click
import pytest
from click.testing import CliRunner

from sglora_cli import config
from sglora_cli.adapter import formats
from sglora_cli.bench import tasks
from sglora_cli.config import checked, from_mapping, knob, options_of
from sglora_cli.errors import UnknownName, UsageError
from sglora_cli.system import hardware

CONFIGS = [kind for name, kind in inspect.getmembers(config, inspect.isclass) if name.endswith("Config")]


@dataclass(frozen=True)
class Soup:
    salt: float = knob(0.5, "Spoons of salt.", least=0, most=2)
    bowls: int = knob(1, "How many bowls.", least=1, most=12)
    kind: str = knob("leek", "What it is made of.", choices=("leek", "potato"))
    hot: bool = knob(False, "Serve it hot.")


@click.command()
@options_of(Soup)
def cook(config: Soup) -> None:
    click.echo(dataclasses.astuple(config))


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_defaults_are_in_their_own_range_and_every_number_has_a_help(kind):
    assert checked(kind()) == kind()
    assert all(spec.metadata["help"].endswith(".") for spec in dataclasses.fields(kind))


def test_options_and_toml_keys_give_the_same_config():
    output = CliRunner().invoke(cook, ["--salt", "2", "--bowls", "12", "--kind", "potato", "--hot"]).stdout
    table = {"salt": 2.0, "bowls": 12, "kind": "potato", "hot": True}
    assert output == f"{dataclasses.astuple(from_mapping(Soup, table, '[soup]'))}\n"
    assert from_mapping(Soup, {}, "[soup]") == Soup()


def test_the_help_of_an_option_is_that_of_its_number():
    text = CliRunner().invoke(cook, ["--help"]).stdout
    assert all(spec.metadata["help"] in text for spec in dataclasses.fields(Soup))
    assert "[default: 0.5]" in text


@pytest.mark.parametrize("value", [-0.01, 2.01, float("nan"), "1", True, None, 10**30])
def test_what_is_no_number_of_the_range_is_refused_and_named(value):
    with pytest.raises(UsageError, match=r"^\[soup\]: salt "):
        from_mapping(Soup, {"salt": value}, "[soup]")


def test_a_wrong_key_and_a_wrong_name_get_the_closest():
    with pytest.raises(UnknownName) as key:
        from_mapping(Soup, {"slat": 1}, "[soup]")
    assert (key.value.message, key.value.hint) == ("no key in [soup] named 'slat'", "did you mean 'salt'?")
    name = CliRunner().invoke(cook, ["--kind", "leak"]).exception
    assert isinstance(name, UnknownName)
    assert (name.message, name.hint) == ("no kind named 'leak'", "did you mean 'leek'?")


def test_closed_lists_have_every_name_that_there_is():
    assert list(config.ADAPTER_FORMATS) == list(formats.FORMATS)
    assert ("auto", *hardware.DTYPES) == config.PRECISIONS
    assert set(config.TASK_TABLES) == set(tasks.KEPT)
