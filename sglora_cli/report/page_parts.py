"""What all pages share: one HTML file that needs no network and runs nothing.

Every text goes through `text`, every picture is a small JPEG inside the page, and the page's own
policy forbids everything else.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from sglora_cli.files.images import read_image

PIXELS = 240
"""Longest side of a picture in a page: sharp on a phone, about 10 kB."""

_STYLE = """
:root { color-scheme: light dark; --back: #fff; --card: #f4f5f7; --line: #d9dce1; --text: #1b1f24; --soft: #59626d;
  --up: #0b57b8; --down: #a34a00; }
@media (prefers-color-scheme: dark) {
  :root { --back: #14171a; --card: #1f2429; --line: #353c44; --text: #e8eaed; --soft: #a3adb8;
    --up: #7db8ff; --down: #ffab66; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 82rem; background: var(--back); color: var(--text);
  font: 16px/1.45 system-ui, sans-serif; }
h1, h2, dd, .sentence { overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0 0 .8rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .8rem; padding-top: 1rem; border-top: 1px solid var(--line); }
h3 { font-size: .95rem; margin: 0 0 .6rem; color: var(--soft); font-weight: 600; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .15rem 1rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; }
.facts { display: flex; flex-wrap: wrap; gap: .6rem; padding: 0; margin: 0 0 1.2rem; list-style: none; }
.facts li { background: var(--card); border-radius: .5rem; padding: .4rem .8rem; font-size: .85rem;
  color: var(--soft); }
.facts b { display: block; font-size: 1.15rem; color: var(--text); }
table { border-collapse: collapse; width: 100%; font-size: .95rem; }
th { text-align: left; color: var(--soft); font-weight: 600; font-size: .85rem; }
th, td { padding: .45rem .9rem .45rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.sentence { width: 99%; } td span { display: block; }
.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
footer { margin-top: 2rem; color: var(--soft); font-size: .85rem; }
@media (max-width: 40rem) { body { padding: .8rem; } dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .4rem; } .facts { display: grid; grid-template-columns: 1fr 1fr; } }
"""


def text(value: object) -> str:
    """A text as HTML shows it. Half of a surrogate pair, which UTF-8 cannot hold, becomes a question mark."""
    return html.escape(str(value).encode(errors="replace").decode())


def page(title: str, style: str, body: str, footer: str) -> str:
    """A whole page. `title` is plain text; `body` and `footer` are HTML; `style` adds to what all pages share."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{text(title)}</title>
<style>{_STYLE}{style}</style>
</head>
<body>
<h1>{text(title)}</h1>
{body}
<footer>{footer}</footer>
</body>
</html>
"""


def definitions(facts: Iterable[tuple[str, object]]) -> str:
    """Names and what they are, under each other."""
    rows = "\n".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in facts)
    return f"<dl>\n{rows}\n</dl>"


def numbers(facts: Iterable[tuple[object, str]]) -> str:
    """Numbers and what they count, beside each other."""
    return '<ul class="facts">' + "".join(f"<li><b>{text(n)}</b>{text(what)}</li>" for n, what in facts) + "</ul>"


class Pictures:
    """Small copies of image files, as `src` of an img, by their names; each is made once.

    Raises BadFile if an image has gone or cannot be decoded.
    """

    def __init__(self, files: Mapping[str, Path], pixels: int = PIXELS) -> None:
        self._files, self._pixels = files, pixels
        self._made: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        if name not in self._made:
            self._made[name] = _jpeg(self._files[name], self._pixels)
        return self._made[name]


def _jpeg(path: Path, pixels: int) -> str:
    image = read_image(path)
    image.thumbnail((pixels, pixels))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=75, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
