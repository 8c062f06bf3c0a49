"""The page of `sglora try`: one HTML file that needs no network and runs nothing.

Every text goes through `_t`, every picture is a small JPEG inside the page, and the page's own
policy forbids everything else. Directions are told by arrows and words, colours only repeat them.
"""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

from sglora_cli.files import read_image
from sglora_cli.trying import Ranking, Trial

_FRAMES = "; solid frame: came into the top, dashed frame: left it"
PIXELS = 240
"""Longest side of a picture in the page: sharp on a phone, about 10 kB."""

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
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: 2rem; }
.grid { display: grid; grid-template-columns: repeat(5, minmax(0, 1fr)); gap: .6rem; margin: 0; padding: 0;
  list-style: none; }
.grid li { background: var(--card); border: 2px solid transparent; border-radius: .6rem; overflow: hidden; }
.grid .new { border-color: var(--up); } .grid .gone { border: 2px dashed var(--down); }
.grid img { width: 100%; aspect-ratio: 1; object-fit: cover; display: block; }
.words { padding: .25rem .5rem .4rem; font-size: .85rem; }
.words div { display: flex; justify-content: space-between; align-items: baseline; gap: .3rem; }
.words b { font-size: 1.15rem; }
.words .name { display: block; color: var(--soft); font-size: .75rem; white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis; }
.up { color: var(--up); } .down { color: var(--down); } .same { color: var(--soft); }
.up, .down, .same, .words b { white-space: nowrap; font-weight: 600; }
.photo { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
.photo img { max-width: 15rem; border-radius: .6rem; margin-bottom: 1rem; }
table { border-collapse: collapse; width: 100%; font-size: .95rem; }
th { text-align: left; color: var(--soft); font-weight: 600; font-size: .85rem; }
th, td { padding: .45rem .9rem .45rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.sentence { width: 99%; } td span { display: block; }
.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
svg { display: block; width: 100%; height: 14px; overflow: visible; }
svg line { stroke: var(--soft); stroke-width: 2; } svg .base { stroke: var(--line); stroke-width: 1; }
svg circle { fill: var(--back); stroke: var(--text); stroke-width: 2; } svg .with { fill: var(--text); }
footer { margin-top: 2rem; color: var(--soft); font-size: .85rem; }
@media (max-width: 64rem) { .grid { grid-template-columns: repeat(3, minmax(0, 1fr)); } .sides { gap: 1.2rem; } }
@media (max-width: 40rem) { body { padding: .8rem; } .sides { gap: .7rem; }
  .grid { grid-template-columns: minmax(0, 1fr); } dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .4rem; } .facts { display: grid; grid-template-columns: 1fr 1fr; }
  td:last-child { white-space: normal; } }
"""


def trial_page(trial: Trial, count: int) -> str:
    """The whole page, with the first `count` items of every ranking. Raises BadFile if an image has gone."""
    pictures = _Pictures(trial)
    section = _images if trial.ranked == "images" else _sentences
    sections = "\n".join(section(ranking, count, pictures) for ranking in trial.rankings)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>What {_t(trial.adapter)} changes</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>What {_t(trial.adapter)} changes</h1>
{_header(trial)}
{sections}
<footer>Scores are cosine similarities of image and sentence. Equal scores share a rank.
Made by <code>sglora try</code>.</footer>
</body>
</html>
"""


class _Pictures:
    """Small copies of the trial's images, as `src` of an img; each is made once."""

    def __init__(self, trial: Trial) -> None:
        self._photos = trial.photos
        self._made: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        if name not in self._made:
            self._made[name] = _jpeg(self._photos[name])
        return self._made[name]


def _jpeg(path: Path) -> str:
    image = read_image(path)
    image.thumbnail((PIXELS, PIXELS))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=75, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def _t(value: object) -> str:
    """A text as HTML shows it."""
    return html.escape(str(value))


def _header(trial: Trial) -> str:
    about = trial.about
    many = len(trial.photos)
    facts = [
        ("Made for", f"“{about['description']}”" if about.get("description") else "an unknown task"),
        ("Made by", f"generator {about.get('generator', 'unknown')} of pack {about.get('pack', 'unknown')}"),
        ("Backbone", f"{trial.backbone}, fingerprint {trial.fingerprint}"),
        ("Images", f"{many} image{'s' if many != 1 else ''}" + _left_out(len(trial.skipped))),
        ("Compared", f"how {trial.ranked} rank without the adapter and with it"),
        ("Signs", "▲ ▼ ranks gained or lost with the adapter" + (_FRAMES if trial.ranked == "images" else "")),
    ]
    rows = "\n".join(f"<dt>{_t(name)}</dt><dd>{_t(value)}</dd>" for name, value in facts)
    return f"<dl>\n{rows}\n</dl>"


def _left_out(count: int) -> str:
    return f", {count} could not be read" if count else ""


def _facts(ranking: Ranking, count: int) -> str:
    change = ranking.change(count)
    same = "none" if change.correlation is None else f"{change.correlation:.2f}"
    facts = [
        (f"{change.moved} of {change.top}", f"moved in the top {change.top}"),
        (str(change.entered), f"came into the top {change.top}"),
        (f"{change.score:.4f}", "mean change of a score"),
        (same, f"rank correlation of all {len(ranking.items)}"),
    ]
    return '<ul class="facts">' + "".join(f"<li><b>{_t(n)}</b>{_t(what)}</li>" for n, what in facts) + "</ul>"


def _arrow(old: int, new: int) -> str:
    """Which way an item goes from rank `old` to rank `new`, in a sign and a number."""
    if old == new:
        return '<span class="same">= stays</span>'
    way, sign = ("up", "▲") if new < old else ("down", "▼")
    return f'<span class="{way}">{sign} {abs(new - old)}</span>'


def _images(ranking: Ranking, count: int, pictures: _Pictures) -> str:
    before, after = ranking.top(count, before=True), ranking.top(count)
    left = "".join(_card(ranking, i, pictures, False, "" if i in after else "gone") for i in before)
    right = "".join(_card(ranking, i, pictures, True, "" if i in before else "new") for i in after)
    return f"""<section>
<h2>“{_t(ranking.query)}”</h2>
{_facts(ranking, count)}
<div class="sides">
<div><h3>Without adapter</h3><ol class="grid">{left}</ol></div>
<div><h3>With adapter</h3><ol class="grid">{right}</ol></div>
</div>
</section>"""


def _card(ranking: Ranking, row: int, pictures: _Pictures, after: bool, mark: str) -> str:
    old, new = int(ranking.rank_before_I[row]), int(ranking.rank_after_I[row])
    score = float((ranking.after_I if after else ranking.before_I)[row])
    name = _t(ranking.items[row])
    return (
        f'<li class="{mark}" title="{name}: rank {old} without, {new} with the adapter">'
        f'<img src="{pictures[ranking.items[row]]}" alt="{name}"><div class="words">'
        f"<div><b>{new if after else old}</b>{_arrow(old, new)}</div>"
        f'<span class="number">{score:.3f}</span><span class="name">{name}</span></div></li>'
    )


def _sentences(ranking: Ranking, count: int, pictures: _Pictures) -> str:
    shown = ranking.top(count)
    scores = [float(side[i]) for i in shown for side in (ranking.before_I, ranking.after_I)]
    rows = "\n".join(_row(ranking, i, min(scores), max(scores)) for i in shown)
    return f"""<section>
<h2>{_t(ranking.query)}</h2>
<div class="photo"><img src="{pictures[ranking.query]}" alt="{_t(ranking.query)}">{_facts(ranking, count)}</div>
<table>
<tr><th>rank</th><th>sentence and score, ○ without, ● with adapter</th><th>score</th></tr>
{rows}
</table>
</section>"""


def _row(ranking: Ranking, row: int, low: float, high: float) -> str:
    old, new = int(ranking.rank_before_I[row]), int(ranking.rank_after_I[row])
    before, after = float(ranking.before_I[row]), float(ranking.after_I[row])
    return (
        f'<tr><td><b class="number">{new}</b>{_arrow(old, new)}</td>'
        f'<td class="sentence">{_t(ranking.items[row])}{_scale(before, after, low, high)}</td>'
        f'<td class="number">{before:.3f} →&nbsp;{after:.3f}</td></tr>'
    )


def _scale(before: float, after: float, low: float, high: float) -> str:
    """A line from the score without to the score with the adapter, between the lowest and highest score shown."""
    x, y = (f"{1 + 98 * (score - low) / ((high - low) or 1):.2f}%" for score in (before, after))
    return (
        '<svg aria-hidden="true"><line class="base" x1="0" x2="100%" y1="7" y2="7"/>'
        f'<line x1="{x}" x2="{y}" y1="7" y2="7"/><circle cx="{x}" cy="7" r="4"/>'
        f'<circle class="with" cx="{y}" cy="7" r="4"/></svg>'
    )
