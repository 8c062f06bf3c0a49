"""Help: what every command says of itself."""

from __future__ import annotations

import click
from commands import commands

from sglora_cli.cli.main import COMMANDS
from sglora_cli.cli.options import page_name


def test_every_command_says_what_it_is_for_with_an_example_and_what_options_mean():
    listed = list(commands())
    assert len(listed) > 30
    for path, command in listed:
        help = command.help or ""
        assert help.split("\n\n")[0].strip(), path
        assert f"sglora {' '.join(path)}" in help, f"{path} has no example"
        assert len(command.get_short_help_str(200)) <= 60, path
        for option in command.params:
            assert not isinstance(option, click.Option) or option.help, (path, option.name)


def test_out_is_a_result_and_report_a_page_in_every_command():
    for path, command in commands():
        options = {flag: option for option in command.params for flag in option.opts}
        assert options.get("-o") is options.get("--out"), path
        assert "--report" not in options or options["--report"].callback is page_name, path


def test_options_that_commands_share_have_one_wording():
    texts: dict[str, set[str]] = {}
    for _, command in commands():
        for option in command.params:
            if isinstance(option, click.Option) and option.opts[-1] in ("--json", "--yes", "--path", "--report"):
                texts.setdefault(option.opts[-1], set()).add((option.help or "").split(";")[0])
    assert {flag: len(wordings) for flag, wordings in texts.items()} == {
        "--json": 1,
        "--yes": 1,
        "--report": 1,
        "--path": 2,  # `plugins check` takes it for some kinds of plugins only
    }


def test_the_main_help_has_a_short_line_a_command():
    assert max(map(len, COMMANDS.values())) <= 60


def test_the_main_help_says_the_exit_codes(run):
    text = run("--help").stdout
    for number, word in enumerate(("done", "a bug", "usage", "unknown name", "bad file", "mismatch", "unavailable")):
        assert f"{number} {word}" in text


def test_summaries_are_whole_in_every_list_of_commands(run):
    for group in ("pack", "data", "plugins", "settings", "cache"):
        text = " ".join(run(group, "--help").stdout.split())
        listed = [(path, command) for path, command in commands() if path[0] == group and len(path) == 2]
        assert len(listed) >= 2
        for path, command in listed:
            assert f" {path[1]} {command.get_short_help_str(1000)}" in text
            assert not command.get_short_help_str(1000).endswith("...")
