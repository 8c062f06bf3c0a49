"""The paper's tables as data: every line has a measurement and a number, every recipe is bundled."""

from __future__ import annotations

import pytest
import sglora_packs

from sglora_cli.bench.paper import PAPER, paper_numbers
from sglora_cli.config import ABLATIONS, TASK_TABLES
from sglora_cli.errors import Unavailable, UnknownName
from sglora_cli.pack.library import Library
from sglora_cli.pack.recipe_parser import read
from sglora_cli.reproduce.targets import TARGETS, find

MADE = [target for target in TARGETS if not target.cannot]
LIBRARY = Library(sglora_packs.sglora_recipes())


@pytest.mark.parametrize("target", MADE, ids=lambda target: target.name)
def test_lines_are_of_measurements_that_the_target_has(target):
    rows = {one.name: one for one in target.measurements}
    leans = {one.name for one in target.leans}
    assert target.tables
    for table in target.tables:
        assert [bool(table.lines), bool(table.every), bool(table.lean)].count(True) == 1
        assert table.every in ("", *rows)
        assert table.lean in ("", *leans)
        for line in table.lines:
            assert line.method.partition("@")[0] in rows[line.rows].methods
            assert line.task in ("", *rows[line.rows].tasks)
    assert set(target.figures) <= set(rows)
    assert all(one.table in (*TASK_TABLES, *ABLATIONS) for one in target.measurements)


@pytest.mark.parametrize("target", MADE, ids=lambda target: target.name)
def test_every_number_that_is_compared_is_the_papers(target):
    for table in target.tables:
        for line in table.lines:
            content = paper_numbers()
            for key in line.paper:
                content = content[key]
            assert not line.paper or all(0 < value < 100 for values in content.values() for value in values)


@pytest.mark.parametrize("target", MADE, ids=lambda target: target.name)
def test_recipes_are_bundled_and_leave_the_tasks_unseen(target):
    recipes = {name: read(LIBRARY.recipe_file(name)) for name in target.recipes}
    assert {recipe.backbone for recipe in recipes.values()} == {paper_numbers()["backbone"]}
    for one in target.measurements:
        unseen = {name for source in recipes[one.on or one.recipe].sources for name in source.roles["unseen"]}
        assert set(one.tasks) <= unseen
    for lean in target.leans:
        (source,) = (source for source in recipes[lean.recipe].sources if source.name == lean.dataset)
        assert lean.task in source.roles["unseen"]


def test_all_numbers_of_the_paper_are_in_a_table():
    def paths(content, at=()):
        for key, value in content.items():
            yield from [(*at, key)] if isinstance(next(iter(value.values())), list) else paths(value, (*at, key))

    known = {key: paper_numbers()[key] for key in ("tables", "conditions", "descriptions", "related expert")}
    compared = {line.paper for target in MADE for table in target.tables for line in table.lines}
    assert {path for path in paths(known) if path[-1] not in ("I2T", "T2I", "ACC")} == compared - {()}
    assert {lean.task for target in MADE for lean in target.leans} == set(paper_numbers()["contributions"])


def test_the_papers_own_improvement_over_merging_is_in_the_numbers():
    coco = paper_numbers()["tables"]["coco on coco"]
    assert list(coco) == list(PAPER)
    assert coco["cvae"]["I2T"] == [74.31, 88.78, 92.5]
    assert coco["top-k"]["T2I"] == [49.85, 71.79, 79.66]


def test_a_name_is_found_or_refused():
    assert find("table6").recipes == ("coco", "flowers")
    assert find("table10").tables == find("table3").tables
    with pytest.raises(UnknownName):
        find("table11")
    with pytest.raises(Unavailable):
        find("figure5")
