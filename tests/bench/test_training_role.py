"""`bench --role training`: methods on the pack's own training tasks, and what has seen them stays out."""

from __future__ import annotations

import json

import pytest
import torch
from html_page import Page
from recalls import recalls

from sglora_cli.bench.evidence import saw_training
from sglora_cli.bench.rows_file import read_rows
from sglora_cli.bench.tasks import narrowed, training_tasks
from sglora_cli.errors import SgloraWarning
from sglora_cli.generate.session import Session
from sglora_cli.pack.loaded import LoadedPack
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.sentences import queries

SEEN = {"joint", "cvae", "all-but-the-task", "all-but-the-sentence"}
"""What has seen training tasks, of the methods that the toy pack has."""


@pytest.fixture
def trained(run, toy_pack, toys):
    """Measure on the toy pack's training tasks."""
    return lambda *args: run("bench", "--role", "training", "--data", toys, *args)


def test_methods_of_experts_are_measured_on_test_photos_of_training_tasks(trained, toys):
    result = trained("--json", "--baselines", "zero-shot,top-k")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    session = Session.open()
    captions = [json.loads(line) for line in (toys / "toys/captions.jsonl").read_text().splitlines()]
    for task in ("jar", "kite", "lamp"):
        rows = [row for row in captions if (row["task"], row["split"]) == (task, "test")]
        prior = session.pack.prior(queries(session.model, [f"a photo of a {task}"])[0])
        text_CD = session.model.encode_text([text for row in rows for text in row["captions"]])
        owner = [n for n, row in enumerate(rows) for _ in row["captions"]]
        stem_N = session.model.stem(pictures(toys, rows))
        for method, flat_P in (("zero-shot", torch.zeros_like(prior.mean_P)), ("top-k", prior.mean_P)):
            image_ND = encoded(session, stem_N, flat_P)
            expected = recalls(image_ND, text_CD.float(), owner)
            values = {
                (r["direction"], r["k"]): r["value"]
                for r in content["rows"]
                if (r["method"], r["task"]) == (method, task)
            }
            assert values == pytest.approx(dict(expected))


def pictures(toys, rows):
    from PIL import Image

    return [Image.open(toys / "toys" / row["image"]).convert("RGB") for row in rows]


def encoded(session, stem_N, flat_P):
    from sglora_cli.data.encode import encode_images
    from sglora_cli.plugin.values import TaskTensors

    content = TaskTensors("x", stem_N, torch.zeros(1, 1), (0,))
    return encode_images(session.model, session.pack.layout, content, flat_P[None])[0]


def test_what_has_seen_them_is_left_out_of_all_and_named(trained):
    content = json.loads(trained("--baselines", "all", "--json").stdout)
    assert not SEEN & set(content["methods"])
    assert {"zero-shot", "top-k", "model-soups", "ties"} <= set(content["methods"])
    assert content["notes"][0].startswith("3 training tasks (3 toys); recall in percent")
    (note,) = (note for note in content["notes"] if "fitted to the training tasks" in note)
    assert set(note.removeprefix("left out: ").partition(", because they")[0].split(", ")) == SEEN
    assert SEEN.isdisjoint(json.loads(trained("--json", "--baselines", "paper").stdout)["methods"])


def test_that_all_of_it_is_found_by_what_the_methods_do(toy_pack):
    loaded = LoadedPack.open(Host.load())
    saw = {name for name in loaded.host.generators if saw_training(loaded, name)}
    assert saw == SEEN
    assert saw_training(loaded, "ties:experts=joint")
    assert not saw_training(loaded, "ties:density=0.5")


@pytest.mark.parametrize("name", ["joint", "cvae", "ties:experts=joint"])
def test_by_name_it_is_refused_and_a_leak_if_it_must_be(trained, name):
    result = trained("--baselines", f"top-k,{name}")
    assert (result.exit_code, result.stdout) == (5, "")
    assert result.stderr == (
        f"error: {name!r} has seen the training tasks: it was fitted to them or uses the joint adapter or moments\n"
        "hint: remove it from --baselines, or pass --own-expert to measure with this leak\n"
    )
    content = json.loads(trained("--baselines", f"top-k,{name}", "--own-expert", "--json").stdout)
    assert f"leak: {name} have already seen these training tasks" in content["notes"]
    assert name in content["methods"]


def test_rows_say_the_role_and_no_report_calls_them_unseen(run, trained, tmp_path):
    file, page = tmp_path / "rows.jsonl", tmp_path / "x.html"
    assert "3 training tasks" in trained("--rows", file, "--baselines", "zero-shot,top-k").stdout
    assert read_rows(file)[0].header.more["role"] == "training"
    for reporter in ("table", "terminal", "markdown", "latex", "json"):
        text = run("report", file, "--as", reporter).stdout
        assert "3 training tasks" in text
        assert "unseen" not in text
    assert run("report", file, "--out", page, "--pack", "toys").exit_code == 0
    page_text = "".join(Page(page.read_text()).texts)
    assert "Training tasks" in page_text
    assert "All: 3 training tasks" in page_text or "toys: 3 training tasks" in page_text
    assert "each training task's sentence" in page_text
    assert page_text.count("unseen") == page_text.count("shows unseen tasks, but the rows are of training tasks") == 4


def test_roles_do_not_meet_in_a_report(run, trained, toy_pack, tmp_path):
    training, unseen = tmp_path / "t.jsonl", tmp_path / "u.jsonl"
    trained("--rows", training, "--baselines", "zero-shot,top-k")
    run("bench", "--rows", unseen, "--baselines", "zero-shot,top-k")
    assert read_rows(unseen)[0].header.more["role"] == "unseen"
    result = run("report", training, unseen)
    assert result.exit_code == 5
    assert result.stderr == "error: the rows are of training and of unseen tasks\nhint: make one report per role\n"


def test_settings_are_chosen_by_an_ablation_on_training_tasks(trained):
    result = trained("--table", "ablation-k", "--json")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert {name.partition("@")[0] for name in content["methods"]} == {"zero-shot", "top-k", "adapter-soup", "chance"}
    assert any("that would tune it on training tasks" in note for note in content["notes"])
    assert trained("--table", "ablation-k", "--baselines", "cvae").exit_code == 5
    assert trained("--table", "ablation-samples").exit_code == 2


def test_photos_are_asked_for(run, toy_pack, toys, monkeypatch, tmp_path):
    result = run("bench", "--role", "training")
    assert (result.exit_code, result.stdout) == (6, "")
    assert result.stderr == (
        "error: packs do not contain photos of their training tasks\n"
        "hint: pass the folder of the data sets with --data DIR\n"
    )
    monkeypatch.setenv("SGLORA_DATA", str(toys))
    assert run("bench", "--role", "training", "--tasks", "jar", "--baselines", "zero-shot").exit_code == 0
    assert "training tasks in this pack named 'pets'" in run("bench", "--role", "training", "--dataset", "pets").stderr
    assert run("bench", "--role", "training", "--on", "starter").exit_code == 2
    assert run("bench", "--role", "training", "--adapter", tmp_path / "x").exit_code == 2
    assert run("bench", "--role", "expert").exit_code == 3


def test_photos_are_split_where_the_build_learned_from_all(run, tiny, toys, recipe):
    """`whole = true` gives training tasks no test photos in the build; here they are measured on theirs."""
    recipe.write_text(recipe.read_text().replace('name = "toys"', 'name = "toys"\nwhole = true'))
    assert run("pack", "build", recipe, "--data", toys).exit_code == 0
    asked = ("bench", "--role", "training", "--data", toys, "--baselines", "zero-shot", "--json")
    rows = json.loads(run(*asked).stdout)["rows"]
    assert {row["task"] for row in rows} == {"jar", "kite", "lamp"}


@pytest.mark.filterwarnings("always::sglora_cli.errors.SgloraWarning")
def test_photos_that_experts_learned_from_or_unseen_tasks_are_tested_on_are_left_out(trained, toys):
    """A photo may belong to several tasks."""
    captions = [json.loads(line) for line in (toys / "toys/captions.jsonl").read_text().splitlines()]

    def first(task, split):
        row = next(row for row in captions if (row["task"], row["split"]) == (task, split))
        return toys / "toys" / row["image"]

    def measured():
        one = LoadedPack.open(Host.load())
        tasks = narrowed(training_tasks(one, "", toys), one.pack, "", "all")
        return {t.name: len(t.tensors.stem_N) for t in tasks}

    before = measured()
    first("jar", "test").write_bytes(first("ball", "train").read_bytes())  # of an expert
    first("kite", "test").write_bytes(first("mug", "test").read_bytes())  # of an unseen task
    said = "left out 2 photos of 2 tasks, because experts learned from them or unseen tasks are tested on them"
    with pytest.warns(SgloraWarning, match=said):
        assert measured() == {**before, "jar": before["jar"] - 1, "kite": before["kite"] - 1}
    assert f"warning: {said}" in trained("--baselines", "zero-shot,top-k").stderr


def test_the_papers_numbers_do_not_stand_beside_training_tasks(trained):
    text = trained("--baselines", "paper", "--paper").stdout
    assert "the paper's numbers are not shown: the paper measures unseen tasks, and these are training tasks" in text


def test_nothing_is_read_of_tasks_that_are_not_asked_for(run, toy_pack, toys, own_home):
    """One of 39 tasks costs what one task costs."""
    features = own_home / "cache/features"
    for path in features.glob("*.safetensors"):
        path.unlink()
    for role, name in (("unseen", "mug"), ("training", "jar")):
        result = run("bench", "--role", role, "--tasks", name, "--data", toys, "--baselines", "zero-shot", "--json")
        assert {row["task"] for row in json.loads(result.stdout)["rows"]} == {name}
    assert len(list(features.glob("*.safetensors"))) == 2
