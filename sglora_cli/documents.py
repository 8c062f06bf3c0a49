"""The pages of documentation that travel with the program: Markdown in docs/, read without a network."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sglora_cli.errors import UnknownName

FOLDER = Path(__file__).parent / "docs"
_LINK = re.compile(r"\[([^\]`]*)\]\(([^)\s]+)\)")
FIRST = ("tutorial",)
"""Pages that stand first in a list; the others follow by name."""


@dataclass(frozen=True)
class Page:
    """One page. It begins with a heading, and a paragraph of one line that says what is on it."""

    name: str
    path: Path

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def summary(self) -> str:
        return next(line for line in self.text.splitlines()[1:] if line)


def pages() -> dict[str, Page]:
    """All pages by name."""
    names = sorted(path.stem for path in FOLDER.glob("*.md"))
    ordered = sorted(names, key=lambda name: (name not in FIRST, name))
    return {name: Page(name, FOLDER / f"{name}.md") for name in ordered}


def page(name: str) -> Page:
    """The page of a name, with or without its ending. Raises UnknownName."""
    known = pages()
    if (stem := name.removesuffix(".md")) not in known:
        raise UnknownName.of("page", name, known)
    return known[stem]


def without_links(text: str) -> str:
    """A page for those who cannot click: a link to a page becomes its command, one to a file the file's name.

    >>> without_links("see [python](python.md#errors), [above](#files) and [RESULTS](../../packs/RESULTS.md)")
    'see python (`sglora docs python`), above and RESULTS (`packs/RESULTS.md`)'
    """
    return _LINK.sub(_plain, text)


def _plain(link: re.Match[str]) -> str:
    name, target = link[1], link[2].partition("#")[0]
    if not target:
        return name
    if target.startswith(("http://", "https://")):
        return f"{name} ({link[2]})"
    inside = "/" not in target and target.endswith(".md")
    return f"{name} (`{f'sglora docs {target[:-3]}' if inside else target.removeprefix('../../')}`)"
