"""`sglora data`: what there is, what is fetched, and what must be brought."""

from __future__ import annotations

import json

import pytest
from distributions import install
from trees import pets_tree

from sglora_cli.network import no_network


def test_data_sets_are_listed(run):
    result = run("data", "list")
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "pets Oxford-IIIT Pet in torchvision's layout, a task per breed sglora data fetch pets" in lines
    assert "folder a folder with images and captions.jsonl or captions.csv" in lines
    rows = {row["name"]: row["fetch"] for row in json.loads(run("data", "list", "--json").stdout)["datasets"]}
    assert (rows["coco"], rows["pets"], rows["folder"]) == (True, True, False)


def test_what_may_not_be_downloaded_is_described(run, tmp_path):
    result = run("data", "fetch", "flickr30k", "--data", tmp_path)
    assert (result.exit_code, result.stdout) == (6, "")
    assert result.stderr.startswith("error: sglora may not download Flickr30K\nhint: request the photos at ")


def test_coco_has_four_splits(run, tmp_path):
    assert run("data", "fetch", "coco:val", "--data", tmp_path).exit_code == 3


def test_a_dry_run_says_what_would_be_downloaded(run, tmp_path):
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco/train2017.zip.part").write_bytes(b"x" * 1_500_000)
    with no_network():
        result = run("data", "fetch", "coco", "--data", tmp_path, "--dry-run")
    assert (result.exit_code, result.stderr) == (0, "")
    *lines, disk = result.stdout.splitlines()
    assert lines == [
        "252.9 MB  nothing       http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
        "19.3 GB   1.5 MB of it  http://images.cocodataset.org/zips/train2017.zip",
        f"to download: 19.6 GB into {tmp_path}/coco",
    ]
    assert disk.startswith("disk: 38.9 GB while the largest archive is unpacked; ")
    assert [path.name for path in (tmp_path / "coco").iterdir()] == ["train2017.zip.part"]


def test_a_dry_run_says_that_everything_is_there_and_what_writes_the_captions(run, tmp_path):
    root = tmp_path / "oxford-iiit-pet"
    pets_tree(root)
    (root / "captions.jsonl").unlink()
    assert run("data", "fetch", "pets", "--data", tmp_path, "--dry-run").stdout.splitlines()[2:] == [
        f"{root} is there: nothing to download",
        f"captions are not part of it: sglora data caption pets --path {root} writes them",
    ]


def test_a_dry_run_of_what_may_not_be_downloaded_is_refused_as_the_download(run, tmp_path):
    dry, real = (run("data", "fetch", "flickr30k", "--data", tmp_path, *more) for more in (["--dry-run"], []))
    assert (dry.exit_code, dry.stdout, dry.stderr) == (6, "", real.stderr)


def test_a_dry_run_in_json_has_sizes_that_are_not_known_as_null(run, site, tmp_path):
    install(site, "sglora-mine", "sglora_mine_planned", SOURCE.replace("    def fetch(", PLAN + "    def fetch("))
    report = json.loads(run("data", "fetch", "mine", "--data", tmp_path, "--dry-run", "--json").stdout)
    assert [(one["url"], one["left"]) for one in report["downloads"]] == [("http://a", None), ("http://b", 7)]
    assert (report["folder"], report["left_bytes"], report["disk_bytes"]) == (f"{tmp_path}/mine", None, None)
    text = run("data", "fetch", "mine", "--data", tmp_path, "--dry-run").stdout
    assert text.startswith("size unknown  nothing    http://a\n10 B          3 B of it  http://b\n")


def test_a_data_set_that_plans_nothing_is_not_asked_to(run, site, tmp_path):
    install(site, "sglora-mine", "sglora_mine_unplanned", SOURCE)
    result = run("data", "fetch", "mine", "--data", tmp_path, "--dry-run")
    assert (result.exit_code, result.stderr) == (
        6,
        "error: data set 'mine' does not say what it downloads\nhint: leave --dry-run out to download it\n",
    )


PLAN = """
    def fetch_plan(self, data):
        from sglora_cli.api import Download, FetchPlan
        downloads = [Download("http://a", data / "a", None), Download("http://b", data / "b", 10, 3)]
        return FetchPlan(data / "mine", downloads)
"""


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
        (
            ["pets", "--data", "gone"],
            6,
            "error: the data folder gone does not exist\nhint: mkdir gone, or pass --data DIR\n",
        ),
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
