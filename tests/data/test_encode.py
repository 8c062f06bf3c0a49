"""Classification: heads and accuracy against slow definitions and another package."""

from __future__ import annotations

import pytest
import torch
from thirdparty.sglora_clipling import Clipling
from tiny_tasks import MODEL

from sglora_cli.bench.retrieval import percent, right_class
from sglora_cli.data.encode import ALONE, class_heads, encode_images
from sglora_cli.data.features import task_tensors
from sglora_cli.errors import Mismatch
from sglora_cli.lora.layout import Layout
from sglora_cli.plugin.values import Photo, TaskTensors
from sglora_cli.testing import adapters

PROMPTS = ("a photo of a {class}", "a bad picture of one {class}")


def accuracy(image_ND, text_CD, label_of) -> float:
    return percent(right_class(image_ND, text_CD, label_of))


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
    with pytest.raises(Mismatch, match="task 'pets' has a photo of class 'cow', but its classes are cat, dog"):
        task_tensors(MODEL, "pets", photos, ("cat", "dog"), PROMPTS)


@pytest.mark.parametrize("seed", range(5))
def test_accuracy_is_that_of_looking_at_every_image(seed):
    rng = torch.Generator().manual_seed(seed)
    images, heads = torch.randn(40, 6, generator=rng), torch.randn(5, 6, generator=rng)
    label_of = torch.randint(5, (40,), generator=rng).tolist()
    right = sum(int((heads @ image).argmax()) == label for image, label in zip(images, label_of, strict=True))
    assert accuracy(images, heads, label_of) == pytest.approx(100 * right / 40)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
def test_clip_benchmark_agrees(monkeypatch):
    module = pytest.importorskip("clip_benchmark.metrics.zeroshot_classification")
    rng = torch.Generator().manual_seed(0)
    images, names = torch.randn(60, 8, generator=rng), ["red cat", "dog", "white horse", "ray"]
    label_N = torch.randint(4, (60,), generator=rng)

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


def test_adapters_of_the_projection_alone_share_the_encoder():
    """256 images, as many as one forward takes: other adapters are then encoded one by one."""

    class Counting(Clipling):
        forwards = 0

        def _encode(self, x, attention=None):
            self.forwards += 1
            return super()._encode(x, attention)

    model = Counting()
    stem_N = torch.randn(256, 5, 16, generator=torch.Generator().manual_seed(0))
    task = TaskTensors("x", stem_N, torch.zeros(1, 12), (0,) * 256)
    for sites, forwards in (((model.projection,), 2), (model.sites, ALONE + 1)):
        layout = Layout(sites, 2, 3.0)
        flat_TP = adapters(layout, ALONE + 1)
        model.forwards = 0
        image_TND = encode_images(model, layout, task, flat_TP)
        assert model.forwards == forwards
        for t in (0, ALONE - 1, ALONE):
            alone_ND = model.encode_image(stem_N, layout, flat_TP[t : t + 1])[0]
            assert torch.allclose(image_TND[t], alone_ND, atol=1e-5)
