"""`sglora completion`: what makes a shell complete commands, options and names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from sglora_cli.errors import UsageError


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that completes commands in your shell.

    It completes options, and names of packs, generators and so on, too.

    \b
    sglora completion bash > ~/.local/share/bash-completion/completions/sglora
    sglora completion zsh > ~/.zfunc/_sglora        # a folder of fpath
    sglora completion fish > ~/.config/fish/completions/sglora.fish
    eval "$(sglora completion bash)"                # only for this shell
    """
    kind = get_completion_class(shell)
    root = click.get_current_context().find_root().command
    if kind is None:
        raise UsageError(f"this version of click completes nothing in {shell}", "update click")
    # Not kind.source(): of bash it asks the version, by starting it, where it may not even be installed.
    script = kind(root, {}, "sglora", "_SGLORA_COMPLETE")
    click.echo(script.source_template % script.source_vars())
