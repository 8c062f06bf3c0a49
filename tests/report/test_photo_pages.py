"""The pages of `search` and `classify` show any text as a text, and stand alone."""

from __future__ import annotations

import pytest
import torch
from html_page import Page
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from thirdparty.sglora_tiny import TinyModel

from sglora_cli.adapter.file import AdapterFile
from sglora_cli.lora.layout import Layout
from sglora_cli.report.photo_pages import classes_page, search_page
from sglora_cli.search.classes import Classes
from sglora_cli.search.encoder import Encoder
from sglora_cli.search.query import Query
from sglora_cli.search.ranking import Ranking
from sglora_cli.search.results import SearchResults

LAYOUT = Layout(TinyModel.sites, 2, 2.0)


def encoder(text: str) -> Encoder:
    adapter = AdapterFile(LAYOUT, torch.ones(LAYOUT.size), {"description": text})
    return Encoder(TinyModel(), text, text, "", adapter, text)


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    Image.new("RGB", (2, 2)).save(path)
    return path


def pages(text: str, photo) -> list[str]:
    one = torch.zeros(1)
    query = Query(text, photo, text, 0.5)
    results = SearchResults(encoder(text), query, Ranking(text, (text,), one, one), {text: photo}, (), (text,), 1)
    rows = torch.zeros(1, dtype=torch.long)
    result = Classes(encoder(text), (text, "other"), (text,), {text: photo}, rows, one, 1 - rows, (text,), 1)
    return [page.decode() for page in (search_page(results, 1), classes_page(result))]


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(min_size=1))
@example(text="<script>alert(1)</script>")
@example(text="\"'><img src=x onerror=alert(1)>")
@example(text="{{ 7 * 7 }}{% raw %}")
def test_any_text_is_a_text(photo, text):
    plain = pages("a", photo)
    for page, empty in zip(map(Page, pages(text, photo)), map(Page, plain), strict=True):
        assert page.tags == empty.tags
        sources = [value for name, value in page.attributes if name in ("src", "href")]
        assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
        assert len(sources) == 1
