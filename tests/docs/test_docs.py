"""`sglora docs`, and what every page must keep: links that lead somewhere, nothing of anybody's machine."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from pathlib import Path

import click
import pytest
from console import blocks, commands_of

from sglora_cli.cli.commands.docs import FOLDER, SECTIONS, all_pages
from sglora_cli.cli.main import main

ROOT = Path(__file__).parents[2]
PAGES = all_pages()
MARKDOWN = sorted(
    path for place in ("*.md", "packs/**/*.md", "plugins/**/*.md", "sglora_cli/**/*.md") for path in ROOT.glob(place)
)


def test_pages_are_listed_with_a_line_each(run):
    lines = run("docs").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(PAGES)
    for line, page in zip(lines, PAGES.values(), strict=True):
        assert line == f"{page.name:<{max(map(len, PAGES))}}  {page.summary}"
    assert max(map(len, lines)) <= 120


def test_a_page_is_printed_as_it_is_where_no_terminal_is(run):
    for name, page in PAGES.items():
        assert run("docs", name).stdout == page.path.read_text(encoding="utf-8")
    assert run("docs", "tutorial.md").stdout == run("docs", "tutorial").stdout


def test_pages_are_json(run):
    listed = json.loads(run("docs", "--json").stdout)["pages"]
    assert [one["name"] for one in listed] == list(PAGES)
    assert json.loads(run("docs", "method", "--json").stdout)["text"] == PAGES["method"].text


def test_an_unknown_page_suggests_the_closest(run):
    result = run("docs", "NOSUCH")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == (
        "error: no page named 'NOSUCH'\nhint: available: how-to-adapters, how-to-clip, how-to-data, how-to-errors, "
        "how-to-measure, how-to-packs, how-to-search, install, measures, method, more-than-one-machine, plugins "
        f"and {len(all_pages()) - 12} more; run `sglora docs` for the complete list\n"
    )
    result = run("docs", "tutorail")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == "error: no page named 'tutorail'\nhint: did you mean 'tutorial'?\n"


def test_a_terminal_gets_it_laid_out(run, monkeypatch):
    from sglora_cli.cli.commands import docs

    paged = []
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "10")
    monkeypatch.setattr(docs.click, "echo_via_pager", paged.append)
    docs._print_at_terminal("# Title\n\n" + "A *word* and more of them. " * 40)
    assert "Title" in paged[0]
    assert "*" not in paged[0]
    assert max(map(len, paged[0].splitlines())) <= 60


@pytest.mark.parametrize("page", PAGES.values(), ids=lambda page: page.name)
def test_a_page_begins_with_its_heading_and_one_line_about_it(page):
    lines = page.text.splitlines()
    assert lines[0].startswith("# ")
    assert lines[1] == lines[3] == ""
    assert lines[2] == page.summary
    assert len(page.summary) <= 90


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    names: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        n = 0
        while (f"{name}-{n}" if n else name) in names:
            n += 1
        names.add(f"{name}-{n}" if n else name)
    return names


def links(text: str) -> list[str]:
    """Targets of links; what stands in code is none."""
    plain = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", plain)


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    for link in links(text):
        if link.startswith(("http://", "https://")):
            continue
        target, _, anchor = link.partition("#")
        there = (path.parent / target).resolve() if target else path
        assert there.exists(), f"{link} leads nowhere"
        assert there.is_relative_to(ROOT), f"{link} leaves the repository"
        if anchor:
            assert anchor in anchors(there.read_text(encoding="utf-8")), f"{link}: no such heading"


IN_THE_WHEEL = {path.name for pattern in ("*.md", "*.ipynb") for path in FOLDER.glob(pattern)}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.md")), ids=lambda path: path.name)
def test_a_page_links_only_to_what_comes_with_the_program(path):
    """Whoever has the wheel alone has the pages and the notebook; other files of the repository are not there."""
    for link in links(path.read_text(encoding="utf-8")):
        target = link.partition("#")[0]
        if target and not target.startswith(("http://", "https://")):
            assert target in IN_THE_WHEEL, f"{link} is not in the wheel"


def test_files_that_a_page_names_are_in_the_repository():
    named = re.compile(r"`((?:tests|plugins|packs|sglora_cli)/[\w./-]+)`(?! \(last in commit)")
    for page in PAGES.values():
        for name in named.findall(page.text):
            assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_pages_follow_the_sections():
    order = [name for names in SECTIONS.values() for name in names]
    assert list(PAGES) == sorted(PAGES, key=order.index)
    assert {"tutorial", "reference", "method", "results", "security", "more-than-one-machine", "plugins"} <= set(PAGES)


_MACHINE = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|Users|mnt|opt)/|[A-Za-z]:\\|\b(?:\d{1,3}\.){3}\d{1,3}\b")
_HOSTS = {"github.com", "arxiv.org", "huggingface.co", "docs.python.org"}
_HOSTS |= {"cocodataset.org", "www.robots.ox.ac.uk", "www.cs.toronto.edu"}  # publishers of data sets


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_of_a_machine_stands_in_a_page(path):
    text = path.read_text(encoding="utf-8")
    assert _MACHINE.findall(text) == []
    assert set(re.findall(r"https?://([^/\s)`\"]+)", text)) <= _HOSTS


def test_links_of_a_page_are_found_and_anchors_are_those_of_github():
    assert links("[a](b.md) `[c](d.md)` [e](#f)\n```\n[g](h.md)\n```") == ["b.md", "#f"]
    assert anchors("# On disk\n## Exit codes, and `what`\n## On disk") == {
        "on-disk",
        "exit-codes-and-what",
        "on-disk-1",
    }


SHOWN = [
    (path, one)
    for path in (*(page.path for page in PAGES.values()), ROOT / "README.md")
    for block in blocks(path)
    if block.language == "console"
    for one in commands_of(block)
    if one.command.startswith("sglora ")
]


@pytest.mark.parametrize(("path", "one"), SHOWN, ids=lambda x: x.name if isinstance(x, Path) else x.command[:70])
def test_a_shown_command_is_one_of_the_program(path, one):
    """Its command and options exist and have values of their kinds; the tutorial's and README's also run, elsewhere."""
    words = shlex.split(one.command, comments=True)[1:]
    words = list(itertools.takewhile(lambda word: word not in ("<", ">"), words))
    command: click.Command = main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        command = command.get_command(click.Context(command), words[0]) or pytest.fail(f"no command {words[0]}")
        words = words[1:]
    if not isinstance(command, click.Group):
        command.make_context(command.name, list(words))


def test_a_wrong_option_would_be_seen():
    with pytest.raises(click.NoSuchOption):
        main.get_command(click.Context(main), "inspect").make_context("inspect", ["starter", "--jsn"])
