"""Many tasks' adapters in one batched loop over one frozen backbone (METHOD step 1).

A step runs T tasks at once: each has its own adapter and its own photos, the backbone's weights
are shared. The result is that of training every task alone, to rounding.

Shapes: T tasks, N photos of a step (padded), L.. stem, C captions, D embedding, P numbers, M states.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sglora_cli.adapters import Layout
from sglora_cli.configs import TrainConfig
from sglora_cli.contracts import Model
from sglora_cli.errors import Mismatch
from sglora_cli.progressing import progress


@dataclass(frozen=True)
class TaskTensors:
    """A task's photos behind the frozen parts: stems (N, ...) float16, texts (C, D), caption -> photo.

    Of a classification task: text_CD are the heads of its classes, label_of is photo -> class, image_of is empty.
    """

    name: str
    stem_N: Tensor
    text_CD: Tensor
    image_of: tuple[int, ...]
    label_of: tuple[int, ...] = ()

    def to(self, device: torch.device) -> TaskTensors:
        """The same, with its tensors on a device: a step there then waits for no copy."""
        return replace(self, stem_N=self.stem_N.to(device), text_CD=self.text_CD.to(device))

    def captions_of(self) -> list[list[int]]:
        """Photo -> its rows of text_CD; one with classes."""
        if self.label_of:
            return [[label] for label in self.label_of]
        own: list[list[int]] = [[] for _ in range(len(self.stem_N))]
        for caption, image in enumerate(self.image_of):
            own[image].append(caption)
        return own


class _Batches:
    """The order of one task's photos and captions; depends on the seed and the task's name only."""

    def __init__(self, task: TaskTensors, config: TrainConfig) -> None:
        if len(task.stem_N) < 2:
            raise Mismatch(f"task {task.name!r} has {len(task.stem_N)} photo(s); training needs two")
        digest = hashlib.sha256(f"{config.seed} {task.name}".encode()).digest()
        self.rng = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        self.task, self.own = task, task.captions_of()
        self.steps = -(-len(task.stem_N) // config.batch)

    def epoch(self) -> list[tuple[list[int], list[int]]]:
        """(photos, one caption of each) for every step of an epoch; sizes differ by one at most."""
        order = torch.randperm(len(self.own), generator=self.rng)
        draw = torch.rand(len(self.own), generator=self.rng)
        batches = []
        for part in torch.tensor_split(order, self.steps):
            photos = part.tolist()
            batches.append((photos, [self.own[i][int(draw[i] * len(self.own[i]))] for i in photos]))
        return batches


class RowAdam:
    """Adam (Kingma & Ba 2015) whose rows keep their own step count, so that a task can sit a step out."""

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


def contrastive_loss(image_TND: Tensor, text_TND: Tensor, real_TN: Tensor, scale: float) -> Tensor:
    """Symmetric image-text loss of each task: (T,). Padding and repeated captions are no negatives."""
    logits_TNN = scale * image_TND @ text_TND.mT
    same_TNN = (text_TND @ text_TND.mT) > 1 - 1e-5
    other = ~torch.eye(logits_TNN.shape[-1], dtype=torch.bool, device=logits_TNN.device)
    hidden = (same_TNN & other) | ~real_TN[:, None, :] | ~real_TN[:, :, None]
    logits_TNN = logits_TNN.masked_fill(hidden & other, float("-inf"))
    right_TN = logits_TNN.diagonal(dim1=1, dim2=2)
    per_TN = (logits_TNN.logsumexp(dim=2) + logits_TNN.logsumexp(dim=1)) / 2 - right_TN
    return (per_TN * real_TN).sum(dim=1) / real_TN.sum(dim=1)


def _gather(
    tasks: Sequence[TaskTensors], batches: Sequence[tuple[list[int], list[int]]], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """One step's padded stems (T, N, ...), texts (T, N, D) and which of them are real (T, N), on the device."""
    widest = max(len(photos) for photos, _ in batches)
    padded = [
        (photos + photos[:1] * (widest - len(photos)), texts + texts[:1] * (widest - len(texts)))
        for photos, texts in batches
    ]
    stem = torch.stack([task.stem_N[photos] for task, (photos, _) in zip(tasks, padded, strict=True)])
    text = torch.stack([task.text_CD[texts] for task, (_, texts) in zip(tasks, padded, strict=True)])
    real = torch.tensor([[i < len(photos) for i in range(widest)] for photos, _ in batches])
    return stem.to(device).float(), text.to(device), real.to(device)


def classification_loss(
    image_TND: Tensor, own_TND: Tensor, real_TN: Tensor, head_TCD: Tensor, real_TC: Tensor, scale: float
) -> Tensor:
    """Cross-entropy of each task over its classes: (T,). own_TND are the heads of the photos' classes.

    Classes and photos that are padding do not count.
    """
    logits_TNC = (scale * image_TND @ head_TCD.mT).masked_fill(~real_TC[:, None, :], float("-inf"))
    per_TN = logits_TNC.logsumexp(dim=2) - scale * (image_TND * own_TND).sum(dim=2)
    return (per_TN * real_TN).sum(dim=1) / real_TN.sum(dim=1)


def _losses(
    model: Model,
    layout: Layout,
    tasks: Sequence[TaskTensors],
    batches: Sequence[tuple[list[int], list[int]]],
    adapters_TP: Tensor,
) -> Tensor:
    """Every task's loss on its batch, (T,): those of retrieval tasks first, then those of classification tasks."""
    stem, text, real = _gather(tasks, batches, model.device)
    image_TND = model.encode_image(stem, layout, adapters_TP)
    parts = []
    if rows := [t for t, task in enumerate(tasks) if not task.label_of]:
        parts.append(contrastive_loss(image_TND[rows], text[rows], real[rows], model.scale))
    if rows := [t for t, task in enumerate(tasks) if task.label_of]:
        heads = [tasks[t].text_CD.to(model.device) for t in rows]
        counts = torch.tensor([[len(head)] for head in heads], device=model.device)
        head_TCD = torch.nn.utils.rnn.pad_sequence(heads, batch_first=True)
        real_TC = torch.arange(head_TCD.shape[1], device=model.device) < counts
        parts.append(classification_loss(image_TND[rows], text[rows], real[rows], head_TCD, real_TC, model.scale))
    return torch.cat(parts)


def _gradient(model: Model, loss: Tensor, adapters_TP: Tensor) -> Tensor:
    """d loss / d adapters_TP. For a model in fp16 the loss is scaled, and a gradient that overflows is taken as 0."""
    scale: float = getattr(model, "loss_scale", 1.0)
    (gradient_TP,) = torch.autograd.grad(loss * scale, adapters_TP)
    return gradient_TP if scale == 1 else torch.nan_to_num(gradient_TP / scale, 0.0, 0.0, 0.0)


def train_tasks(
    model: Model, layout: Layout, tasks: Sequence[TaskTensors], config: TrainConfig, start_P: Tensor | None = None
) -> Iterator[tuple[TaskTensors, Tensor]]:
    """Train every task from one shared start; yields (task, its last M states (M, P)) as tasks finish.

    Tasks with like numbers of steps run together. start_P defaults to the layout's initial adapter.
    """
    start_P = layout.initial(config.seed) if start_P is None else start_P
    order = sorted(tasks, key=lambda task: -(-len(task.stem_N) // config.batch))
    for first in range(0, len(order), config.tasks_at_once):
        chunk = order[first : first + config.tasks_at_once]
        yield from zip(chunk, _train_chunk(model, layout, chunk, config, start_P), strict=True)


def _train_chunk(
    model: Model, layout: Layout, tasks: Sequence[TaskTensors], config: TrainConfig, start_P: Tensor
) -> Tensor:
    """(T, M, P): the states of tasks that train side by side."""
    adapters_TP = start_P.to(model.device).repeat(len(tasks), 1).requires_grad_()
    adam = RowAdam(adapters_TP, config)
    tasks = [task.to(model.device) for task in tasks]
    sources = [_Batches(task, config) for task in tasks]
    kept = min(config.states, config.epochs)
    states = torch.empty(len(tasks), kept, layout.size)
    for epoch in progress(list(range(config.epochs)), f"training {tasks[0].name} ... {tasks[-1].name}"):
        plans = [source.epoch() for source in sources]
        for step in range(max(source.steps for source in sources)):
            rows = [t for t, source in enumerate(sources) if step < source.steps]
            batches = [plans[t][step] for t in rows]
            loss_T = _losses(model, layout, [tasks[t] for t in rows], batches, adapters_TP[rows])
            adam.step(_gradient(model, loss_T.sum(), adapters_TP), torch.tensor(rows))
        if epoch >= config.epochs - kept:
            states[:, epoch - (config.epochs - kept)] = adapters_TP.detach().cpu()
    return states


def train_joint(model: Model, layout: Layout, tasks: Sequence[TaskTensors], config: TrainConfig) -> Tensor:
    """One adapter (P,) for all tasks: that of the last of `joint_epochs` epochs."""
    *_, last_P = _joint_epochs(model, layout, tasks, config, config.joint_epochs)
    return last_P


def warm_up(model: Model, layout: Layout, experts: Sequence[TaskTensors], config: TrainConfig) -> Tensor:
    """Where every task starts (P,): one adapter trained on the experts together for `warmup_epochs` epochs.

    The mean of the last half of its epochs: a single one is noisy. Without a warm-up, the layout's initial adapter.
    """
    epochs = list(_joint_epochs(model, layout, experts, config, config.warmup_epochs))
    return torch.stack(epochs[len(epochs) // 2 :]).mean(dim=0) if epochs else layout.initial(config.seed)


def _joint_epochs(
    model: Model, layout: Layout, tasks: Sequence[TaskTensors], config: TrainConfig, epochs: int
) -> Iterator[Tensor]:
    """The adapter (P,) after every epoch; a step averages the losses of `tasks_at_once` tasks.

    Batches stay inside tasks, as retrieval and classification do.
    """
    joint_1P = layout.initial(config.seed)[None].to(model.device, copy=True).requires_grad_()
    adam = RowAdam(joint_1P, replace(config, learning_rate=config.joint_learning_rate))
    sources = {task.name: _Batches(task, config) for task in tasks}
    shuffle = torch.Generator().manual_seed(config.seed)
    for _ in progress(range(epochs), f"training one adapter on {len(tasks)} tasks"):
        pairs = [(task, batch) for task in tasks for batch in sources[task.name].epoch()]
        pairs = [pairs[i] for i in torch.randperm(len(pairs), generator=shuffle).tolist()]
        for first in range(0, len(pairs), config.tasks_at_once):
            part = pairs[first : first + config.tasks_at_once]
            several, batches = [task for task, _ in part], [batch for _, batch in part]
            loss = _losses(model, layout, several, batches, joint_1P.expand(len(part), -1)).mean()
            adam.step(_gradient(model, loss, joint_1P), torch.tensor([0]))
        yield joint_1P.detach()[0].to("cpu", copy=True)
