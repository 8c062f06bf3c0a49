"""The page of `sglora data check`: it stands alone, is of bounded size, and no text can trick it."""

from __future__ import annotations

import base64
import shutil

from html_page import Page
from speckles import rows_of, write_rows

EVIL = """a "cat" & <script>alert(1)</script> <img src=x onerror='alert(2)'>"""


def test_the_page_stands_alone_and_shows_texts_as_they_are(check, photos, tmp_path):
    rows = rows_of(photos)
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
    shown = "".join(page.texts)
    for expected in (EVIL, name, "<i>dog</i>", "near-identical images across splits: 1", "0 bits apart"):
        assert expected in shown
    check("--report", tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == report.read_bytes()


def test_the_page_shows_a_bounded_number_of_everything(check, photos, monkeypatch, tmp_path):
    from sglora_cli.report import pages

    monkeypatch.setattr(pages, "_SHEET", 3)
    monkeypatch.setattr(pages, "_PAIRS", 1)
    monkeypatch.setattr(pages, "_ROWS", 1)
    monkeypatch.setattr(pages, "_MORE_ROWS", 2)
    for n in (1, 2, 3):
        shutil.copy(photos / "0.png", photos / f"{n}.png")
    check("--report", tmp_path / "x.html", "--pixels", 100)
    page = Page((tmp_path / "x.html").read_text(encoding="utf-8"))
    assert page.tags.count("img") == 2 * 2 + 2  # a pair of each kind, an image a task
    shown = "".join(page.texts)
    assert "images smaller than 100 pixels: 10" in shown
    assert "... and 7 more: see --json." in shown
    assert "2 more" in shown


def test_half_a_surrogate_pair_in_a_caption_is_refused(check, photos, tmp_path):
    rows = rows_of(photos)
    rows[0]["captions"] = rows[1]["captions"] = ["a cat \ud83d"]
    write_rows(photos, rows)
    result = check("--report", tmp_path / "x.html")
    assert result.exit_code == 4
    assert "line 1: not JSON: 'a cat \\ud83d' has half a character" in result.stderr
