"""The pages of `report`, `try` and `data check`: they stand alone, show what was measured, and show texts as texts."""

from __future__ import annotations

import base64
import re
import shutil

import pytest
import torch
from html_page import Page, cells_of
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from made_rows import HEADER, LABELS, hand_made, row_of
from obvious import obvious_scores
from PIL import Image
from speckles import write_rows
from trees import captioned

from sglora_cli.report import pages, photo_pages
from sglora_cli.search.comparison import Comparison
from sglora_cli.search.ranking import Ranking

EVIL = """a "cat" & <script>alert(1)</script> <img src=x onerror='alert(2)'>"""
TEXT = "a red ball on a blue floor"


@settings(
    max_examples=150,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.text(st.characters(codec=None)))  # half surrogate pairs too
@example("<script>alert(1)</script>")
@example("\"'><img src=x onerror=alert(1)>")
@example("{{ 7 * 7 }}{% raw %}")
def test_any_text_in_a_page_is_a_text(tmp_path, text):
    photo = tmp_path / "photo.png"
    Image.new("RGB", (2, 2)).save(photo)

    def page(name: str) -> Page:
        ranking = Ranking(name, (name,), torch.zeros(1), torch.zeros(1))
        trial = Comparison(name, {"description": "a cat"}, name, name, "sentences", (ranking,), {name: photo}, ())
        return Page(photo_pages.try_page(trial, 1).decode())

    printed = text.encode(errors="replace").decode()
    assert page(text).tags == page("x").tags
    assert ("alt", printed) in page(text).attributes
    assert f"What {printed} changes" in page(text).texts


def test_the_page_of_a_report_stands_alone_and_shows_texts_as_they_are(run, rows_file, tmp_path):
    lines = [{**row, "task": EVIL if row["task"] == "mug" else "nest"} for row in hand_made()]
    labels = {**LABELS, "cvae": EVIL}
    path, out = rows_file(lines, {**HEADER, "labels": labels, "pack": "<i>"}), tmp_path / "x.html"
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


def test_the_tables_are_the_means_of_the_rows(run, rows_file, tmp_path):
    run("report", rows_file(hand_made()), "--out", tmp_path / "x.html")
    cells = cells_of((tmp_path / "x.html").read_text())
    for m, label in enumerate(LABELS.values()):
        means = [10 * m + 1.5 + 2 * d + k / 10 for d in (0, 1) for k in (1, 5, 10)]
        assert [label, *(f"{mean:.2f}" for mean in means)] in cells
        if label != "Top-K weighted":
            assert [label, *[f"{10 * (m - 3):+.1f} [{10 * (m - 3):+.1f}, {10 * (m - 3):+.1f}]"] * 6] in cells


def test_a_table_has_columns_of_what_was_measured_only(run, rows_file, tmp_path):
    lines = [row_of(), row_of(task="people", dataset="cifar100", direction="ACC", value=70.0)]
    run("report", rows_file(lines), "--out", tmp_path / "x.html")
    heads = [cells for cells in cells_of((tmp_path / "x.html").read_text()) if cells[0] == "method"]
    assert heads[:3] == [["method", "I2T R@1", "Accuracy"], ["method", "I2T R@1"], ["method", "Accuracy"]]


def test_the_best_number_is_bold_and_the_second_underlined_the_oracle_aside(run, rows_file, tmp_path):
    lines = [row_of(m, value=v) for m, v in (("oracle", 90.0), ("zero-shot", 20.0), ("top-k", 50.0), ("cvae", 50.0))]
    run("report", rows_file(lines), "--out", tmp_path / "x.html")
    text = (tmp_path / "x.html").read_text()
    assert re.findall(r"<td><b>(\d.*?)</b>", text) == ["50.00", "50.00"]
    assert re.findall(r"<td><u>(.*?)</u>", text) == ["20.00"]


def test_a_difference_is_bold_where_its_interval_is_clear_of_zero(run, rows_file, tmp_path):
    gaps = {"cvae": [5.0, 6.0, 7.0, 8.0], "zero-shot": [-30.0, 20.0, -10.0, 15.0]}
    lines = [row_of(task=f"t{t}", value=40.0) for t in range(4)]
    lines += [row_of(m, f"t{t}", 40.0 + gap) for m, several in gaps.items() for t, gap in enumerate(several)]
    run("report", rows_file(lines), "--out", tmp_path / "x.html")
    bold = re.findall(r"<td><b>([+-].*?)</b>", (tmp_path / "x.html").read_text())
    assert [cell.split()[0] for cell in bold] == ["+6.5"]


def test_seeds_and_samples_are_averaged(run, rows_file, tmp_path):
    lines = [row_of(value=v, seed=s, sample=n) for v, s, n in ((10.0, 0, 0), (20.0, 0, 1), (60.0, 1, 0))]
    run("report", rows_file(lines), "--out", tmp_path / "x.html")
    assert ["Top-K weighted", "30.00"] in cells_of((tmp_path / "x.html").read_text())


@pytest.mark.parametrize("way", ["images", "sentences"])
def test_the_page_of_an_adapter_stands_alone_and_shows_texts_as_they_are(run, adapter, images, tmp_path, way):
    evil = """a "ball" & <script>alert(1)</script> <img src=x onerror='alert(2)'>"""
    folder, report = tmp_path / "photos", tmp_path / "report.html"
    shutil.copytree(images, folder)
    (folder / "ball_0.png").rename(folder / '"><b onload=alert(3)>.png')
    where = ["--images", folder] if way == "images" else ["--image", folder / '"><b onload=alert(3)>.png']
    result = run("try", adapter, *where, "--text", evil, "--text", TEXT, "--top", 60, "--report", report)
    assert result.exit_code == 0, result.output
    assert result.stderr.endswith(f"report     {report}\n")
    text = report.read_text(encoding="utf-8")
    page = Page(text)
    assert not {"script", "b onload", "link", "iframe", "a", "form"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "href"]
    assert "http" not in text.replace("http-equiv", "")
    sources = [value for name, value in page.attributes if name == "src"]
    assert sources
    for source in set(sources):
        assert source.startswith("data:image/jpeg;base64,")
        assert base64.b64decode(source.split(",")[1])[:2] == b"\xff\xd8"
    words = "".join(page.texts)
    assert evil in words
    assert '"><b onload=alert(3)>.png' in words
    assert "“a photo of a mug”" in words
    assert "tiny, fingerprint tiny-1" in words
    again = tmp_path / "again.html"
    run("try", adapter, *where, "--text", evil, "--text", TEXT, "--top", 60, "--report", again)
    assert again.read_bytes() == report.read_bytes()


def test_the_page_shows_both_rankings_in_order(run, adapter, images, tmp_path):
    report = tmp_path / "report.html"
    run("try", adapter, "--images", images, "--text", TEXT, "--top", 5, "--report", report)
    files = sorted(images.iterdir(), key=lambda path: path.name)
    before, after = obvious_scores(adapter, files, [TEXT])
    left, right = report.read_text().split("Without adapter")[1].split("With adapter")
    for part, scores in ((left, before), (right, after)):
        order = sorted(range(len(files)), key=lambda i: -scores[i][0])[:5]
        assert re.findall(r'class="name">([^<]*)<', part) == [files[i].name for i in order]
        assert re.findall(r'class="number">([^<]*)<', part) == [f"{scores[i][0]:.3f}" for i in order]


def test_the_picture_of_all_ranks_has_a_point_for_every_image(run, adapter, images, tmp_path):
    report, size = tmp_path / "report.html", len(list(images.iterdir()))
    run("try", adapter, "--images", images, "--text", TEXT, "--top", 2, "--report", report)
    before, after = obvious_scores(adapter, sorted(images.iterdir(), key=lambda path: path.name), [TEXT])

    def place(scores, i):
        rank = sum(other[0] > scores[i][0] for other in scores)
        return f"{3 + 94 * rank / (size - 1):.2f}"

    points = re.findall(r'<circle cx="([^"]*)" cy="([^"]*)" r="1.4"/>', report.read_text())
    assert sorted(points) == sorted((place(before, i), place(after, i)) for i in range(size))


def test_the_page_of_a_data_set_stands_alone_and_shows_texts_as_they_are(check, photos, tmp_path):
    rows = captioned(photos)
    name = "<b onload=alert(3)>.png"
    (photos / "2.png").rename(photos / name)
    shutil.copy(photos / "0.png", photos / "3.png")
    (photos / "8.png").write_text("no image")
    rows[2]["image"] = name
    for row in rows[:3]:
        row["captions"] = [EVIL, EVIL, *row["captions"]]
    for row in rows[5:]:
        row["task"] = "<i>dog</i>"
    write_rows(photos, rows)
    report = tmp_path / "report.html"
    result = check("--report", report)
    assert result.exit_code == 4
    assert result.stderr.startswith(f"report     {report}\nerror: ")
    text = report.read_text(encoding="utf-8")
    page = Page(text)
    assert not {"script", "b onload", "i", "link", "iframe", "a", "form"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "href"]
    assert "http" not in text.replace("http-equiv", "")
    sources = [value for key, value in page.attributes if key == "src"]
    assert len(sources) == 2 + 4 + 4  # one pair, four samples of each task; the broken image is none of them
    for source in sources:
        assert source.startswith("data:image/jpeg;base64,")
        assert base64.b64decode(source.split(",")[1])[:2] == b"\xff\xd8"
    words = "".join(page.texts)
    for expected in (EVIL, name, "<i>dog</i>", "equal images across splits: 1", "equal bytes"):
        assert expected in words
    check("--report", tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == report.read_bytes()


def test_the_page_of_a_data_set_shows_a_bounded_number_of_everything(check, photos, monkeypatch, tmp_path):

    monkeypatch.setattr(pages, "_SHEET", 3)
    monkeypatch.setattr(pages, "_PAIRS", 1)
    monkeypatch.setattr(pages, "_ROWS", 1)
    monkeypatch.setattr(pages, "_MORE_ROWS", 2)
    for n in (1, 2, 3):
        shutil.copy(photos / "0.png", photos / f"{n}.png")
    check("--report", tmp_path / "x.html", "--pixels", 100)
    page = Page((tmp_path / "x.html").read_text(encoding="utf-8"))
    assert page.tags.count("img") == 2 * 2 + 2  # a pair of each kind, an image a task
    words = "".join(page.texts)
    assert "images smaller than 100 pixels: 10" in words
    assert "... and 7 more, see --json." in words
    assert "2 more" in words


def test_half_a_surrogate_pair_in_a_caption_is_refused(check, photos, tmp_path):
    rows = captioned(photos)
    rows[0]["captions"] = rows[1]["captions"] = ["a cat \ud83d"]
    write_rows(photos, rows)
    result = check("--report", tmp_path / "x.html")
    assert result.exit_code == 4
    assert "line 1: not JSON: 'a cat \\ud83d' has half a character" in result.stderr
