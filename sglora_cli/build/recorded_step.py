"""Small training steps on a GPU, recorded once as a CUDA graph and replayed.

Python launches the kernels of a step one by one, and for few photos that takes longer than the kernels do. A recorded
step is launched as a whole. Its tensors keep their places in memory, so what a step shows is copied into those.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import torch

from sglora_cli.build.task_stack import Shown
from sglora_cli.system.progress import remark

SMALL = 128
"""Photos of a step up to which it is recorded. With more, an H200 computes for longer than Python launches."""
WARM_UP = 3
"""Steps of one shape that run as they are first: they load kernels and choose algorithms."""


class Recorder(Protocol):
    """Runs and records on a device."""

    def warm_up(self, call: Callable[[], None]) -> None:
        """Run it, in the way it will be recorded."""

    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        """Note what the call launches, without running it. Returns what runs it."""


class CudaRecorder:
    """CUDA graphs of one GPU. A graph cannot be made on the stream that all else runs on."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)

    def warm_up(self, call: Callable[[], None]) -> None:
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            call()
        current.wait_stream(self._stream)

    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device), torch.cuda.graph(graph, stream=self._stream):
            call()
        return graph.replay


def recorder_for(device: torch.device) -> Recorder | None:
    """The recorder of a CUDA GPU; None for every other device."""
    return CudaRecorder(device) if device.type == "cuda" else None


Step = Callable[[Shown], None]
"""Leaves its results in tensors that stay in their place, and takes all that changes from the tables."""


class Recorded:
    """Runs steps of one training. One that has run a few times with tables of some shape is recorded and replayed.

    A step that cannot be recorded runs as it is, and a note says so.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder, self._refused = recorder, False
        self._runs: Counter[Any] = Counter()
        self._recorded: dict[Any, tuple[Shown, Callable[[], None]]] = {}

    def __call__(self, step: Step, shown: Shown) -> None:
        shapes = tuple(tensor.shape for tensor in shown.tensors)
        if shapes not in self._recorded and self._runs[shapes] < WARM_UP:
            self._runs[shapes] += 1
            self._recorder.warm_up(lambda: step(shown))
            return
        if shapes not in self._recorded and not self._refused:
            self._record(shapes, step, shown)
        if self._refused:
            step(shown)
            return
        own, replay = self._recorded[shapes]
        for place, content in zip(own.tensors, shown.tensors, strict=True):
            place.copy_(content)
        replay()

    def _record(self, shapes: Any, step: Step, shown: Shown) -> None:
        own = shown.clone()
        try:
            self._recorded[shapes] = own, self._recorder.record(lambda: step(own))
        except Exception as error:  # a fault of the step itself is raised when it runs as it is
            self._refused = True
            _note(f"training steps are launched kernel by kernel: no CUDA graph can be made of them ({error})")


def run(step: Step, shown: Shown) -> None:
    """Run a step as it is."""
    step(shown)


@cache
def _note(text: str) -> None:
    """Said once."""
    remark(text)
