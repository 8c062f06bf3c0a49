"""Recorded steps, without a GPU: the recorder here notes a call, as a CUDA graph does, and a replay runs it."""

from __future__ import annotations

import gc
import weakref
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from in_memory import training_of
from small_clip import small_clip
from tiny_tasks import LAYOUT, MODEL, task
from waits import Waits

from sglora_cli.build import recorded_step, training
from sglora_cli.build.batches import Batch
from sglora_cli.build.recorded_step import WARM_UP, Recorded, run
from sglora_cli.build.task_stack import TaskStack
from sglora_cli.config import TrainConfig
from sglora_cli.plugin.values import TaskTensors
from sglora_cli.testing import layout_of


class Notes:
    """A recorder that counts."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.warmed, self.recorded, self.replayed = error, 0, 0, 0

    def warm_up(self, call):
        self.warmed += 1
        call()

    def record(self, call):
        if self.error:
            raise self.error
        self.recorded += 1

        def replay():
            self.replayed += 1
            call()

        return replay


STACK = TaskStack([task("a", 6), task("b", 6)], torch.device("cpu"), resident=True)


def tables(width: int, count: int):
    steps = [[(0, Batch([n % 6], [n % 12])), (1, Batch([5 - n % 6], [n % 12]))] for n in range(count)]
    return STACK.tables(steps, width)


def counting(total: torch.Tensor):
    """A step that adds up the photos that it shows."""

    def step(shown) -> None:
        total.add_(STACK.gather(shown)[0].double().sum())

    return step


def test_after_a_few_runs_a_step_is_recorded_and_replayed_with_the_tables_of_each_step():
    notes, total, expected = Notes(), torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    recorded = Recorded(notes)
    for shown in tables(2, 9):
        recorded(counting(total), shown)
        counting(expected)(shown)
        assert torch.equal(total, expected)
    assert (notes.warmed, notes.recorded, notes.replayed) == (WARM_UP, 1, 9 - WARM_UP)


def test_another_shape_is_recorded_on_its_own():
    notes, total = Notes(), torch.zeros((), dtype=torch.float64)
    recorded = Recorded(notes)
    for wide, narrow in zip(tables(3, 5), tables(2, 5), strict=True):
        recorded(counting(total), wide)
        recorded(counting(total), narrow)
    assert (notes.warmed, notes.recorded, notes.replayed) == (2 * WARM_UP, 2, 2 * (5 - WARM_UP))


def test_a_step_that_cannot_be_recorded_runs_as_it_is_and_says_so_once(capsys):
    recorded_step._note.cache_clear()
    total, expected = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for _ in range(2):
        recorded = Recorded(Notes(RuntimeError("operation not permitted when stream is capturing")))
        for shown in tables(2, 6):
            recorded(counting(total), shown)
            counting(expected)(shown)
    assert torch.equal(total, expected)
    assert capsys.readouterr().err == (
        "cannot record training steps as CUDA graphs, they will run slower "
        "(operation not permitted when stream is capturing)\n"
    )


def test_a_fault_of_the_step_itself_is_raised():
    recorded = Recorded(Notes(ZeroDivisionError()))

    def step(shown):
        raise ZeroDivisionError("mine")

    recorded._runs[tuple(tensor.shape for tensor in tables(2, 1)[0].tensors)] = WARM_UP
    with pytest.raises(ZeroDivisionError, match="mine"):
        recorded(step, tables(2, 1)[0])


@pytest.fixture
def on_a_gpu(monkeypatch):
    """Training does what it does on a GPU: photos stay on the device, and small steps are recorded."""
    notes = Notes()
    monkeypatch.setattr(training, "recorder_for", lambda device: notes)
    monkeypatch.setattr(training, "TaskStack", lambda tasks, device, resident: TaskStack(tasks, device, True))
    return notes


def sorting(name: str, photos: int, classes: int) -> TaskTensors:
    one = task(name, photos)
    return replace(one, text_CD=one.text_CD[:classes], image_of=(), label_of=tuple(n % classes for n in range(photos)))


UNEQUAL = [task("a", 3), task("b", 9), task("c", 10)]  # one, three and three steps of three or four photos
SORTING = [sorting("a", 3, 2), sorting("b", 9, 4), sorting("c", 10, 3)]
CONFIG = TrainConfig(batch=4, learning_rate=0.01, tasks_at_once=2)


def trained(kind: str, tasks, epochs: int = 5):
    one = training_of(kind, MODEL, LAYOUT, tasks, CONFIG, epochs)
    return [one.advance() for _ in range(epochs)], one.tensors(), one


@pytest.mark.parametrize("kind", ["own", "joint"])
@pytest.mark.parametrize("tasks", [UNEQUAL, SORTING], ids=["captions", "classes"])
def test_recorded_training_is_training(kind, tasks, request):
    losses, expected, plain = trained(kind, tasks)
    assert plain.run is run
    notes = request.getfixturevalue("on_a_gpu")
    same_losses, tensors, _ = trained(kind, tasks)
    assert notes.recorded >= 1
    assert notes.replayed > 4
    assert torch.allclose(torch.tensor(same_losses), torch.tensor(losses), atol=1e-5)
    for name, tensor in expected.items():
        assert torch.allclose(tensors[name], tensor, atol=1e-5), name


def test_tasks_with_as_many_photos_as_steps_have_places_train_to_the_same_bits(request):
    tasks = [task(name, 8) for name in "abc"]
    losses, expected, _ = trained("own", tasks)
    request.getfixturevalue("on_a_gpu")
    same_losses, tensors, _ = trained("own", tasks)
    assert losses == same_losses
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_recorded_training_that_goes_on_elsewhere_ends_with_the_same_numbers(on_a_gpu):
    _, whole, _ = trained("own", UNEQUAL, 6)
    _, _, first = trained("own", UNEQUAL, 4)
    second = training_of("own", MODEL, LAYOUT, UNEQUAL, CONFIG, 6)
    second.restore({name: tensor.clone() for name, tensor in first.tensors().items()})
    for _ in range(2):
        second.advance()
    assert all(torch.equal(tensor, second.tensors()[name]) for name, tensor in whole.items())


@pytest.mark.parametrize(
    ("tasks", "config"),
    [
        (UNEQUAL, replace(CONFIG, hide=0.5)),
        ([UNEQUAL[0], SORTING[1]], CONFIG),
        ([task("a", 100), task("b", 100)], replace(CONFIG, batch=100)),
    ],
    ids=["tokens are hidden on the CPU", "two kinds of tasks", "many photos"],
)
def test_what_is_not_recorded(tasks, config, on_a_gpu):
    assert training_of("own", MODEL, LAYOUT, tasks, config, 1).run is run


def clip_on(device: str, **runtime):
    model = small_clip(**runtime)
    for module in (model.clip, *model.tower.blocks):
        module.to(device)
    model.device = torch.device(device)
    return model


@pytest.mark.parametrize("runtime", [{}, {"precision": "bf16"}, {"checkpointing": True}], ids=str)
@pytest.mark.parametrize("kind", ["own", "joint"])
@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_recorded_step_never_waits_for_the_device(device, classes, kind, runtime, on_a_gpu, monkeypatch):
    model, one = clip_on(device, **runtime), sorting("a", 4, classes) if classes else task("a", 4)
    one = replace(one, stem_N=torch.zeros(4, 17, 32).half(), text_CD=torch.zeros(len(one.text_CD), 16))
    learning = training_of(kind, model, layout_of(model), [one, one], CONFIG, 1)
    assert isinstance(learning.run, Recorded)
    batch = Batch([0, 1, 2, 3], [0, 1, 2, 0])
    (shown,) = learning.stack.tables([[(0, batch), (1, batch)]], learning.width)
    if device == "meta":
        monkeypatch.setattr(torch, "autocast", lambda *args, **options: nullcontext())  # it does not know meta
        monkeypatch.setattr(torch, "is_autocast_enabled", lambda *args: False)
    with Waits() as waits:
        learning._step(shown)
    assert waits.names == set()


def test_the_check_above_finds_what_waits():
    x, elsewhere = torch.zeros(3), torch.zeros(3, device="meta")
    with Waits() as waits:
        x[[0, 2]], x[x > 0], float(x[0]), elsewhere + torch.zeros(3).to("meta")
    assert waits.names == {"lift_fresh", "index with a mask", "_local_scalar_dense", "_to_copy of two devices"}
    with pytest.raises(RuntimeError):
        float(elsewhere[0])


def test_a_training_that_is_over_leaves_memory_at_once():
    gc.collect()
    gc.disable()
    try:
        _, _, one = trained("own", UNEQUAL)
        gone = weakref.ref(one.stack)
        del one
        assert gone() is None
    finally:
        gc.enable()
