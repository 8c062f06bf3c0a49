"""MATLAB files: what all elements together may unpack to."""

from __future__ import annotations

import struct
import zlib

import pytest

from sglora_datasets.mat_files import LIMIT, number_lists

HEADER = bytes(126) + b"IM"


def packed(content: bytes) -> bytes:
    data = zlib.compress(content)
    return struct.pack("<II", 15, len(data)) + data


@pytest.mark.parametrize("parts", [1, 2, 9])
def test_elements_share_one_limit(parts):
    assert number_lists(HEADER + packed(bytes(LIMIT // parts)) * parts) == {}
    with pytest.raises(ValueError, match=f"it unpacks to more than {LIMIT} bytes"):
        number_lists(HEADER + packed(bytes(LIMIT // parts + 9)) * parts)
