"""Classification: heads, accuracy and training against slow definitions and another package."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_tasks import LAYOUT, MODEL, task

from sglora_cli.bench.retrieval import percent, right_class
from sglora_cli.build.training import train_joint, train_tasks
from sglora_cli.config import TrainConfig
from sglora_cli.data.encode import class_heads
from sglora_cli.data.features import task_tensors
from sglora_cli.errors import Mismatch
from sglora_cli.plugin.values import Photo, TaskTensors

PROMPTS = ("a photo of a {class}", "a bad picture of one {class}")


def accuracy(image_ND, text_CD, label_of) -> float:
    return percent(right_class(image_ND, text_CD, label_of))


def classes(name: str, photos: int, count: int) -> TaskTensors:
    """A classification task with so many classes."""
    dice = torch.Generator().manual_seed(100 * photos + count)
    head = torch.nn.functional.normalize(torch.randn(count, 8, generator=dice), dim=-1)
    label = torch.randint(count, (photos,), generator=dice).tolist()
    return TaskTensors(name, torch.rand(photos, 4, 12, generator=dice).half(), head, (), tuple(label))


def obvious(one: TaskTensors, config: TrainConfig) -> torch.Tensor:
    """The adapter after all epochs, by torch's own loss and optimiser, one task alone."""
    from sglora_cli.build.batches import Batches

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


def test_a_head_is_the_mean_of_its_prompts():
    heads = class_heads(MODEL, ["red cat", "dog"], PROMPTS)
    for row, name in enumerate(("red cat", "dog")):
        mean = sum(MODEL.encode_text([prompt.format(**{"class": name})])[0] for prompt in PROMPTS)
        assert torch.allclose(heads[row], mean / mean.norm(), atol=1e-6)
    assert torch.equal(class_heads(MODEL, ["dog"], PROMPTS[:1]), MODEL.encode_text(["a photo of a dog"]))


def test_a_prompt_that_would_be_cut_is_refused():
    from sglora_cli.api import RuntimeConfig
    from sglora_starter import sglora_backbones

    model = sglora_backbones()[0].load(RuntimeConfig(device="cpu"))
    with pytest.raises(Mismatch, match=r"prompt .a photo of a word .*: the sentence has \d+ tokens"):
        class_heads(model, ["word " * 300, "dog"], PROMPTS[:1])


def test_a_photo_of_no_class_is_refused(tmp_path):
    photos = [Photo(tmp_path / "x.png", ("cat",)), Photo(tmp_path / "y.png", ("cow",))]
    with pytest.raises(Mismatch, match="task 'pets' has a photo of class 'cow', its classes are cat, dog"):
        task_tensors(MODEL, "pets", photos, ("cat", "dog"), PROMPTS)


@pytest.mark.parametrize("seed", range(5))
def test_accuracy_is_that_of_looking_at_every_image(seed):
    dice = torch.Generator().manual_seed(seed)
    images, heads = torch.randn(40, 6, generator=dice), torch.randn(5, 6, generator=dice)
    label_of = torch.randint(5, (40,), generator=dice).tolist()
    right = sum(int((heads @ image).argmax()) == label for image, label in zip(images, label_of, strict=True))
    assert accuracy(images, heads, label_of) == pytest.approx(100 * right / 40)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
def test_clip_benchmark_agrees(monkeypatch):
    module = pytest.importorskip("clip_benchmark.metrics.zeroshot_classification")
    dice = torch.Generator().manual_seed(0)
    images, names = torch.randn(60, 8, generator=dice), ["red cat", "dog", "white horse", "ray"]
    label_N = torch.randint(4, (60,), generator=dice)

    class Clip:
        def encode_text(self, rows):
            return MODEL.encode_text([texts[int(row)] for row in rows])

    texts = [prompt.format(**{"class": name}) for name in names for prompt in PROMPTS]
    theirs_DC = module.zero_shot_classifier(
        Clip(), lambda some: torch.tensor([texts.index(t) for t in some]), names,
        [prompt.replace("class", "c") for prompt in PROMPTS], "cpu", amp=False,
    )  # fmt: skip
    heads = class_heads(MODEL, names, PROMPTS)
    assert torch.allclose(heads, theirs_DC.T, atol=1e-6)
    monkeypatch.setattr(module, "float", lambda x: x.item(), raising=False)  # new numpy has no float of a list of one
    (expected,) = module.accuracy(images @ theirs_DC, label_N)
    assert accuracy(images, heads, label_N.tolist()) == pytest.approx(100 * expected)


def test_ties_and_nan_are_errors_of_the_model():
    nan = float("nan")
    heads = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    images = torch.tensor([[1.0, 0.0], [0.5, 0.5], [nan, 0.0], [0.0, nan]])
    assert accuracy(images, heads, [0, 0, 0, 0]) == 25.0
    assert accuracy(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [nan, 0.0]]), [0]) == 0.0
    assert accuracy(torch.tensor([[1.0]]), torch.tensor([[nan]]), [0]) == 0.0


@pytest.mark.parametrize("label_of", [[0], [0, 2], [0, -1], []])
def test_labels_of_no_class_are_refused(label_of):
    with pytest.raises(Mismatch, match="label_of must name one of 2 classes for each of 2 images"):
        accuracy(torch.ones(2, 2), torch.eye(2), label_of)
