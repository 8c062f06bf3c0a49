"""Small training steps on a GPU, recorded once as a CUDA graph and replayed.

Python launches the kernels of a step one by one. For a few photos this takes longer than the kernels themselves, so a
recorded step launches them all at once. Its tensors keep their addresses, so the inputs of a step are copied into them.
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
"""Steps with at most this many photos are recorded. On an H200, larger steps compute longer than Python launches."""
WARM_UP = 3
"""Steps of one shape that run unrecorded first, because they load kernels and choose algorithms."""


class Recorder(Protocol):
    """Runs and records steps on a device."""

    def warm_up(self, call: Callable[[], None]) -> None:
        """Run the call in the way it will be recorded."""

    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        """Record what the call launches, without running it. Returns a function that runs it."""


class CudaRecorder:
    """CUDA graphs of one GPU. They are recorded on their own stream, because the default stream does not support it."""

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
    """Return the recorder of a CUDA GPU, or None for other devices."""
    return CudaRecorder(device) if device.type == "cuda" else None


Step = Callable[[Shown], None]
"""Writes its results to tensors with fixed addresses, and reads all changing inputs from the tables."""


class Recorded:
    """Runs the steps of one training. A step that ran a few times with the same table shapes is recorded and replayed.

    If a step cannot be recorded, it runs unrecorded and a note reports this.
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
        except Exception as error:  # an error of the step itself is raised when it runs unrecorded
            self._refused = True
            _note(f"cannot record training steps as CUDA graphs, they will run slower ({error})")


def run(step: Step, shown: Shown) -> None:
    """Run a step unrecorded."""
    step(shown)


@cache
def _note(text: str) -> None:
    """Print a note, once per text."""
    remark(text)
