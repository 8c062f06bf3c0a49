"""`sglora reproduce`: a plan that is printed, asked about once, resumed anywhere, and the paper's numbers beside."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from mini_family import compared, install_mini
from speckles import speckles, write_rows
from trees import karpathy_files, picture

from sglora_cli.cli.main import main
from sglora_cli.files.text import jsonl_rows
from sglora_datasets.tasks import split_of


@pytest.fixture
def mini(site, tiny, parrot, tmp_path, monkeypatch) -> Path:
    """The family `mini` is installed; its data folder. The working folder is empty."""
    data = install_mini(site, tmp_path, monkeypatch)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return data


@pytest.fixture
def table1(run, mini):
    """Table 1 with the family `mini`."""
    words = ("reproduce", "table1", "--with", "mini", "--data", mini, "--captioner", "parrot", "--resamples", 100)
    return lambda *more: run(*words, *more)


def without_numbers(text: str) -> str:
    """The text with every size and time as #."""
    return re.sub(r"(?:\d[\d.]*(?: [a-z]+)? to )?\d[\d.]* (?:[kMG]?B|s|min|h)\b", "#", text)


def command_of(data: Path) -> str:
    """The command of `table1`, as a user types it who is not asked."""
    return f"sglora reproduce table1 --with mini --data {data} --captioner parrot --resamples 100 --yes"


def test_the_tables_are_listed_with_what_cannot_be_made(run):
    lines = run("reproduce").stdout.splitlines()
    assert lines[0] == "table1   in-dataset retrieval: COCO and Pets"
    assert "table5   cannot be made: its content is unknown to this project" in lines
    assert run("reproduce", "--list").stdout.splitlines() == lines
    listed = json.loads(run("reproduce", "--list", "--json").stdout)["targets"]
    assert listed[0] == {"name": "table1", "title": "in-dataset retrieval: COCO and Pets", "cannot": None}
    assert [one["name"] for one in listed if one["cannot"]] == ["table5", "figure1", "figure5", "figure6"]


def test_a_single_table_is_listed_alone(run):
    result = run("reproduce", "--list", "table1")
    assert (result.exit_code, result.stdout) == (0, "table1  in-dataset retrieval: COCO and Pets\n")
    result = run("reproduce", "--list", "Table5", "--json")
    (target,) = json.loads(result.stdout)["targets"]
    assert target["cannot"] == "its content is unknown to this project"
    result = run("reproduce", "--list", "table99")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("error: no table or figure of the paper named 'table99'\nhint: did you mean 'table")


def test_the_help_of_an_option_says_its_default(run):
    text = " ".join(run("reproduce", "-h").stdout.split())
    assert "Default: the paper's recipes." in text
    assert "Default: ./reproduce-TABLE, with FAMILY and the limit appended if they are given." in text
    assert "Use only the first N tasks of each role and source. Default: all." in text


def test_the_plan_says_what_is_missing_with_sizes_and_terms(table1):
    result = table1("--dry-run")
    assert result.exit_code == 0, result.output
    first, _, rest = result.stdout.partition("\nterms")
    assert [line.split("  ")[0] for line in first.splitlines()] == [
        "table1: in-dataset retrieval: COCO and Pets",
        "not comparable: backbone tiny, data that are not the paper's. The numbers say nothing about the paper's.",
        "",
        "step",
        "weights tiny",
        "data coco",
        "data pets",
        "captions pets",
        "pack mini-coco",
        "pack mini-pets",
        "rows coco",
        "rows pets",
        "report",
    ]
    assert [
        line.split("  ")[-1].strip() for line in first.splitlines() if line.startswith(("rows", "pack mini-p"))
    ] == [
        "unknown until its data are here",
        "unknown until its pack is built",
        "unknown until its pack is built",
    ]
    assert without_numbers(rest) == (
        " of the downloads, as their publishers state them:\n"
        "  pets, photos: not stated (https://shelf.example/)\n"
        "  pets, lists: CC0 (https://shelf.example/lists)\n"
        "  parrot: not known to this program\n"
        "to download: # and what is unknown\n"
        "time: # and 5 steps whose time is unknown, on the CPU of this machine, which has no GPU in use\n"
        "results: reproduce-table1-mini\n"
    )
    assert not Path("reproduce-table1-mini").exists()


def test_without_a_terminal_it_prints_the_plan_and_names_yes(table1, mini):
    result = table1()
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("table1: in-dataset retrieval: COCO and Pets\nnot comparable: ")
    assert result.stderr.endswith(
        f"error: confirmation to run 7 steps needs a terminal\nhint: pass --yes: {command_of(mini)}\n"
    )
    assert not Path("reproduce-table1-mini").exists()


@pytest.mark.parametrize("typed", ["n\n", ""])
def test_a_user_who_declines_learns_that_nothing_was_run(table1, mini, answer, typed):
    words = ("reproduce", "table1", "--with", "mini", "--data", mini, "--captioner", "parrot", "--resamples", 100)
    result = answer(typed, *words)
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr.endswith(f"run 7 steps? [y/N]: {typed.strip()}\nnothing was run\n")
    assert "finished steps" not in result.stderr
    assert not Path("reproduce-table1-mini").exists()


def test_all_steps_run_once_and_the_numbers_stand_beside_the_papers(table1, mini, own_home):
    result = table1("--yes")
    assert result.exit_code == 0, result.output
    folder = Path("reproduce-table1-mini")
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == [
        "coco.jsonl",
        "comparison.json",
        "comparison.md",
        "comparison.txt",
        "pets.jsonl",
        "report-coco.html",
        "report-pets.html",
        "reproduce.json",
    ]
    said = [line for line in result.stderr.splitlines() if line.startswith("step ") and line[5].isdigit()]
    assert said == [
        "step 1 of 7: data pets",
        "step 2 of 7: captions pets",
        "step 3 of 7: pack mini-coco",
        "step 4 of 7: pack mini-pets",
        "step 5 of 7: rows coco",
        "step 6 of 7: rows pets",
        "step 7 of 7: report",
    ]
    blocks = result.stdout.split("\n\n")
    assert blocks[0] == (
        "table1: in-dataset retrieval: COCO and Pets\n"
        "measured, and what the paper prints: SG-LoRA (arXiv 2509.10535)\n"
        "not comparable: backbone tiny, data that are not the paper's. The numbers say nothing about the paper's."
    )
    assert [block.splitlines()[0] for block in blocks[1:5]] == [
        f"{title}, experts of {title}: {direction} (2 tasks)"
        for title in ("COCO", "Pets")
        for direction in ("image to text", "text to image")
    ]
    lines = [re.split(r"  +", line.strip()) for line in blocks[1].splitlines()[1:]]
    assert lines[0] == ["R@1", "paper", "difference", "R@5", "paper", "difference", "R@10", "paper", "difference"]
    assert [line[0] for line in lines[1:]] == [
        "Zero-shot",
        "Oracle",
        "Model Soups",
        "AdapterSoup",
        "Top-K weighted",
        "SG-LoRA",
    ]
    label, measured, paper, difference, *_ = lines[1]
    rows = [row for _, _, row in jsonl_rows(folder / "rows/coco.jsonl") if row.get("method") == "zero-shot"]
    ones = [row["value"] for row in rows if (row["direction"], row["k"]) == ("I2T", 1)]
    assert float(measured) == pytest.approx(sum(ones) / len(ones), abs=0.005)
    assert (label, paper) == ("Zero-shot", "66.43")
    assert difference == f"{float(measured) - 66.43:+.2f}"
    assert (folder / "comparison.txt").read_text() == result.stdout
    assert compared(folder)["tables"][0]["lines"][0]["numbers"][0]["paper"] == 66.43

    # What is done is not done again.
    files = {path: path.stat().st_mtime_ns for root in (own_home, mini, Path()) for path in root.rglob("*.safetensors")}
    again = table1()  # nobody has to be asked
    assert again.exit_code == 0, again.output
    assert "step 1 of" not in again.stderr
    assert "everything is done" in again.stderr
    assert again.stdout == (Path("reproduce-table1-mini") / "comparison.txt").read_text()
    assert all(path.stat().st_mtime_ns == before for path, before in files.items())
    as_json = table1("--json")
    assert (as_json.exit_code, as_json.stderr) == (0, "")
    content = json.loads(as_json.stdout)
    assert (content["target"], content["comparable"], content["folder"]) == ("table1", False, "reproduce-table1-mini")
    assert {one["state"] for one in content["steps"]} == {"done"}
    (Path("reproduce-table1-mini") / "rows/pets.jsonl").unlink()
    states = {one["step"]: one["state"] for one in json.loads(table1("--dry-run", "--json").stdout)["steps"]}
    assert [step for step, state in states.items() if state == "to do"] == ["rows pets", "report"]
    shutil.rmtree(mini / "shelf")  # no step needs it any more
    states = {one["step"]: one["state"] for one in json.loads(table1("--dry-run", "--json").stdout)["steps"]}
    assert states["data pets"] == "not needed"


def test_flickr30k_is_described_by_one_caption_an_image(run, mini):
    root, words = mini / "flickr30k", ("red", "green", "blue", "white")
    lines = [f"{n}.jpg#{k}\ta {words[n % 4]} thing {n}, {k}" for n in range(20) for k in range(2)]
    for n in range(20):
        picture(root / "flickr30k-images" / f"{n}.jpg", n)
    (root / "results_20130124.token").write_text("\n".join(lines) + "\n")
    result = run("reproduce", "figure2", "--with", "mini", "--data", mini, "--captioner", "parrot", "--yes")
    assert result.exit_code == 0, result.output
    folder = Path("reproduce-figure2-mini")
    (sentences,) = json.loads((folder / "rows/flickr30k-textual-sentences.json").read_text()).values()
    assert sentences == [f"a {words[n % 4]} thing {n}, 0" for n in range(20) if split_of(f"{n}.jpg") == "train"]
    numbers = {line["label"]: line["numbers"][0] for line in compared(folder)["tables"][0]["lines"]}
    assert [numbers[kind]["paper"] for kind in ("visual", "textual")] == [86.3, 86.9]
    assert all(0 <= numbers[kind]["measured"] <= 100 for kind in numbers)


def test_a_failed_step_names_the_command_that_resumes(table1, mini, monkeypatch):
    monkeypatch.setenv("MINI_STOPS", "9")
    result = table1("--yes")
    assert (result.exit_code, result.stdout) == (6, "")
    assert result.stderr.endswith(
        f"step 1 of 7: data pets\nhint: resume with: {command_of(mini)}\n"
        "error: the shelf fell over\nhint: run it again\n"
    )
    assert len(list((mini / "shelf").rglob("*.png"))) == 9
    (mini / "shelf/captions.jsonl").write_text("")  # as if somebody had begun with what is there
    plan = json.loads(table1("--dry-run", "--json").stdout)
    assert next(one for one in plan["steps"] if one["step"] == "data pets")["state"] == "to do"


def test_an_unknown_table_suggests_the_closest(run):
    result = run("reproduce", "tabel1")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == "error: no table or figure of the paper named 'tabel1'\nhint: did you mean 'table1'?\n"


def test_a_table_that_cannot_be_made_says_why(run):
    result = run("reproduce", "table5")
    assert (result.exit_code, result.stdout) == (6, "")
    assert result.stderr == (
        "error: table5 cannot be made: its content is unknown to this project\n"
        "hint: see what can: sglora reproduce --list\n"
    )


def test_an_unknown_family_suggests_the_closest(run):
    result = run("reproduce", "table1", "--with", "startr")
    assert (result.exit_code, result.stderr) == (
        3,
        "error: no family of recipes named 'startr'\nhint: did you mean 'starter'?\n",
    )


def test_a_family_without_the_recipe_says_so(run):
    result = run("reproduce", "table7", "--with", "starter")
    assert result.exit_code == 6
    assert result.stderr == (
        "error: table7 cannot be made with 'starter': there is no recipe 'starter-cifar100'\n"
        "hint: leave --with out, or see what there is: sglora pack recipes\n"
    )


def test_a_folder_of_something_else_is_refused(table1, tmp_path):
    result = table1("-o", tmp_path, "--yes")
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: {tmp_path} contains other files than results of `sglora reproduce`\n"
        "hint: pass another folder: -o DIR\n"
    )


def test_everything_that_is_in_the_way_is_said_at_once(table1, mini, monkeypatch):
    monkeypatch.setenv("SGLORA_OFFLINE", "1")
    from sglora_cli.report import plot

    def lacks(module, name):
        from sglora_cli.errors import Unavailable

        raise Unavailable(f"figures need {name}, which is not installed", 'pip install "sglora[report]"')

    monkeypatch.setattr(plot, "needs", lacks)
    result = table1("--yes")
    assert (result.exit_code, result.stdout) == (6, "")
    error = result.stderr[result.stderr.index("error:") :]
    assert error == (
        "error: 2 problems prevent table1\n"
        f"  data set 'shelf' is not in {mini}/shelf, and SGLORA_OFFLINE is set (sglora data fetch shelf --data {mini}; "
        "unset it, or run the command on a machine with a network and copy the folder)\n"
        '  figures need matplotlib, which is not installed (pip install "sglora[report]")\n'
    )
    dry = table1("--dry-run")
    assert dry.exit_code == 0
    assert "problems:\n  data set 'shelf' is not in " in dry.stdout


def test_a_full_disk_is_in_the_way(table1, mini, monkeypatch):
    monkeypatch.setattr("sglora_cli.reproduce.plan.free_disk", lambda path: 10)
    result = table1("--dry-run")
    text = re.search(r"problems:\n  (.*)\n", result.stdout)[1]
    assert re.fullmatch(r"\d.* are needed on the disk of .*, but only 10 B are free \(free some space, .*\)", text)
    assert "problems:" not in table1("--dry-run", "--force").stdout


def test_the_papers_table_has_its_sizes_and_terms_without_a_network(run, tmp_path, monkeypatch):
    monkeypatch.setenv("SGLORA_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    result = run("reproduce", "table1", "--data", "data", "--dry-run")
    assert result.exit_code == 0, result.output
    lines = [re.split(r"  +", line) for line in result.stdout.splitlines()]
    assert ["weights clip-vit-b-16", "to do", "598.5 MB", "598.5 MB", "depends on the network"] in lines
    assert ["data coco", "to do", "19.6 GB", "38.9 GB", "depends on the network"] in lines
    assert ["data pets", "to do", "811.1 MB", "1.6 GB", "depends on the network"] in lines
    for text in (
        "  clip-vit-b-16, weights: MIT (https://github.com/openai/CLIP)",
        "  coco, annotations and captions: CC BY 4.0 (https://cocodataset.org/#termsofuse)",
        "  pets, photos and annotations: CC BY-SA 4.0 (https://www.robots.ox.ac.uk/~vgg/data/pets/)",
    ):
        assert text in result.stdout.splitlines()
    assert "not comparable" not in result.stdout


def test_the_captioner_is_downloaded_once(run, tmp_path, monkeypatch):
    monkeypatch.setenv("SGLORA_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    plan = json.loads(run("reproduce", "figure3", "--data", tmp_path, "--dry-run", "--json").stdout)
    downloads = {one["step"]: one["download_bytes"] for one in plan["steps"] if one["kind"] == "captions"}
    assert list(downloads) == ["captions pets", "captions flowers"]
    assert [count > 16e9 for count in downloads.values()] == [True, False]


def test_the_help_has_an_example_for_every_use():
    text = main.get_command(None, "reproduce").get_help(main.make_context("sglora", ["--help"], resilient_parsing=True))
    assert "sglora reproduce table1 --data data --dry-run" in text


@pytest.mark.slow
def test_a_kill_while_captions_are_written_costs_nothing(table1, mini, tmp_path, site):
    """The captions are those of a run that nobody killed."""
    captions = mini / "shelf/captions.jsonl"
    words = shlex.split(command_of(mini))[1:]
    program = "import sys; from sglora_cli.cli.main import main; main(sys.argv[1:])"
    paths = os.pathsep.join([str(site), *filter(None, sys.path)])
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words],
        env={**os.environ, "PARROT_SECONDS": "0.1", "PYTHONPATH": paths},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while not captions.exists() or captions.read_bytes().count(b"\n") < 5:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    before = captions.read_bytes()
    states = {one["step"]: one for one in json.loads(table1("--dry-run", "--json").stdout)["steps"]}
    assert [states[step]["state"] for step in ("data pets", "captions pets")] == ["done", "to do"]
    assert table1("--yes").exit_code == 0
    assert captions.read_bytes().startswith(before[: before.rindex(b"\n") + 1])
    assert captions.read_bytes().count(b"\n") == 72
    shutil.copytree(mini / "shelf/images", tmp_path / "again/images")
    CliRunner().invoke(main, ["data", "caption", "folder", "--path", str(tmp_path / "again"), "--captioner", "parrot"])
    assert (tmp_path / "again/captions.jsonl").read_bytes() == captions.read_bytes()


@pytest.fixture
def drawn(tmp_path) -> Path:
    """Speckles under the names of the first tasks of the starter's recipes: `coco` and `oxford-iiit-pet`."""
    for root, tasks in (
        ("coco", ("airplane", "bed", "bench")),
        ("oxford-iiit-pet", ("abyssinian", "basset hound", "chihuahua")),
    ):
        rows = []
        for n in range(12):
            task, name = tasks[n // 4], f"{'train2014' if root == 'coco' else 'images'}/{n}.jpg"
            (tmp_path / "data" / root / name).parent.mkdir(parents=True, exist_ok=True)
            speckles(n + 100 * len(root)).save(tmp_path / "data" / root / name)
            captions = [f"a {task}, {n} specks", f"{n} specks on a {task}"]
            rows.append({"image": name, "task": task, "split": "train" if n % 4 < 2 else "test", "captions": captions})
        if root == "coco":
            karpathy_files(tmp_path / "data" / root, rows)
        else:
            write_rows(tmp_path / "data" / root, rows)
    return tmp_path / "data"


@pytest.mark.slow
def test_the_starter_makes_the_table_of_drawn_photos(run, drawn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("reproduce", "table1", "--with", "starter", "--limit", 1, "--data", drawn, "--samples", 1)
    result = run(*words, "--yes")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "reproduce-table1-starter-limit-1"
    content = compared(folder)
    assert content["warning"] == (
        "not comparable: backbone starter, data that are not the paper's, the first task of each role. "
        "The numbers say nothing about the paper's."
    )
    assert [(block["title"], block["tasks"]) for block in content["tables"]] == [
        (f"{title}, experts of {title}: {direction}", 1)
        for title in ("COCO", "Pets")
        for direction in ("image to text", "text to image")
    ]
    numbers = [n for block in content["tables"] for line in block["lines"] for n in line["numbers"]]
    assert len(numbers) == 4 * 6 * 3
    assert all(0 <= n["measured"] <= 100 and n["difference"] is not None for n in numbers)
    assert result.stdout == (folder / "comparison.txt").read_text()
    assert "everything is done" in run(*words).stderr


def test_broken_data_is_in_the_way_before_anything_runs(table1, mini):
    captions = mini / "coco/captions.jsonl"
    captions.write_text("x\n" + captions.read_text())
    result = table1("--yes")
    assert (result.exit_code, result.stdout) == (4, "")
    assert f"error: {captions}, line 1: " in result.stderr
    assert "step 1 of" not in result.stderr
    assert not (mini / "shelf").exists()


def test_a_pack_that_is_replaced_is_said(table1, mini, tmp_path, run, own_home):
    other = tmp_path / "mini-coco.toml"
    other.write_text((tmp_path / "recipes/mini-coco.toml").read_text().replace("epochs = 4", "epochs = 5"))
    assert run("pack", "build", other, "--data", mini).exit_code == 0
    text = f"pack mini-coco: replaces {own_home}/cache/packs/mini-coco, which was built from a different recipe"
    assert text in table1("--dry-run").stdout
