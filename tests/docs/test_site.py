"""The pages as a site: it builds without a network, its links lead somewhere, and it loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sglora_cli.cli.commands.docs import all_pages

ROOT = Path(__file__).parents[2]
ELSEWHERE = ("http:", "https:", "//")

pytestmark = pytest.mark.slow


@dataclass
class Html(HTMLParser):
    """What a page of the site names: anchors, links for readers, and files that a browser loads."""

    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    classes: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given and tag != "meta"}
        self.classes |= set(given.get("class", "").split())
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif "href" in given and given.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(given["href"])
        if "src" in given:
            self.loads.append(given["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material", reason="mkdocs-material is not installed (extra `docs`)")
    folder = tmp_path_factory.mktemp("site")
    # Without --quiet: it hides warnings from --strict, too.
    command = [sys.executable, "-W", "error", "-m", "mkdocs", "build", "--strict"]
    environment = {**os.environ, "SGLORA_OFFLINE": "1", "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [*command, "-f", ROOT / ".mkdocs.yml", "-d", folder], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Html]:
    parsed = {}
    for path in sorted(site.rglob("*.html")):
        parsed[path] = Html()
        parsed[path].feed(path.read_text(encoding="utf-8"))
    return parsed


def test_every_page_is_in_the_site_and_in_its_navigation(site, pages):
    assert {path.name for path in pages} == {f"{name}.html" for name in all_pages()} | {"index.html", "404.html"}
    home = [link for link in pages[site / "index.html"].links if link.endswith(".html")]
    assert list(dict.fromkeys(home))[: len(all_pages()) + 1] == [
        "index.html",
        *(f"{name}.html" for name in all_pages()),
    ]


def test_links_of_the_site_lead_somewhere(site, pages):
    for path, page in pages.items():
        for link in [*page.links, *page.loads]:
            if link.startswith(ELSEWHERE):
                continue
            name, _, anchor = link.partition("#")
            name = name.partition("?")[0]
            there = (site / name[1:] if name.startswith("/") else path.parent / name).resolve() if name else path
            there = there / "index.html" if there.is_dir() else there
            assert there.is_relative_to(site), f"{path.name}: {link} leaves the site"
            assert there.is_file(), f"{path.name}: {link} leads nowhere"
            if anchor and there in pages:
                assert anchor in pages[there].ids, f"{path.name}: {link} has no such anchor"


def test_lists_and_tables_are_rendered(site):
    """Python-Markdown, unlike GitHub, takes a list or table right below a paragraph for a part of it."""
    for path in site.glob("*.html"):
        for paragraph in re.findall(r"<p>(.*?)</p>", path.read_text(encoding="utf-8"), re.DOTALL):
            assert not re.search(r"^ *(?:\||(?:[*-]|\d+\.) )", paragraph, re.MULTILINE), (
                f"{path.name}: {paragraph[:200]}"
            )


def test_nothing_is_loaded_from_another_host(site, pages):
    for path, page in pages.items():
        assert [load for load in page.loads if load.startswith(ELSEWHERE)] == [], path.name
        assert "mermaid" not in page.classes, f"{path.name}: the theme loads the program for diagrams from elsewhere"
    for path in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", path.read_text(encoding="utf-8")) == []
