"""Operations that would make a GPU's step wait, seen on a CPU."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_NAMES = ("_local_scalar_dense", "nonzero", "lift_fresh", "_unique2", "unique_dim", "unique_consecutive")


class Waits(TorchDispatchMode):
    """Numbers taken out of tensors, tensors made of numbers or lists, shapes that depend on numbers: their names."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in _NAMES:
            self.seen.add(name)
        places = args[1] if name.startswith(("index", "_index")) and isinstance(args[1], list | tuple) else ()
        if any(place is not None and place.dtype == torch.bool for place in places):
            self.seen.add("index with a mask")
        return function(*args, **(kwargs or {}))
