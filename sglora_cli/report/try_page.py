"""The page of `sglora try`. Directions are told by arrows and words, colours only repeat them."""

from __future__ import annotations

from sglora_cli.bench.ranking import Ranking, Trial
from sglora_cli.report.page_parts import Pictures, definitions, numbers, page
from sglora_cli.report.page_parts import text as _t

_FRAMES = "; solid frame: came into the top, dashed frame: left it"

_STYLE = """
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
svg { display: block; width: 100%; height: 14px; overflow: visible; }
svg line { stroke: var(--soft); stroke-width: 2; } svg .base { stroke: var(--line); stroke-width: 1; }
svg circle { fill: var(--back); stroke: var(--text); stroke-width: 2; } svg .with { fill: var(--text); }
@media (max-width: 64rem) { .grid { grid-template-columns: repeat(3, minmax(0, 1fr)); } .sides { gap: 1.2rem; } }
@media (max-width: 40rem) { .sides { gap: .7rem; } .grid { grid-template-columns: minmax(0, 1fr); }
  td:last-child { white-space: normal; } }
"""

_FOOTER = """Scores are cosine similarities of image and sentence. Equal scores share a rank.
Made by <code>sglora try</code>."""


def trial_page(trial: Trial, count: int) -> str:
    """The whole page, with the first `count` items of every ranking. Raises BadFile if an image has gone."""
    pictures = Pictures(trial.photos)
    section = _images if trial.ranked == "images" else _sentences
    sections = "\n".join(section(ranking, count, pictures) for ranking in trial.rankings)
    return page(f"What {trial.adapter} changes", _STYLE, f"{_header(trial)}\n{sections}", _FOOTER)


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
    return definitions(facts)


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
    return numbers(facts)


def _arrow(old: int, new: int) -> str:
    """Which way an item goes from rank `old` to rank `new`, in a sign and a number."""
    if old == new:
        return '<span class="same">= stays</span>'
    way, sign = ("up", "▲") if new < old else ("down", "▼")
    return f'<span class="{way}">{sign} {abs(new - old)}</span>'


def _images(ranking: Ranking, count: int, pictures: Pictures) -> str:
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


def _card(ranking: Ranking, row: int, pictures: Pictures, after: bool, mark: str) -> str:
    old, new = int(ranking.rank_before_I[row]), int(ranking.rank_after_I[row])
    score = float((ranking.after_I if after else ranking.before_I)[row])
    name = _t(ranking.items[row])
    return (
        f'<li class="{mark}" title="{name}: rank {old} without, {new} with the adapter">'
        f'<img src="{pictures[ranking.items[row]]}" alt="{name}"><div class="words">'
        f"<div><b>{new if after else old}</b>{_arrow(old, new)}</div>"
        f'<span class="number">{score:.3f}</span><span class="name">{name}</span></div></li>'
    )


def _sentences(ranking: Ranking, count: int, pictures: Pictures) -> str:
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
