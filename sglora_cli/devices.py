"""Which device computes, and in which numbers."""

from __future__ import annotations

import torch

from sglora_cli.errors import Unavailable, UsageError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str = "") -> torch.device:
    """The device of that name; for "" and "auto" a CUDA GPU if there is one, else the CPU.

    Raises UsageError, Unavailable.
    """
    if name in ("", "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"no device is called {name!r}", "use auto, cpu, cuda, cuda:1 or mps") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise Unavailable(f"device {name!r} is not on this machine: PyTorch finds no CUDA GPU", "pass --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        many = torch.cuda.device_count()
        raise Unavailable(
            f"device {name!r} is not on this machine: it has {many} CUDA GPU(s)", f"the last is cuda:{many - 1}"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise Unavailable(f"device {name!r} is not on this machine", "pass --device cpu")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"no device is called {name!r}", "use auto, cpu, cuda, cuda:1 or mps")
    return device


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """The numbers of that name; for "auto" bf16 where a GPU computes it natively, else fp32."""
    if name == "auto":
        native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    if name not in PRECISIONS:
        raise UsageError(f"precision must be auto, {', '.join(PRECISIONS)}, got {name!r}", "leave --precision out")
    if name == "fp16" and device.type == "cpu":
        raise UsageError("fp16 does not train on a CPU", "use fp32 there")
    return PRECISIONS[name]
