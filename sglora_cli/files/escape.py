"""Escape strings from strangers: one function for each output format.

HTML is escaped by Jinja2, whose autoescape is on for every template. Names and sentences in any other output pass
through a function of this module.
"""

from __future__ import annotations

import re
import shlex

_MARKDOWN = re.compile(r"[\\`*<|~$]|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w)|:(?=//)|(?<=www)\.", re.IGNORECASE)
"""Characters that begin code, emphasis, links, pictures, HTML, tables, mathematics, entities and bare addresses."""
_MARKDOWN_START = re.compile(r"^(\d*)(>|[#+-]+(?: |$)|=+$|[.)](?: |$))")
"""Where a line becomes a heading, a rule, a quotation or an item of a list."""
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
_LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}
_FORMULA = re.compile(r"[\t\r\n]|\s*[=+@\uff1d\uff0b\uff0d\uff20-]")
"""How a formula of a spreadsheet begins, also with full-width signs."""


def printable(text: str) -> str:
    """Escape control characters, because a name from an untrusted file must not control the terminal.

    >>> printable("a\\x1b[31m")
    'a\\\\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shell_word(text: object) -> str:
    """Quote a name or path for a command on one line that a user may paste into a shell.

    >>> shell_word("toys"), shell_word("x$(touch y)")
    ('toys', "'x$(touch y)'")
    """
    return shlex.quote(printable(str(text)))


def markdown_text(text: str) -> str:
    r"""Return Markdown on one line that shows the text and nothing else: no link, picture, HTML or table cell.

    >>> markdown_text("![x](https://a.b) | <b>"), markdown_text("q_proj")
    ('![x\\](https\\://a.b) \\| &lt;b>', 'q_proj')
    """
    line = printable(" ".join(text.split()))
    escaped = _MARKDOWN.sub(lambda found: "&lt;" if found[0] == "<" else f"\\{found[0]}", line)
    return _MARKDOWN_START.sub(r"\1\\\2", escaped)


def markdown_code(text: str) -> str:
    r"""Return the text as code in Markdown, on one line and without backticks.

    >>> markdown_code("a `b` | c")
    '`a b \\| c`'
    """
    line = printable(" ".join(text.replace("`", "").split())).replace("|", "\\|")
    return f"`{line}`"


def latex_text(text: str) -> str:
    r"""Return LaTeX on one line that shows the text. At the start of a row it is no argument of the `\\` before it.

    >>> latex_text("50 % of [a]"), latex_text("[2cm] m")
    ('50 \\% of [a]', '{[}2cm] m')
    """
    escaped = "".join(_LATEX.get(character, character) for character in printable(" ".join(text.split())))
    return f"{{{escaped[0]}}}{escaped[1:]}" if escaped.startswith(("[", "*")) else escaped


def csv_cell(value: object) -> object:
    """Prepend an apostrophe to a string that a spreadsheet would interpret as a formula.

    >>> csv_cell("=1+1"), csv_cell("pug"), csv_cell(-1.5)
    ("'=1+1", 'pug', -1.5)
    """
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value
