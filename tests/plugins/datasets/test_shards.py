"""Flickr30K's three annotations, and tar shards: read, unpacked once, and refused when something is wrong."""

from __future__ import annotations

import io
import json
import tarfile

import pytest
from photo_lists import counts, photos_of
from PIL import Image
from trees import picture

from sglora_cli.errors import BadFile, Unavailable
from sglora_datasets import webdataset
from sglora_datasets.flickr30k import Flickr30k
from sglora_datasets.webdataset import WebDataset

KARPATHY = [
    {"filename": "1.jpg", "split": "train", "sentences": [{"raw": "A  dog, runs.", "tokens": ["a"]}, {"raw": "Two"}]},
    {"filename": "2.jpg", "split": "val", "sentences": [{"raw": "Not used"}]},
    {"filename": "3.jpg", "split": "test", "sentences": [{"raw": "A cat."}]},
    {"filename": "4.jpg", "split": "restval", "sentences": [{"raw": "More"}]},
]


@pytest.fixture
def flickr(tmp_path):
    for n in range(1, 6):
        picture(tmp_path / f"flickr30k-images/{n}.jpg", n)
    return tmp_path


def test_flickr30k_from_karpathys_splits(flickr):
    (flickr / "dataset_flickr30k.json").write_text(json.dumps({"dataset": "flickr30k", "images": KARPATHY}))
    assert photos_of(Flickr30k().tasks(flickr)) == {
        "flickr30k": {
            "train": [("1.jpg", ("A dog, runs.", "Two")), ("4.jpg", ("More",))],
            "test": [("3.jpg", ("A cat.",))],
        }
    }


def test_flickr30k_from_clip_benchmarks_tables(flickr):
    (flickr / "flickr30k_test_karpathy.txt").write_text('image,caption\n3.jpg,A cat, black.\n3.jpg,"Two"\n')
    (flickr / "flickr30k_train_karpathy.txt").write_text("image,caption\n1.jpg,One\n")
    assert photos_of(Flickr30k().tasks(flickr)) == {
        "flickr30k": {"train": [("1.jpg", ("One",))], "test": [("3.jpg", ("A cat, black.", '"Two"'))]}
    }
    (flickr / "flickr30k_train_karpathy.txt").write_text("image,caption\n1.jpg,One\n3.jpg,Leak\n")
    with pytest.raises(BadFile, match=r"test_karpathy.txt, line 2: image '3.jpg' is already named in .*, line 3"):
        Flickr30k().tasks(flickr)


def test_flickr30k_from_the_token_file(flickr):
    rows = [f"{n}.jpg#{i}\tcaption {i} of {n} ." for n in range(1, 6) for i in range(2)]
    (flickr / "results_20130124.token").write_text("\n".join(rows) + "\n")
    tasks = photos_of(Flickr30k().tasks(flickr))["flickr30k"]
    assert sorted(tasks["train"] + tasks["test"]) == [
        (f"{n}.jpg", (f"caption 0 of {n} .", f"caption 1 of {n} .")) for n in range(1, 6)
    ]
    assert tasks == photos_of(Flickr30k().tasks(flickr))["flickr30k"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results_20130124.token", "1.jpg#0\tone\n1.jpg two\n", ", line 2: expected an image and a caption"),
        ("results_20130124.token", "1.jpg#0\t \n", ", line 1: expected an image and a caption"),
        ("flickr30k_test_karpathy.txt", "image,caption\n3.png,A cat\n", ", line 2: expected an image and a caption"),
        ("dataset_flickr30k.json", '{"images": [', ", line 1: not JSON: Expecting value"),
        ("dataset_flickr30k.json", "[]", " has no list 'images'"),
        ("dataset_flickr30k.json", '{"images": [{}]}', ", images[0]: filename must be a string"),
        (
            "dataset_flickr30k.json",
            '{"images": [{"filename": "1.jpg", "split": "dev"}]}',
            ", images[0]: split must be one of train, restval, test, val, got 'dev'",
        ),
        (
            "dataset_flickr30k.json",
            '{"images": [{"filename": "1.jpg", "split": "test", "sentences": ["x"]}]}',
            ", images[0]: sentences must be a list of objects with a string `raw`, got ['x']",
        ),
        (
            "dataset_flickr30k.json",
            '{"images": [{"filename": "../x.jpg", "split": "test", "sentences": [{"raw": "x"}]}]}',
            None,
        ),
    ],
)
def test_a_broken_annotation_is_named_with_its_place(flickr, name, content, message):
    (flickr / name).write_text(content)
    with pytest.raises(BadFile) as error:
        Flickr30k().tasks(flickr)
    if message is None:
        assert "leads out of" in error.value.message
    else:
        assert error.value.message == f"{flickr / name}{message}"


def test_flickr30k_says_what_to_put_where(run, tmp_path):
    with pytest.raises(Unavailable) as error:
        Flickr30k().tasks(tmp_path)
    assert error.value.message == (
        f"{tmp_path} has no dataset_flickr30k.json, flickr30k_test_karpathy.txt or results_20130124.token"
    )
    result = run("data", "fetch", "flickr30k", "--data", tmp_path)
    assert result.exit_code == 6
    assert f"{tmp_path}/flickr30k/flickr30k-images" in result.stderr


def png(n):
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (n * 37 % 256, n, 0)).save(out, "png")
    return out.getvalue()


def shard(path, *members):
    """A tar of (name, bytes), or of ready TarInfos without content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def sample(n, **metadata):
    more = [(f"{n:04d}.json", json.dumps(metadata).encode())] if metadata else []
    return [(f"{n:04d}.png", png(n)), (f"{n:04d}.txt", f"one {n}\n\nother {n}\n".encode()), *more]


def test_shards_are_read_and_unpacked_once(tmp_path, own_home, monkeypatch):
    root = tmp_path / "animals"
    shard(root / "0.tar", *sample(1, task="cat"), *sample(2, task="dog", split="test"), ("x/3.cls", b"7"))
    shard(root / "test/0.tar", *sample(4, task="cat"), ("./a.b/5.PNG", png(5)), ("./a.b/5.txt", b"five"))
    tasks = WebDataset().tasks(root)
    assert counts(tasks) == {"animals": (0, 1), "cat": (1, 1), "dog": (0, 1)}
    (photo,) = tasks[1].photos["train"]
    assert photo.captions == ("one 1", "other 1")
    assert photo.path.read_bytes() == png(1)
    assert photo.path.is_relative_to(own_home / "cache/unpacked/images")
    monkeypatch.setattr(webdataset, "_samples", None)  # it is not unpacked again
    assert WebDataset().tasks(root) == tasks


def test_an_interrupted_unpacking_goes_on(tmp_path, own_home, monkeypatch):
    root = tmp_path / "animals"
    shard(root / "0.tar", *sample(1), *sample(2), *sample(3))
    written = []

    def interrupted(path, data):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        write_bytes(path, data)

    write_bytes = webdataset.write_bytes
    monkeypatch.setattr(webdataset, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        WebDataset().tasks(root)
    monkeypatch.setattr(webdataset, "write_bytes", lambda *a: (written.append(a[0]), write_bytes(*a)))
    assert counts(WebDataset().tasks(root)) == {"animals": (3, 0)}
    assert len(set(written)) == len(written) == 3
    written[0].unlink()  # a damaged cache is mended
    assert WebDataset().tasks(root)[0].photos["train"][0].path.is_file()


def link(kind, name="1.png"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([link(tarfile.SYMTYPE)], ", member '1.png' is a link, a device or a sparse file, not a file"),
        ([link(tarfile.LNKTYPE)], ", member '1.png' is a link, a device or a sparse file, not a file"),
        ([link(tarfile.CHRTYPE)], ", member '1.png' is a link, a device or a sparse file, not a file"),
        ([("1.png", b"x"), ("1.jpg", b"x")], ", member '1.jpg': the sample already has .jpg or an image"),
        ([("1.txt", b"x"), ("1.txt", b"x")], ", member '1.txt': the sample already has .txt or an image"),
        ([("1.png", b"x"), ("1.txt", b"\xff")], ", sample '1' is not UTF-8 text: invalid start byte in line 1"),
        (
            [*sample(1), ("0001.json", b"{")],
            ", sample '0001', line 1: not JSON: Expecting property name enclosed in double quotes",
        ),
        (sample(1, split="dev"), ", sample '0001': 'split' must be one of train, test, got 'dev'"),
        (sample(1, task=""), ", sample '0001': 'task' must be a string, got ''"),
        ([("1.txt", bytes((1 << 20) + 1))], ", member '1.txt' has 1048577 bytes, more than 1048576"),
    ],
)
def test_a_shard_that_is_wrong_is_refused(tmp_path, own_home, members, message):
    path = shard(tmp_path / "d/0.tar", *members)
    with pytest.raises(BadFile) as error:
        WebDataset().tasks(path.parent)
    assert error.value.message.startswith(f"{path}{message}")
    assert not list(own_home.rglob("*.json"))


INCOMPLETE = {
    "samples without .txt": [("a.png", png(7))],
    "samples without an image": [("a.txt", b"x")],
    "samples without a caption in their .txt": [("a.png", png(7)), ("a.txt", b" \n")],
    "members that end in .cls": [("a.cls", b"7")],
    "members without an extension": [("readme", b"7")],
    "hidden members": [("._1.png", b"7")],
    ".heic images, which are not supported (convert them to JPEG or PNG)": [("a.HEIC", b"x")],
}


@pytest.mark.parametrize("reason", INCOMPLETE)
def test_what_is_no_whole_sample_is_passed_over_with_its_reason(tmp_path, reason):
    path = shard(tmp_path / "d/train/0.tar", *INCOMPLETE[reason], *sample(1))
    name = {"members": INCOMPLETE[reason][0][0], "samples": "a"}.get(reason.split()[0], INCOMPLETE[reason][0][0])
    for _ in ("unpacked", "known"):
        assert counts(WebDataset().tasks(tmp_path / "d")) == {"d": (1, 0)}
        assert list(WebDataset().passed_over(tmp_path / "d")) == [(f"train/0.tar: {name}", reason)]
    shard(path, *INCOMPLETE[reason])
    with pytest.raises(BadFile) as error:
        WebDataset().tasks(tmp_path / "d")
    assert error.value.message == (
        f"{tmp_path / 'd'}: the shards contain no samples. The first ignored entry is {name!r}: {reason}"
    )


def test_a_key_may_have_dots(tmp_path):
    parts = [(f"{key}{ending}", data) for key in ("v1.00", "v1.01", "x/v.2") for ending, data in
             ((".png", png(len(key))), (".txt", key.encode()), (".json", b'{"task": "dotted"}'))]  # fmt: skip
    path = shard(tmp_path / "d/0.tar", *parts, ("v1.00.seg.png", png(9)))
    assert photos_of(WebDataset().tasks(path.parent))["dotted"]["train"] != []
    captions = [photo.captions for photo in WebDataset().tasks(path.parent)[0].photos["train"]]
    assert captions == [("v1.00",), ("v1.01",), ("x/v.2",)]
    assert list(WebDataset().passed_over(path.parent)) == [("0.tar: v1.00.seg", "samples without .txt")]


def test_an_index_of_an_older_version_is_made_anew(tmp_path, own_home):
    path = shard(tmp_path / "d/0.tar", *sample(1))
    before = WebDataset().tasks(path.parent)
    (index,) = (own_home / "cache/unpacked/shards").iterdir()
    content = index.read_bytes()
    index.write_text(json.dumps(json.loads(content)["content"]))  # without a checksum
    assert WebDataset().tasks(path.parent) == before
    assert index.read_bytes() == content


@pytest.mark.parametrize("kind", ["unpacked/shards", "unpacked/images"])
def test_a_flipped_byte_in_the_cache_is_unpacked_again(tmp_path, own_home, kind):
    """The cache can still be read: a bitmap of another colour, an index with another caption."""
    bitmap = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(bitmap, "bmp")
    path = shard(tmp_path / "d/0.tar", ("1.bmp", bitmap.getvalue()), ("1.txt", b"red"), ("1.cls", b"7"))
    before = WebDataset().tasks(path.parent), list(WebDataset().passed_over(path.parent))
    (file,) = (one for one in (own_home / "cache" / kind).rglob("*") if one.is_file())
    content = file.read_bytes()
    for at in (len(content) // 2, content.rfind(b"red")):
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert (WebDataset().tasks(path.parent), list(WebDataset().passed_over(path.parent))) == before
        assert file.read_bytes() == content


@pytest.mark.parametrize("ending", ["gif", "bmp", "tif", "JPE", "jfif"])
def test_a_photo_of_a_shard_has_any_ending_of_an_image(tmp_path, ending):
    path = shard(tmp_path / "d/0.tar", (f"1.{ending}", png(1)), ("1.txt", b"one"))
    assert counts(WebDataset().tasks(path.parent)) == {"d": (1, 0)}


@pytest.mark.parametrize("name", ["/etc/1", "../../1", "a/../../1", "C:\\1", "1\n2"])
def test_a_name_in_a_shard_names_no_file_here(tmp_path, own_home, name):
    path = shard(tmp_path / "d/0.tar", (f"{name}.png", png(1)), (f"{name}.txt", b"one"))
    before = set(tmp_path.rglob("*"))
    (task,) = WebDataset().tasks(path.parent)
    assert task.photos["train"][0].path.is_relative_to(own_home / "cache/unpacked/images")
    assert set(tmp_path.rglob("*")) == before


def test_a_shard_cut_anywhere_is_refused_or_whole(tmp_path):
    path = shard(tmp_path / "d/0.tar", *sample(1), *sample(2))
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        tar.getmembers()
        end = tar.offset + 512
    for size in range(0, end + 600, 97):
        path.write_bytes(data[:size])
        if size < end:
            with pytest.raises(BadFile):
                WebDataset().tasks(path.parent)
        else:
            assert counts(WebDataset().tasks(path.parent)) == {"d": (2, 0)}


def test_a_compressed_or_missing_shard_is_named(tmp_path):
    (tmp_path / "0.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    with pytest.raises(BadFile, match="is damaged or not an uncompressed tar"):
        WebDataset().tasks(tmp_path)
    with pytest.raises(Unavailable, match=r"has no \*.tar"):
        WebDataset().tasks(tmp_path / "none")


RECIPE = """
backbone = "tiny"
[train]
epochs = 2
states = 2
[prior]
k = 1
[[source]]
name = "animals"
dataset = "webdataset"
expert = ["cat", "emu"]
unseen = ["dog"]
"""


def test_a_pack_is_built_from_shards(run, tiny, tmp_path):
    tasks = [sample(n, task=("cat", "dog", "emu")[n % 3], split="test" if n > 8 else "train") for n in range(12)]
    shard(tmp_path / "animals/0.tar", *(member for members in tasks for member in members))
    (tmp_path / "mine.toml").write_text(RECIPE)
    result = run("pack", "build", tmp_path / "mine.toml", "--data", tmp_path)
    assert result.exit_code == 0, result.output
    assert run("pack", "verify", "mine").exit_code == 0
