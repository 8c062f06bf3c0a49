"""A stranger's captioner on one screen: it says what it was told, and which seed it had."""

from __future__ import annotations

import os
import random
import time

from sglora_cli.api import hookimpl

ANIMALS = ("otter", "heron", "lynx", "toad", "moth", "ibis")


class ParrotModel:
    def write(self, image, prompt, count, seed):
        time.sleep(float(os.environ.get("PARROT_SECONDS", "0")))
        what = prompt.rsplit("A photo of ", 1)[1].removesuffix(". Output:")
        pick = random.Random(f"{seed} {image.size}")
        return [f" A {what} beside {pick.randrange(20)} {pick.choice(ANIMALS)}s. " for _ in range(count)]


class Parrot:
    name = "parrot"
    summary = "a stranger's captioner"

    def load(self, runtime):
        return ParrotModel()


SGLORA_API = "1.0"


@hookimpl
def sglora_captioners():
    return [Parrot()]
