"""Everything that is wrong with a recipe, collected and said at once, each with its line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sglora_cli.errors import BadRecipe, SgloraError
from sglora_cli.toml_lines import Address


@dataclass
class Faults:
    """Errors by where they are in a recipe; `path` is None for one that is no file."""

    path: Path | None = None
    lines: Mapping[Address, int] = field(default_factory=dict)
    found: list[tuple[Address, SgloraError]] = field(default_factory=list)

    @contextmanager
    def at(self, *address: str | int) -> Iterator[None]:
        """What is raised inside belongs to this place; the program goes on after it."""
        try:
            yield
        except SgloraError as error:
            self.found.append((address, error))

    def refuse(self) -> None:
        """Raise what was found: one error as itself, several as BadRecipe with a line for each."""
        if not self.found:
            return
        place = f"recipe {self.path}" if self.path else "the recipe"
        if len(self.found) == 1:
            address, error = self.found[0]
            where = ", ".join([place, *self._line(address)]) + ": " if self.path else ""
            raise type(error)(where + error.message, error.hint)
        ordered = sorted(self.found, key=lambda fault: self._number(fault[0]) or 0)
        lines = [
            ": ".join([*self._line(address), error.message]) + (f" ({error.hint})" if error.hint else "")
            for address, error in ordered
        ]
        raise BadRecipe("\n  ".join([f"{place} has {len(lines)} errors", *lines]))

    def _line(self, address: Address) -> list[str]:
        number = self._number(address)
        return [f"line {number}"] if number else []

    def _number(self, address: Address) -> int | None:
        """The line of the address, or of what it is in: a key that is missing is missing from a table."""
        whole = (self.lines.get(address[:length]) for length in range(len(address), 0, -1))
        return next((number for number in whole if number), None)
