"""What is measured is not measured again, what was made is not made again, and draws that are one are not five."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from thirdparty.sglora_tiny import TinyModel

from sglora_cli.bench.candidates import Candidate
from sglora_cli.bench.measure import AGREE, Measurer, Part
from sglora_cli.data import encode
from sglora_cli.errors import Unavailable
from sglora_cli.lora.layout import Layout
from sglora_cli.pack.content.evaluation import UnseenTask
from sglora_cli.plugin.values import TaskTensors
from sglora_cli.system.paths import cache_folder

MODEL = TinyModel()
LAYOUT = Layout(tuple(MODEL.sites), 2, 2.0)
PHOTOS = 4


def task(name: str = "mug", seed: int = 0) -> UnseenTask:
    rng = torch.Generator().manual_seed(seed)
    text_CD = torch.nn.functional.normalize(torch.randn(PHOTOS, 8, generator=rng), dim=-1)
    stem_N = torch.rand(PHOTOS, 4, 12, generator=rng).half()
    return UnseenTask("toys", name, "", TaskTensors(f"toys/{name}", stem_N, text_CD, tuple(range(PHOTOS))), (), None)


def draws(gap: float, count: int = 5, method: str = "x") -> list[Candidate]:
    """Adapters that differ in every number by about so much."""
    rng = torch.Generator().manual_seed(1)
    mean_P = torch.randn(LAYOUT.size, generator=rng)
    return [
        Candidate(method, LAYOUT, mean_P + gap * torch.randn(LAYOUT.size, generator=rng), sample)
        for sample in range(count)
    ]


def embeddings(candidates: list[Candidate]) -> torch.Tensor:
    return encode.encode_images(MODEL, LAYOUT, task().tensors, torch.stack([c.flat_P for c in candidates]))


def test_draws_that_do_not_differ_are_measured_twice():
    same = draws(1e-6)
    images_SND = embeddings(same)
    assert 0 < float((images_SND[0] - images_SND[1]).abs().max()) <= AGREE
    measurer = Measurer(MODEL)
    rows = measurer.rows(task(), same)
    assert {row.sample for row in rows} == {0, 1}
    assert (measurer.count.encoded, measurer.count.saved) == (2 * PHOTOS, 3 * PHOTOS)
    again = Measurer(MODEL)
    assert (again.rows(task(), same), again.count.encoded) == (rows, 0)


def test_draws_that_differ_are_all_measured():
    apart = draws(0.3)
    images_SND = embeddings(apart)
    assert float((images_SND[0] - images_SND[1]).abs().max()) > AGREE
    measurer = Measurer(MODEL)
    rows = measurer.rows(task(), apart)
    assert {row.sample for row in rows} == {0, 1, 2, 3, 4}
    assert measurer.count.encoded == 5 * PHOTOS
    alone = [row for one in apart for row in Measurer(MODEL, fresh=True).rows(task(), [one])]
    assert rows == alone


def test_a_draw_that_is_left_out_counts_where_another_method_makes_it():
    same = draws(1e-6)
    other = replace(same[4], method="y", sample=0)
    rows = Measurer(MODEL).rows(task(), [*same, other])
    assert {(row.method, row.sample) for row in rows} == {("x", 0), ("x", 1), ("y", 0)}


@pytest.mark.parametrize("known", [[0, 1, 2, 3, 4], [0], [1, 4]])
def test_what_was_measured_before_does_not_change_which_draws_there_are(known):
    same = draws(1e-6)
    for n in known:
        Measurer(MODEL).rows(task(), [same[n]])
    assert {row.sample for row in Measurer(MODEL).rows(task(), same)} == {0, 1}


class Made:
    def __init__(self, candidates: list[Candidate]) -> None:
        self.candidates, self.calls = candidates, 0

    def __call__(self) -> list[Candidate]:
        self.calls += 1
        return self.candidates


def test_a_part_is_made_once():
    made, other = Made(draws(0.3)), Made(draws(0.2, 1, "y"))
    parts = [Part("k", made), Part("l", other)]
    first = Measurer(MODEL)
    rows = first.rows_of(task(), parts)
    assert (made.calls, other.calls) == (1, 1)
    again = Measurer(MODEL)
    assert (again.rows_of(task(), parts), made.calls, other.calls) == (rows, 1, 1)
    assert (again.count.encoded, again.count.saved) == (0, 6 * PHOTOS)
    assert again.missing(task(), parts).known == 6 * PHOTOS


@pytest.mark.parametrize("change", ["key", "task", "precision", "fresh", "no key"])
def test_a_part_is_made_again_where_what_it_follows_from_is_another(change):
    made = Made(draws(0.3))
    part = Part("" if change == "no key" else "k", made)
    Measurer(MODEL).rows_of(task(), [part])
    other = Measurer(MODEL, "bf16" if change == "precision" else "", fresh=change == "fresh")
    on = task(seed=1) if change == "task" else task()
    other.rows_of(on, [replace(part, key="other") if change == "key" else part])
    assert made.calls == 2


def test_a_damaged_note_of_a_part_is_made_again():
    made = Made(draws(0.3, 1))
    rows = Measurer(MODEL).rows_of(task(), [Part("k", made)])
    for path in (cache_folder() / "measured").rglob("*.json"):
        path.write_text("[[")
    assert (Measurer(MODEL).rows_of(task(), [Part("k", made)]), made.calls) == (rows, 2)


def test_a_part_that_makes_nothing_is_known_to():
    made = Made([])
    for _ in range(2):
        assert Measurer(MODEL).rows_of(task(), [Part("k", made)]) == []
    assert made.calls == 1


def test_the_least_and_the_most_that_there_is_to_do():
    images = Measurer(MODEL).missing(task(), [Part("k", lambda: draws(0.3))])
    assert (images.least, images.most, images.known, images.adapters) == (2 * PHOTOS, 5 * PHOTOS, 0, 5)


def test_what_is_wrong_with_a_method_is_said_before_anything_is_measured(monkeypatch):
    from sglora_cli.bench import run
    from sglora_cli.bench.methods import BenchPlan
    from sglora_cli.config import BenchConfig

    def damaged() -> None:
        raise Unavailable("damaged")

    whole, made = Part("k", Made(draws(0.3, 1))), Made([])
    plan = BenchPlan(MODEL, [task()], {"x": "X"}, lambda t: [whole, Part("l", made, damaged)], BenchConfig(), "", "")
    with pytest.raises(Unavailable, match="damaged"):
        run.run(plan, Measurer(MODEL))
    assert not list((cache_folder() / "measured").rglob("*.json"))
