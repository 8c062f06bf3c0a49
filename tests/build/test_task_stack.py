"""What steps show: the rows of tasks that are in memory, on disk or on the device."""

from __future__ import annotations

import pytest
import torch
from waits import Waits

from sglora_cli.build.batches import Batch
from sglora_cli.build.task_stack import TaskStack
from sglora_cli.data.features import StoredTask
from sglora_cli.files.tensor_rows import TensorDraft, TensorRows
from sglora_cli.plugin.tokens import drop_tokens
from sglora_cli.plugin.values import TaskTensors

CPU = torch.device("cpu")


def side(name: str, photos: int, texts: int, classes: bool) -> TaskTensors:
    rng = torch.Generator().manual_seed(len(name) + photos)
    labels = tuple(n % texts for n in range(photos)) if classes else ()
    owners = () if classes else tuple(n * photos // texts for n in range(texts))
    stem_N = torch.randn(photos, 6, 3, generator=rng).half()
    return TaskTensors(name, stem_N, torch.randn(texts, 4, generator=rng), owners, labels)


@pytest.fixture
def stored(tmp_path):
    def store(one: TaskTensors) -> StoredTask:
        path = tmp_path / f"{one.name}.safetensors"
        tensors = {"stem": one.stem_N, "text": one.text_CD}
        draft = TensorDraft(path, {name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()}, {})
        for name, tensor in tensors.items():
            draft.put(name, 0, tensor)
        draft.finish()
        return StoredTask(one.name, TensorRows(path, "stem"), TensorRows(path, "text"), one.image_of, one.label_of)

    return store


@pytest.fixture(params=["in memory", "on disk", "on the device"])
def stack(request, stored):
    """Three tasks: one with a mirrored side, one with classes, one plain."""

    def make(tasks: list[TaskTensors], mirror: TaskTensors) -> TaskStack:
        if request.param == "on disk":
            tasks, mirror = [stored(one) for one in tasks], stored(mirror)
        first = type(tasks[0])(**{**vars(tasks[0]), "mirror": mirror})
        return TaskStack([first, *tasks[1:]], CPU, resident=request.param == "on the device")

    return make


TASKS = [side("a", 5, 10, False), side("b", 4, 3, True), side("c", 7, 7, False)]
MIRROR = side("mirror", 5, 10, False)


def test_a_step_shows_each_task_its_batch_and_pads_with_its_first_photo(stack):
    batches = [Batch([3, 0, 4], [7, 1, 9], mirrored=[1]), Batch([2, 2], [2, 0])]
    made = stack(TASKS, MIRROR)
    (shown,) = made.tables([[(0, batches[0]), (1, batches[1])]])
    stem_TN, text_TND = made.gather(shown)
    a, b, _ = TASKS
    assert torch.equal(stem_TN[0], torch.stack([a.stem_N[3], MIRROR.stem_N[0], a.stem_N[4]]))
    assert torch.equal(text_TND[0], torch.stack([a.text_CD[7], MIRROR.text_CD[1], a.text_CD[9]]))
    assert torch.equal(stem_TN[1], b.stem_N[[2, 2, 2]])
    assert torch.equal(text_TND[1], b.text_CD[[2, 0, 2]])
    assert shown.real_TN.tolist() == [[True, True, True], [True, True, False]]
    assert shown.tasks_T.tolist() == [0, 1]
    assert shown.active_K.tolist() == [True, True, False]


def test_steps_of_one_width_have_one_shape_and_a_resting_task_learns_nothing(stack):
    made = stack(TASKS, MIRROR)
    steps = [[(0, Batch([1, 2], [2, 4])), (2, None)], [(0, None), (2, Batch([6], [6]))]]
    first, second = made.tables(steps, width=3)
    assert [t.shape for t in first.tensors] == [t.shape for t in second.tensors]
    assert (first.active_K.tolist(), second.active_K.tolist()) == ([True, False, False], [False, False, True])
    stem_TN, _ = made.gather(second)
    assert torch.equal(stem_TN[1], TASKS[2].stem_N[[6, 6, 6]])
    assert second.real_TN.tolist() == [[True] * 3, [True, False, False]]


def test_classes_are_padded_to_those_of_the_steps_tasks(stack):
    made = stack(TASKS, MIRROR)
    batch = Batch([0, 1], [0, 1])
    (shown,) = made.tables([[(2, batch), (1, batch)]])
    head_TCD, real_TC = made.heads(shown)
    assert real_TC.tolist() == [[False] * 3, [True] * 3]
    assert torch.equal(head_TCD[1], TASKS[1].text_CD)


def test_tokens_are_hidden_from_the_photos_of_a_batch_alone(stack):
    made = stack(TASKS, MIRROR)
    pairs = [(0, Batch([3, 0, 4], [0, 0, 0], seed=5)), (2, Batch([1, 2], [0, 0], seed=6))]
    (shown,) = made.tables([pairs])
    hide = lambda stem_N, rng: drop_tokens(stem_N, 0.5, 1, rng)  # noqa: E731
    stem_TN, _ = made.gather(shown, hide)
    alone_N = hide(TASKS[2].stem_N[[1, 2]], torch.Generator().manual_seed(6))
    assert torch.equal(stem_TN[1], alone_N[[0, 1, 0]])


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_with_everything_on_the_device_no_step_waits_for_it(device):
    made = TaskStack(TASKS, torch.device(device), resident=True)
    (shown,) = made.tables([[(1, Batch([0, 1], [0, 1]))]])
    with Waits() as waits:
        made.gather(shown)
        made.heads(shown)
    assert waits.names == set()
