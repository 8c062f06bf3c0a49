"""Operations for which a GPU waits, or which wait for it, seen without one.

On the CPU the operations themselves are recognised: numbers taken out of tensors, tensors made of lists, shapes that
depend on numbers. On torch's `meta`, a device whose tensors have no numbers, so are tensors that come from the CPU.
"""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_NAMES = ("_local_scalar_dense", "nonzero", "lift_fresh", "_unique2", "unique_dim", "unique_consecutive")


class Waits(TorchDispatchMode):
    """Collects their names."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result, name = function(*args, **(kwargs or {})), function.overloadpacket.__name__
        if len({value.device for value in tree_leaves((args, kwargs, result)) if isinstance(value, torch.Tensor)}) > 1:
            self.names.add(f"{name} of two devices")
        if name in _NAMES:
            self.names.add(name)
        places = args[1] if name.startswith(("index", "_index")) and isinstance(args[1], list | tuple) else ()
        if any(place is not None and place.dtype == torch.bool for place in places):
            self.names.add(f"{name} with a mask")
        return result
