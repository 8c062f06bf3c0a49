"""Make README's pictures: the page of `sglora try` as a PNG, and a terminal session as an SVG.

    python -m tests.docs.pictures

Both show what the program prints today about drawn pictures of hot-air balloons. The PNG needs Chromium on the PATH.
Tests compare the words of both pictures with what the program prints.
"""

from __future__ import annotations

import html
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests/support"))

from balloons import COLOURS, PLACES, SKIES, write_balloons  # noqa: E402
from console import newcomer_in  # noqa: E402
from PIL import Image, ImageChops  # noqa: E402
from PIL.PngImagePlugin import PngInfo  # noqa: E402
from terminal import Screen, at_terminal  # noqa: E402

PNG, SVG = ROOT / ".github/try.png", ROOT / ".github/terminal.svg"
BYTES = 200_000
"""Largest size of a picture."""
COMMANDS = (
    'sglora generate "a photo of a hot-air balloon" -o balloon.safetensors',
    'sglora try balloon.safetensors --images balloons --text "a white hot-air balloon" \\\n'
    '    --relevant "white-*" --top 6 --report balloon.html',
    "sglora export balloon.safetensors -o balloon-peft/",
)
"""What is typed in the terminal. The second command writes the page of the PNG."""
COLUMNS = 88

_SKY = {"day": "on a sunny day", "sunset": "at sunset", "night": "at night", "storm": "under grey clouds"}
_PLACE = {
    "mountains": "over mountains",
    "lighthouse": "near a lighthouse",
    "island": "over an island with a palm tree",
}
SENTENCES = {
    **{f"a {colour} hot-air balloon": f"{colour}-*" for colour in COLOURS},
    **{f"a hot-air balloon {_SKY[sky]}": f"*-{sky}-*" for sky in SKIES},
    **{f"a hot-air balloon {_PLACE[place]}": f"*-{place}.png" for place in PLACES[1:]},
}
"""All sentences about one property of a picture, with the pattern of the right pictures' names."""


def typed(command: str) -> list[str]:
    """The words of a command after `sglora`."""
    return shlex.split(command.replace("\\\n", " "))[1:]


def session(folder: Path) -> list[Screen]:
    """Draw the balloons into a folder, run the commands there, and return what each of them shows at a terminal."""
    write_balloons(folder / "balloons")
    environment = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with newcomer_in(folder):
        # The photos are embedded once before, so that the commands show no progress bar.
        at_terminal("search", "balloons", "a balloon", columns=COLUMNS, **environment)
        return [at_terminal(*typed(command), columns=COLUMNS, **environment) for command in COMMANDS]


# The page as a picture

_WIDTH, _TALLEST = 1000, 2000  # pixels
_SHORTER = "<style>dl, .facts, .ranks { display: none } h2 { border: 0; margin: 1rem 0; padding: 0 }</style>"
"""Hides facts about the adapter and the plot of all ranks."""
_KEY = "Words"


def words_of(page: str) -> str:
    """What a reader sees of a page, without spaces at its ends, a line for each piece of text."""
    body = page[page.index("<body") :]
    lines = html.unescape(re.sub(r"<[^>]*>", "\n", body)).splitlines()
    return "\n".join(" ".join(line.split()) for line in lines if line.strip())


def write_png(page: str, target: Path) -> None:
    """Take a picture of a page with Chromium. The page's words are stored in the PNG."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        raise SystemExit(f"{target.name} needs Chromium, which is not on the PATH")
    with tempfile.TemporaryDirectory() as folder:
        shown, shot = Path(folder, "page.html"), Path(folder, "page.png")
        shown.write_text(page.replace("</head>", f"{_SHORTER}</head>"), encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={folder}/profile"]
        size = f"--window-size={_WIDTH},{_TALLEST}"
        subprocess.run([browser, *options, size, f"--screenshot={shot}", str(shown)], check=True, capture_output=True)
        with Image.open(shot) as image:
            picture = _without_white_below(image.convert("RGB"))
    information = PngInfo()
    information.add_itxt(_KEY, words_of(page), zip=True)
    colours = picture.quantize(256)
    picture.quantize(palette=colours, dither=Image.Dither.FLOYDSTEINBERG).save(
        target, optimize=True, pnginfo=information
    )


def words_in(picture: Path) -> str:
    """The words of the page that a PNG shows."""
    with Image.open(picture) as image:
        return str(image.info[_KEY])


def _without_white_below(image: Image.Image) -> Image.Image:
    box = ImageChops.difference(image, Image.new("RGB", image.size, "white")).getbbox()
    assert box is not None, "the page is empty"
    return image.crop((0, 0, image.width, min(image.height, box[3] + 16)))


# The terminal as a picture

_STYLE = re.compile(r"\x1b\[([0-9;]*)m")
_FONT, _ADVANCE, _LINE, _MARGIN, _BAR = 14, 8.4, 20, 18, 34  # pixels
_HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<title>A terminal session with sglora</title>
<style>
text {{ font: {font}px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #d5d9de; }}
.command {{ fill: #fff; font-weight: bold; }} .prompt {{ fill: #7db8ff; }} .bold {{ font-weight: bold; }}
</style>
<rect width="{width}" height="{height}" rx="8" fill="#14171a"/>
<circle cx="20" cy="18" r="6" fill="#e5655b"/><circle cx="40" cy="18" r="6" fill="#e3b341"/>
<circle cx="60" cy="18" r="6" fill="#57ab5a"/>
"""


def svg_of(screens: list[Screen]) -> str:
    """The commands and what they show, one after the other. No font is loaded."""
    lines, row = [], 0
    for command, screen in zip(COMMANDS, screens, strict=True):
        for n, line in enumerate(command.splitlines()):
            prompt = '<tspan class="prompt">$&#160;</tspan>' if n == 0 else ""
            styled = f'{prompt}<tspan class="command">{_escaped(line)}</tspan>'
            lines.append(_text(styled, row, len(line) + 2 * bool(prompt)))
            row += 1
        for written in screen.written.splitlines():
            if plain := _STYLE.sub("", written).rstrip():
                lines.append(_text(_styled(written), row, len(plain)))
                row += 1
        row += 1
    size = {"width": round(2 * _MARGIN + COLUMNS * _ADVANCE), "height": _BAR + (row - 1) * _LINE + _MARGIN}
    return _HEAD.format(font=_FONT, **size) + "\n".join(lines) + "\n</svg>\n"


def lines_in(picture: Path) -> list[str]:
    """The lines of the terminal that an SVG shows."""
    tree = ElementTree.fromstring(picture.read_text(encoding="utf-8"))
    return ["".join(line.itertext()).replace("\xa0", " ") for line in tree.iter("{http://www.w3.org/2000/svg}text")]


def _text(content: str, row: int, columns: int) -> str:
    place = f'x="{_MARGIN}" y="{_BAR + 14 + row * _LINE}"'
    return f'<text {place} textLength="{columns * _ADVANCE:.1f}" lengthAdjust="spacingAndGlyphs">{content}</text>'


def _styled(line: str) -> str:
    """A line with bold where the terminal has it, without spaces at its end."""
    parts, bold = [], False
    left = len(_STYLE.sub("", line).rstrip())
    for n, part in enumerate(_STYLE.split(line)):
        if n % 2:
            bold = part == "1" if part in ("", "0", "1") else bold
        elif text := part[:left]:
            left -= len(text)
            parts.append(f'<tspan class="bold">{_escaped(text)}</tspan>' if bold else _escaped(text))
    return "".join(parts)


def _escaped(text: str) -> str:
    return html.escape(text, quote=False).replace(" ", "&#160;")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        screens = session(folder)
        SVG.write_text(svg_of(screens), encoding="utf-8")
        print(SVG)
        write_png((folder / "balloon.html").read_text(encoding="utf-8"), PNG)
        print(PNG)


if __name__ == "__main__":
    main()
