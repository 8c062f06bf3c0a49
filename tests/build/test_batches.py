"""What training is shown: tokens hidden, photos mirrored, and the same again after an interruption."""

from __future__ import annotations

import pytest
import torch
from in_memory import train_tasks, training_of
from thirdparty.sglora_tiny import TinyModel

from sglora_cli.build.batches import Batches
from sglora_cli.build.task_stack import TaskStack
from sglora_cli.config import TrainConfig
from sglora_cli.data.features import task_tensors
from sglora_cli.errors import Mismatch
from sglora_cli.lora.layout import Layout
from sglora_cli.plugin.tokens import drop_tokens
from sglora_cli.plugin.values import Photo, TaskTensors


class Hiding(TinyModel):
    def hide(self, stem, share, rng):
        return drop_tokens(stem, share, 1, rng)


MODEL = Hiding()
LAYOUT = Layout(MODEL.sites, 2, 2.0)


def task(name: str, photos: int) -> TaskTensors:
    rng = torch.Generator().manual_seed(photos)

    def one() -> tuple[torch.Tensor, torch.Tensor]:
        text = torch.nn.functional.normalize(torch.randn(photos, 8, generator=rng), dim=-1)
        return torch.rand(photos, 4, 12, generator=rng).half(), text

    mirror = TaskTensors(name, *one(), tuple(range(photos)))
    return TaskTensors(name, *one(), tuple(range(photos)), mirror=mirror)


def test_of_every_photo_other_tokens_are_hidden_and_the_prefix_stays():
    stem = torch.arange(20 * 9).reshape(20, 9, 1).expand(20, 9, 3).float()
    kept = drop_tokens(stem, 0.5, 1, torch.Generator().manual_seed(0))
    assert kept.shape == (20, 5, 3)
    assert torch.equal(kept[:, 0], stem[:, 0])
    rows = [{int(token) for token in photo[:, 0]} for photo in kept]
    assert all(len(row) == 5 and row <= set(range(9 * n, 9 * n + 9)) for n, row in enumerate(rows))
    assert len({frozenset(token - 9 * n for token in row) for n, row in enumerate(rows)}) > 10
    assert drop_tokens(stem, 0.9, 8, torch.Generator()).shape == (20, 9, 3)  # the last token is never hidden


def test_a_share_of_the_photos_is_shown_mirrored_with_their_own_texts():
    one = task("a", 200)
    (batch,) = Batches(one, TrainConfig(batch=200, mirror=0.25)).epoch()
    stack = TaskStack([one], MODEL.device, resident=False)
    ((stem,), (text,)) = stack.gather(*stack.tables([[(0, batch)]]))
    assert 30 < len(batch.mirrored) < 70
    for row, (photo, caption) in enumerate(zip(batch.photos, batch.texts, strict=True)):
        side = one.mirror if row in batch.mirrored else one
        assert torch.equal(stem[row], side.stem_N[photo])
        assert torch.equal(text[row], side.text_CD[caption])


def test_without_mirror_and_hide_the_order_of_photos_is_what_it_was():
    one = task("a", 30)
    plain = [batch.photos for batch in Batches(one, TrainConfig(batch=8)).epoch()]
    shown = Batches(one, TrainConfig(batch=8, hide=0.5, mirror=0.5)).epoch()
    assert [batch.photos for batch in shown] == plain
    assert all(not batch.mirrored and batch.seed == 0 for batch in Batches(one, TrainConfig(batch=8)).epoch())


def test_company_does_not_change_what_a_task_is_shown():
    config = TrainConfig(epochs=3, states=1, batch=4, learning_rate=0.01, hide=0.5, mirror=0.5)
    tasks = [task("a", 9), task("b", 5), task("c", 3)]
    together = {one.name: states for one, states in train_tasks(MODEL, LAYOUT, tasks, config)}
    for one in tasks:
        ((_, alone),) = train_tasks(MODEL, LAYOUT, [one], config)
        assert torch.allclose(together[one.name], alone, atol=1e-5)


def test_both_change_what_is_learned():
    ways = [{}, {"hide": 0.5}, {"mirror": 0.5}]
    states = []
    for way in ways:
        config = TrainConfig(epochs=2, states=1, learning_rate=0.01, **way)
        states.append(next(train_tasks(MODEL, LAYOUT, [task("a", 9)], config))[1])
    assert all(
        float((one - other).abs().max()) > 1e-3 for one, other in ((states[0], states[1]), (states[0], states[2]))
    )


@pytest.mark.parametrize("kind", ["own", "joint"])
def test_training_that_goes_on_elsewhere_is_shown_the_same(kind):
    config = TrainConfig(batch=4, learning_rate=0.01, tasks_at_once=2, hide=0.5, mirror=0.5)
    tasks = [task("a", 9), task("b", 5)]

    def fresh():
        return training_of(kind, MODEL, LAYOUT, tasks, config, epochs=3)

    whole, first, second = fresh(), fresh(), fresh()
    losses = [whole.advance() for _ in range(3)]
    first.advance()
    second.restore({name: tensor.clone() for name, tensor in first.tensors().items()})
    assert [second.advance() for _ in range(2)] == losses[1:]


def test_a_backbone_that_cannot_hide_says_so():
    with pytest.raises(Mismatch, match="cannot hide parts of photos"):
        list(train_tasks(TinyModel(), LAYOUT, [task("a", 3)], TrainConfig(epochs=1, states=1, hide=0.5)))


def test_mirrored_features_are_those_of_the_mirrored_photo(tmp_path, own_home):
    from PIL import Image, ImageOps

    from sglora_cli.data.features import Features

    image = Image.radial_gradient("L").crop((0, 0, 90, 128)).convert("RGB")
    image.save(tmp_path / "left.png")
    ImageOps.mirror(image).save(tmp_path / "right.png")
    left = [Photo(tmp_path / "left.png", ("a light on the right",))]
    right = [Photo(tmp_path / "right.png", ("a light on the left",))]
    turned = Features.of(MODEL, "a", left).mirror()
    assert turned.key != Features.of(MODEL, "a", left).key
    stored, whole = turned.stored(MODEL).to(MODEL.device), task_tensors(MODEL, "a", right)
    assert torch.equal(stored.stem_N, whole.stem_N)
    assert torch.equal(stored.text_CD, whole.text_CD)
    assert not torch.equal(stored.stem_N, task_tensors(MODEL, "a", left).stem_N)
