"""`sglora report`: what is in the page and the figures, and what is missing; broken rows are named."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from html_page import Page, cells_of
from made_rows import HEADER, hand_made, row_of


def test_a_page_without_the_pack_says_what_is_missing(run, rows_file, tmp_path):
    result = run("report", rows_file(hand_made()), "--out", tmp_path / "x.html", "--json")
    facts = json.loads(result.stdout)
    assert facts["written"] == [str(tmp_path / "x.html")]
    assert set(facts["missing"].values()) == {"requires the measured pack (pass --pack)"}
    text = "".join(Page((tmp_path / "x.html").read_text()).texts)
    for title in facts["missing"]:
        assert title in text


def test_without_out_the_table_is_printed(run, rows_file):
    path = rows_file(hand_made())
    assert run("report", path).stdout == run("report", path, "--as", "table").stdout
    assert run("report", path, "--as", "csv").stdout.count("\n") == 1 + len(hand_made())


def test_printing_and_the_help_load_neither_torch_nor_a_plotting_library_nor_jinja2(rows_file):
    code = f"""import sys; from click.testing import CliRunner; from sglora_cli.cli.main import main
for arguments in (["report", "--help"], ["report", {str(rows_file(hand_made()))!r}, "--as", "csv"]):
    r = CliRunner().invoke(main, arguments)
    assert r.exit_code == 0, r.output
assert not {{"torch", "matplotlib", "sklearn", "jinja2"}} & set(sys.modules)"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_figures_go_into_a_folder(run, rows_file, tmp_path):
    result = run("report", rows_file(hand_made()), "--figures", tmp_path / "f")
    names = ["bars-i2t.svg", "bars-i2t.png", "bars-t2i.svg", "bars-t2i.png"]
    assert result.stdout.splitlines() == [str(tmp_path / "f" / name) for name in names]
    assert sorted(path.name for path in (tmp_path / "f").iterdir()) == sorted(names)


def test_several_files_are_one_report_and_a_number_measured_again_replaces_the_older(run, rows_file):
    first = rows_file([row_of(value=10.0), row_of("cvae", value=20.0)], name="a.jsonl")
    second = rows_file([row_of("zero-shot", value=30.0), row_of(value=40.0)], name="b.jsonl")
    lines = run("report", first, second, "--as", "csv").stdout.splitlines()[1:]
    assert {(line.split(",")[0], float(line.split(",")[6])) for line in lines} == {
        ("top-k", 40.0),
        ("cvae", 20.0),
        ("zero-shot", 30.0),
    }


def test_a_method_that_lacks_tasks_is_left_out_and_named(run, rows_file, tmp_path):
    lines = [row for row in hand_made() if row["method"] != "cvae" or row["task"] == "mug"]
    result = run("report", rows_file(lines), "--out", tmp_path / "x.html", "--json")
    assert json.loads(result.stdout)["left_out"] == ["SG-LoRA is left out, because it has only 6 of 12 numbers"]
    text = (tmp_path / "x.html").read_text()
    assert "SG-LoRA is left out" in text
    assert not [cells for cells in cells_of(text) if cells[0] == "SG-LoRA"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{"], "line 2: not JSON"),
        ([json.dumps({**HEADER, "sglora_rows": 9})], "line 2: unsupported rows format 9"),
        ([json.dumps(row_of(value="many"))], "line 2: value must be a number"),
        ([], "there is no row in"),
    ],
)
def test_broken_rows_are_named_with_their_line(run, rows_file, tmp_path, lines, message):
    path = rows_file([])
    path.write_text(json.dumps(HEADER) + "\n" + "".join(line + "\n" for line in lines))
    result = run("report", path, "--out", tmp_path / "x.html")
    assert result.exit_code == 4
    assert message in result.stderr
    assert not (tmp_path / "x.html").exists()


def test_rows_of_two_packs_are_no_report(run, rows_file):
    first = rows_file([row_of()], name="a.jsonl")
    second = rows_file([row_of()], {**HEADER, "pack": "b"}, name="b.jsonl")
    result = run("report", first, second)
    assert result.exit_code == 5
    assert result.stderr == (
        "error: the rows come from pack 'b' on backbone 'tiny' and from pack 'toys' on 'tiny'\n"
        "hint: make one report per pack\n"
    )


def test_options_that_need_another_are_refused(run, rows_file, tmp_path):
    path = rows_file([row_of()])
    assert run("report", path, "-o", "x.pdf").stderr == (
        "error: a report is written as .html, got x.pdf\nhint: try -o x.html\n"
    )
    assert run("report", path, "--out", tmp_path / "x.html", "--data", tmp_path).exit_code == 2
    assert run("report", path, "--pack", "toys").exit_code == 2
    assert run("report").exit_code == 2


def test_a_library_that_is_missing_is_named_before_anything_is_measured(
    run, rows_file, toy_pack, tmp_path, monkeypatch
):
    path = rows_file(hand_made())
    monkeypatch.setitem(sys.modules, "sklearn", None)
    result = run("report", path, "--out", tmp_path / "x.html", "--pack", toy_pack)
    assert result.exit_code == 6
    assert result.stderr == (
        'error: figures need scikit-learn, which is not installed\nhint: pip install "sglora[report]"\n'
    )
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "matplotlib" in run("report", path, "--figures", tmp_path / "f").stderr
    assert run("report", path).exit_code == 0
    assert not (tmp_path / "x.html").exists()


def test_the_pack_and_its_photos_add_the_other_figures(run, rows_file, toy_pack, toys, tmp_path):
    path, out = rows_file(hand_made()), tmp_path / "x.html"
    result = run(
        "report", path, "--out", out, "--pack", toy_pack, "--data", toys, "--figures", tmp_path / "f", "--json"
    )
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert set(facts["missing"]) <= {"Retrieval examples"}
    names = {path.stem for path in (tmp_path / "f").iterdir()}
    assert names >= {"contributions", "similarity-to-gain", "k-i2t", "k-t2i", "tsne-tasks", "draws-toys"}
    page = Page(out.read_text(encoding="utf-8"))
    assert "http" not in out.read_text().replace("http-equiv", "")
    photos = [v for name, v in page.attributes if name == "src" and v.startswith("data:image/jpeg;base64,")]
    assert bool(photos) != bool(facts["missing"])
    again = tmp_path / "again.html"
    run("report", path, "--out", again, "--pack", toy_pack, "--data", toys)
    assert again.read_bytes() == out.read_bytes()


def test_rows_of_another_pack_or_backbone_do_not_meet_this_one(run, rows_file, toy_pack, tmp_path):
    other = rows_file([row_of()], {**HEADER, "pack": "other"})
    result = run("report", other, "--out", tmp_path / "x.html", "--pack", toy_pack)
    assert result.exit_code == 5
    assert result.stderr == "error: the rows are of pack 'other', not of 'toys'\nhint: pass --pack other\n"
    older = rows_file([row_of()], {**HEADER, "fingerprint": "tiny-0"})
    result = run("report", older, "--out", tmp_path / "x.html", "--pack", toy_pack)
    assert result.exit_code == 5
    assert "fingerprint tiny-0" in result.stderr
