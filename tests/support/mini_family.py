"""A family of recipes in miniature, `mini`: the paper's COCO and Pets are toys, the backbone is `tiny`.

`mini-coco` reads the data set `folder`, which is here. `mini-pets` reads `shelf`, which must be fetched, from the
folder in MINI_SHELF, and has no captions then.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from distributions import install
from toys import RECIPE, write_toys

from sglora_cli.files.text import jsonl_rows

PLUGIN = """
import os
import shutil
from pathlib import Path

from sglora_cli.api import Download, FetchPlan, Terms, Unavailable, find_captions, hookimpl
from sglora_datasets.folder import Folder

SGLORA_API = "1.0"


class Shelf:
    name = "shelf"
    summary = "toys of a shelf"

    def tasks(self, root):
        return Folder().tasks(root)

    def images(self, root):
        return Folder().images(root)

    def fetch_plan(self, data):
        here = data / "shelf"
        shelf = Path(os.environ["MINI_SHELF"])
        pairs = [(path, here / path.relative_to(shelf)) for path in self._source()]
        downloads = [Download("shelf:" + path.name, to, path.stat().st_size, 0, to.exists()) for path, to in pairs]
        return FetchPlan(here, downloads, find_captions(here) is not None, len(pairs))

    def fetch(self, data, note):
        for n, (source, one) in enumerate(zip(self._source(), self.fetch_plan(data).downloads)):
            if n == int(os.environ.get("MINI_STOPS", "-1")):
                raise Unavailable("the shelf fell over", "run it again")
            if not one.done:
                one.path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, one.path)
        return data / "shelf"

    def terms(self):
        return [Terms("photos", "", "https://shelf.example/"), Terms("lists", "CC0", "https://shelf.example/lists")]

    def _source(self):
        return sorted(Path(os.environ["MINI_SHELF"]).rglob("*.png"))


@hookimpl
def sglora_datasets():
    return [Shelf()]


@hookimpl
def sglora_recipes():
    return [Path(os.environ["MINI_RECIPES"])]
"""


def install_mini(site: Path, folder: Path, monkeypatch) -> Path:
    """Install the family, and return the data folder, in which the photos of `mini-coco` are."""
    install(site, "sglora-mini", "sglora_mini", PLUGIN)
    data, recipes, shelf = folder / "data", folder / "recipes", folder / "shelf"
    write_toys(folder)
    (data / "toys").rename(data / "coco")
    for _, _, row in jsonl_rows(data / "coco" / "captions.jsonl"):
        target = shelf / "images" / row["split"] / row["task"] / Path(row["image"]).name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / "coco" / row["image"], target)
    recipes.mkdir()
    quick = RECIPE.replace("epochs = 200", "epochs = 5").replace("epochs = 6", "epochs = 4")
    coco = quick.replace('name = "toys"', 'name = "coco"')
    pets = quick.replace('name = "toys"', 'name = "pets"\ndataset = "shelf"\npath = "shelf"')
    (recipes / "mini-coco.toml").write_text(coco)
    (recipes / "mini-pets.toml").write_text(pets)
    (recipes / "mini.toml").write_text(coco)
    monkeypatch.setenv("MINI_SHELF", str(shelf))
    monkeypatch.setenv("MINI_RECIPES", str(recipes))
    return data


def compared(folder: Path) -> dict:
    """What a folder of results has beside the paper's numbers."""
    return json.loads((folder / "comparison.json").read_text())
