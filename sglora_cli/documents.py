"""The pages of documentation that travel with the program: Markdown in docs/, read without a network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sglora_cli.errors import UnknownName

FOLDER = Path(__file__).parent / "docs"
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
