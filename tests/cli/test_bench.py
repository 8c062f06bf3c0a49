"""`sglora bench` as its user meets it: rows files, resuming, nothing twice, other packs, adapter files, leaks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sglora_cli.bench import measure
from sglora_cli.bench.rows_file import read_rows
from sglora_cli.data import encode
from sglora_cli.generate.session import Session

EACH = 15 + 3 * 5  # adapters of a task: five draws of the methods that draw
OTHERS = 5 * 2 + 1  # five methods read the sentence, asked with the other task's and an unrelated one; and an Oracle
ALL = 2 * 3 * (EACH + OTHERS)  # images: two unseen tasks of three


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "rows.jsonl"


def averages(result) -> dict:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["averages"]


def test_nothing_is_measured_twice(run, toy_pack, file):
    first = run("bench", "--baselines", "all", "--rows", file)
    again = run("bench", "--baselines", "all", "--rows", file)
    assert again.stdout == first.stdout
    assert first.stdout.startswith("2 unseen tasks (2 toys); recall in percent, averaged over tasks; pack 'toys'\n")
    assert again.stderr == f"0 images encoded, {ALL} saved, rows in {file}\n"
    encoded, saved = (int(first.stderr.split()[i]) for i in (0, 3))
    assert encoded + saved == ALL
    assert saved < encoded
    fresh = run("bench", "--baselines", "all", "--rows", file, "--fresh")
    assert fresh.stdout == first.stdout
    assert fresh.stderr == first.stderr


def test_tables_go_to_a_file(run, toy_pack, tmp_path):
    call = ("bench", "--tasks", "mug", "--baselines", "top-k", "--as", "markdown")
    result = run(*call, "-o", tmp_path / "table.md")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'table.md'}\n")
    assert (tmp_path / "table.md").read_text() == run(*call).stdout
    assert run(*call, "--report", tmp_path / "table.md").exit_code == 2


def test_another_adapter_or_other_texts_are_measured_anew(toy_pack):
    from dataclasses import replace

    from sglora_cli.bench.candidates import Candidate
    from sglora_cli.bench.measure import Measurer, Part
    from sglora_cli.generate.session import Session

    def missing(measurer, task, candidate):
        return measurer.missing(task, [Part("", lambda: [candidate])]).most

    session = Session.open()
    measurer, task = Measurer(session.model), next(session.pack.unseen())
    adapter = Candidate("x", session.pack.layout, session.pack.joint_P)
    measurer.rows(task, [adapter, replace(adapter, method="y", sample=3)])
    assert (measurer.count.encoded, measurer.count.saved) == (3, 3)
    swapped = replace(task.tensors, image_of=task.tensors.image_of[::-1])
    for other_task, other in (
        (task, replace(adapter, flat_P=adapter.flat_P + 1e-4)),
        (task, replace(adapter, layout=replace(adapter.layout, alpha=3.0))),
        (replace(task, tensors=swapped), adapter),
        (replace(task, tensors=replace(task.tensors, stem_N=task.tensors.stem_N + 1)), adapter),
        (replace(task, tensors=replace(task.tensors, text_CD=-task.tensors.text_CD)), adapter),
    ):
        assert missing(Measurer(session.model), other_task, other) == 3
    assert missing(Measurer(session.model, "bf16"), task, adapter) == 3
    assert missing(measurer, task, adapter) == 0


def test_a_damaged_cache_is_measured_again(run, toy_pack, own_home):
    expected = averages(run("bench", "--json"))
    files = sorted((own_home / "cache/measured").rglob("*.json"))
    good = [path.read_text() for path in files]
    assert len(set(good)) > 1
    for path in files:
        path.write_text('[["I2T", 1, "3:"]]')
    assert averages(run("bench", "--json")) == expected
    assert [path.read_text() for path in files] == good
    for path, text in zip(files, good, strict=True):
        path.write_text(text.replace('"3:', '"3:/').replace("A==", "==").replace("g==", "=="))  # three hits in three
    assert averages(run("bench", "--json")) == expected
    for path, text in zip(files, good[1:] + good[:1], strict=True):  # what another adapter measured
        path.write_text(text)
    assert averages(run("bench", "--json")) == expected


def test_an_interrupted_run_goes_on(run, toy_pack, file, monkeypatch):
    expected = averages(run("bench", "--baselines", "all", "--json", "--fresh"))
    whole = encode.encode_images

    def stops(model, layout, task, *args):
        if task.name == "toys/nest":
            raise KeyboardInterrupt
        return whole(model, layout, task, *args)

    monkeypatch.setattr(measure, "encode_images", stops)
    stopped = run("bench", "--baselines", "all", "--rows", file, "--fresh")
    assert stopped.exit_code == 130
    assert "interrupted; finished steps are saved, and the same command resumes" in stopped.stderr
    monkeypatch.setattr(measure, "encode_images", whole)
    with file.open("ab") as torn:
        torn.write(b'{"method": "top-')
    (kept,) = read_rows_of_whole_lines(file)
    assert {row.task for row in kept.rows} == {"mug"}
    assert averages(run("bench", "--baselines", "all", "--json", "--rows", file)) == expected
    (run_of_file,) = read_rows(file)
    assert {row.task for row in run_of_file.rows} == {"mug", "nest"}
    places = [(r.method, r.task, r.sample, r.seed, r.direction, r.k, r.sentence) for r in run_of_file.rows]
    assert len(places) == len(set(places)) == 2 * (EACH + OTHERS + 1) * 6


def read_rows_of_whole_lines(file: Path):
    copy = file.with_suffix(".copy")
    copy.write_bytes(file.read_bytes()[: file.read_bytes().rfind(b"\n") + 1])
    return read_rows(copy)


def test_rows_that_are_no_longer_true_are_replaced_and_other_plans_stay(run, toy_pack, file):
    run("bench", "--rows", file, "--tasks", "mug")
    run("bench", "--rows", file)
    good = file.read_bytes()
    text = good.decode().splitlines(keepends=True)
    spoilt = json.loads(text[-1])
    file.write_text("".join([*text[:-1], json.dumps({**spoilt, "value": 1.5}) + "\n"]))
    run("bench", "--rows", file)
    assert file.read_bytes() == good
    first, second = read_rows(file)
    assert {row.task for row in first.rows} == {"mug"}
    assert {row.task for row in second.rows} == {"mug", "nest"}


def test_a_file_of_something_else_is_not_written_into(run, toy_pack, tmp_path):
    for content in ("hello\n", '{"sglora_rows": 9}\n'):
        path = tmp_path / "x.jsonl"
        path.write_text(content)
        result = run("bench", "--rows", path)
        assert result.exit_code == 4
        assert result.stderr.startswith(f"error: {path}, line 1: ")
        assert path.read_text() == content


def test_rows_of_another_backbone_are_not_gone_on_with(run, toy_pack, file):
    run("bench", "--rows", file, "--baselines", "top-k")
    header, *rest = file.read_text().splitlines(keepends=True)
    own = json.loads(header)["fingerprint"]
    assert (json.loads(header)["references"], json.loads(header)["on"]) == ({}, "")
    assert own == Session.open().pack.fingerprint
    other = json.dumps({**json.loads(header), "fingerprint": "0123"}) + "\n"
    file.write_text("".join([other, *rest]))
    before = file.read_bytes()
    result = run("bench", "--rows", file, "--baselines", "top-k")
    assert (result.exit_code, result.stdout, file.read_bytes()) == (5, "", before)
    assert result.stderr == (
        f"error: {file} has rows of a backbone with fingerprint 0123, but this backbone has {own}\n"
        "hint: pass another file with --rows\n"
    )
    file.write_text("".join([header, *rest, other, *rest]))
    result = run("report", file)
    assert result.exit_code == 5
    assert result.stderr.startswith(f"error: the rows come from backbones with fingerprints 0123 and {own}\n")


def test_a_dry_run_measures_nothing(run, toy_pack, own_home):
    plan = json.loads(run("bench", "--baselines", "all", "--dry-run", "--json").stdout)
    assert (plan["tasks"], plan["adapters"]) == (["toys/mug", "toys/nest"], 2 * (EACH + OTHERS))
    assert plan["images_to_encode"] + plan["images_known"] == ALL
    assert plan["images_to_encode"] > 0
    assert not (own_home / "cache/measured").exists()
    assert not (own_home / "cache/rows").exists()
    run("bench", "--baselines", "all")
    lines = run("bench", "--baselines", "all", "--dry-run").stdout.splitlines()
    assert lines[:3] == [
        "pack      toys",
        "tasks     2: toys/mug, toys/nest",
        f"methods   {len(plan['methods'])}: {', '.join(plan['methods'])}",
    ]
    assert lines[4] == f"images    0 to encode, {ALL} cached"


def test_tasks_are_chosen_by_name_or_key(run, toy_pack):
    for wanted in ("mug", "toys/mug", " toys/mug,mug "):
        assert json.loads(run("bench", "--json", "--tasks", wanted).stdout)["rows"][0]["task"] == "mug"
    result = run("bench", "--tasks", "mog")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("error: no task to measure on named 'mog'\nhint: ")


def test_a_table_keeps_its_tasks(run, toy_pack):
    assert run("bench", "--table", "in").stdout == run("bench").stdout
    for table in ("cross", "classification", "flickr"):
        result = run("bench", "--table", table)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"error: no task is left to measure on (table '{table}')\n")
    assert run("bench", "--table", "crass").stderr == "error: no table named 'crass'\nhint: did you mean 'cross'?\n"


def test_seeds_are_draws_of_generators_that_sample(run, toy_pack):
    rows = json.loads(run("bench", "--json", "--seeds", 2, "--samples", 2, "--tasks", "mug").stdout)["rows"]
    draws = {method: {(r["seed"], r["sample"]) for r in rows if r["method"] == method} for method in ("cvae", "top-k")}
    assert draws == {"cvae": {(0, 0), (0, 1), (1, 0), (1, 1)}, "top-k": {(0, 0)}}


def test_what_the_pack_has_seen_is_refused(run, toy_pack, adapter):
    added = run("pack", "add", "toys", adapter, "--text", "a photo of a mug")
    assert added.exit_code == 0, added.output
    result = run("bench")
    assert (result.exit_code, result.stdout) == (5, "")
    assert "pack 'toys' has already seen test data: toys/mug (expert " in result.stderr
    assert "--own-expert" in result.stderr
    assert "\nleak: the pack has already seen toys/mug (expert " in run("bench", "--own-expert").stdout
    assert run("bench", "--tasks", "nest").exit_code == 0


def test_tasks_of_another_pack(run, toy_pack, recipe, toys, own_home):
    other = recipe.with_name("other.toml")
    other.write_text(
        recipe.read_text().replace('"ball"', '"mug"').replace('unseen = ["mug", "nest"]', 'unseen = ["ball", "nest"]')
    )
    assert run("pack", "build", other, "--data", toys).exit_code == 0
    result = run("bench", "--pack", "toys", "--on", "other")
    assert result.exit_code == 5
    assert "toys/ball (expert toys/ball)" in result.stderr
    result = run("bench", "--pack", "toys", "--on", "other", "--tasks", "nest", "--json")
    assert {row["task"] for row in json.loads(result.stdout)["rows"]} == {"nest"}
    assert "oracle" in json.loads(result.stdout)["methods"]
    result = run("bench", "--pack", "toys", "--on", "starter")
    assert result.exit_code == 5
    assert "was built for backbone 'starter'" in result.stderr
    assert run("bench", "--on", "other", "--data", toys).exit_code == 2
    manifest = own_home / "cache/packs/other/pack.json"
    manifest.write_text(manifest.read_text().replace('"tiny-1"', '"tiny-0"'))
    result = run("bench", "--pack", "toys", "--on", "other")
    assert result.exit_code == 5
    assert "'other' was built for backbone 'tiny' with fingerprint tiny-0, this one has tiny-1" in result.stderr


def test_adapter_files_beside_zero_shot(run, toy_pack, adapter, tmp_path, toys):
    peft = tmp_path / "peft"
    assert run("export", adapter, "-o", peft, "--format", "peft").exit_code == 0
    values = averages(run("bench", "--adapter", f"{adapter},{peft}", "--tasks", "mug", "--json"))
    assert list(values) == ["zero-shot", "mug", "peft", "chance"]
    assert values["mug"] == values["peft"]
    zero = averages(run("bench", "--baselines", "zero-shot", "--tasks", "mug", "--json"))
    assert values["zero-shot"] == zero["zero-shot"]
    assert run("pack", "remove", "toys", "--yes").exit_code == 0
    result = run("bench", "--adapter", adapter, "--dataset", "folder", "--data", toys / "toys", "--json")
    assert {row["task"] for row in json.loads(result.stdout)["rows"]} >= {"mug", "ball", "kite"}


def test_an_adapter_file_that_is_none(run, toy_pack, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"hello")
    assert run("bench", "--adapter", tmp_path / "x.safetensors").exit_code == 4
    assert run("bench", "--adapter", tmp_path / "none.safetensors").exit_code == 4


@pytest.mark.filterwarnings("always::sglora_cli.errors.SgloraWarning")
def test_a_task_of_one_image_is_left_out(run, toy_pack, toys):
    path = toys / "toys/captions.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [r for r in lines if not (r["task"] == "mug" and r["split"] == "test") or r["image"].endswith("mug_5.png")]
    path.write_text("".join(json.dumps(r) + "\n" for r in kept))
    result = run("bench", "--data", toys, "--json")
    assert result.stderr == "warning: left out task toys/mug: its only image is always found\n"
    assert {row["task"] for row in json.loads(result.stdout)["rows"]} == {"nest"}


def test_embeddings_that_are_not_finite_stop_the_run_and_lose_nothing(run, toy_pack, file, monkeypatch):
    whole = encode.encode_images

    def broken(model, layout, task, adapters_SP):
        images_SND = whole(model, layout, task, adapters_SP)
        return images_SND * float("nan") if task.name == "toys/nest" else images_SND

    monkeypatch.setattr(measure, "encode_images", broken)
    result = run("bench", "--rows", file)
    assert result.exit_code == 5
    assert " on 'nest' are not finite" in result.stderr
    assert {row.task for row in read_rows(file)[0].rows} == {"mug"}


def test_large_tasks_are_encoded_in_parts(toy_pack):
    from dataclasses import replace

    from sglora_cli.generate.session import Session

    session = Session.open()
    tensors = next(session.pack.unseen()).tensors
    tensors = replace(tensors, stem_N=tensors.stem_N.repeat(4, *[1] * (tensors.stem_N.ndim - 1)))
    adapters = 0.1 * torch.randn(3, session.pack.layout.size, generator=torch.Generator().manual_seed(0))
    whole, parts = (encode.encode_images(session.model, session.pack.layout, tensors, adapters, n) for n in (256, 5))
    assert torch.allclose(whole, parts, atol=1e-6)


@pytest.mark.parametrize("name", ["pug.safetensors", "lora.pt", "pets.toml", "rows.JSONL", "pack.sglora.zip"])
def test_a_table_does_not_replace_an_adapter_a_recipe_or_a_pack(run, toy_pack, tmp_path, name):
    (tmp_path / name).write_bytes(b"precious")
    result = run("bench", "--baselines", "zero-shot", "-o", tmp_path / name)
    assert result.exit_code == 2
    assert f"got {tmp_path / name}\nhint: try -o {(tmp_path / name).with_suffix('.txt')}\n" in result.stderr
    assert (tmp_path / name).read_bytes() == b"precious"


def test_the_help_names_the_methods_of_the_default(run, toy_pack):
    text = " ".join(run("bench", "-h").stdout.split())
    assert "those of the paper's table (zero-shot, oracle, model-soups, adapter-soup, top-k, cvae), or all" in text
    planned = json.loads(run("bench", "--dry-run", "--json").stdout)["methods"]
    assert planned == ["zero-shot", "oracle", "model-soups", "adapter-soup", "top-k", "cvae"]


def test_the_papers_methods_are_measured_by_default(run, toy_pack):
    paper = run("bench", "--baselines", "paper", "--json")
    assert json.loads(run("bench", "--json").stdout) == json.loads(paper.stdout)
    assert list(json.loads(paper.stdout)["methods"]) == [
        "chance",
        "zero-shot",
        "oracle",
        "model-soups",
        "adapter-soup",
        "top-k",
        "cvae",
    ]
