"""`sglora bench --table ablation-...`: one thing changes, and each method is compared with itself."""

from __future__ import annotations

import json

import pytest
import torch

from sglora_cli.bench.ablations import Variant, by_k, varied
from sglora_cli.config import SPACES, BenchConfig
from sglora_cli.generate.session import Session
from sglora_cli.lora.prior import log_density
from sglora_cli.plugin.sentences import queries

CELLS = [f"{d} R@{k}" for d in ("I2T", "T2I") for k in (1, 5, 10)]


def results(result) -> dict:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def plain(run, toy_pack) -> dict:
    """Averages of a plain bench."""
    return results(run("bench", "--baselines", "all", "--json"))["averages"]


@pytest.fixture
def sentences(tmp_path):
    def write(content) -> str:
        path = tmp_path / "sentences.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    return write


def test_k_meets_the_methods_it_must_equal(run, plain):
    report = results(run("bench", "--table", "ablation-k", "--json"))
    average = report["averages"]
    assert list(report["methods"])[:3] == ["chance", "oracle", "zero-shot"]
    methods = [f"{name}@K={k}" for name in ("top-k", "adapter-soup", "cvae") for k in (1, 2, 3, 4)]
    assert list(report["methods"])[3:] == methods
    assert report["methods"]["top-k@K=2"] == "Top-K weighted (K = 2)"
    for method, same in (
        ("top-k@K=2", "top-k"),  # the pack's own K
        ("cvae@K=2", "cvae"),
        ("top-k@K=1", "nearest"),
        ("adapter-soup@K=4", "model-soups"),
        ("oracle", "oracle"),
        ("zero-shot", "zero-shot"),
    ):
        assert average[method] == pytest.approx(plain[same]), method


def test_every_method_is_compared_with_itself(run, toy_pack):
    report = results(run("bench", "--table", "ablation-k", "--json"))
    assert report["against"] == "the pack's own setting"
    for name in ("top-k", "adapter-soup", "cvae"):
        for cell in CELLS:
            assert f"{name}@K=2 {cell}" not in report["differences"]
            gap = report["averages"][f"{name}@K=4"][cell] - report["averages"][f"{name}@K=2"][cell]
            assert report["differences"][f"{name}@K=4 {cell}"]["mean"] == pytest.approx(gap)
    assert not [key for key in report["differences"] if key.startswith(("oracle", "zero-shot", "chance"))]


def test_the_note_says_that_nothing_may_be_chosen(run, toy_pack, tmp_path):
    result = run("bench", "--table", "ablation-tau", "--baselines", "top-k", "--rows", tmp_path / "r.jsonl")
    note = (
        "ablation-tau: the temperature of the experts' weights. Every method is compared with itself at the pack's own "
        "setting (tau = 0.05). Do not choose a setting from this table, because that would tune it on unseen tasks."
    )
    assert note in result.stdout.splitlines()
    assert "T2I R@1 - the pack's own setting" in result.stdout
    again = run("bench", "--table", "ablation-tau", "--baselines", "top-k", "--rows", tmp_path / "r.jsonl")
    assert again.stdout == result.stdout
    assert again.stderr.startswith("0 images encoded, ")
    asked = ("bench", "--table", "ablation-tau", "--baselines", "top-k", "--json")
    reported = results(run("report", tmp_path / "r.jsonl", "--as", "json", "--resamples", 2000))
    assert reported["differences"] == results(run(*asked))["differences"] != {}


def test_tau_is_the_temperature(run, plain):
    report = results(run("bench", "--table", "ablation-tau", "--json"))
    assert report["averages"]["top-k@tau=0.05"] == pytest.approx(plain["top-k"])
    assert "adapter-soup@tau=0.05" not in report["averages"]  # it has no temperature


def test_every_space_has_a_row_and_the_packs_own_is_what_bench_measures(run, plain):
    report = results(run("bench", "--table", "ablation-space", "--baselines", "top-k", "--json"))
    assert [m for m in report["methods"] if "@" in m] == [f"top-k@space={space}" for space in SPACES]
    assert report["averages"]["top-k@space=embedding"] == pytest.approx(plain["top-k"])


def test_draws_are_folded_as_their_names_say(run, plain):
    report = results(run("bench", "--table", "ablation-samples", "--samples", 5, "--json"))
    assert [m for m in report["methods"] if "@" in m] == [
        f"cvae@{mark}" for mark in ("one-draw", *(f"{f}-{n}" for f in ("best-of", "mean-of") for n in (2, 5, 10, 20)))
    ]
    assert report["averages"]["cvae@one-draw"] == pytest.approx(plain["cvae"])
    from sglora_cli.bench.ablations import _by_draws

    session = Session.open()
    (task, *_), variants = list(session.pack.unseen()), {v.mark: v for v in _by_draws(session.pack)}
    (query,), config = queries(session.model, [task.description]), BenchConfig(samples=3, seed=7)
    draws = session.fitted.generate(prior := session.pack.prior(query), 6, 7, 1.0)
    for mark, fold in (
        ("mean-of-2", lambda pair: (pair[0] + pair[1]) / 2),
        ("best-of-2", lambda pair: max(pair, key=lambda one: float(log_density(prior, one[None])))),
    ):
        candidates = varied(
            session.loaded.host,
            session.pack,
            {"cvae": session.fitted},
            [variants[mark]],
            "toys/mug",
            query,
            config,
        )
        assert [(c.method, c.seed, c.sample) for c in candidates] == [(f"cvae@{mark}", 7, s) for s in range(3)]
        for candidate, pair in zip(candidates, draws.split(2), strict=True):
            assert torch.allclose(candidate.flat_P, fold(pair), atol=1e-6)


def test_without_the_nearest_expert_the_others_share_its_weight(toy_pack):
    session = Session.open()
    pack, (task, *_) = session.pack, list(session.pack.unseen())
    (query,) = queries(session.model, [task.description])
    whole = pack.prior(query)
    less = Variant("x", pack.prior_config, without_nearest=True).prior(pack, "toys/mug", query)
    order = sorted(range(4), key=lambda e: -float(whole.similarity_E[e]))
    assert whole.rows == tuple(order[:2])
    assert less.rows == tuple(order[1:3])
    weight = [2.718281828 ** (float(whole.similarity_E[e]) / pack.prior_config.tau) for e in order[1:3]]
    mean_P = sum(w * pack.experts.means([e])[0] for w, e in zip(weight, order[1:3], strict=True)) / sum(weight)
    assert torch.allclose(less.mean_P, mean_P, atol=1e-5)


def test_an_expert_left_out_is_said_to_be_left_out_of_the_prior_only(run, plain):
    result = run("bench", "--table", "ablation-expert", "--baselines", "top-k")
    note = "The prior leaves out the nearest expert. Learned generators were trained with that expert."
    assert note in result.stdout.splitlines()
    report = results(run("bench", "--table", "ablation-expert", "--json"))
    assert report["averages"]["top-k@all-experts"] == pytest.approx(plain["top-k"])
    assert "top-k@without-nearest" in report["averages"]


def test_photos_of_the_unseen_task_take_its_sentences_place(run, plain, toys):
    report = results(run("bench", "--table", "ablation-condition", "--data", toys, "--json"))
    assert report["methods"]["top-k@visual"] == "Top-K weighted (visual, from its training photos)"
    for name in ("top-k", "cvae"):
        assert report["averages"][f"{name}@textual"] == pytest.approx(plain[name])
    nearest = results(run("bench", "--table", "ablation-condition", "--data", toys, "--baselines", "nearest", "--json"))
    session = Session.open()
    from PIL import Image

    from sglora_cli.bench.candidates import Candidate
    from sglora_cli.bench.measure import Measurer

    def looks(task):  # the obvious way: one photo after the other, the first five of a task train
        files = sorted((toys / "toys/images").glob(f"{task}_[0-4].png"))
        stems = [session.model.stem([Image.open(file).convert("RGB")]) for file in files]
        mean = sum(session.model.encode_image(stem)[0] for stem in stems)
        return mean / mean.norm()

    for task in session.pack.unseen():
        alike = [float(looks(task.name) @ looks(key.split("/")[1])) for key in session.pack.experts.names]
        best_P = session.pack.experts.means([alike.index(max(alike))])[0]
        expected = {
            (r.direction, r.k): r.value
            for r in Measurer(session.model).rows(task, [Candidate("x", session.pack.layout, best_P)])
        }
        measured = {
            (r["direction"], r["k"]): r["value"]
            for r in nearest["rows"]
            if (r["method"], r["task"]) == ("nearest@visual", task.name)
        }
        assert measured == expected


def test_a_visual_condition_without_photos_says_what_to_do(run, toy_pack):
    bare = run("bench", "--table", "ablation-condition")
    assert (bare.exit_code, bare.stdout) == (6, "")
    assert bare.stderr.endswith("hint: pass the folder of the photos with --data DIR\n")


def test_a_visual_condition_without_looks_says_what_to_do(run, old_pack, toys):
    old = run("bench", "--table", "ablation-condition", "--data", toys)
    assert old.exit_code == 6
    assert old.stderr == (
        "error: pack 'toys' has no visual embeddings of its experts\n"
        "hint: rebuild it with this version: sglora pack build RECIPE --data DIR\n"
    )


def test_sentences_of_a_file_take_the_templates_place(run, plain, sentences):
    table = ("bench", "--table", "ablation-description", "--json")
    same = sentences({"toys/mug": "a photo of a mug", "nest": ["a photo of a nest"], "toys/other": "unused"})
    average = results(run(*table, "--sentences", same))["averages"]
    for name in ("top-k", "cvae"):
        assert average[f"{name}@sentences"] == average[f"{name}@template"] == pytest.approx(plain[name])
    swapped = sentences({"mug": "a photo of a ball", "nest": "a photo of a hat"})
    rows = results(run(*table, "--sentences", swapped, "--baselines", "nearest"))["rows"]
    session = Session.open()
    pack = session.pack
    from sglora_cli.bench.candidates import Candidate
    from sglora_cli.bench.measure import Measurer

    for task, expert in zip(pack.unseen(), ("toys/ball", "toys/hat"), strict=True):
        own_P = pack.experts.means([pack.experts.names.index(expert)])[0]
        expected = {
            (r.direction, r.k): r.value
            for r in Measurer(session.model).rows(task, [Candidate("x", pack.layout, own_P)])
        }
        measured = {
            (r["direction"], r["k"]): r["value"]
            for r in rows
            if (r["method"], r["task"]) == ("nearest@sentences", task.name)
        }
        assert measured == expected


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        ({"mug": "a mug"}, 2, "has no sentence for task 'toys/nest'"),
        ({"mug": "a mug", "nest": 3}, 4, "toys/nest must be a sentence or a list of sentences, got [3]"),
        ({"mug": "a mug", "nest": "!"}, 2, "the sentence has no words: '!'"),
        ({"mug": "a mug", "nest": []}, 2, "a description must have 1 to"),
        (["a mug"], 4, "is not a JSON object"),
        ("{", 4, "line 1: not JSON"),
    ],
)
def test_sentences_that_are_none_are_named(run, toy_pack, sentences, content, code, message):
    result = run("bench", "--table", "ablation-description", "--sentences", sentences(content))
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr


def test_what_does_not_go_together_is_refused(run, toy_pack, sentences, adapter):
    file = sentences({"mug": "a mug", "nest": "a nest"})
    for arguments in (
        ("--sentences", file),
        ("--table", "ablation-k", "--sentences", file),
        ("--table", "ablation-description"),
        ("--table", "ablation-samples", "--baselines", "top-k"),
        ("--table", "ablation-k", "--baselines", "oracle"),
        ("--table", "ablation-k", "--adapter", adapter),
    ):
        assert run("bench", *arguments).exit_code == 2, arguments
    result = run("bench", "--table", "ablation-q")
    assert result.exit_code == 3
    assert result.stderr == "error: no table named 'ablation-q'\nhint: did you mean 'ablation-k'?\n"


def test_the_sweep_of_a_report_is_the_ablations(toy_pack):
    assert [(v.mark, v.own) for v in by_k(Session.open().pack)] == [
        ("K=1", False),
        ("K=2", True),
        ("K=3", False),
        ("K=4", False),
    ]
