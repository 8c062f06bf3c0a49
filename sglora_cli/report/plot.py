"""Draws charts as SVG and PNG, one paper column wide, so that they are legible on a phone.

matplotlib is imported on first use. The same chart gives identical files: no dates, a fixed salt, and matplotlib's
defaults regardless of user settings. The colours are those of Okabe and Ito, which colour-blind readers can
distinguish. Shape or position always carries the same information.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sglora_cli.errors import Unavailable
from sglora_cli.report.charts import Bars, Chart, Heat, Lines, Map, Scatter, Stacks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


WIDTH = 3.6  # inches
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
MARKERS = "osD^vPX*"
_DASHES = ("-", "--", "-.", ":")
_GREY, _SOFT, _DARK = "#8a8f96", "#d9dce1", "#1b1f24"
_NAME = 26  # characters of a name that fit next to a bar
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # included in matplotlib, so text looks the same everywhere
    "font.size": 8.0,
    "axes.labelsize": 8.0,
    "axes.edgecolor": _GREY,
    "axes.labelcolor": _DARK,
    "text.color": _DARK,
    "xtick.color": _DARK,
    "ytick.color": _DARK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": _SOFT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7.0,
    "text.parse_math": False,  # names may contain dollar signs
    "svg.fonttype": "path",
    "svg.hashsalt": "sglora",
}


def needs(module: str, name: str) -> None:
    """Raise Unavailable unless the library `module`, called `name`, can be imported."""
    from importlib import import_module

    try:
        import_module(module)
    except ImportError:
        raise Unavailable(f"figures need {name}, which is not installed", 'pip install "sglora[report]"') from None


@contextmanager
def _style() -> Iterator[None]:
    needs("matplotlib", "matplotlib")
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def svg(chart: Chart) -> bytes:
    """Draw the chart as SVG with letters as outlines, so that it looks the same everywhere.

    Raises Unavailable without matplotlib.
    """
    return _drawn(chart, "svg", metadata={"Date": None, "Creator": None})


def png(chart: Chart) -> bytes:
    """Draw the chart as PNG with 300 dots per inch. Raises Unavailable without matplotlib."""
    return _drawn(chart, "png", dpi=300, metadata={"Software": None})


def _drawn(chart: Chart, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    with _style():
        plot(chart).savefig(out, format=format, facecolor="white", bbox_inches="tight", pad_inches=0.04, **options)
    return out.getvalue()


def plot(chart: Chart) -> Figure:
    """Draw the chart as a matplotlib figure."""
    draw, height = _KINDS[type(chart)]
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height(chart)), layout="constrained")
    draw(figure.add_subplot(), chart)
    return figure


def short(text: str, most: int = _NAME) -> str:
    """Return a name for display in a figure: one line, printable and not too long."""
    clean = "".join(c if c.isprintable() else "?" for c in text.encode(errors="replace").decode())
    return clean if len(clean) <= most else clean[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _names(axes: Axes, names: Any) -> None:
    """Label the rows with names, the first at the top."""
    axes.set_yticks(range(len(names)), [short(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _bars(axes: Axes, chart: Bars) -> None:
    best = max((v for v, aside in zip(chart.values, chart.aside, strict=True) if not aside), default=None)
    for row, (value, low, high, aside) in enumerate(zip(chart.values, chart.low, chart.high, chart.aside, strict=True)):
        colour = _SOFT if aside else COLOURS[0] if value == best else COLOURS[4]
        axes.barh(row, value, height=0.72, color=colour)
        if low is not None and high is not None:
            axes.errorbar(
                value, row, xerr=[[max(0.0, value - low)], [max(0.0, high - value)]], color=_DARK, capsize=2, lw=0.9
            )
        # Next to the axes, where no whisker reaches.
        axes.text(1.02, row, f"{value:.1f}", va="center", transform=axes.get_yaxis_transform())
    if chart.line:
        axes.axvline(chart.line[1], color=_DARK, lw=0.8, ls="--", zorder=0.9)
    _names(axes, chart.names)
    axes.set_xlim(left=0)
    axes.set_xlabel(chart.axis)
    axes.grid(axis="x")


def _lines(axes: Axes, chart: Lines) -> None:
    for n, (name, values) in enumerate(chart.lines.items()):
        style: dict[str, Any] = {
            "color": COLOURS[n % 8],
            "marker": MARKERS[n % 8],
            "ls": _DASHES[(n // 8) % 4],
            "ms": 3.5,
            "lw": 1.4,
        }
        axes.plot(chart.x, values, label=short(name), **style)
    for n, (name, value) in enumerate(chart.levels.items()):
        axes.axhline(value, color=_GREY, lw=1.2, ls=_DASHES[1 + n % 3], label=short(name))
    axes.axvline(chart.mark, color=_SOFT, lw=5, zorder=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(chart.x, [str(x) for x in chart.x])
    axes.minorticks_off()
    axes.set_xlabel(chart.x_axis)
    axes.set_ylabel(chart.y_axis)
    axes.grid(axis="y")
    axes.figure.legend(loc="outside lower center", ncols=2)


def _scatter(axes: Axes, chart: Scatter) -> None:
    for n, (group, points) in enumerate(chart.groups.items()):
        style: dict[str, Any] = {"color": COLOURS[n % 8], "marker": MARKERS[n % 8], "s": 26, "linewidths": 0}
        axes.scatter([x for _, x, _ in points], [y for _, _, y in points], label=short(group), alpha=0.9, **style)
    if chart.zero:
        axes.axhline(0, color=_DARK, lw=0.8, ls="--", zorder=0.9)
    axes.set_xlabel(chart.x_axis)
    axes.set_ylabel(chart.y_axis)
    axes.grid()
    if chart.correlation is not None:
        axes.set_title(f"rank correlation {chart.correlation:+.2f}", fontsize=8, loc="left")
    axes.figure.legend(loc="outside lower center", ncols=3)


def _stacks(axes: Axes, chart: Stacks) -> None:
    groups = sorted({group for parts in chart.parts for _, group, _ in parts})
    for row, parts in enumerate(chart.parts):
        left = 0.0
        for name, group, share in parts:
            colour = COLOURS[groups.index(group) % 8]
            axes.barh(row, share, left=left, height=0.8, color=colour, edgecolor="white", linewidth=0.8)
            if (room := int(share * 32)) >= 6:  # characters that fit
                light = colour in COLOURS[:1] + COLOURS[5:6] + COLOURS[7:]
                tint = "white" if light else _DARK
                axes.text(left + 0.012, row, short(name, room), va="center", fontsize=5.6, color=tint)
            left += share
    _names(axes, [short(name, 18) for name in chart.names])
    axes.set_xlim(0, 1)
    axes.set_xlabel(chart.axis)
    from matplotlib.patches import Patch

    handles = [Patch(color=COLOURS[n % 8], label=short(group)) for n, group in enumerate(groups)]
    axes.figure.legend(handles=handles, loc="outside lower center", ncols=3)


def _map(axes: Axes, chart: Map) -> None:
    from matplotlib.lines import Line2D

    kinds = list(dict.fromkeys(kind for _, kind, *_ in chart.points))
    groups = list(dict.fromkeys(group for _, _, group, *_ in chart.points))
    alike = kinds == groups  # then each kind has its own colour, and colours need no separate legend
    for _, kind, group, x, y in chart.points:
        axes.scatter(x, y, **_mark(kinds.index(kind), groups.index(group)))
    named = [(name, kind) for name, kind, *_ in chart.points if name]
    _numbers(axes, [(x, y) for name, *_, x, y in chart.points if name])
    axes.set(xticks=[], yticks=[])
    axes.margins(0.08)
    for side in ("top", "right"):
        axes.spines[side].set_visible(True)
    keys = [(kind, kind) for kind in kinds if kind not in [k for _, k in named]]
    keys += [(f"{n}  {short(name, 20)}", kind) for n, (name, kind) in enumerate(named, 1)]
    handles = []
    for text, kind in keys:
        n = kinds.index(kind)
        style: dict[str, Any] = {"color": COLOURS[n % 8] if alike else _GREY, "marker": MARKERS[n % 8], "ms": 5}
        handles.append(Line2D([], [], ls="", label=short(text, 34), **style))
    for n, group in enumerate([] if alike else groups):
        handles.append(Line2D([], [], ls="-", lw=4, color=COLOURS[n % 8], label=short(group)))
    axes.figure.legend(handles=handles, loc="outside lower center", ncols=2)


def _heat(axes: Axes, chart: Heat) -> None:
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    values = np.array([[np.nan if v is None else v for v in row] for row in chart.values])
    most = max(float(np.nanmax(np.abs(values))), 1.0)
    colours = LinearSegmentedColormap.from_list("gap", [COLOURS[0], "#f4f4f2", COLOURS[1]])
    image = axes.imshow(values, cmap=colours, vmin=-most, vmax=most, aspect="auto")
    for row, column in chart.own.items():
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=_DARK, lw=0.8))
    _names(axes, chart.rows)
    axes.set_ylim(len(chart.rows) - 0.5, -0.5)
    names = [short(name, 18) for name in chart.columns]
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=5.6)
    axes.tick_params(axis="both", length=0, labelsize=5.6)
    axes.spines["bottom"].set_visible(False)
    axes.figure.colorbar(image, ax=axes, location="bottom", shrink=0.6, aspect=30, label=chart.axis)


def _numbers(axes: Axes, places: Sequence[tuple[float, float]]) -> None:
    """Label named points with numbers, away from the nearest other point, because names would overlap."""
    for n, (x, y) in enumerate(places):
        others = [(u - x, v - y) for m, (u, v) in enumerate(places) if m != n]
        dx, dy = min(others, key=lambda d: d[0] ** 2 + d[1] ** 2, default=(0.0, 0.0))
        right = dx < 0 or (dx == 0 and n % 2 == 0)
        aside = (5 if right else -5, 3 if dy <= 0 else -7)
        side = "left" if right else "right"
        axes.annotate(str(n + 1), (x, y), aside, textcoords="offset points", fontsize=7, ha=side, weight="bold")


def _mark(kind: int, group: int) -> dict[str, Any]:
    return {"marker": MARKERS[kind % 8], "color": COLOURS[group % 8], "s": 24, "linewidths": 0.4, "edgecolors": "white"}


_KINDS: dict[type, tuple[Callable[[Axes, Any], None], Callable[[Any], float]]] = {
    Bars: (_bars, lambda chart: 0.55 + 0.2 * len(chart.names)),
    Lines: (_lines, lambda chart: 2.6 + 0.07 * (len(chart.lines) + len(chart.levels))),
    Scatter: (_scatter, lambda chart: 2.9),
    Stacks: (_stacks, lambda chart: 0.8 + 0.19 * len(chart.names)),
    Heat: (_heat, lambda chart: 1.9 + 0.13 * len(chart.rows)),
    Map: (_map, lambda chart: 3.6 + 0.07 * sum(1 for name, *_ in chart.points if name)),
}
