"""`sglora completion`: prints the completion script for a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from sglora_cli.errors import UsageError


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script for your shell.

    It completes commands, options, and names of packs, generators and other objects.

    \b
    sglora completion bash > ~/.local/share/bash-completion/completions/sglora
    sglora completion zsh > ~/.zfunc/_sglora        # a folder in fpath
    sglora completion fish > ~/.config/fish/completions/sglora.fish
    eval "$(sglora completion bash)"                # for the current shell only
    """
    kind = get_completion_class(shell)
    root = click.get_current_context().find_root().command
    if kind is None:
        raise UsageError(f"this version of click does not support {shell} completion", "pip install --upgrade click")
    # Not kind.source(), which starts bash to check its version, although bash may not be installed.
    script = kind(root, {}, "sglora", "_SGLORA_COMPLETE")
    click.echo(script.source_template % script.source_vars())
