"""Damage to files with a structure of their own: inside, so that the outside still holds."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import torch

from fuzzing.mutators import (
    NUMBERS,
    TEXTS,
    Dice,
    mutated_bytes,
    mutated_csv,
    mutated_json,
    mutated_lines,
    mutated_text,
    mutated_toml,
    mutated_value,
)


def mutated_safetensors(rng: Dice, data: bytes) -> bytes:
    """Header, metadata or bytes: wrong offsets, absurd shapes, types that do not fit, names twice."""
    size = struct.unpack("<Q", data[:8])[0]
    header, rest = data[8 : 8 + size], data[8 + size :]
    action = rng.random()
    if action < 0.2:
        return mutated_bytes(rng, data)
    try:
        table = json.loads(header)
        if action < 0.45 and "sglora" in table.get("__metadata__", {}):
            metadata = mutated_json(rng, table["__metadata__"]["sglora"].encode())
            table["__metadata__"]["sglora"] = metadata.decode("utf-8", "surrogateescape")
        elif action < 0.9:
            name = rng.choice([key for key in table if key != "__metadata__"])
            _odd_entry(rng, table[name])
        else:
            table = mutated_value(rng, table)
        header = json.dumps(table).encode()
    except (ValueError, RecursionError, KeyError, IndexError, AttributeError):
        header = mutated_json(rng, header)
    if rng.random() < 0.2:
        rest = mutated_bytes(rng, rest) if rng.random() < 0.5 else rest[: rng.randrange(len(rest) + 1)]
    length = len(header) if rng.random() < 0.95 else rng.choice(NUMBERS[:-2]) % 2**64
    return struct.pack("<Q", length) + header + rest


def _odd_entry(rng: Dice, entry: dict[str, Any]) -> None:
    kinds = (
        "BOOL",
        "U8",
        "I8",
        "F8_E4M3",
        "F8_E8M0",
        "F4",
        "F6_E2M3",
        "C64",
        "U64",
        "BF16",
        "F16",
        "F64",
        "I64",
        "x",
        "",
    )
    start, end = entry["data_offsets"]
    numbers = (*NUMBERS[:-2], start, end, start + 1, end - 1, end + 4)
    action = rng.randrange(5)
    if action == 0:
        entry["dtype"] = rng.choice(kinds)
    elif action == 1:
        entry["shape"] = rng.choice(
            ([], [0], [1], [-1], [2**62, 4], [2**32, 2**32], [0, 2**40], [10**12], [1] * 70, entry["shape"][::-1])
        )
    elif action == 2:
        entry["data_offsets"] = [rng.choice(numbers), rng.choice(numbers)]
    elif action == 3:  # another type and a shape that fits its bytes
        entry["dtype"], width = rng.choice((("F16", 2), ("U8", 1), ("F64", 8), ("I64", 8), ("BOOL", 1), ("F8_E5M2", 1)))
        entry["shape"] = [(end - start) // width]
    else:
        key = rng.choice(("dtype", "shape", "data_offsets"))
        entry[key] = mutated_value(rng, entry[key])


def mutated_zip(rng: Dice, data: bytes) -> bytes:
    """An entry's content, name or attributes. A pack.json is made to list what is there, two times in three."""
    if rng.random() < 0.25:
        return mutated_bytes(rng, data, (b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7"))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
    at = rng.randrange(len(entries))
    entry, content = entries[at]
    action = rng.random()
    if action < 0.65:
        entries[at] = (entry, mutated(rng, content, entry.filename))
    elif action < 0.8:
        new = zipfile.ZipInfo(rng.choice((*TEXTS[4:20], entry.filename.upper(), entry.filename + "/x", entry.filename)))
        entries.insert(rng.randrange(len(entries) + 1), (new, content))
    elif action < 0.9:
        entry.external_attr = rng.choice((0o120777 << 16, 0o010644 << 16, 0o040755 << 16, 0x10, 2**32 - 1))
    else:
        entry.compress_type = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
        entries[at] = (entry, rng.choice((bytes(3_000_000), content, content * 50)))
    if rng.random() < 0.67:
        entries = _listed(entries)
    return _zipped(entries)


def _listed(entries: list[tuple[zipfile.ZipInfo, bytes]]) -> list[tuple[zipfile.ZipInfo, bytes]]:
    """With a manifest that has their hashes, if there is one to be read."""
    hashes = {e.filename: hashlib.sha256(content).hexdigest() for e, content in entries if e.filename != "pack.json"}
    listed = []
    for entry, content in entries:
        if entry.filename == "pack.json":
            try:
                table = json.loads(content)
                content = json.dumps({**table, "files": hashes}).encode() if isinstance(table, dict) else content
            except (ValueError, RecursionError):
                pass
        listed.append((entry, content))
    return listed


def _zipped(entries: list[tuple[zipfile.ZipInfo, bytes]]) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
        warnings.simplefilter("ignore")  # a name twice
        for entry, content in entries:
            try:
                archive.writestr(entry, content)
            except (ValueError, RuntimeError):  # a name that zipfile cannot write
                archive.writestr("x", content)
    return out.getvalue()


def mutated_tar(rng: Dice, data: bytes) -> bytes:
    """A header field with its checksum right again, extended headers that lie, or bytes."""
    action = rng.random()
    if action < 0.3:
        return mutated_bytes(rng, data)
    if action < 0.5:
        return _with_extension(rng, data)
    starts = [at for at in range(0, len(data) - 512, 512) if data[at + 257 : at + 262] == b"ustar"]
    if not starts:
        return mutated_bytes(rng, data)
    at = rng.choice(starts)
    block = bytearray(data[at : at + 512])
    field, width = rng.choice(((0, 100), (100, 8), (124, 12), (124, 12), (156, 1), (157, 100), (345, 155), (482, 1)))
    negative = b"\xff" * (width - 2) + b"\xfe\x00"
    huge = b"\x80" + b"\x00" * max(0, width - 9) + b"\x7f" + b"\xff" * 7
    values = (
        negative,
        huge,
        b"7" * width,
        b"\0" * width,
        b"-1",
        b"../../x",
        b"/etc/x",
        b"S",
        b"2",
        b"x",
        b"L",
        b"K",
        b"g",
        b"1",
    )
    block[field : field + width] = rng.choice(values)[:width].ljust(width, b"\0")
    return data[:at] + _summed(block) + data[at + 512 :]


def _with_extension(rng: Dice, data: bytes) -> bytes:
    records = rng.choice(
        (b"size=-512", b"size=99999999999999999999", b"path=../../x", b"path=\xff", b"GNU.sparse.major=1",
        b"GNU.sparse.map=0,1,2",
         b"GNU.sparse.size=1000000000000", b"GNU.sparse.numblocks=9999999", b"size=nan", b"mtime=1e999",
         b"hdrcharset=BINARY")
    )  # fmt: skip
    line = records + b"\n"
    size = len(line) + 3
    content = rng.choice((str(size).encode(), b"0", b"-5", b"99999999999")) + b" " + line
    block = bytearray(512)
    block[0:4], block[100:107], block[156:157], block[257:263] = (
        b"head",
        b"0000644",
        rng.choice((b"x", b"g")),
        b"ustar\0",
    )
    block[124:136] = b"%011o\0" % len(content)
    return _summed(block) + content.ljust(512, b"\0") + data


def _summed(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def mutated_gzip(rng: Dice, data: bytes) -> bytes:
    if rng.random() < 0.3:
        return mutated_bytes(rng, data)
    return gzip.compress(mutated_tar(rng, gzip.decompress(data)), mtime=0)


def odd_tensors(rng: Dice) -> tuple[Callable[[], Any], ...]:
    """Tensors that a PyTorch file can hold and nobody expects."""
    one = torch.ones(4, 4)
    return (
        lambda: torch.ones(1).expand(10**7, 10**7),  # a number that claims to be 10^14
        lambda: torch.ones(2).expand(rng.choice((3, 16)), 2),
        lambda: one.to_sparse(),
        lambda: torch.quantize_per_tensor(one, 0.1, 0, torch.quint8),
        lambda: torch.ones(
            2, 2, dtype=rng.choice((torch.int64, torch.bool, torch.complex64, torch.float16, torch.uint8))
        ),
        lambda: torch.tensor(rng.choice((float("nan"), 1.0))),
        lambda: torch.ones(0, 4),
        lambda: torch.nn.Parameter(one),
        lambda: _bush(rng.choice((3, 40))),
    )


def _bush(depth: int) -> Any:
    """A list of a list of ..., each twice: small to write, 2^depth to print."""
    value: Any = [0]
    for _ in range(depth):
        value = [value, value]
    return value


def mutated_torch(rng: Dice, data: bytes) -> bytes:
    """Its value, its pickle inside the archive, or bytes."""
    action = rng.random()
    if action < 0.2:
        return mutated_bytes(rng, data)
    if action < 0.4:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
        changed = [
            (e, mutated_bytes(rng, content, PICKLE_TOKENS) if e.filename.endswith("data.pkl") else content)
            for e, content in entries
        ]
        if rng.random() < 0.1:
            for entry, _ in changed:
                entry.compress_type = zipfile.ZIP_DEFLATED
        return _zipped(changed)
    out = io.BytesIO()
    content = torch.load(io.BytesIO(data), weights_only=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(
            mutated_value(rng, content, odd_tensors(rng)), out, _use_new_zipfile_serialization=rng.random() < 0.8
        )
    return out.getvalue()


PICKLE_TOKENS = (
    b"cos\nsystem\n", b"ctorch\nTensor\n", b"ccollections\nOrderedDict\n", b"R", b"}", b"]", b"(", b"t", b"u",
    b"s", b".", b"0",
    b"\x8a\xff" + b"\xff" * 255, b"K\x00", b"h\x00", b"q\x00", b"J\xff\xff\xff\x7f",
    b"G\x7f\xf0\x00\x00\x00\x00\x00\x00", b"Q",
    b"\x80\x05", b"B\xff\xff\xff\x7f", b"\x8e" + b"\xff" * 8, b"X\xff\xff\xff\x7f", b"b",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"r\xff\xff\xff\x7f", b"j\xff\xff\xff\xff", b"cnumpy\ndtype\n", b"i", b"\x81", b"\x93",
)  # fmt: skip


def mutated_pickle(rng: Dice, data: bytes) -> bytes:
    return mutated_bytes(rng, data, PICKLE_TOKENS)


def mutated_mat(rng: Dice, data: bytes) -> bytes:
    """One of its arrays exchanged, compressed or not; or bytes."""
    import numpy as np
    from scipy.io import loadmat, savemat
    from scipy.sparse import csc_array

    if rng.random() < 0.5:
        return mutated_bytes(rng, data)
    table = {name: array for name, array in loadmat(io.BytesIO(data)).items() if not name.startswith("__")}
    name = rng.choice(list(table))
    odd = (
        np.array([[np.nan, 1.0]]), np.array([[np.inf]]), np.array([[1e300]]), csc_array(np.eye(3)),
        np.array(["a"]), np.array([[-1]]),
        np.array([[{"a": 1}]], dtype=object), np.zeros((0, 0)), np.zeros((1, 10**6), dtype=np.uint8),
        np.array([[1 + 2j]]),
        np.array([[1, 2], [3, 4]]), np.array([(1, 2)], dtype=[("a", "i4"), ("b", "f8")]), np.array([[2**63]],
        dtype=np.uint64),
    )  # fmt: skip
    table[name] = rng.choice(odd)
    if rng.random() < 0.1:
        table[rng.choice(("x", "labels", "trnid"))] = table.pop(name)
    out = io.BytesIO()
    savemat(
        out,
        table,
        do_compression=rng.random() < 0.5,
        format=rng.choice(("5", "5", "4")) if rng.random() < 0.3 else "5",
    )
    return out.getvalue()


def mutated_image(rng: Dice, data: bytes) -> bytes:
    """Bytes; in a PNG sizes too, with the checksum right again."""
    if not data.startswith(b"\x89PNG") or rng.random() < 0.4:
        tokens = (
            b"\xff\xd8",
            b"\xff\xda",
            b"\xff\xc0",
            b"\xff\xe1",
            b"Exif\0\0",
            b"II*\0",
            b"RIFF",
            b"%!PS-Adobe-3.0 EPSF-3.0\n",
            b"GIF89a",
        )
        return mutated_bytes(rng, data, tokens)
    changed, chunks, at = b"", data, 8
    while at + 12 <= len(chunks):
        size = struct.unpack(">I", chunks[at : at + 4])[0]
        kind, body = chunks[at + 4 : at + 8], chunks[at + 8 : at + 8 + size]
        if rng.random() < 0.4:
            body = _odd_chunk(rng, kind, body)
        changed += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        at += 12 + size
    return data[:8] + changed


def _odd_chunk(rng: Dice, kind: bytes, body: bytes) -> bytes:
    if kind == b"IHDR":
        sides = (0, 1, 7, 10_000, 60_000, 2**31 - 1, 2**32 - 1)
        tail = body[8:] if rng.random() < 0.6 else mutated_bytes(rng, body[8:])
        return struct.pack(">II", rng.choice(sides), rng.choice(sides)) + tail
    if kind == b"IDAT" and rng.random() < 0.5:
        return zlib.compress(bytes(rng.choice((0, 10, 5_000_000))))
    return mutated_bytes(rng, body)


BY_SUFFIX: dict[str, Callable[[Dice, bytes], bytes]] = {
    ".json": mutated_json, ".jsonl": mutated_lines, ".csv": mutated_csv, ".toml": mutated_toml, ".txt": mutated_text,
    ".token": mutated_text, ".safetensors": mutated_safetensors, ".zip": mutated_zip, ".tar": mutated_tar,
    ".gz": mutated_gzip,
    ".pt": mutated_torch, ".mat": mutated_mat, ".png": mutated_image, ".jpg": mutated_image, ".webp": mutated_image,
    ".gif": mutated_image, ".bmp": mutated_image, ".tif": mutated_image, ".pickle": mutated_pickle,
}  # fmt: skip


def mutated(rng: Dice, data: bytes, name: str) -> bytes:
    """The content of a file damaged as its name's ending suggests."""
    change = BY_SUFFIX.get(PurePosixPath(name).suffix, mutated_bytes)
    try:
        return change(rng, data)
    except Exception:  # what was damaged before cannot be taken apart again: then byte by byte
        return mutated_bytes(rng, data)
