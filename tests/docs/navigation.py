"""The pages as a site: what .mkdocs.yml leaves to the program.

    mkdocs build --strict -f .mkdocs.yml

The navigation has the sections and the order of `sglora docs`. With SGLORA_OFFLINE=1 the build may not use the network.
"""

from __future__ import annotations

from typing import Any

from sglora_cli import network
from sglora_cli.cli.commands.docs import INDEX, SECTIONS, all_pages


def on_startup(**_: Any) -> None:
    """MkDocs calls this first."""
    network.enforce()


def on_config(config: Any) -> Any:
    """MkDocs calls this with the values of .mkdocs.yml, and takes what it returns."""
    pages = all_pages()
    sections = {title: [f"{name}.md" for name in names if name in pages] for title, names in SECTIONS.items()}
    config.nav = [{"Overview": f"{INDEX}.md"}, *({title: names} for title, names in sections.items())]
    return config
