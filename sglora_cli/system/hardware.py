"""The hardware of this machine: devices and their precisions, memory, disk. No torch import at the top."""

from __future__ import annotations

import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from sglora_cli.errors import Unavailable, UsageError
from sglora_cli.system.progress import remark

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Name in sglora -> name in torch."""


def pick_device(name: str = "") -> torch.device:
    """Return the device of that name. For "" and "auto" it is a CUDA GPU if available, otherwise the CPU.

    Raises UsageError, Unavailable.
    """
    import torch

    if name in ("", "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"there is no device {name!r}", "use auto, cpu, cuda, cuda:1 or mps") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise Unavailable(f"device {name!r} is not available, because PyTorch finds no CUDA GPU", "pass --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        many = torch.cuda.device_count()
        raise Unavailable(
            f"device {name!r} is not available, because this machine has {many} CUDA GPU(s)",
            f"pass --device cuda:{many - 1}",
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise Unavailable(f"device {name!r} is not available on this machine", "pass --device cpu")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"there is no device {name!r}", "use auto, cpu, cuda, cuda:1 or mps")
    return device


def usable_device(name: str, origin: str) -> str:
    """Return the device of a setting, or "cpu" with a note if this machine lacks it.

    origin: where it is set, for the note. Raises UsageError for an invalid name.
    """
    if name in ("", "auto", "cpu"):  # needs no torch
        return name
    try:
        pick_device(name)
    except Unavailable:
        remark(f"device {name} of {origin} is not available on this machine, using cpu", once=True)
        return "cpu"
    return name


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of that name. For "auto" it is bf16 if a GPU supports it natively, otherwise fp32."""
    import torch

    if name == "auto":
        native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    if name not in DTYPES:
        raise UsageError(f"precision must be auto, {', '.join(DTYPES)}, got {name!r}", "omit --precision")
    if name == "fp16" and device.type == "cpu":
        raise UsageError("fp16 is not supported on a CPU", "pass --precision fp32")
    dtype: torch.dtype = getattr(torch, DTYPES[name])
    return dtype


_SQUARE, _WIDE, _ROWS = 1024, 8192, 4
"""Matrix sizes for `compute_rates`, about 0.1 s on a laptop, with more weights than fit into any cache."""


def compute_rates(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """Measure the device's rates per second: floating-point operations in a product of square matrices, and bytes read
    of a large matrix multiplied by a few rows."""
    import torch

    square = torch.ones(_SQUARE, _SQUARE, device=device, dtype=dtype)
    wide = torch.ones(_WIDE, _WIDE, device=device, dtype=dtype)
    rows = torch.ones(_ROWS, _WIDE, device=device, dtype=dtype)
    operations = 2 * _SQUARE**3 / _quickest(square, square)
    return operations, wide.nbytes / _quickest(rows, wide)


def _quickest(a: Tensor, b: Tensor) -> float:
    """Return the seconds of the fastest of three products, after one warm-up."""
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        float((a @ b)[0, 0])  # waits for the device
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def peak_memory() -> int:
    """Return the peak memory of this process in bytes."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) * (1 if sys.platform == "darwin" else 1024)


def available_memory() -> int:
    """Return the bytes that a build may use: the memory of this process plus free memory of machine or container."""
    own = psutil.Process().memory_info().rss
    free = int(psutil.virtual_memory().available)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    with suppress(OSError, ValueError):  # no such limit
        free = min(free, int(limit.read_bytes()) - int(used.read_bytes()))
    return max(free, 0) + own


def free_device_memory(device: torch.device) -> int:
    """Return the free bytes of a CUDA GPU, or 0 for other devices."""
    import torch

    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0


def free_disk(path: Path) -> int:
    """Return the free bytes at `path`, which may not exist yet."""
    return shutil.disk_usage(nearest_existing(path)).free


def nearest_existing(path: Path) -> Path:
    path = Path(os.path.abspath(path))
    while not path.exists():
        path = path.parent
    return path
