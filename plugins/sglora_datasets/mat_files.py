"""Read lists of numbers from MATLAB version 5 files, as used by 102 Flowers, with a size limit.

A file is a header of 128 bytes followed by elements: type, size, content. A matrix is an element of four elements:
flags, dimensions, name, numbers. If compressed by zlib, it is the content of another element. scipy supports more, but
a damaged file can crash the process there.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

LIMIT = 1 << 20
"""Most bytes that all elements together may unpack to. The published lists have 16,000."""
_MATRIX, _PACKED = 14, 15
_NUMBERS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
_COMPLEX, _NUMERIC = 0x800, range(6, 16)


def number_lists(data: bytes) -> dict[str, list[int]]:
    """Map name -> whole numbers for every real matrix. Raises ValueError if it is not such a file."""
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise ValueError("it has no header of version 5")
    lists: dict[str, list[int]] = {}
    left = LIMIT
    for kind, content in _elements(data[128:], order):
        if kind == _PACKED:
            try:
                content = zlib.decompressobj().decompress(content, left + 1)
            except zlib.error as error:
                raise ValueError(str(error)) from None
            left -= len(content)
            if left < 0:
                raise ValueError(f"it unpacks to more than {LIMIT} bytes")
            kind, content = next(_elements(content, order), (0, b""))
        if kind == _MATRIX:
            parts = list(_elements(content, order))
            if len(parts) >= 4 and len(parts[0][1]) >= 4:
                flags = struct.unpack(f"{order}I", parts[0][1][:4])[0]
                if flags & 0xFF in _NUMERIC and not flags & _COMPLEX:
                    lists[parts[2][1].decode("latin1")] = _whole(*parts[3], order)
    return lists


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Yield types and contents. A short element has its size in the upper half of its type."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        start = at + 8
        if kind >> 16:
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
        if start + size > len(data):
            raise ValueError("it is truncated")
        yield kind, data[start : start + size]
        at = at + 8 if start == at + 4 else start + size + (-size % 8 if kind != _PACKED else 0)


def _whole(kind: int, content: bytes, order: str) -> list[int]:
    if kind not in _NUMBERS or len(content) % struct.calcsize(_NUMBERS[kind]):
        raise ValueError(f"a matrix has numbers of the unsupported type {kind}")
    numbers = [n for (n,) in struct.iter_unpack(order + _NUMBERS[kind], content)]
    try:
        return [int(n) for n in numbers]
    except OverflowError:  # infinite; NaN raises ValueError
        raise ValueError("a number is not finite") from None
