"""The page of `sglora data check`: the numbers, what was found, images that look alike, and a sheet of samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sglora_cli.data.check import DataCheck, Pair
from sglora_cli.data.check_rules import CaptionCount, IssueKind
from sglora_cli.plugin.values import Photo, Task
from sglora_cli.report.page_parts import Pictures, definitions, numbers, page
from sglora_cli.report.page_parts import text as _t

_ROWS = 8  # of a table of findings that are seen at once
_HIDDEN = 100  # that unfold; --json has them all
_PAIRS = 60
_SAMPLES = 4  # pictures of a task
_SHEET = 240  # pictures of all tasks
_PIXELS = 200

_STYLE = """
h3 { color: var(--text); font-size: 1rem; margin: 1.6rem 0 .2rem; }
h3 .error { color: var(--down); } .why { color: var(--soft); font-size: .9rem; margin: 0 0 .5rem; }
td { overflow-wrap: anywhere; } td.name { min-width: 9rem; width: 30%; }
.wide { overflow-x: auto; } .counts td, .counts th { padding-top: .2rem; padding-bottom: .2rem; }
.counts { width: auto; } .counts td + td, .counts th + th { text-align: right; padding-left: 1rem; }
summary { cursor: pointer; color: var(--up); font-size: .9rem; padding: .4rem 0; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); gap: .8rem; margin: 0; padding: 0;
  list-style: none; }
.pairs li { display: grid; grid-template-columns: 1fr 1fr; gap: 2px; background: var(--card); border-radius: .6rem;
  overflow: hidden; align-content: start; }
.pairs b { grid-column: 1 / -1; padding: .3rem .6rem; font-size: .85rem; }
figure { margin: 0; min-width: 0; } figure img { width: 100%; aspect-ratio: 1; object-fit: contain; display: block; }
figcaption { padding: .3rem .6rem .5rem; font-size: .75rem; line-height: 1.35; color: var(--soft);
  overflow-wrap: anywhere; }
figcaption strong { display: block; color: var(--text); font-weight: 600; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(17.5rem, 1fr)); gap: 1.2rem; }
.sheet h3 { margin: 0 0 .4rem; } .sheet h3 span { color: var(--soft); font-weight: 400; font-size: .85rem; }
.sheet section { min-width: 0; }
.sheet section div { display: grid; grid-template-columns: 1fr 1fr; gap: .5rem; }
.sheet figure { background: var(--card); border-radius: .5rem; overflow: hidden; }
.sheet figure img { object-fit: cover; }
@media (max-width: 40rem) { table:not(.counts) tr { display: block; border-bottom: 1px solid var(--line); }
  table:not(.counts) td { display: block; width: auto; border: 0; padding: .1rem 0 .35rem; }
  table:not(.counts) .name { padding: .45rem 0 0; color: var(--soft); font-size: .85rem; }
  .counts .name { min-width: 5.5rem; } .counts td + td, .counts th + th { padding: .2rem .3rem .2rem 0; }
  .pairs { grid-template-columns: minmax(0, 1fr); }
  .sheet { grid-template-columns: minmax(0, 1fr); } }
"""

_FOOTER = """Images look alike if their perceptual hashes (64 bits) differ in at most {distance} bits: mirrored or
cropped copies are not found, and dark shapes on a plain ground can be found in error.
Made by <code>sglora data check</code>."""


def check_page(check: DataCheck) -> str:
    """The whole page, at most 240 samples and 60 pairs. Raises BadFile if an image has gone since the check."""
    pictures = Pictures({picture.name: picture.path for picture in check.pictures.values()}, _PIXELS)
    body = [_header(check), _findings(check), _pairs(check, pictures), _common(check)]
    body += [_counts(check), _sheet(check, pictures)]
    footer = _FOOTER.format(distance=check.config.distance)
    return page(f"Data set {check.root.resolve().name}", _STYLE, "\n".join(body), footer)


def _header(check: DataCheck) -> str:
    total = check.total
    facts = [
        (check.many("error"), "errors"),
        (check.verdict.split(", ")[1].rsplit(" ", 1)[0], "warnings"),
        (len(check.tasks), "tasks"),
        (total.images, "images"),
        (total.captions, "captions"),
        (f"{total.mean:.1f}", f"captions an image, {total.fewest} to {total.most}"),
    ]
    about = [("Read by", f"data set {check.dataset}"), ("Recipe", check.recipe or "none")]
    return numbers(facts) + definitions(about)


def _table(rows: Sequence[Sequence[str]], head: Sequence[str] = (), kind: str = "") -> str:
    """Cells are HTML; the first column is a name."""
    top = "<tr>" + "".join(f"<th>{_t(cell)}</th>" for cell in head) + "</tr>\n" if head else ""
    lines = "\n".join(
        f'<tr><td class="name">{row[0]}</td>' + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table class="{kind}">\n{top}{lines}\n</table></div>'


def _folded(rows: Sequence[Sequence[str]]) -> str:
    """The first rows of a table; more of them unfold."""
    hidden = rows[_ROWS : _ROWS + _HIDDEN]
    more = f"<details><summary>{len(hidden)} more</summary>{_table(hidden)}</details>" if hidden else ""
    return _table(rows[:_ROWS]) + more + _rest(len(rows) - _ROWS - _HIDDEN)


def _counts(check: DataCheck) -> str:
    splits = list(dict.fromkeys(split for counts in check.counts.values() for split in counts))
    rows = []
    for task, counts in check.counts.items():
        images = [counts[split].images if split in counts else 0 for split in splits]
        together = CaptionCount.of(counts.values())
        mean = f"{together.fewest} / {together.mean:.1f} / {together.most}"
        spread = str(together.most) if together.fewest == together.most else mean
        rows.append([_t(task), *(f'<span class="number">{n}</span>' for n in (*images, together.captions, spread))])
    head = ("task", *splits, "captions", "captions an image")
    return f"<h2>Tasks</h2>\n{_table(rows, head, 'counts')}"


def _findings(check: DataCheck) -> str:
    parts = []
    for key, kind, count in check.kinds():
        rows = [[_t(p.where), _t(p.text)] for p in check.problems if p.kind == key]
        if rows:  # pairs have pictures, and a section of their own
            parts.append(_title(kind, count) + _folded(rows))
    return f"<h2>Findings</h2>\n{''.join(parts) or '<p>None in captions, sizes and files.</p>'}"


def _title(kind: IssueKind, count: int) -> str:
    level = f'<span class="{kind.level}">{kind.level}</span>'
    return f'<h3>{level}: {_t(kind.title)}: {count}</h3>\n<p class="why">{_t(kind.why)}</p>\n'


def _rest(more: int) -> str:
    return f'\n<p class="why">... and {more} more: see --json.</p>' if more > 0 else ""


def _common(check: DataCheck) -> str:
    if not check.common:
        return ""
    rows = [[f"{c.images} images, {c.tasks} task{'s' * (c.tasks != 1)}", _t(c.caption)] for c in check.common]
    return f"<h2>Most common captions</h2>\n{_folded(rows)}"


def _pairs(check: DataCheck, pictures: Pictures) -> str:
    parts = []
    for key, kind, count in check.kinds():
        pairs = [pair for pair in check.pairs if pair.kind == key]
        if pairs:
            cards = "".join(_pair(pair, pictures) for pair in pairs[: _PAIRS // 3])
            parts.append(f'{_title(kind, count)}<ol class="pairs">{cards}</ol>{_rest(len(pairs) - _PAIRS // 3)}')
    return f"<h2>Images that look alike</h2>\n{''.join(parts) or '<p>None.</p>'}"


def _pair(pair: Pair, pictures: Pictures) -> str:
    sides = []
    for picture in (pair.first, pair.second):
        places = "; ".join(f"{task}, {split}" for task, split in picture.places)
        sides.append(_figure(pictures[picture.name], places, picture.name))
    return f"<li><b>{pair.distance} bits apart</b>{''.join(sides)}</li>"


def _figure(source: str, title: str, words: str) -> str:
    strong = f"<strong>{_t(title)}</strong>" if title else ""
    return f'<figure><img src="{source}" alt=""><figcaption>{strong}{_t(words)}</figcaption></figure>'


def _sheet(check: DataCheck, pictures: Pictures) -> str:
    each = max(1, min(_SAMPLES, _SHEET // len(check.tasks)))
    parts = []
    for task in check.tasks[:_SHEET]:
        count = sum(len(photos) for photos in task.photos.values())
        figures = "".join(
            _figure(pictures[check.pictures[photo.path].name], "", next(iter(photo.captions), ""))
            for photo in _samples(check, task, each)
        )
        parts.append(f"<section><h3>{_t(task.name)} <span>{count} images</span></h3><div>{figures}</div></section>")
    left = len(check.tasks) - _SHEET
    rest = f'<p class="why">... and {left} tasks more, without pictures.</p>' if left > 0 else ""
    return f'<h2>Samples</h2>\n<div class="sheet">\n{"".join(parts)}\n</div>{rest}'


def _samples(check: DataCheck, task: Task, count: int) -> Iterator[Photo]:
    """At most `count` photos that can be read, spread evenly over a task's photos."""
    every = [photo for photos in task.photos.values() for photo in photos]
    photos = [photo for photo in every if check.pictures[photo.path].hash is not None]
    for n in range(min(count, len(photos))):
        yield photos[n * len(photos) // min(count, len(photos))]
