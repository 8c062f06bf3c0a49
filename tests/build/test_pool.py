"""The pool that generators learn from: what is in it, what is left out, and that its losses are the training's."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from sglora_cli.build.bank import Bank
from sglora_cli.build.pipeline import Build
from sglora_cli.build.pool import Pool
from sglora_cli.build.pool_tasks import pool_tasks
from sglora_cli.lora.layout import Layout
from sglora_cli.pack.recipe_parser import parse, read
from sglora_cli.plugin.host import Host


@pytest.fixture
def spoken(toys):
    """The toys with captions in which their names and "floor" stand alone."""
    path = toys / "toys" / "captions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        top = row["captions"][0].split()[1]
        row["captions"] = [f"A {row['task']} on the {top} floor.", f"The floor under the {row['task']} is {top}."]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return toys


@pytest.fixture
def make(clipling, spoken, recipe):
    """Build a pool: `make(least_photos=4)`."""

    def call(train=None, **tasks) -> tuple[Build, Pool]:
        raw = {**read(recipe).raw, "backbone": "clipling", "tasks": {"from_captions": ["toys"], **tasks}}
        raw["train"] = {**raw["train"], **(train or {})}
        build = Build.prepare(Host.load(), parse("toys", raw), spoken)
        bank, config = Bank(build.model, build.steps.seen), build.recipe.train
        return build, Pool(bank, build.pool_tasks, config, None, build.recipe.phrases.least_photos)

    return call


def test_a_pool_has_the_seen_tasks_and_phrases_of_their_captions(make):
    _, pool = make(least_photos=4, largest_share=0.5)
    names = dict(zip(pool.names, pool.roles, strict=True))
    assert [name for name, role in names.items() if role == "expert"] == [
        f"toys/{t}" for t in ("ball", "box", "cup", "hat")
    ]
    assert [name for name, role in names.items() if role == "training"] == [
        f"toys/{t}" for t in ("jar", "kite", "lamp")
    ]
    found = {name for name, role in names.items() if role == "phrase"}
    assert {"ball", "box", "cup", "hat", "jar", "kite", "lamp", "red floor", "blue floor"} <= found
    assert "floor" not in found  # in all photos
    assert not {"mug", "nest"} & found  # unseen
    assert pool.sentences_TD.shape == (len(names), len(pool.sentences_TD[0]))
    assert {t.description for t in pool.tasks if t.role == "phrase"} >= {"a photo of a red floor"}


def test_a_phrase_with_a_word_of_an_unseen_task_is_left_out(make, spoken):
    path = spoken / "toys" / "captions.jsonl"
    path.write_text(path.read_text().replace("floor", "mug"))
    _, pool = make(least_photos=4)
    assert not [name for name, role in zip(pool.names, pool.roles, strict=True) if role == "phrase" and "mug" in name]


def test_a_phrase_with_a_word_of_a_task_that_is_set_apart_is_left_out(make):
    build, _ = make(least_photos=4, largest_share=0.5)
    jar = next(t.task for t in build.tasks if t.task.name == "jar")
    names = [t.name for t in pool_tasks(build.recipe, build.tasks)]
    left = [t.name for t in pool_tasks(build.recipe, build.tasks, [jar])]
    assert set(names) - set(left) == {name for name in names if name == "jar"}


def test_what_is_left_out_takes_its_photos_and_its_phrases_along(make):
    build, pool = make(least_photos=4, largest_share=0.5)
    left = pool.without(["toys/jar", "toys/ball"])
    assert not {"toys/jar", "toys/ball", "jar", "ball"} & set(left.names)
    gone = {photo for t in build.tasks if t.task.name in ("jar", "ball") for photo in t.train.hashes}
    bank = Bank(build.model, build.steps.seen)
    assert gone.isdisjoint(bank.hash_of(place) for t in left.tasks for place in t.photos)
    whole = {t.name: len(t.photos) for t in pool.tasks}
    for t in left.tasks:
        assert len(t.photos) >= (4 if t.role == "phrase" else 2)
        assert len(t.photos) <= whole[t.name]
    assert any(len(t.photos) < whole[t.name] for t in left.tasks)


def pair_loss(image_ND, text_ND, scale) -> float:
    """Cross-entropy of photo n among captions and of caption n among photos; equal captions are no negatives."""
    logits = scale * image_ND @ text_ND.T
    for n, one in enumerate(text_ND):
        for m, other in enumerate(text_ND):
            if n != m and torch.allclose(one, other, atol=1e-6):
                logits[n, m] = -torch.inf
    right = torch.arange(len(text_ND))
    return float(F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def test_a_loss_is_the_cross_entropy_of_all_pairs_in_both_directions(make):
    build, pool = make(least_photos=4, largest_share=0.5)
    model, layout = build.model, build.steps.layout
    task = pool.names.index("toys/cup")
    adapters_TP = layout.initial(0)[None] + 0.1 * torch.randn(
        1, layout.size, generator=torch.Generator().manual_seed(1)
    )
    content = build.steps.seen[2].train.tensors(model)
    image_ND = model.encode_image(content.stem_N, layout, adapters_TP)[0]
    expected = []
    for draw in range(40):
        (loss,) = pool.losses(layout, adapters_TP, [task], 9, torch.Generator().manual_seed(draw))
        expected.append(float(loss))
    rng, brute = torch.Generator().manual_seed(7), []
    for _ in range(400):
        rows = [2 * n + int(torch.randint(2, (1,), generator=rng)) for n in range(len(image_ND))]
        brute.append(pair_loss(image_ND, content.text_CD[rows], model.scale))
    assert min(brute) - 1e-4 <= min(expected) <= max(expected) <= max(brute) + 1e-4
    assert sum(expected) / 40 == pytest.approx(sum(brute) / 400, abs=0.05)


def test_the_projection_alone_gives_the_loss_that_the_whole_encoder_gives(make, monkeypatch):
    build, pool = make(least_photos=4, largest_share=0.5)
    layout = Layout((build.model.projection,), 2, 2.0)
    adapters_TP = torch.randn(3, layout.size, generator=torch.Generator().manual_seed(1), requires_grad=True)
    tasks = [0, 5, len(pool.names) - 1]

    def losses():
        loss_T = pool.losses(layout, adapters_TP, tasks, 4, torch.Generator().manual_seed(3))
        return loss_T.detach(), torch.autograd.grad(loss_T.sum(), adapters_TP)[0]

    fast = losses()
    monkeypatch.setattr("sglora_cli.build.pool.Pool._is_last", lambda self, layout: False)
    slow = losses()
    torch.testing.assert_close(fast[0], slow[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fast[1], slow[1], rtol=1e-3, atol=1e-4)


def test_mirrored_photos_bring_the_captions_of_mirrored_photos(make):
    build, pool = make(train={"mirror": 1.0}, least_photos=4, largest_share=0.5)
    layout = build.steps.layout
    zero = layout.initial(0)[None]
    (loss,) = pool.losses(layout, zero, [2], 9, torch.Generator().manual_seed(0))
    content = build.steps.seen[2].mirror.tensors(build.model)
    image_ND = build.model.encode_image(content.stem_N)
    losses = []
    for second in range(2 ** len(image_ND)):
        rows = [[c for c, o in enumerate(content.image_of) if o == n][second >> n & 1] for n in range(len(image_ND))]
        losses.append(pair_loss(image_ND, content.text_CD[rows], build.model.scale))
    assert min(abs(float(loss) - one) for one in losses) < 1e-4


def test_moments_of_whole_tasks_are_those_that_a_pack_keeps(make):
    build, pool = make(least_photos=4, largest_share=0.5)
    kept, found = build.moments(), pool.moments
    assert found.tasks[: len(kept.tasks)] == kept.tasks
    for name in ("sentences_TD", "images_TD", "captions_TD"):
        torch.testing.assert_close(getattr(found, name)[: len(kept.tasks)], getattr(kept, name), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.length_I, kept.length_I, rtol=1e-3, atol=1e-4)
    phrase = pool.names.index("red floor")
    places = pool.tasks[phrase].photos
    images = torch.stack(
        [build.model.encode_image(build.steps.seen[n].train.tensors(build.model).stem_N[[row]])[0] for n, row in places]
    )
    torch.testing.assert_close(found.images_TD[phrase], images.mean(dim=0), rtol=1e-4, atol=1e-5)


def test_mean_images_are_means_over_a_tasks_photos_with_the_adapter(make):
    build, pool = make(least_photos=4, largest_share=0.5)
    layout = build.steps.layout
    flat_P = layout.initial(0) + 0.1 * torch.randn(layout.size, generator=torch.Generator().manual_seed(1))
    found_TD = pool.mean_images(layout, flat_P)
    for name in ("toys/cup", "red floor"):
        task = pool.names.index(name)
        stems = [build.steps.seen[n].train.tensors(build.model).stem_N[[row]] for n, row in pool.tasks[task].photos]
        images = torch.stack([build.model.encode_image(stem, layout, flat_P[None])[0, 0] for stem in stems])
        torch.testing.assert_close(found_TD[task], images.mean(dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        pool.mean_images(layout, layout.initial(0)), pool.moments.images_TD, rtol=1e-4, atol=1e-5
    )


def test_captions_without_a_phrase_are_refused_with_the_key_to_change(clipling, spoken, recipe, run):
    recipe.write_text(f'{recipe.read_text()}[tasks]\nfrom_captions = ["toys"]\nleast_photos = 900\n')
    result = run("pack", "build", recipe, "--data", spoken, "--backbone", "clipling")
    assert result.exit_code == 4
    assert result.stderr.endswith(
        "error: no phrase in the captions of toys has at least 900 photos and at most 0.15 of all 35; "
        "the most common phrase has 35\n"
        "hint: lower least_photos or raise largest_share in [tasks], or remove from_captions\n"
    )


NO_SOURCE = 'from_captions must be a list of names of sources, got []\nhint: try from_captions = ["toys"]'


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('from_captions = ["toy"]', "no source named 'toy'\nhint: did you mean 'toys'?"),
        (
            "from_captions = []",
            NO_SOURCE,
        ),
        (
            "least_photos = 9",
            NO_SOURCE,
        ),
        ('from_captions = ["toys"]\nleast_photos = 3', "[tasks]: least_photos must be at least 4, got 3"),
        ('from_captions = ["toys"]\nleast = 3', "no key in [tasks] named 'least'"),
    ],
)
def test_a_wrong_table_of_tasks_is_refused(recipe, run, table, message, tiny, toys):
    recipe.write_text(f"{recipe.read_text()}[tasks]\n{table}\n")
    result = run("pack", "build", recipe, "--data", toys)
    assert result.exit_code in (2, 3, 4)
    assert message in result.stderr


def test_the_dry_run_counts_phrases(clipling, spoken, recipe, run):
    recipe.write_text(f'{recipe.read_text()}[tasks]\nfrom_captions = ["toys"]\nleast_photos = 4\n')
    result = run("pack", "build", recipe, "--data", spoken, "--backbone", "clipling", "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["phrases"] == len({"ball", "box"}) + 5
    lines = run("pack", "build", recipe, "--data", spoken, "--backbone", "clipling", "--dry-run").stdout.splitlines()
    (line,) = [line for line in lines if "phrases" in line]
    assert line.startswith("7 phrases from captions as seen tasks, with 5 to 5 photos each: ")
    assert line.endswith(", ...")
