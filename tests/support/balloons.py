"""Drawn pictures of hot-air balloons: five colours, four skies and four places, one picture of each combination.

Coordinates are in units of a picture that is SIZE units wide and high; the horizon is at HORIZON.
"""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]

SIZE, HORIZON = 256, 158
_DETAIL = 4
"""Pixels a unit while drawing; the picture is then reduced to one pixel a unit, which smooths its edges."""
COLOURS: dict[str, Colour] = {
    "red": (214, 40, 44),
    "white": (248, 248, 244),
    "yellow": (248, 206, 40),
    "green": (48, 156, 82),
    "blue": (44, 82, 200),
}
SKIES: dict[str, tuple[Colour, Colour, Colour]] = {  # the top of the sky, the horizon, the sea
    "day": ((92, 170, 232), (206, 232, 250), (38, 120, 186)),
    "sunset": ((120, 60, 130), (255, 170, 80), (112, 66, 110)),
    "night": ((8, 12, 40), (34, 44, 98), (12, 24, 62)),
    "storm": ((60, 66, 76), (130, 138, 146), (62, 84, 96)),
}
PLACES = ("sea", "mountains", "lighthouse", "island")


class Canvas:
    """An image that is drawn on in units."""

    def __init__(self, dark: bool) -> None:
        self.dark = dark
        """Whether `shape` draws in the dark."""
        self.image = Image.new("RGB", (SIZE * _DETAIL, SIZE * _DETAIL))
        self.draw = ImageDraw.Draw(self.image)

    def shape(self, points: list[tuple[float, float]], colour: Colour) -> None:
        """A polygon in daylight or in the dark."""
        lit = (*(round(c * 0.45) for c in colour),) if self.dark else colour
        self.bright(points, lit)

    def bright(self, points: list[tuple[float, float]], colour: Colour) -> None:
        """A polygon of just this colour."""
        self.draw.polygon([(x * _DETAIL, y * _DETAIL) for x, y in points], fill=colour)

    def disc(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        corners = (x - width, y - height, x + width, y + height)
        self.draw.ellipse([c * _DETAIL for c in corners], fill=colour)


def picture(colour: str, sky: str, place: str, balloons: int, seed: int) -> Image.Image:
    """One or two balloons of that colour."""
    rng = random.Random(seed)
    canvas = Canvas(dark=sky == "night")
    _sky(canvas, sky, rng)
    _place(canvas, place)
    _sea(canvas, SKIES[sky][2])
    if balloons == 1:
        _balloon(canvas, COLOURS[colour], rng.uniform(96, 116), 84 + rng.uniform(-6, 6), rng.uniform(1.05, 1.2))
    else:
        _balloon(canvas, COLOURS[colour], 66, 110, 0.62)
        _balloon(canvas, COLOURS[colour], 150, 72, 0.8)
    return canvas.image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def write_balloons(folder: Path) -> Path:
    """Write the 80 pictures into a new folder, as `yellow-sunset-island.png`."""
    folder.mkdir()
    for n, (colour, sky, place) in enumerate(itertools.product(COLOURS, SKIES, PLACES)):
        balloons = 1 if 7 * n % 3 else 2
        picture(colour, sky, place, balloons, seed=n).save(folder / f"{colour}-{sky}-{place}.png")
    return folder


def _sky(canvas: Canvas, name: str, rng: random.Random) -> None:
    top, bottom, _ = SKIES[name]
    for y in range(SIZE * _DETAIL):
        share = min(1, y / (HORIZON * _DETAIL))
        colour = tuple(round(a + (b - a) * share) for a, b in zip(top, bottom, strict=True))
        canvas.draw.line([(0, y), (SIZE * _DETAIL, y)], fill=colour)
    if name == "night":
        for _ in range(40):
            x, y, size = rng.uniform(0, SIZE), rng.uniform(0, 130), rng.choice([0.7, 1, 1.5])
            canvas.disc(x, y, size, size, (240, 240, 255))
        canvas.disc(56, 48, 20, 20, (245, 240, 214))
        canvas.disc(64, 43, 18, 18, (14, 18, 52))  # what makes the moon a crescent
    if name == "day":
        canvas.disc(200, 42, 22, 22, (255, 222, 90))
        _clouds(canvas, [(60, 50), (150, 80)], (250, 252, 255))
    if name == "sunset":
        canvas.disc(150, 150, 30, 30, (255, 228, 120))
    if name == "storm":
        _clouds(canvas, [(50, 40), (120, 60), (200, 38)], (86, 92, 102))


def _clouds(canvas: Canvas, centres: list[tuple[int, int]], colour: Colour) -> None:
    for x, y in centres:
        for dx, dy, size in ((-18, 4, 14), (0, -4, 19), (20, 4, 15)):
            canvas.disc(x + dx, y + dy, size, size * 0.8, colour)


def _sea(canvas: Canvas, colour: Colour) -> None:
    canvas.bright([(0, HORIZON), (SIZE, HORIZON), (SIZE, SIZE), (0, SIZE)], colour)
    light = tuple(min(255, c + 34) for c in colour)
    for row, y in enumerate((176, 198, 222, 244)):
        for x in range(-20 + row % 2 * 30, SIZE, 60):
            box = [c * _DETAIL for c in (x, y - 6, x + 30, y + 6)]
            canvas.draw.arc(box, 200, 340, fill=light, width=3 * _DETAIL)


def _place(canvas: Canvas, name: str) -> None:
    if name == "mountains":
        canvas.shape([(0, 158), (50, 84), (92, 140), (140, 70), (200, 158)], (96, 110, 130))
        for snow in ([(140, 70), (124, 93), (140, 100), (155, 92)], [(50, 84), (38, 102), (52, 106), (63, 102)]):
            canvas.shape([*snow], (245, 248, 252))
    if name == "lighthouse":
        canvas.shape([(180, 158), (196, 140), (240, 138), (256, 158)], (110, 100, 92))
        canvas.shape([(204, 140), (209, 70), (225, 70), (230, 140)], (246, 246, 246))
        for y in (78, 104, 130):
            canvas.shape([(206, y), (228, y), (228, y + 11), (206, y + 11)], (210, 48, 44))
        canvas.bright([(208, 58), (226, 58), (226, 70), (208, 70)], (255, 226, 120))
        canvas.bright([(205, 58), (217, 44), (229, 58)], (70, 70, 80))
        if canvas.dark:
            canvas.bright([(208, 64), (110, 34), (110, 70)], (90, 96, 110))  # its beam
    if name == "island":
        canvas.disc(206, 158, 48, 14, (106, 93, 63) if canvas.dark else (236, 206, 140))
        canvas.shape([(204, 156), (212, 156), (207, 96), (202, 96)], (124, 84, 50))
        for degrees in (-160, -120, -70, -25, 15):
            x, y = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            leaf = [(204, 98), (200 + 34 * x, 108 + 24 * y), (204 + 20 * x, 92 + 22 * y)]
            canvas.shape([*leaf], (44, 140, 64))


def _balloon(canvas: Canvas, colour: Colour, x: float, y: float, size: float) -> None:
    def at(*points: tuple[float, float]) -> list[tuple[float, float]]:
        return [(x + dx * size, y + dy * size) for dx, dy in points]

    red, green, blue = colour
    shade = (red * 84 // 100, green * 84 // 100, blue * 84 // 100)
    canvas.bright(at(*_outline(-1, 1)), colour)
    canvas.bright(at(*_outline(-0.55, -0.2)), shade)
    canvas.bright(at(*_outline(0.2, 0.55)), shade)
    for side in (-1, 1):
        canvas.bright(at((9 * side, 66), (8 * side, 66), (7 * side, 80), (8 * side, 80)), (60, 44, 30))
    canvas.bright(at((-11, 80), (11, 80), (9, 96), (-9, 96)), (128, 78, 40))
    canvas.bright(at((-11, 80), (11, 80), (11, 83), (-11, 83)), (92, 54, 28))


def _outline(left: float, right: float) -> list[tuple[float, float]]:
    """A part of a balloon's envelope from top to bottom: `left` and `right` are shares of half its width."""
    heights = [-52 + 118 * n / 80 for n in range(81)]
    halves = [math.sqrt(max(0, 52**2 - y**2)) if y <= 26 else 45 - 35 * (y - 26) / 40 for y in heights]
    down = [(left * half, y) for half, y in zip(halves, heights, strict=True)]
    up = [(right * half, y) for half, y in zip(halves, heights, strict=True)]
    return down + up[::-1]
