"""The page of `sglora try`: it stands alone, shows both rankings, and no text can trick it."""

from __future__ import annotations

import base64
import re
import shutil

import pytest
from html_page import Page
from obvious import obvious_scores

TEXT = "a red ball on a blue floor"


@pytest.mark.parametrize("way", ["images", "sentences"])
def test_the_page_stands_alone_and_shows_texts_as_they_are(run, adapter, images, tmp_path, way):
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
    shown = "".join(page.texts)
    assert evil in shown
    assert '"><b onload=alert(3)>.png' in shown
    assert "“a photo of a mug”" in shown
    assert "tiny, fingerprint tiny-1" in shown
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
