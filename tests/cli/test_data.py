"""`sglora data`: what there is, what is fetched, and what must be brought."""

from __future__ import annotations

import json

import pytest
from distributions import install


def test_data_sets_are_listed(run):
    result = run("data", "list")
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "pets Oxford-IIIT Pet as torchvision keeps it; a task a breed sglora data fetch pets" in lines
    assert "folder a folder with images and captions.jsonl or captions.csv" in lines
    rows = {row["name"]: row["fetch"] for row in json.loads(run("data", "list", "--json").stdout)["datasets"]}
    assert (rows["coco"], rows["pets"], rows["folder"]) == (True, True, False)


def test_what_may_not_be_downloaded_is_described(run, tmp_path):
    result = run("data", "fetch", "flickr30k", "--data", tmp_path)
    assert (result.exit_code, result.stdout) == (6, "")
    assert result.stderr.startswith(
        "error: Flickr30K may not be downloaded by this program\nhint: ask for the photos at "
    )


def test_the_older_coco_is_described(run, tmp_path):
    result = run("data", "fetch", "coco:train2014", "--data", tmp_path)
    assert (result.exit_code, result.stdout) == (6, "")
    assert result.stderr == (
        "error: train2014 is not downloaded by this program\n"
        f"hint: put the photos of http://images.cocodataset.org/zips/train2014.zip into {tmp_path}/coco/train2014, and "
        "captions_train2014.json and instances_train2014.json of "
        f"http://images.cocodataset.org/annotations/annotations_trainval2014.zip into {tmp_path}/coco/annotations\n"
    )
    assert run("data", "fetch", "coco:val", "--data", tmp_path).exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "code", "stderr"),
    [
        (["pest"], 3, "error: no dataset named 'pest'\nhint: did you mean 'pets'?\n"),
        (
            ["folder"],
            6,
            "error: there is nothing to download for data set 'folder'\n"
            "hint: it is a folder with images and captions.jsonl or captions.csv: bring your own\n",
        ),
        (["pets", "--data", "gone"], 6, "error: the data folder gone does not exist\nhint: pass --data DIR\n"),
    ],
)
def test_mistakes_are_answered(run, arguments, code, stderr):
    result = run("data", "fetch", *arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", stderr)


SOURCE = """
from sglora_cli.api import hookimpl
class Mine:
    name, summary = "mine", "a stranger's data"
    def tasks(self, root): return []
    def fetch(self, data, note): return data / "mine"
@hookimpl
def sglora_datasets(): return [Mine()]
"""


def test_a_strangers_data_set_may_be_fetched(run, site, tmp_path):
    install(site, "sglora-mine", "sglora_mine", SOURCE)
    report = json.loads(run("data", "fetch", "mine", "--data", tmp_path, "--json").stdout)
    assert report == {"dataset": "mine", "folder": f"{tmp_path}/mine"}
