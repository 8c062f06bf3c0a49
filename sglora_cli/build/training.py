"""Many tasks' adapters in one batched loop over one frozen backbone (docs/method.md, section 1).

A step runs T tasks at once: each has its own adapter and its own photos, the backbone's weights
are shared. The result is that of training every task alone, to rounding.

Shapes: T tasks, N photos of a step (padded), L.. stem, C captions, D embedding, P numbers, M states.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sglora_cli.build.batches import AnyTask, Batch, Batches
from sglora_cli.build.losses import classification_loss, contrastive_loss
from sglora_cli.config import TrainConfig
from sglora_cli.errors import Mismatch
from sglora_cli.lora.layout import Layout
from sglora_cli.plugin.contracts import HidesTokens, Model


def hiding(model: Model) -> Callable[[Tensor, float, torch.Generator], Tensor]:
    """The backbone's method `hide`. Raises Mismatch if it has none."""
    if not isinstance(model, HidesTokens):
        raise Mismatch("this backbone cannot hide a part of a photo", "set hide = 0, or leave it out of the recipe")
    return model.hide


def _gather(
    model: Model, tasks: Sequence[AnyTask], batches: Sequence[Batch], hide: float
) -> tuple[Tensor, Tensor, Tensor]:
    """One step's padded stems (T, N, ...), texts (T, N, D) and which of them are real (T, N), on the device."""
    widest = max(len(batch.photos) for batch in batches)
    stems, texts = [], []
    for task, batch in zip(tasks, batches, strict=True):
        stem_N, text_ND = batch.of(task)
        if hide:  # seeded by the task, so that it trains as it would alone
            stem_N = hiding(model)(stem_N, hide, torch.Generator().manual_seed(batch.seed))
        more = [*range(len(stem_N)), *[0] * (widest - len(stem_N))]
        stems.append(stem_N[more])
        texts.append(text_ND[more])
    real = torch.tensor([[i < len(batch.photos) for i in range(widest)] for batch in batches])
    device = model.device
    return torch.stack(stems).to(device).float(), torch.stack(texts).to(device), real.to(device)


def losses(
    model: Model,
    layout: Layout,
    tasks: Sequence[AnyTask],
    batches: Sequence[Batch],
    adapters_TP: Tensor,
    hide: float,
) -> Tensor:
    """Every task's loss on its batch: (T,). Differentiable with respect to adapters_TP, each task's own."""
    stem, text, real = _gather(model, tasks, batches, hide)
    image_TND = model.encode_image(stem, layout, adapters_TP)
    pairs = [t for t, task in enumerate(tasks) if not task.label_of]
    sorts = [t for t, task in enumerate(tasks) if task.label_of]
    parts = []
    if pairs:
        parts.append(contrastive_loss(image_TND[pairs], text[pairs], real[pairs], model.scale))
    if sorts:
        heads = [tasks[t].text_CD.to(model.device) for t in sorts]
        counts = torch.tensor([[len(head)] for head in heads], device=model.device)
        head_TCD = torch.nn.utils.rnn.pad_sequence(heads, batch_first=True)
        real_TC = torch.arange(head_TCD.shape[1], device=model.device) < counts
        parts.append(classification_loss(image_TND[sorts], text[sorts], real[sorts], head_TCD, real_TC, model.scale))
    return torch.cat(parts)[torch.tensor(pairs + sorts).argsort()] if pairs and sorts else parts[0]


def _gradient(model: Model, loss: Tensor, adapters_TP: Tensor) -> Tensor:
    """d loss / d adapters_TP. For a model in fp16 the loss is scaled, and a gradient that overflows counts as 0."""
    (gradient_TP,) = torch.autograd.grad(loss * model.loss_scale, adapters_TP)
    return gradient_TP if model.loss_scale == 1 else torch.nan_to_num(gradient_TP / model.loss_scale, 0.0, 0.0, 0.0)


class OwnTraining:
    """Trains tasks side by side, each with its own adapter, one epoch at a time.

    An interrupted training resumes from `tensors()`, also in another process, and gives the same numbers.
    """

    def __init__(
        self, model: Model, layout: Layout, tasks: Sequence[AnyTask], config: TrainConfig, start_P: Tensor
    ) -> None:
        self.model, self.layout, self.hide, self.epoch = model, layout, config.hide, 0
        self.adapters_TP = start_P.to(model.device).repeat(len(tasks), 1).requires_grad_()
        self.adam = RowAdam(self.adapters_TP, config)
        self.sources = [Batches(task, config) for task in tasks]
        self.tasks = [task.to(model.device) for task in tasks]

    def advance(self) -> list[float]:
        """Train one epoch. Returns each task's mean loss in it."""
        plans = [source.epoch() for source in self.sources]
        loss_T = torch.zeros(len(self.tasks), device=self.model.device)
        for step in range(max(source.steps for source in self.sources)):
            rows = [t for t, source in enumerate(self.sources) if step < source.steps]
            tasks, batches = [self.tasks[t] for t in rows], [plans[t][step] for t in rows]
            loss_R = losses(self.model, self.layout, tasks, batches, self.adapters_TP[rows], self.hide)
            self.adam.step(_gradient(self.model, loss_R.sum(), self.adapters_TP), torch.tensor(rows))
            loss_T[rows] += loss_R.detach()
        self.epoch += 1
        return (loss_T.cpu() / torch.tensor([source.steps for source in self.sources])).tolist()

    def tensors(self) -> dict[str, Tensor]:
        """Everything `restore` needs."""
        return {**self.adam.tensors(), "epoch": torch.tensor([self.epoch])}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.adam.restore(tensors)
        self.epoch = int(tensors["epoch"])
        for _ in range(self.epoch):  # draws what the finished epochs drew
            for source in self.sources:
                source.epoch()


class JointTraining:
    """Trains one adapter for all tasks, one epoch at a time. A step averages the losses of `tasks_at_once` tasks.

    A batch has photos of one task only, as retrieval has. It resumes from `tensors()` as OwnTraining does.
    """

    def __init__(
        self, model: Model, layout: Layout, tasks: Sequence[AnyTask], config: TrainConfig, epochs: int
    ) -> None:
        self.model, self.layout, self.tasks, self.epochs, self.epoch = model, layout, tasks, epochs, 0
        self.at_once, self.hide = config.tasks_at_once, config.hide
        self.joint_1P = layout.initial(config.seed)[None].to(model.device, copy=True).requires_grad_()
        self.adam = RowAdam(self.joint_1P, replace(config, learning_rate=config.joint_learning_rate))
        self.sources = [Batches(task, config) for task in tasks]
        self.shuffle = torch.Generator().manual_seed(config.seed)
        self.sum_P = torch.zeros(layout.size, dtype=torch.float64)

    def advance(self) -> list[float]:
        """Train one epoch. Returns the mean loss in it."""
        pairs, loss, steps = self._pairs(), torch.zeros((), device=self.model.device), 0
        for first in range(0, len(pairs), self.at_once):
            tasks, batches = zip(*pairs[first : first + self.at_once], strict=True)
            adapters_TP = self.joint_1P.expand(len(tasks), -1)
            mean = losses(self.model, self.layout, tasks, batches, adapters_TP, self.hide).mean()
            self.adam.step(_gradient(self.model, mean, self.joint_1P), torch.tensor([0]))
            loss, steps = loss + mean.detach(), steps + 1
        if self.epoch >= self.epochs // 2:
            self.sum_P += self.last_P.double()
        self.epoch += 1
        return [float(loss) / steps]

    def _pairs(self) -> list[tuple[AnyTask, Batch]]:
        """The epoch's batches of all tasks, shuffled."""
        pairs = [(t, batch) for t, source in zip(self.tasks, self.sources, strict=True) for batch in source.epoch()]
        return [pairs[i] for i in torch.randperm(len(pairs), generator=self.shuffle).tolist()]

    @property
    def last_P(self) -> Tensor:
        """(P,) after the last epoch."""
        return self.joint_1P.detach()[0].to("cpu", copy=True)

    @property
    def mean_P(self) -> Tensor:
        """(P,) mean over the last half of the epochs: the adapter of a single epoch is noisy."""
        return (self.sum_P / (self.epochs - self.epochs // 2)).float()

    def tensors(self) -> dict[str, Tensor]:
        """Everything `restore` needs."""
        return {**self.adam.tensors(), "epoch": torch.tensor([self.epoch]), "sum": self.sum_P}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.adam.restore(tensors)
        self.epoch = int(tensors["epoch"])
        self.sum_P = tensors["sum"]
        for _ in range(self.epoch):
            self._pairs()


def groups(photos: Sequence[int], config: TrainConfig) -> list[list[int]]:
    """Groups of tasks that train side by side, those with similar numbers of steps. photos: the number of each task.

    The groups depend only on the tasks, so that a resumed build trains the same groups: other groups round
    differently.
    """
    order = sorted(range(len(photos)), key=lambda t: -(-photos[t] // config.batch))
    return [order[first : first + config.tasks_at_once] for first in range(0, len(order), config.tasks_at_once)]


class RowAdam:
    """Adam (Kingma & Ba 2015) whose rows keep their own step counts, so that a task can skip a step."""

    def __init__(self, parameters_TP: Tensor, config: TrainConfig, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self.x, self.rate, self.decay, self.betas = parameters_TP, config.learning_rate, config.weight_decay, betas
        self.first, self.second = torch.zeros_like(parameters_TP), torch.zeros_like(parameters_TP)
        self.count_T1 = torch.zeros(len(parameters_TP), 1, device=parameters_TP.device)

    @torch.no_grad()
    def step(self, gradient_TP: Tensor, rows: Tensor) -> None:
        """Update the given rows; gradient_TP has all of them."""
        one, two = self.betas
        g = gradient_TP[rows]
        self.count_T1[rows] += 1
        first = self.first[rows] * one + g * (1 - one)
        second = self.second[rows] * two + g * g * (1 - two)
        self.first[rows], self.second[rows] = first, second
        n = self.count_T1[rows]
        scale = (second / (1 - two**n)).sqrt() + 1e-8
        self.x[rows] = self.x[rows] * (1 - self.rate * self.decay) - self.rate * (first / (1 - one**n)) / scale

    def tensors(self) -> dict[str, Tensor]:
        """The parameters and the state of Adam."""
        return {"x": self.x.detach(), "first": self.first, "second": self.second, "count": self.count_T1}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        for name, own in self.tensors().items():
            own.copy_(tensors[name])
