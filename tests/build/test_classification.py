"""Classification: training against torch alone, and packs from end to end: built, measured, refused, tried."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from in_memory import train_joint, train_tasks
from tiny_tasks import LAYOUT, MODEL, task
from trees import cifar_speckles, cifar_tree

from sglora_cli.build.batches import Batches
from sglora_cli.config import TrainConfig
from sglora_cli.pack.pack import Pack
from sglora_cli.plugin.values import TaskTensors

RECIPE = """
backbone = "tiny"
default_generator = "top-k"
prompts = ["a photo of a {class}", "{class}"]
[train]
epochs = 4
states = 2
[prior]
k = 1
"""
SORTS = """[[source]]
name = "cifar100"
dataset = "cifar100"
path = "cifar"
description = "{name}, which includes {classes}"
expert = ["fish"]
unseen = ["large carnivores", "trees"]
"""
MORE = '[[source]]\nname = "toys"\nexpert = ["ball"]\nunseen = ["mug"]\n'


@pytest.fixture
def cifar(tmp_path):
    cifar_tree(tmp_path / "data" / "cifar", cifar_speckles())
    return tmp_path / "data"


def built(run, tmp_path, data, text, name="sorts"):
    (tmp_path / f"{name}.toml").write_text(text)
    result = run("pack", "build", tmp_path / f"{name}.toml", "--data", data)
    assert result.exit_code == 0, result.output
    return json.loads(run("bench", "--pack", name, "--baselines", "all", "--json").stdout)


def test_a_pack_of_classification_tasks_from_end_to_end(run, tiny, cifar, tmp_path, own_home):
    content = built(run, tmp_path, cifar, RECIPE + SORTS)
    assert {(row["direction"], row["k"]) for row in content["rows"]} == {("ACC", 1)}
    chance = {row["task"]: row["value"] for row in content["rows"] if row["method"] == "chance"}
    assert chance == {"large carnivores": pytest.approx(100 / 3), "trees": 50.0}
    photos = json.loads(run("bench", "--pack", "sorts", "--baselines", "all", "--json", "--data", cifar).stdout)
    assert set(photos["averages"].pop("lorahub")) == {"accuracy"}  # with the photos there are training pairs, too
    assert photos["averages"] == content["averages"]
    tasks = Pack(own_home / "cache/packs/sorts").tasks
    assert next(iter(tasks))["description"] == "fish, which includes ray, shark"
    for reporter in ("table", "terminal", "markdown", "csv"):
        result = run("bench", "--pack", "sorts", "--as", reporter)
        assert result.exit_code == 0, result.output
        assert ("ACC" if reporter == "csv" else "accuracy") in result.stdout
    assert run("pack", "verify", "sorts").exit_code == 0


def test_the_oracles_row_is_what_its_adapter_scores_on_the_photos(run, tiny, cifar, tmp_path, own_home):
    from PIL import Image

    from sglora_datasets.cifar100 import Cifar100

    content = built(run, tmp_path, cifar, RECIPE + SORTS)
    pack = Pack(own_home / "cache/packs/sorts")
    for unseen in pack.unseen():
        photos = {t.name: t for t in Cifar100().tasks(cifar / "cifar")}[unseen.name].photos["test"]
        right = 0
        for photo in photos:
            stem = MODEL.stem([Image.open(photo.path)])
            image_D = MODEL.encode_image(stem, pack.layout, unseen.oracle_P[None])[0, 0]
            heads = [
                sum(MODEL.encode_text([text])[0] for text in (f"a photo of a {name}", name)) for name in unseen.captions
            ]
            scores = [float(image_D @ head / head.norm()) for head in heads]
            right += unseen.captions[scores.index(max(scores))] == photo.captions[0]
        (row,) = [r for r in content["rows"] if (r["method"], r["task"]) == ("oracle", unseen.name)]
        assert row["value"] == pytest.approx(100 * right / len(photos))


@pytest.mark.parametrize(
    ("labels", "code", "message"),
    [
        (["x"], 4, "label_of is not a list of whole numbers"),
        ("01", 4, "label_of is not a list of whole numbers"),
        ([0, 3], 4, "its captions, photos and classes do not fit each other"),
    ],
)
def test_labels_a_pack_cannot_mean_are_refused(run, tiny, cifar, tmp_path, own_home, labels, code, message):
    from sglora_cli.files.tensors import load_tensors, save_tensors

    built(run, tmp_path, cifar, RECIPE + SORTS)
    (path,) = (own_home / "cache/packs/sorts/evaluation").glob("*carnivores*")
    tensors, metadata = load_tensors(path)
    save_tensors(path, tensors, {**metadata, "label_of": labels})
    result = run("bench", "--pack", "sorts")
    assert result.exit_code == code
    assert message in result.stderr


def test_a_mixed_pack_has_both_measures(run, tiny, toys, tmp_path):
    cifar_tree(toys / "cifar", cifar_speckles())
    content = built(run, tmp_path, toys, RECIPE + SORTS + MORE, "mixed")
    assert {(r["dataset"], r["direction"]) for r in content["rows"]} == {
        ("cifar100", "ACC"), ("toys", "I2T"), ("toys", "T2I")
    }  # fmt: skip
    for reporter in ("table", "terminal", "markdown"):
        result = run("bench", "--pack", "mixed", "--as", reporter)
        assert result.exit_code == 0, result.output
        assert "T2I R@10" in result.stdout
        assert "recall and accuracy in percent" in " ".join(result.stdout.split())


def test_classes_in_the_description_of_a_task_without_are_the_recipes_error(run, tiny, toys, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE + MORE + 'description = "{name}: {classes}"\n')
    line = len(path.read_text().splitlines())
    result = run("pack", "build", path, "--data", toys, "--dry-run")
    assert (result.exit_code, result.stderr) == (
        4,
        f"error: recipe {path}, line {line}: toys/ball is no classification task: it has no {{classes}} for "
        "'{name}: {classes}'\n",
    )
    path.write_text('template = "{name}: {classes}"\n' + RECIPE + MORE)
    assert f"recipe {path}, line 1: toys/ball is no" in run("pack", "build", path, "--data", toys).stderr


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ('["a photo"]', "a prompt must be a text with {class} and no other braces, got 'a photo'"),
        ('["{class} {name}"]', "a prompt must be a text with {class} and no other braces, got '{class} {name}'"),
        ("[3]", "a prompt must be a text with {class} and no other braces, got 3"),
        ("[]", "prompts must be a list of strings, got []"),
        ('"{class}"', "prompts must be a list of strings, got '{class}'"),
    ],
)
def test_a_wrong_prompt_is_named_with_its_line(run, tiny, toys, tmp_path, prompts, message):
    path = tmp_path / "mine.toml"
    path.write_text(f'prompts = {prompts}\nbackbone = "tiny"\n{MORE}[prior]\nk = 1\n')
    result = run("pack", "build", path, "--data", toys)
    assert (result.exit_code, result.stderr) == (4, f"error: recipe {path}, line 1: {message}\n")


def test_a_dry_run_counts_classification_tasks(run, tiny, cifar, tmp_path):
    (tmp_path / "sorts.toml").write_text(RECIPE + SORTS)
    plan = json.loads(run("pack", "build", tmp_path / "sorts.toml", "--data", cifar, "--dry-run", "--json").stdout)
    assert plan["roles"]["unseen"] == {"tasks": 2, "photos": 25}


def test_other_prompts_are_other_heads(run, tiny, cifar, tmp_path):
    first = built(run, tmp_path, cifar, RECIPE + SORTS)["rows"]
    second = built(run, tmp_path, cifar, RECIPE.replace(', "{class}"', "") + SORTS)["rows"]
    assert first != second


def test_an_adapter_of_a_classification_task_can_be_tried(run, tiny, cifar, tmp_path):
    built(run, tmp_path, cifar, RECIPE + SORTS)
    adapter, image = tmp_path / "x.safetensors", tmp_path / "x.png"
    cifar_speckles()["test"][0][1].save(image)
    assert run("generate", "trees, which includes oak", "--pack", "sorts", "-o", adapter).exit_code == 0
    result = run("try", adapter, "--image", image, "--text", "a photo of a oak tree", "--text", "a photo of a palm")
    assert result.exit_code == 0, result.output
    assert "2 sentences, rank and score" in result.stdout


def classes(name: str, photos: int, count: int) -> TaskTensors:
    """A classification task with so many classes."""
    rng = torch.Generator().manual_seed(100 * photos + count)
    head = torch.nn.functional.normalize(torch.randn(count, 8, generator=rng), dim=-1)
    label = torch.randint(count, (photos,), generator=rng).tolist()
    return TaskTensors(name, torch.rand(photos, 4, 12, generator=rng).half(), head, (), tuple(label))


def obvious(one: TaskTensors, config: TrainConfig) -> torch.Tensor:
    """The adapter after all epochs, by torch's own loss and optimiser, one task alone."""
    flat_P = LAYOUT.initial(config.seed).clone().requires_grad_()
    adam = torch.optim.Adam([flat_P], lr=config.learning_rate)
    source = Batches(one, config)
    for _ in range(config.epochs):
        for batch in source.epoch():
            photos = batch.photos
            image_ND = MODEL.encode_image(one.stem_N[photos], LAYOUT, flat_P[None])[0]
            target = torch.tensor([one.label_of[n] for n in photos])
            loss = torch.nn.functional.cross_entropy(MODEL.scale * image_ND @ one.text_CD.T, target)
            adam.zero_grad()
            loss.backward()
            adam.step()
    return flat_P.detach()


def test_batched_training_is_cross_entropy_on_every_task_alone():
    config = TrainConfig(epochs=4, states=1, batch=4, learning_rate=0.01, tasks_at_once=5)
    tasks = [classes("a", 3, 2), classes("b", 9, 5), task("c", 9), classes("d", 10, 3), task("e", 4)]  # two retrieve
    together = {one.name: states[-1] for one, states in train_tasks(MODEL, LAYOUT, tasks, config)}
    for one in tasks:
        if one.label_of:
            assert torch.allclose(together[one.name], obvious(one, config), atol=1e-5)
        else:
            ((_, alone),) = train_tasks(MODEL, LAYOUT, [one], config)
            assert torch.allclose(together[one.name], alone[-1], atol=1e-5)
    assert not torch.allclose(together["b"], LAYOUT.initial(0), atol=1e-3)


def test_one_adapter_of_one_task_is_that_of_training_it_alone():
    config = TrainConfig(joint_epochs=3, epochs=3, batch=99, learning_rate=0.01, joint_learning_rate=0.01)
    after = [obvious(classes("a", 6, 3), replace(config, epochs=epochs)) for epochs in (2, 3)]
    joint = train_joint(MODEL, LAYOUT, [classes("a", 6, 3)], config)
    assert torch.allclose(joint, (after[0] + after[1]) / 2, atol=1e-5)  # a mean over the last half


def test_one_adapter_learns_from_both_kinds():
    tasks = [classes("a", 6, 3), task("b", 5)]
    config = TrainConfig(joint_epochs=3, joint_learning_rate=0.01)
    both, one = train_joint(MODEL, LAYOUT, tasks, config), train_joint(MODEL, LAYOUT, tasks[1:], config)
    assert bool(both.isfinite().all())
    assert not torch.allclose(both, one, atol=1e-3)
