"""`sglora report`: the page stands alone and says what was measured; files are whole; broken rows are named."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys

import pytest
from html_page import Page
from made_rows import HEADER, LABELS, hand_made, row_of, write_made

EVIL = """a "cat" & <script>alert(1)</script> <img src=x onerror='alert(2)'>"""


@pytest.fixture
def rows(tmp_path):
    """Write a rows file: `rows(lines)`."""
    return lambda lines, header=HEADER, name="rows.jsonl": write_made(tmp_path / name, lines, header)


def cells_of(text: str) -> list[list[str]]:
    """All rows of all tables of a page, without marks."""
    lines = re.findall(r"<tr[^>]*>(.*?)</tr>", text, re.DOTALL)
    return [[re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<t[dh]>(.*?)</t[dh]>", line)] for line in lines]


def test_the_page_stands_alone_and_shows_texts_as_they_are(run, rows, tmp_path):
    lines = [{**row, "task": EVIL if row["task"] == "mug" else "nest"} for row in hand_made()]
    labels = {**LABELS, "cvae": EVIL}
    path, out = rows(lines, {**HEADER, "labels": labels, "pack": "<i>"}), tmp_path / "x.html"
    result = run("report", path, "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}\n"
    text = out.read_text(encoding="utf-8")
    page = Page(text)
    assert not {"script", "i", "link", "iframe", "a", "form"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "href"]
    assert "http" not in text.replace("http-equiv", "")
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in [v for name, v in page.attributes]
    sources = [value for name, value in page.attributes if name == "src"]
    assert len(sources) == 2
    for source in sources:
        picture = base64.b64decode(source.removeprefix("data:image/svg+xml;base64,")).decode()
        assert "<svg" in picture
        assert not re.search(r"""(href|src)=["'](?!#)""", picture)
        assert "<script" not in picture
    assert all(value for name, value in page.attributes if name == "alt")
    assert EVIL in "".join(page.texts)
    run("report", path, "--out", tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == out.read_bytes()


def test_the_tables_are_the_means_of_the_rows(run, rows, tmp_path):
    run("report", rows(hand_made()), "--out", tmp_path / "x.html")
    found = cells_of((tmp_path / "x.html").read_text())
    for m, label in enumerate(LABELS.values()):
        means = [10 * m + 1.5 + 2 * d + k / 10 for d in (0, 1) for k in (1, 5, 10)]
        assert [label, *(f"{mean:.2f}" for mean in means)] in found
        if label != "Top-K weighted":
            assert [label, *[f"{10 * (m - 3):+.1f} [{10 * (m - 3):+.1f}, {10 * (m - 3):+.1f}]"] * 6] in found


def test_a_table_has_columns_of_what_was_measured_only(run, rows, tmp_path):
    lines = [row_of(), row_of(task="people", dataset="cifar100", direction="ACC", value=70.0)]
    run("report", rows(lines), "--out", tmp_path / "x.html")
    heads = [cells for cells in cells_of((tmp_path / "x.html").read_text()) if cells[0] == "method"]
    assert heads[:3] == [["method", "I2T R@1", "Accuracy"], ["method", "I2T R@1"], ["method", "Accuracy"]]


def test_the_best_number_is_bold_and_the_second_underlined_the_oracle_aside(run, rows, tmp_path):
    lines = [row_of(m, value=v) for m, v in (("oracle", 90.0), ("zero-shot", 20.0), ("top-k", 50.0), ("cvae", 50.0))]
    run("report", rows(lines), "--out", tmp_path / "x.html")
    text = (tmp_path / "x.html").read_text()
    assert re.findall(r"<td><b>(\d.*?)</b>", text) == ["50.00", "50.00"]
    assert re.findall(r"<td><u>(.*?)</u>", text) == ["20.00"]


def test_a_difference_is_bold_where_its_interval_is_clear_of_zero(run, rows, tmp_path):
    gaps = {"cvae": [5.0, 6.0, 7.0, 8.0], "zero-shot": [-30.0, 20.0, -10.0, 15.0]}
    lines = [row_of(task=f"t{t}", value=40.0) for t in range(4)]
    lines += [row_of(m, f"t{t}", 40.0 + gap) for m, several in gaps.items() for t, gap in enumerate(several)]
    run("report", rows(lines), "--out", tmp_path / "x.html")
    bold = re.findall(r"<td><b>([+-].*?)</b>", (tmp_path / "x.html").read_text())
    assert [cell.split()[0] for cell in bold] == ["+6.5"]


def test_a_page_without_the_pack_says_what_is_missing(run, rows, tmp_path):
    result = run("report", rows(hand_made()), "--out", tmp_path / "x.html", "--json")
    facts = json.loads(result.stdout)
    assert facts["written"] == [str(tmp_path / "x.html")]
    assert set(facts["missing"].values()) == {"needs the pack that was measured: pass --pack"}
    shown = "".join(Page((tmp_path / "x.html").read_text()).texts)
    for title in facts["missing"]:
        assert title in shown


def test_without_out_the_table_is_printed(run, rows):
    path = rows(hand_made())
    assert run("report", path).stdout == run("report", path, "--as", "table").stdout
    assert run("report", path, "--as", "csv").stdout.count("\n") == 1 + len(hand_made())


def test_printing_and_the_help_load_neither_torch_nor_a_plotting_library(rows):
    code = f"""import sys; from click.testing import CliRunner; from sglora_cli.cli.main import main
for arguments in (["report", "--help"], ["report", {str(rows(hand_made()))!r}, "--as", "csv"]):
    r = CliRunner().invoke(main, arguments)
    assert r.exit_code == 0, r.output
assert not {{"torch", "matplotlib", "sklearn"}} & set(sys.modules)"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_figures_go_into_a_folder(run, rows, tmp_path):
    result = run("report", rows(hand_made()), "--figures", tmp_path / "f")
    names = ["bars-i2t.svg", "bars-i2t.png", "bars-t2i.svg", "bars-t2i.png"]
    assert result.stdout.splitlines() == [str(tmp_path / "f" / name) for name in names]
    assert sorted(path.name for path in (tmp_path / "f").iterdir()) == sorted(names)


def test_several_files_are_one_report_and_a_number_measured_again_replaces_the_older(run, rows):
    first = rows([row_of(value=10.0), row_of("cvae", value=20.0)], name="a.jsonl")
    second = rows([row_of("zero-shot", value=30.0), row_of(value=40.0)], name="b.jsonl")
    lines = run("report", first, second, "--as", "csv").stdout.splitlines()[1:]
    assert {(line.split(",")[0], float(line.split(",")[6])) for line in lines} == {
        ("top-k", 40.0),
        ("cvae", 20.0),
        ("zero-shot", 30.0),
    }


def test_seeds_and_samples_are_averaged(run, rows, tmp_path):
    lines = [row_of(value=v, seed=s, sample=n) for v, s, n in ((10.0, 0, 0), (20.0, 0, 1), (60.0, 1, 0))]
    run("report", rows(lines), "--out", tmp_path / "x.html")
    assert ["Top-K weighted", "30.00"] in cells_of((tmp_path / "x.html").read_text())


def test_a_method_that_lacks_tasks_is_left_out_and_named(run, rows, tmp_path):
    lines = [row for row in hand_made() if row["method"] != "cvae" or row["task"] == "mug"]
    result = run("report", rows(lines), "--out", tmp_path / "x.html", "--json")
    assert json.loads(result.stdout)["left_out"] == ["SG-LoRA is left out: it has 6 of 12 numbers that others have"]
    text = (tmp_path / "x.html").read_text()
    assert "SG-LoRA is left out" in text
    assert not [cells for cells in cells_of(text) if cells[0] == "SG-LoRA"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{"], "line 2: not JSON"),
        ([json.dumps({**HEADER, "sglora_rows": 9})], "line 2: rows of format 9"),
        ([json.dumps(row_of(value="many"))], "line 2: value must be a number"),
        ([], "there is no row in"),
    ],
)
def test_broken_rows_are_named_with_their_line(run, rows, tmp_path, lines, message):
    path = rows([])
    path.write_text(json.dumps(HEADER) + "\n" + "".join(line + "\n" for line in lines))
    result = run("report", path, "--out", tmp_path / "x.html")
    assert result.exit_code == 4
    assert message in result.stderr
    assert not (tmp_path / "x.html").exists()


def test_rows_of_two_packs_are_no_report(run, rows):
    first, second = rows([row_of()], name="a.jsonl"), rows([row_of()], {**HEADER, "pack": "b"}, name="b.jsonl")
    result = run("report", first, second)
    assert result.exit_code == 5
    assert result.stderr == (
        "error: rows of pack 'b' on backbone 'tiny' and of pack 'toys' on 'tiny'\nhint: make one report a pack\n"
    )


def test_options_that_need_another_are_refused(run, rows, tmp_path):
    path = rows([row_of()])
    assert run("report", path, "--out", tmp_path / "x.pdf").exit_code == 2
    assert run("report", path, "--out", tmp_path / "x.html", "--data", tmp_path).exit_code == 2
    assert run("report", path, "--pack", "toys").exit_code == 2
    assert run("report").exit_code == 2


def test_a_library_that_is_missing_is_named_before_anything_is_measured(run, rows, toy_pack, tmp_path, monkeypatch):
    path = rows(hand_made())
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


def test_the_pack_and_its_photos_add_the_other_figures(run, rows, toy_pack, toys, tmp_path):
    path, out = rows(hand_made()), tmp_path / "x.html"
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


def test_rows_of_another_pack_or_backbone_do_not_meet_this_one(run, rows, toy_pack, tmp_path):
    other = rows([row_of()], {**HEADER, "pack": "other"})
    result = run("report", other, "--out", tmp_path / "x.html", "--pack", toy_pack)
    assert result.exit_code == 5
    assert result.stderr == "error: the rows are of pack 'other', not of 'toys'\nhint: pass --pack other\n"
    older = rows([row_of()], {**HEADER, "fingerprint": "tiny-0"})
    result = run("report", older, "--out", tmp_path / "x.html", "--pack", toy_pack)
    assert result.exit_code == 5
    assert "fingerprint tiny-0" in result.stderr
