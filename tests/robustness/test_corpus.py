"""Files that once broke a reader, or would: each as short as it can be said, and refused now with the right error.

Found by tests/robustness/fuzz.py, or by reading as an attacker. A case names its reader (fuzzing/readers.py), the file
of a good folder that is replaced, the new content, and the error's class and words.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib

import pytest
import torch
from fuzzing.containers import _bush, _summed
from fuzzing.readers import READERS
from pictures import EPS, png

from sglora_cli.errors import BadFile, SgloraError, UsageError

DIGITS = "9" * 5000
HUGE = str(10**400)


def header(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def entry(shape: str, offsets: str = "[0, 4]", dtype: str = "F32") -> bytes:
    return header(f'{{"rows": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": {offsets}}}}}') + bytes(4)


def pickled(content: object) -> bytes:
    out = io.BytesIO()
    torch.save(content, out)
    return out.getvalue()


def clip_lora(**metadata: object) -> bytes:
    layer = {f"{x}_proj": {"w_lora_A": torch.ones(1, 4), "w_lora_B": torch.ones(4, 1)} for x in "qkv"}
    metadata = {"r": 1, "alpha": 1, "encoder": "vision", "params": ["q", "k", "v"], "position": "top1", **metadata}
    return pickled({"weights": {"layer_0": metadata.pop("layer", layer)}, "metadata": metadata})


def deflated(data: bytes) -> bytes:
    """The same archive, compressed, with a record of a gigabyte more."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        with new.open("archive/data/9", "w", force_zip64=True) as file:
            for _ in range(2100):
                file.write(bytes(1_000_000))
    return out.getvalue()


def peft(**values: object) -> bytes:
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "k_proj", "v_proj"]}
    return json.dumps(config | values).encode()


def tar(name: bytes, size: bytes) -> bytes:
    """One member with a size of its own."""
    block = bytearray(512)
    block[0 : len(name)], block[100:107], block[156:157], block[257:263] = name, b"0000644", b"0", b"ustar\0"
    block[124:136] = size.rjust(12, b"\xff" if size[:1] == b"\xff" else b"\0")
    return _summed(block) + bytes(1024)


def gzipped(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=31)
    return packer.compress(data) + packer.flush()


def mat(value: object) -> bytes:
    from scipy.io import savemat

    out = io.BytesIO()
    savemat(out, {"labels": value})
    return out.getvalue()


def sparse() -> object:
    from scipy.sparse import csc_array

    return csc_array([[1.0]])


def row(**values: object) -> bytes:
    first = {"sglora_rows": 1, "pack": "p", "backbone": "b", "labels": {"m": "M"}}
    one = {"method": "m", "dataset": "d", "task": "t", "sample": 0, "direction": "I2T", "k": 1, "value": 50.0}
    return (json.dumps(first) + "\n" + json.dumps(one | values) + "\n").encode()


def captions(image: str = "images/1.png", caption: str = '"a pug"') -> bytes:
    return f'{{"image": {json.dumps(image)}, "task": "pug", "captions": [{caption}]}}\n'.encode()


CSV = b"image,task,split,caption\na.png,pug,,x\na.png,pug,train,y\n"
NEGATIVE = b"\xff\xff\xfe\x00"  # -512
TAR_HUGE = b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7
FALSE_ZIP = b"x" * 30 + b"PK\5\6" + b"\xff" * 18

CASES = {
    "header, thousands of digits": (
        "tensors",
        "x.safetensors",
        lambda: header(f'{{"a": {DIGITS}}}'),
        BadFile,
        "not a safe",
    ),
    "header, half a character": ("tensors", "x.safetensors", lambda: header('{"\\ud800": {}}'), BadFile, "half a char"),
    "metadata, thousands of digits": (
        "tensors",
        "x.safetensors",
        lambda: header(json.dumps({"__metadata__": {"sglora": DIGITS}})),
        BadFile,
        "",
    ),
    "rows, infinite": ("tensors", "x.safetensors", lambda: entry("[1e999]"), BadFile, ""),
    "rows, negative": ("tensors", "x.safetensors", lambda: entry("[-1]", "[4, 0]"), BadFile, ""),
    "rows, more than an index": (
        "tensors",
        "x.safetensors",
        lambda: entry("[9223372036854775808, 0]", "[0, 0]"),
        BadFile,
        "",
    ),
    "offsets before the start": ("tensors", "x.safetensors", lambda: entry("[1]", "[-4, 0]"), BadFile, ""),
    "10^12 floats": ("tensors", "x.safetensors", lambda: entry("[1000000000000]", "[0, 4000000000000]"), BadFile, ""),
    "settings, deep": ("settings", "settings.toml", lambda: b"a = " + b"[" * 500 + b"]" * 500, BadFile, "nested"),
    "settings, digits": ("settings", "settings.toml", lambda: f"a = {DIGITS}".encode(), BadFile, "digits"),
    "recipe, digits": ("recipe", "toys.toml", lambda: f"a = {DIGITS}".encode(), BadFile, "digits"),
    "recipe, deep tables": (
        "recipe",
        "toys.toml",
        lambda: b"[" + b".".join([b"a"] * 300) + b"]",
        BadFile,
        "100 levels",
    ),
    "recipe, large": ("recipe", "toys.toml", lambda: b"#" * (1 << 20) + b"\n", BadFile, "more than 1048576 bytes"),
    "csv, a split that comes late": ("captions csv", "captions.csv", lambda: CSV, BadFile, "in line 2 it is None"),
    "captions, half a character": (
        "captions jsonl",
        "captions.jsonl",
        lambda: captions(caption='"a \\ud83d"'),
        BadFile,
        "half a character",
    ),
    "captions, long name": ("captions jsonl", "captions.jsonl", lambda: captions("9" * 5000), BadFile, "5000 bytes"),
    "captions, many long parts": (
        "captions jsonl",
        "captions.jsonl",
        lambda: captions("a/" * 3000),
        BadFile,
        "5999 bytes",
    ),
    "captions, a way out": ("captions jsonl", "captions.jsonl", lambda: captions("../x.png"), BadFile, "leads out"),
    "names, a way out": (
        "captions names",
        "names.jsonl",
        lambda: b'{"image": "../x/1.png", "name": "a"}\n',
        BadFile,
        "leads out of",
    ),
    "names, a NUL": (
        "captions names",
        "names.jsonl",
        lambda: b'{"image": "a\\u0000/1", "name": "a"}\n',
        BadFile,
        "has a NUL",
    ),
    "pets, digits": (
        "data pets",
        "annotations/test.txt",
        lambda: f"a_1 {DIGITS} 1 1\n".encode(),
        BadFile,
        "the class must be 1 to",
    ),
    "flowers, not a number": ("data flowers", "imagelabels.mat", lambda: mat([[float("nan")]]), BadFile, "NaN"),
    "flowers, infinite": ("data flowers", "imagelabels.mat", lambda: mat([[float("inf")]]), BadFile, "not finite"),
    "flowers, sparse": ("data flowers", "imagelabels.mat", lambda: mat(sparse()), BadFile, "no numbers"),
    "flowers, large": ("data flowers", "imagelabels.mat", lambda: bytes(2_000_000), BadFile, "more than 1048576 bytes"),
    "shard, negative size": ("data shards", "0.tar", lambda: tar(b"a.cls", NEGATIVE), BadFile, "0.tar"),
    "archive, negative size": ("unpack tar.gz", "x.tar.gz", lambda: gzipped(tar(b"a", NEGATIVE)), BadFile, "x.tar.gz"),
    "archive, a size beyond files": (
        "unpack tar.gz",
        "x.tar.gz",
        lambda: gzipped(tar(b"a", TAR_HUGE)),
        BadFile,
        "x.tar.gz",
    ),
    "clip-lora, names of two kinds": (
        "adapter clip-lora",
        "x.pt",
        lambda: clip_lora(layer={"a": 1, 2: 3}),
        BadFile,
        "has ['2', 'a']",
    ),
    "clip-lora, alpha of 400 digits": (
        "adapter clip-lora",
        "x.pt",
        lambda: clip_lora(alpha=10**400),
        BadFile,
        "1329 bits",
    ),
    "clip-lora, 2^40 parts": ("adapter clip-lora", "x.pt", lambda: clip_lora(r=_bush(40)), BadFile, "parts"),
    "clip-lora, tables without end": (
        "adapter clip-lora",
        "x.pt",
        lambda: clip_lora(r=[[[[]]] * 2] * 2),
        BadFile,
        "has an invalid r =",
    ),
    "clip-lora, 10^14 numbers": (
        "adapter clip-lora",
        "x.pt",
        lambda: clip_lora(layer={"q_proj": {"w_lora_A": torch.ones(1).expand(10**7, 10**7)}}),
        BadFile,
        "with 4 bytes of numbers",
    ),
    "clip-lora, sparse": (
        "adapter clip-lora",
        "x.pt",
        lambda: clip_lora(layer={"q_proj": torch.ones(2, 2).to_sparse()}),
        BadFile,
        "more than plain tensors",
    ),
    "clip-lora, an archive that grows": (
        "adapter clip-lora",
        "x.pt",
        lambda: deflated(clip_lora()),
        BadFile,
        "would unpack to",
    ),
    "peft, alpha of 400 digits": (
        "adapter peft config",
        "x/adapter_config.json",
        lambda: peft(lora_alpha=10**400),
        BadFile,
        "401 digits",
    ),
    "peft, a pattern without end": (
        "adapter peft config",
        "x/adapter_config.json",
        lambda: peft(target_modules="(.|..)+[!?]"),
        BadFile,
        "takes too long",
    ),
    "peft, a rank pattern without end": (
        "adapter peft config",
        "x/adapter_config.json",
        lambda: peft(rank_pattern={"(.|..)+[!?]": 2}),
        BadFile,
        "too long",
    ),
    "peft, a pattern that takes all memory": (
        "adapter peft config",
        "x/adapter_config.json",
        lambda: peft(rank_pattern={"(((((a{100}){100}){100}){100}){100})": 2}),
        BadFile,
        "too large",
    ),
    "peft, a class of a hundred thousand letters": (
        "adapter peft config",
        "x/adapter_config.json",
        lambda: peft(auto_mapping={"base_model_class": "Text" * 25_000}),
        BadFile,
        "not a string of at most 1000 characters",
    ),
    "peft, no pattern": (
        "adapter peft config",
        "x/adapter_config.json",
        lambda: peft(rank_pattern={"(": 2}),
        BadFile,
        "has the invalid pattern",
    ),
    "rows, a value of 400 digits": ("rows", "rows.jsonl", lambda: row(value=10**400), BadFile, "401 digits"),
    "rows, a billion hits": ("rows", "rows.jsonl", lambda: row(hits="999999999:AA=="), BadFile, "hits must be"),
    "sentences, a weight of 400 digits": (
        "sentences",
        "c.json",
        lambda: f'{{"a pug": {HUGE}}}'.encode(),
        BadFile,
        "401 digits",
    ),
    "weights, half an archive": (
        "weights folder",
        "model.safetensors",
        lambda: FALSE_ZIP,
        BadFile,
        "model.safetensors",
    ),
    "image, a program": ("images", "a.png", lambda: EPS, BadFile, "cannot be decoded"),
    "image, a bomb": ("images", "a.png", lambda: png(60_000, 60_000), BadFile, "a.png"),
    "image, large": ("images", "a.png", lambda: png(9_500, 11_000), BadFile, "pixels"),
    "image, cut": ("images", "a.png", lambda: png(8_000, 8_000), BadFile, "cannot be decoded"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_what_broke_a_reader_once_is_refused(case, tmp_path):
    name, place, content, kind, words = CASES[case]
    reader = READERS[name]
    reader.seed(tmp_path)
    assert (tmp_path / place).exists(), "the case damages a file that is there"
    (tmp_path / place).write_bytes(content())
    with pytest.raises(SgloraError) as caught:
        reader.read(tmp_path)
    assert type(caught.value) is kind
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("rank = 1000000000", "rank must be at most 4096, got 1000000000"),
        ("epochs = 1000000000000", "epochs must be at most 1000000, got 1000000000000"),
        ("states = 1000001", "states must be at most 1000000, got 1000001"),
        ("seed = 99999999999999999999", "a number has 20 digits"),
        ("learning_rate = 1e300", "learning_rate must be at most 1000.0, got 1e+300"),
    ],
)
def test_a_recipe_with_absurd_numbers_is_refused_before_anything_is_made(run, tmp_path, line, message):
    table = "lora" if line.startswith("rank") else "train"
    path = tmp_path / "x.toml"
    path.write_text(
        f'backbone = "starter"\n[prior]\nk = 1\n[{table}]\n{line}\n[[source]]\nname = "a"\nexpert = ["b"]\n'
    )
    result = run("pack", "build", path, "--data", tmp_path, "--dry-run")
    assert message in result.stderr
    assert result.exit_code in (UsageError.exit_code, BadFile.exit_code)


def test_a_pack_nested_too_deeply_hides_no_other(run, own_home):
    folder = own_home / "cache/packs/deep"
    folder.mkdir(parents=True)
    (folder / "pack.json").write_text("[" * 100_000)
    result = run("pack", "list")
    assert result.exit_code == 0
    assert "deep" in result.stdout
    assert "starter" in result.stdout
    assert run("pack", "show", "deep").exit_code == BadFile.exit_code
