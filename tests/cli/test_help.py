"""Help: what every command says of itself."""

from __future__ import annotations

import click
from commands import commands

from sglora_cli.cli.main import COMMANDS


def test_every_command_says_what_it_is_for_with_an_example_and_what_options_mean():
    found = list(commands())
    assert len(found) > 30
    for path, command in found:
        help = command.help or ""
        assert help.split("\n\n")[0].strip(), path
        assert f"sglora {' '.join(path)}" in help, f"{path} has no example"
        assert len(command.get_short_help_str(200)) <= 60, path
        for option in command.params:
            assert not isinstance(option, click.Option) or option.help, (path, option.name)


def test_the_main_help_has_a_short_line_a_command():
    assert max(map(len, COMMANDS.values())) <= 60


def test_the_main_help_says_the_exit_codes(run):
    text = run("--help").stdout
    for number, word in enumerate(("done", "a bug", "usage", "unknown name", "bad file", "mismatch", "unavailable")):
        assert f"{number} {word}" in text
