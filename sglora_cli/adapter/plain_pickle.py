"""Parse a pickle of dictionaries, lists, numbers, strings and tensors without unpickling it.

A pickle is a program for a stack machine that can call any importable name. torch's weights-only reader runs it with a
list of trusted names, and even these can do harm: `bytearray(10**10)`, a `Counter` of that, a `FloatTensor` of
uninitialised memory. So this parser imports and calls nothing. A name must be in one of the tables below, or the pickle
is refused. `_reduced` defines what "calling" an entry means. This is less code than a check before `torch.load`, which
would have to know everything that each trusted call can be made to do. It also rules out that a check and a reader
behind it interpret a file differently.

The supported instructions are those that torch.save writes in protocol 2. `pickletools` decodes them. Time and memory
are bounded by the length of the pickle, which the caller limits, and by `INSTRUCTIONS_LIMIT`.
"""

from __future__ import annotations

import math
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, BinaryIO

import torch
from torch import Tensor

INSTRUCTIONS_LIMIT = 500_000
"""A tensor takes about 40 instructions, and a large checkpoint with optimiser state has five thousand tensors."""
DIMENSIONS_LIMIT = 8

Storages = Callable[[str, torch.dtype, int], Tensor]
"""Maps (key, dtype, count) to all numbers of a storage, (count,). Raises for a storage that the file does not have."""


class Refused(Exception):
    """The pickle contains more than plain tensors."""


class TooFewNumbers(Exception):
    """A tensor has more numbers than its storage in the file."""


class _Call(Enum):
    """The calls that a pickle may contain."""

    TENSOR = "torch._utils _rebuild_tensor_v2"
    TENSOR_OF_BYTES = "torch._utils _rebuild_tensor_v3"
    PARAMETER = "torch._utils _rebuild_parameter"
    TABLE = "collections OrderedDict"
    SIZE = "torch Size"


_STORAGES = {
    "torch DoubleStorage": torch.float64,
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ShortStorage": torch.int16,
    "torch CharStorage": torch.int8,
    "torch ByteStorage": torch.uint8,
    "torch BoolStorage": torch.bool,
    "torch ComplexFloatStorage": torch.complex64,
    "torch ComplexDoubleStorage": torch.complex128,
    "torch.storage UntypedStorage": torch.uint8,
}
_PLAIN = re.compile(r"(b?float|complex|u?int)(8|16|32|64|128)(_\w+)?|bool")  # no quantized types
_DTYPES = {f"torch {name}": getattr(torch, name) for name in dir(torch) if _PLAIN.fullmatch(name)}
_NAMED: dict[str, Any] = {**_DTYPES, **_STORAGES, **{call.value: call for call in _Call}}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class _Storage:
    numbers: Tensor


def read(file: BinaryIO, storages: Storages) -> Any:
    """Parse the pickle at the file's position and move the position behind it. The file must be in memory.

    Tensors are views of the storages that `storages` returns. Raises Refused, or any exception for a damaged pickle.
    """
    stack: list[Any] = []
    below: list[list[Any]] = []  # the stacks below the marks
    memo: dict[int, Any] = {}
    value: Any
    for number, (opcode, value, _) in enumerate(pickletools.genops(file)):
        if number > INSTRUCTIONS_LIMIT:
            raise ValueError(f"more than {INSTRUCTIONS_LIMIT} instructions")
        name = opcode.name
        if name in _VALUES:
            stack.append(value)
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[value] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[value])
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            below.append(stack)
            stack = []
        elif name in ("TUPLE", "SETITEMS", "APPENDS"):
            items, stack = stack, below.pop()
            if name == "TUPLE":
                stack.append(tuple(items))
            elif name == "SETITEMS":
                _fill(stack[-1], items)
            else:
                _extend(stack[-1], items)
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name in ("SETITEM", "APPEND"):
            count = 2 if name == "SETITEM" else 1
            items = stack[-count:]
            del stack[-count:]
            (_fill if name == "SETITEM" else _extend)(stack[-1], items)
        elif name == "GLOBAL":
            if value not in _NAMED:
                raise Refused
            stack.append(_NAMED[value])
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop(), storages))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(_reduced(stack.pop(), arguments))
        elif name == "BUILD":  # attributes of a dictionary, such as `_metadata` of a state_dict, are ignored
            stack.pop()
            if type(stack[-1]) is not dict:
                raise Refused
        elif name == "STOP":
            break
        elif name != "PROTO":
            raise Refused
    if len(stack) != 1 or below:
        raise ValueError("it ends before its value is complete")
    return stack[0]


def _fill(table: Any, items: list[Any]) -> None:
    if type(table) is not dict:
        raise Refused
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Large integers can be chosen to have the same hash, which makes a dictionary of them take forever.
        if type(key) is not str and not (type(key) is int and key.bit_length() <= 64):
            raise Refused
        table[key] = value


def _extend(items: Any, more: list[Any]) -> None:
    if type(items) is not list:
        raise Refused
    items += more


def _storage(identity: Any, storages: Storages) -> _Storage:
    """Return the storage of an identifier: ("storage", type, key, device, count), followed by None in old files."""
    match identity:
        case ("storage", torch.dtype() as dtype, str() as key, _, count):
            return _Storage(storages(key, dtype, _whole(count)))
        case ("storage", torch.dtype() as dtype, str() as key, _, count, None):
            return _Storage(storages(key, dtype, _whole(count)))
    raise Refused


def _reduced(call: Any, arguments: Any) -> Any:
    """Evaluate a call. Raises Refused unless it is one of _Call with the arguments that torch.save writes."""
    if not isinstance(call, _Call) or type(arguments) is not tuple:
        raise Refused
    match call, arguments:
        case _Call.TABLE, ():
            return {}
        case _Call.SIZE, (tuple() as size,):
            return tuple(_whole_numbers(size))
        case _Call.PARAMETER, (Tensor() as tensor, _, _):
            return tensor
        case _Call.TENSOR, (_Storage(flat), offset, size, stride, _, _):
            return _tensor(flat, offset, size, stride)
        case _Call.TENSOR_OF_BYTES, (_Storage(flat), offset, size, stride, _, _, torch.dtype() as dtype):
            return _tensor(flat.view(dtype), offset, size, stride)
    raise Refused


def _tensor(flat: Tensor, offset: Any, size: Any, stride: Any) -> Tensor:
    """Return a tensor as a view of its storage. Raises TooFewNumbers if it has more numbers than the storage, as
    strides can repeat one number 10^14 times."""
    first, sizes, strides = _whole(offset), _whole_numbers(size), _whole_numbers(stride)
    if len(sizes) != len(strides):
        raise Refused
    if not (count := math.prod(sizes)):
        return flat.new_empty(sizes)
    last = first + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    if count > len(flat) or last >= len(flat):
        raise TooFewNumbers(f"a tensor of shape {sizes} with {flat.nbytes} bytes of numbers")
    return flat.as_strided(sizes, strides, first)


def _whole_numbers(numbers: Any) -> list[int]:
    if type(numbers) is not tuple or len(numbers) > DIMENSIONS_LIMIT:  # one long tuple could be used in 10^5 places
        raise Refused
    return [_whole(number) for number in numbers]


def _whole(number: Any) -> int:
    if type(number) is not int or not 0 <= number < 2**63:
        raise Refused
    return number
