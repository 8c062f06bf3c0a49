"""Captions from names and colours: what they say is what the pixels are."""

from __future__ import annotations

import json
import random
import re
from itertools import islice

import pytest
from PIL import Image, ImageColor, ImageDraw
from trees import captioned, picture

import sglora_names
from sglora_cli.config import RuntimeConfig
from sglora_cli.testing import CAPTIONER_CHECKS

PROMPT = "Input: A photo of pug. Output: A pug.\nInput: A photo of sweet pea. Output:"


def model():
    return sglora_names.sglora_captioners()[0].load(RuntimeConfig())


def flag(**regions):
    """A picture with a colour for each side; `middle` is drawn over them."""
    image = Image.new("RGB", (200, 100), regions.get("all", "white"))
    draw = ImageDraw.Draw(image)
    boxes = {"left": (0, 0, 66, 99), "right": (134, 0, 199, 99), "middle": (60, 25, 140, 75)}
    for region, box in boxes.items():
        if region in regions:
            draw.rectangle(box, fill=regions[region])
    return image


@pytest.mark.parametrize("check", CAPTIONER_CHECKS, ids=lambda check: check.__name__)
def test_it_passes_the_conformance_checks(check):
    check(model())


def test_colours_have_the_names_that_css_gives_them():
    """The colours of CSS that are called after one of ours, with a word before it or without, as `darkred`."""
    shades = ("", "dark", "light", "medium", "pale", "deep", "hot", "forest", "lawn", "royal", "midnight", "sea")
    known = {}
    for colour in sglora_names.COLOURS:
        for shade in shades:
            if value := ImageColor.colormap.get(shade + colour):
                known[shade + colour] = (colour, value)
    assert len(known) > 30
    named = {
        css: sglora_names.COLOURS[sglora_names.colour_names(Image.new("RGB", (9, 9), value))[0, 0]]
        for css, (_, value) in known.items()
    }
    wrong = {css: name for css, name in named.items() if name != known[css][0]}
    assert wrong == {"brown": "red", "lightyellow": "white"}  # a dark red; ivory


@pytest.mark.parametrize(
    ("image", "colours"),
    [
        (flag(all="green", middle="red"), {"in the middle": "red", "around it": "green", "on the left": "green"}),
        (flag(all="black", left="blue"), {"in the middle": "black", "on the left": "blue", "on the right": "black"}),
        (flag(all="white", middle="yellow", right="purple"), {"in the middle": "yellow", "on the right": "purple"}),
    ],
)
def test_regions_have_their_colours(image, colours):
    assert sglora_names.colours_of(image).items() >= colours.items()


def test_what_is_said_of_the_sides_is_true():
    """Of any caption, each region that is mentioned has the colours that are measured in it, pixel by pixel."""
    rng = random.Random(0)
    for _ in range(5):
        colours = rng.sample(["red", "green", "blue", "yellow", "black", "white"], 4)
        image = flag(all=colours[0], left=colours[1], right=colours[2], middle=colours[3])
        for text in model().write(image, PROMPT, 8, rng.randrange(1000)):
            assert text.count("weet pea") == 1
            for region, x, colour in (("left", 10, colours[1]), ("right", 190, colours[2])):
                assert image.getpixel((x, 50)) == ImageColor.getrgb(colour)
                said = re.search(rf"([a-z]+(?: and [a-z]+)?) on the {region}", text)
                assert not said or said[1] == colour


def test_captions_of_an_image_differ_and_follow_from_the_seed():
    image = flag(all="green", left="yellow", middle="red")
    texts = model().write(image, PROMPT, 4, 1)
    assert len(set(texts)) == 4
    assert texts == model().write(image, PROMPT, 4, 1)
    assert texts != model().write(image, PROMPT, 4, 2)
    assert all(len(text.split()) >= 3 and text[0].isupper() and text.endswith(".") for text in texts)


def test_brightness_is_said_of_dark_and_bright_photos_only():
    for value, word in ((20, "dark"), (128, "photo"), (250, "bright")):
        light = sglora_names.brightness(Image.new("RGB", (30, 30), (value,) * 3))
        assert light == pytest.approx(value / 255, abs=0.01)
        (text,) = islice(sglora_names.sentences("mug", {}, light, random.Random(0)), 1)
        assert text.split()[0] == word


def test_a_folder_is_captioned_with_it(run, tmp_path):
    for n in range(8):
        picture(tmp_path / f"red_fox/{n}.jpg", n)
    result = run("data", "caption", "folder", "--path", tmp_path, "--captioner", "names", "--captions", 2, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["left"] == 0
    rows = captioned(tmp_path)
    assert len(rows) == 8
    assert {row["by"].split()[0] for row in rows} == {"names"}
    assert all("red fox" in text.lower() for row in rows for text in row["captions"])
