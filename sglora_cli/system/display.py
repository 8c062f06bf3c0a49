"""Represent objects as a line in a console or a small table in a notebook. No torch import.

Values may come from untrusted files. Quoted text is one line without control characters, and all text in a table is
escaped. Tables have no colours or scripts, so they are readable in dark and light notebooks.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template

_SHORT, _LONG, _FEW = 80, 200, 3
_TABLE = """\
<div>
<p><b>{{ title }}</b></p>
<table>
{% for name, value in facts %}
<tr><th style="text-align: left">{{ name }}</th><td style="text-align: left">{{ value }}</td></tr>
{% endfor %}
</table>
{% if rows %}
<table style="margin-top: 0.5em">
<tr>{% for name in header %}<th style="text-align: left">{{ name }}</th>{% endfor %}</tr>
{% for row in rows %}
<tr>
{% for text, share in row %}
<td style="text-align: left">{% if share is not none %}<meter value="{{ share }}"></meter> {% endif %}{{ text }}</td>
{% endfor %}
</tr>
{% endfor %}
</table>
{% endif %}
</div>
"""


class Share(float):
    """A fraction from 0 to 1, shown as a bar and a percentage in tables."""


def quoted(value: object) -> str:
    """Return the `repr` of any value on one line of about 80 characters at most.

    >>> quoted("a photo\\nof a pug"), quoted("x" * 1000)[:6], len(quoted("x" * 1000))
    ("'a photo\\\\nof a pug'", "'xxxxx", 80)
    """
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = _SHORT
    short.maxlevel = 2  # nested lists of long strings would be very long
    return plain(short.repr(value))


def plain(value: object, limit: int = _SHORT) -> str:
    """Return text on one line of at most `limit` characters, without control characters and invalid UTF-8.

    >>> plain("a photo\\nof a pug", 13)
    'a photo\ufffdof...'
    """
    text = str(value)
    text = text if len(text) <= limit else text[: limit - 3] + "..."
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def weights_line(weights: Sequence[tuple[str, float]]) -> str:
    """Return the largest weights, and the number of others.

    >>> weights_line([("cat", 0.5), ("dog", 0.25), ("owl", 0.125), ("bee", 0.0625), ("ant", 0.0625)])
    'cat 0.500, dog 0.250, owl 0.125 and 2 more'
    """
    first = sorted(weights, key=lambda one: -one[1])[:_FEW]
    line = ", ".join(f"{plain(name)} {weight:.3f}" for name, weight in first)
    return line + (f" and {len(weights) - _FEW} more" if len(weights) > _FEW else "")


def counted(number: int, noun: str) -> str:
    """
    >>> counted(1, "item"), counted(2, "item")
    ('1 item', '2 items')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def html_table(
    title: str,
    facts: Mapping[str, object],
    header: Sequence[str] = (),
    rows: Iterable[Sequence[object]] = (),
) -> str:
    """Return HTML for `_repr_html_`: facts by name (skipping None), followed by a table of rows.

    A `Share` has a bar. Other floats have three decimals.
    """
    known = [(plain(name), plain(value, _LONG)) for name, value in facts.items() if value is not None]
    cells = [[(_cell(value), f"{value:.3f}" if isinstance(value, Share) else None) for value in row] for row in rows]
    return _template().render(title=plain(title, _LONG), facts=known, header=[*map(plain, header)], rows=cells)


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(_TABLE)


def _cell(value: object) -> str:
    if isinstance(value, Share):
        return f"{value:.1%}"
    return f"{value:.3f}" if isinstance(value, float) else plain(value, _LONG)
