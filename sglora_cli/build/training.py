"""Trains many tasks' adapters in one batched loop over one frozen backbone (docs/method.md, section 1).

A step runs T tasks at once. Each has its own adapter and photos, and they share the backbone's weights. The result
equals training every task alone, up to rounding.

Shapes: T tasks, N photos of a step (padded), L.. stem, C captions, D embedding, P parameters, M states.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sglora_cli.build.batches import AnyTask, Batches
from sglora_cli.build.losses import classification_loss, contrastive_loss
from sglora_cli.build.recorded_step import SMALL, Recorded, Step, recorder_for, run
from sglora_cli.build.task_stack import Pair, Shown, TaskStack, bytes_of
from sglora_cli.config import TrainConfig
from sglora_cli.errors import Mismatch
from sglora_cli.lora.layout import Layout
from sglora_cli.plugin.contracts import HidesTokens, Model
from sglora_cli.system.hardware import free_device_memory


def hiding(model: Model) -> Callable[[Tensor, float, torch.Generator], Tensor]:
    """Return the backbone's method `hide`. Raises Mismatch if it has none."""
    if not isinstance(model, HidesTokens):
        raise Mismatch("this backbone cannot hide parts of photos", "set hide = 0 in the recipe, or remove hide")
    return model.hide


def losses(
    model: Model, layout: Layout, stack: TaskStack, shown: Shown, adapters_TP: Tensor, hide: float = 0.0
) -> Tensor:
    """Return every task's loss on its batch: (T,). Differentiable with respect to adapters_TP, each task's own."""
    cut = hiding(model) if hide else None
    stem, text_TND = stack.gather(shown, cut and (lambda stem_N, rng: cut(stem_N, hide, rng)))
    image_TND, real_TN = model.encode_image(stem, layout, adapters_TP), shown.real_TN.to(model.device)
    sorts = [place for place, (task, _) in enumerate(shown.pairs) if stack.classes[task]]
    if not sorts:
        return contrastive_loss(image_TND, text_TND, real_TN, model.scale)
    head_TCD, real_TC = stack.heads(shown)
    if len(sorts) == len(shown.pairs):
        return classification_loss(image_TND, text_TND, real_TN, head_TCD, real_TC, model.scale)
    pairs = [place for place in range(len(shown.pairs)) if place not in sorts]
    one_T = contrastive_loss(image_TND[pairs], text_TND[pairs], real_TN[pairs], model.scale)
    other_T = classification_loss(
        image_TND[sorts], text_TND[sorts], real_TN[sorts], head_TCD[sorts], real_TC[sorts], model.scale
    )
    return torch.cat([one_T, other_T])[torch.tensor(pairs + sorts).argsort()]


def _gradient(model: Model, loss: Tensor, adapters_TP: Tensor) -> Tensor:
    """Return d loss / d adapters_TP. For a model in fp16 the loss is scaled, and overflowing gradients count as 0."""
    (gradient_TP,) = torch.autograd.grad(loss * model.loss_scale, adapters_TP)
    return gradient_TP if model.loss_scale == 1 else torch.nan_to_num(gradient_TP / model.loss_scale, 0.0, 0.0, 0.0)


def _runner(
    stack: TaskStack, sources: Sequence[Batches], tasks: int, hide: float
) -> tuple[Callable[[Step, Shown], None], int]:
    """Return a function that runs steps of `tasks` tasks, and the width of all steps.

    The width is the number of photos per task in each step if it records them, else 0.
    """
    width = max(-(-len(source.own) // source.steps) for source in sources)
    one_kind = all(stack.classes) or not any(stack.classes)
    recorder = recorder_for(stack.device)
    if recorder and stack.resident and one_kind and not hide and tasks * width <= SMALL:
        return Recorded(recorder), width
    return run, 0


class OwnTraining:
    """Trains tasks side by side, each with its own adapter, one epoch at a time.

    An interrupted training resumes from `tensors()`, also in another process, and computes the same numbers.
    """

    def __init__(
        self, model: Model, layout: Layout, tasks: Sequence[AnyTask], config: TrainConfig, start_P: Tensor
    ) -> None:
        self.model, self.layout, self.hide, self.epoch = model, layout, config.hide, 0
        self.adapters_TP = start_P.to(model.device).repeat(len(tasks), 1).requires_grad_()
        self.adam = RowAdam(self.adapters_TP, config)
        self.sources = [Batches(task, config) for task in tasks]
        on_cpu = model.device.type == "cpu"
        self.stack = TaskStack([t.to(model.device) for t in tasks] if on_cpu else tasks, model.device, not on_cpu)
        self.loss_T = torch.zeros(len(tasks), device=model.device)
        self.run, self.width = _runner(self.stack, self.sources, len(tasks), self.hide)

    def advance(self) -> list[float]:
        """Train one epoch and return each task's mean loss in it."""
        plans = [source.epoch() for source in self.sources]
        rests = bool(self.width)  # recorded steps have all tasks, others leave out finished tasks
        steps: list[list[Pair]] = [
            [(t, plan[n] if n < len(plan) else None) for t, plan in enumerate(plans) if n < len(plan) or rests]
            for n in range(max(map(len, plans)))
        ]
        self.loss_T.zero_()
        for shown in self.stack.tables(steps, self.width):
            self.run(self._step, shown)
        self.epoch += 1
        return (self.loss_T.cpu() / torch.tensor([source.steps for source in self.sources])).tolist()

    def _step(self, shown: Shown) -> None:
        rows_T, active_K = shown.tasks_T.to(self.model.device), shown.active_K.to(self.model.device)
        adapters_TP = self.adapters_TP.index_select(0, rows_T)
        loss_T = losses(self.model, self.layout, self.stack, shown, adapters_TP, self.hide)
        self.adam.step(_gradient(self.model, loss_T.sum(), self.adapters_TP), active_K)
        self.loss_T.index_add_(0, rows_T, loss_T.detach() * active_K[rows_T])

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that `restore` needs."""
        return {**self.adam.tensors(), "epoch": torch.tensor([self.epoch])}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.adam.restore(tensors)
        self.epoch = int(tensors["epoch"])
        for _ in range(self.epoch):  # advance the random generators past the finished epochs
            for source in self.sources:
                source.epoch()


class JointTraining:
    """Trains one adapter for all tasks, one epoch at a time. A step averages the losses of `tasks_at_once` tasks.

    A batch has photos of one task only, as in retrieval. All photos are stored on the GPU if they need less than a
    quarter of its free memory. Otherwise each step reads its own. It resumes from `tensors()` like OwnTraining.
    """

    def __init__(
        self, model: Model, layout: Layout, tasks: Sequence[AnyTask], config: TrainConfig, epochs: int
    ) -> None:
        self.model, self.layout, self.epochs, self.epoch = model, layout, epochs, 0
        self.at_once, self.hide = config.tasks_at_once, config.hide
        self.joint_1P = layout.initial(config.seed)[None].to(model.device, copy=True).requires_grad_()
        self.adam = RowAdam(self.joint_1P, replace(config, learning_rate=config.joint_learning_rate))
        self.sources = [Batches(task, config) for task in tasks]
        fits = bytes_of(tasks) < free_device_memory(model.device) / 4
        self.stack = TaskStack(tasks, model.device, fits)
        self.shuffle = torch.Generator().manual_seed(config.seed)
        self.sum_P = torch.zeros(layout.size, dtype=torch.float64)
        self.loss = torch.zeros((), device=model.device)
        self.run, self.width = _runner(self.stack, self.sources, self.at_once, self.hide)

    def advance(self) -> list[float]:
        """Train one epoch and return the mean loss in it."""
        pairs = self._pairs()
        steps = [pairs[first : first + self.at_once] for first in range(0, len(pairs), self.at_once)]
        self.loss.zero_()
        for shown in self.stack.tables(steps, self.width):
            self.run(self._step, shown)
        if self.epoch >= self.epochs // 2:
            self.sum_P += self.last_P.double()
        self.epoch += 1
        return [float(self.loss) / len(steps)]

    def _step(self, shown: Shown) -> None:
        adapters_TP = self.joint_1P.expand(len(shown.pairs), -1)
        mean = losses(self.model, self.layout, self.stack, shown, adapters_TP, self.hide).mean()
        self.adam.step(_gradient(self.model, mean, self.joint_1P))
        self.loss += mean.detach()

    def _pairs(self) -> list[Pair]:
        """Return the epoch's batches of all tasks, shuffled."""
        pairs = [(task, batch) for task, source in enumerate(self.sources) for batch in source.epoch()]
        return [pairs[i] for i in torch.randperm(len(pairs), generator=self.shuffle).tolist()]

    @property
    def last_P(self) -> Tensor:
        """The adapter (P,) after the last epoch."""
        return self.joint_1P.detach()[0].to("cpu", copy=True)

    @property
    def mean_P(self) -> Tensor:
        """The mean (P,) over the last half of the epochs, because the adapter of a single epoch is noisy."""
        return (self.sum_P / (self.epochs - self.epochs // 2)).float()

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that `restore` needs."""
        return {**self.adam.tensors(), "epoch": torch.tensor([self.epoch]), "sum": self.sum_P}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.adam.restore(tensors)
        self.epoch = int(tensors["epoch"])
        self.sum_P = tensors["sum"]
        for _ in range(self.epoch):
            self._pairs()


def groups(photos: Sequence[int], config: TrainConfig) -> list[list[int]]:
    """Group tasks with similar numbers of steps to train side by side. photos: the number of photos of each task.

    The groups depend only on the tasks, so that a resumed build trains the same groups. Other groups would round
    differently.
    """
    order = sorted(range(len(photos)), key=lambda t: -(-photos[t] // config.batch))
    return [order[first : first + config.tasks_at_once] for first in range(0, len(order), config.tasks_at_once)]


class RowAdam:
    """Adam (Kingma & Ba 2015) whose rows have their own step counts, so that a task can skip a step."""

    def __init__(self, parameters_TP: Tensor, config: TrainConfig, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self.x, self.rate, self.decay, self.betas = parameters_TP, config.learning_rate, config.weight_decay, betas
        self.first, self.second = torch.zeros_like(parameters_TP), torch.zeros_like(parameters_TP)
        self.count_T1 = torch.zeros(len(parameters_TP), 1, device=parameters_TP.device)

    @torch.no_grad()
    def step(self, gradient_TP: Tensor, active_T: Tensor | None = None) -> None:
        """Update all rows, or only the active ones (T,)."""
        one, two = self.betas
        count_T1 = self.count_T1 + 1
        first = self.first * one + gradient_TP * (1 - one)
        second = self.second * two + gradient_TP * gradient_TP * (1 - two)
        scale = (second / (1 - two**count_T1)).sqrt() + 1e-8
        x = self.x * (1 - self.rate * self.decay) - self.rate * (first / (1 - one**count_T1)) / scale
        for old, new in ((self.x, x), (self.first, first), (self.second, second), (self.count_T1, count_T1)):
            old.copy_(new if active_T is None else torch.where(active_T[:, None], new, old))

    def tensors(self) -> dict[str, Tensor]:
        """Return the parameters and the state of Adam."""
        return {"x": self.x.detach(), "first": self.first, "second": self.second, "count": self.count_T1}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        for name, own in self.tensors().items():
            own.copy_(tensors[name])
