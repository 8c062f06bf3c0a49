"""Downloads: resumed by bytes, checked, whole or absent, from servers of every temper."""

from __future__ import annotations

import hashlib
import io
import random
import socket
import ssl
import tarfile
import urllib.error
import zipfile
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from servers import serving
from trees import coco_tree, pets_tree

from sglora_cli.errors import BadFile, Unavailable
from sglora_cli.system.transfer import Pace
from sglora_datasets import archive as archive_module
from sglora_datasets import download, pets
from sglora_datasets.archive import unpacked
from sglora_datasets.coco import Coco
from sglora_datasets.download import Remote, downloaded

DATA = random.Random(0).randbytes(3_000_000)
MD5 = hashlib.md5(DATA).hexdigest()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def get(server, folder, md5=MD5, name="a.bin"):
    notes = []
    path = downloaded(Remote(f"{server.url}/{name}", md5), folder, notes.append)
    return path, notes


def test_a_file_arrives_whole_and_is_not_asked_for_again(tmp_path):
    with serving({"/a.bin": DATA}) as server:
        path, _ = get(server, tmp_path)
        again, notes = get(server, tmp_path)
    assert (path, again) == (tmp_path / "a.bin", tmp_path / "a.bin")
    assert path.read_bytes() == DATA
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
    assert server.asked == [("/a.bin", "")]
    assert notes == [f"{path} exists, checking it"]


def test_a_broken_connection_goes_on_where_it_broke(tmp_path):
    with serving({"/a.bin": DATA}, drop_after=[1_500_000, 100]) as server:
        path, notes = get(server, tmp_path)
    assert path.read_bytes() == DATA
    assert server.asked == [("/a.bin", ""), ("/a.bin", "bytes=1500000-"), ("/a.bin", "bytes=1500100-")]
    assert notes[1] == "a.bin: the connection was lost 1500000 bytes before the end, retrying from byte 1500000"


def test_another_run_goes_on_from_the_part(tmp_path):
    (tmp_path / "a.bin.part").write_bytes(DATA[:1000])
    with serving({"/a.bin": DATA}) as server:
        assert get(server, tmp_path)[0].read_bytes() == DATA
    assert server.asked == [("/a.bin", "bytes=1000-")]


def test_a_part_that_is_whole_already_is_only_checked(tmp_path):
    (tmp_path / "a.bin.part").write_bytes(DATA)
    with serving({"/a.bin": DATA}) as server:
        assert get(server, tmp_path)[0].read_bytes() == DATA


def test_a_part_that_is_too_long_starts_over(tmp_path):
    (tmp_path / "a.bin.part").write_bytes(DATA + b"more")
    with serving({"/a.bin": DATA}) as server:
        assert get(server, tmp_path)[0].read_bytes() == DATA
    assert server.asked[-1] == ("/a.bin", "")


def test_a_server_without_ranges_starts_over(tmp_path):
    (tmp_path / "a.bin.part").write_bytes(b"x" * 1000)
    with serving({"/a.bin": DATA}, ranges=False) as server:
        path, notes = get(server, tmp_path)
    assert path.read_bytes() == DATA
    assert notes[1:] == ["a.bin: the server sends the complete file again"]


@pytest.mark.parametrize("part", [b"", b"x" * 1000])
def test_wrong_bytes_are_removed_and_both_checksums_named(tmp_path, part):
    if part:
        (tmp_path / "a.bin.part").write_bytes(part)
    wrong = part + (DATA + b"!")[len(part) :]
    with serving({"/a.bin": DATA + b"!"}) as server, pytest.raises(BadFile) as error:
        get(server, tmp_path)
    assert error.value.message == (
        f"a.bin has the MD5 checksum {hashlib.md5(wrong).hexdigest()}, but the publisher's is {MD5}"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_never_brings_anything_is_given_up_and_what_came_is_kept(tmp_path):
    (tmp_path / "a.bin.part").write_bytes(DATA[:1000])
    with serving({"/a.bin": DATA}, status=503) as server, pytest.raises(Unavailable) as error:
        get(server, tmp_path)
    assert error.value.message == f"{server.url}/a.bin could not be downloaded: 503 Service Unavailable"
    assert error.value.hint == "run the command again to resume from byte 1000"
    assert len(server.asked) == download.TRIES
    assert (tmp_path / "a.bin.part").read_bytes() == DATA[:1000]


def test_a_file_that_is_not_there_is_not_asked_for_twice(tmp_path):
    with serving({}) as server, pytest.raises(Unavailable, match="could not be downloaded: 404 Not Found"):
        get(server, tmp_path)
    assert len(server.asked) == 1


def test_offline_nobody_is_asked(tmp_path, monkeypatch):
    with serving({"/a.bin": DATA}) as server:
        monkeypatch.setenv("SGLORA_OFFLINE", "1")  # now, because the server could not open a socket
        with pytest.raises(Unavailable, match="SGLORA_OFFLINE is set"):
            get(server, tmp_path)
    assert server.asked == []
    (tmp_path / "a.bin").write_bytes(DATA)
    assert get(server, tmp_path)[0].read_bytes() == DATA


def test_nobody_answers_and_is_asked_again(tmp_path):
    with serving({}) as server:
        pass
    notes = []
    with pytest.raises(Unavailable, match="Connection refused"):
        downloaded(Remote(f"{server.url}/a.bin"), tmp_path, notes.append)
    assert len(notes) == download.TRIES


def opening(monkeypatch, reason):
    """Every connection fails for this reason; returns the list of what was asked for."""
    asked = []

    def fail(request, timeout):
        asked.append(request.full_url)
        raise urllib.error.URLError(reason)

    monkeypatch.setattr(download.urllib.request, "urlopen", fail)
    return asked


URL = "http://photos.invalid/a.bin"


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        (socket.gaierror(-2, "Name or service not known"), "the name photos.invalid does not resolve"),
        (socket.gaierror(-3, "Temporary failure in name resolution"), "the name photos.invalid does not resolve"),
    ],
)
def test_a_name_that_does_not_resolve_is_asked_for_once(tmp_path, monkeypatch, reason, why):
    monkeypatch.setattr(download.urllib.request, "getproxies", dict)
    (tmp_path / "a.bin.part").write_bytes(b"abc")
    asked = opening(monkeypatch, reason)
    with pytest.raises(Unavailable) as error:
        downloaded(Remote(URL), tmp_path, lambda text: None)
    assert (error.value.message, asked) == (f"{URL} could not be downloaded: {why}", [URL])
    assert error.value.hint == (
        "fix the network or proxy and run the command again, or download it elsewhere and copy it to "
        f"{tmp_path}/a.bin (3 bytes are kept)"
    )


def test_a_proxy_that_does_not_resolve_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(download.urllib.request, "getproxies", lambda: {"http": "http://proxy.invalid:3128"})
    opening(monkeypatch, socket.gaierror(-2, "Name or service not known"))
    with pytest.raises(Unavailable, match=r"the name of the proxy proxy\.invalid does not resolve$"):
        downloaded(Remote(URL), tmp_path, lambda text: None)


def test_a_refused_certificate_is_not_tried_again(tmp_path, monkeypatch):
    refused = ssl.SSLCertVerificationError(1, "certificate verify failed")
    refused.verify_message = "certificate has expired"
    asked = opening(monkeypatch, refused)
    with pytest.raises(Unavailable, match="its certificate is invalid: certificate has expired"):
        downloaded(Remote(URL), tmp_path, lambda text: None)
    assert len(asked) == 1


def test_what_is_copied_to_the_place_that_the_hint_names_is_taken(tmp_path, monkeypatch):
    asked = opening(monkeypatch, socket.gaierror(-2, "Name or service not known"))
    (tmp_path / "a.bin").write_bytes(DATA)
    assert downloaded(Remote(URL, MD5), tmp_path, lambda text: None) == tmp_path / "a.bin"
    assert asked == []


def test_the_size_that_the_server_says_counts_and_a_large_difference_is_said(tmp_path):
    notes = []
    with serving({"/a.bin": DATA}) as server:
        path = downloaded(Remote(f"{server.url}/a.bin", MD5, 5_000_000), tmp_path, notes.append)
        downloaded(Remote(f"{server.url}/a.bin", MD5, len(DATA)), tmp_path / "b", notes.append)
    assert path.read_bytes() == DATA
    assert notes[1:] == [
        "a.bin has 3000000 bytes on the server, expected 5000000",
        f"downloading {server.url}/a.bin into {tmp_path / 'b'}",
    ]


def test_a_file_of_another_size_is_refused_before_it_is_read(tmp_path):
    with serving({"/a.bin": DATA}) as server, pytest.raises(Unavailable) as error:
        downloaded(Remote(f"{server.url}/a.bin", "", 1000), tmp_path, lambda text: None)
    assert error.value.message == (
        "a.bin has 3000000 bytes on the server, expected 1000, so it is not the published file"
    )
    assert f"copy it to {tmp_path}/a.bin" in error.value.hint
    assert list(tmp_path.iterdir()) == []
    assert len(server.asked) == 1


def test_a_server_that_states_no_size_sends_no_more_than_expected(tmp_path):
    with serving({"/a.bin": DATA}, says_size=False) as server:
        assert downloaded(Remote(f"{server.url}/a.bin", MD5, len(DATA)), tmp_path, lambda text: None).is_file()
        more = Remote(f"{server.url}/a.bin", "", 1_900_000)
        message = f"a.bin has more than {more.most} bytes on the server, expected 1900000"
        with pytest.raises(Unavailable, match=message):
            downloaded(more, tmp_path / "b", lambda text: None)
    assert list((tmp_path / "b").iterdir()) == []


def test_a_file_of_which_nobody_knows_the_size_is_not_read(tmp_path):
    message = "does not state the size of the file"
    with serving({"/a.bin": DATA}, says_size=False) as server, pytest.raises(Unavailable, match=message):
        downloaded(Remote(f"{server.url}/a.bin", MD5), tmp_path, lambda text: None)
    assert list(tmp_path.iterdir()) == []


def test_a_byte_per_connection_is_no_progress_and_pauses_grow(tmp_path, monkeypatch):
    slept = []
    monkeypatch.setattr(download, "PAUSE_SECONDS", 1.0)
    monkeypatch.setattr(download.time, "sleep", slept.append)
    with serving({"/a.bin": DATA}, drop_after=[1_000_000] + [1] * 100) as server, pytest.raises(Unavailable) as error:
        get(server, tmp_path)
    assert error.value.hint == "run the command again to resume from byte 1000005"
    assert len(server.asked) == 1 + download.TRIES
    assert slept == [1, 2, 4, 8, 16]


def test_a_connection_that_trickles_is_given_up(tmp_path, monkeypatch):
    def read1(size):
        clock[0] += 1.0
        return b"x"

    clock = [0.0]
    monkeypatch.setattr(download, "Pace", lambda: Pace(lambda: clock[0]))
    reply = SimpleNamespace(headers={"Content-Length": "1000000"}, status=206, read1=read1)
    monkeypatch.setattr(download, "_continues", lambda reply, start: True)
    monkeypatch.setattr(download.urllib.request, "urlopen", lambda request, timeout: nullcontext(reply))
    notes = []
    with pytest.raises(Unavailable, match=r"only 30 bytes arrived in 30 s"):
        downloaded(Remote(URL, "", 1_000_000), tmp_path, notes.append)
    assert clock[0] == 30 * download.TRIES


def test_a_full_disk_is_noticed_before(tmp_path, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: download.shutil._ntuple_diskusage(9, 9, 9))
    with serving({"/a.bin": DATA}) as server, pytest.raises(Unavailable, match=r"a.bin needs 3000000 bytes, .* has 9"):
        get(server, tmp_path)


def zipped(files, damage=False):
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    data = memory.getvalue()
    return data.replace(b"content", b"CONTENT") if damage else data


def test_a_zip_without_a_published_checksum_is_checked_by_its_own(tmp_path):
    good, bad = zipped({"x/1.txt": b"content"}), zipped({"x/1.txt": b"content"}, damage=True)
    with serving({"/good.zip": good, "/bad.zip": bad, "/cut.zip": good[:-30]}) as server:
        assert get(server, tmp_path, "", "good.zip")[0].read_bytes() == good
        with pytest.raises(BadFile, match=r"bad.zip: the checksum of entry 'x/1.txt' is wrong"):
            get(server, tmp_path, "", "bad.zip")
        with pytest.raises(BadFile, match=r"cut.zip is an incomplete or damaged ZIP archive: "):
            get(server, tmp_path, "", "cut.zip")
    assert [p.name for p in tmp_path.iterdir()] == ["good.zip"]


def test_a_zip_that_would_fill_the_disk_is_not_even_checked(tmp_path):
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(20):
            archive.writestr(f"{n}.txt", bytes(60_000_000))
    with serving({"/bomb.zip": memory.getvalue()}) as server, pytest.raises(BadFile, match="far more data"):
        get(server, tmp_path, "", "bomb.zip")
    assert list(tmp_path.iterdir()) == []


def test_entries_are_counted_even_if_they_are_empty(tmp_path, monkeypatch):
    monkeypatch.setattr(archive_module, "_FREE", 100 * archive_module._ENTRY)
    path = tmp_path / "x.tar.gz"
    for kind in (tarfile.REGTYPE, tarfile.DIRTYPE):
        with tarfile.open(path, "w:gz") as tar:
            for n in range(1000):
                member = tarfile.TarInfo(f"d{n}/x")
                member.type = kind
                tar.addfile(member)
        with pytest.raises(BadFile, match="far more data than expected"):
            unpacked(path, tmp_path / "out")


@pytest.mark.parametrize("name", ["\0hotos/2.jpg", "\0"])
def test_a_name_that_begins_with_nul_is_refused(tmp_path, name):
    path = tmp_path / "x.zip"
    entry = zipfile.ZipInfo("x" * len(name))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, b"photo")
    path.write_bytes(path.read_bytes().replace(b"x" * len(name), name.encode()))
    with pytest.raises(BadFile, match="control character"):
        unpacked(path, tmp_path / "out")


def tarred(folder, names):
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w:gz") as archive:
        for name in names:
            archive.add(folder / name, name)
    return memory.getvalue()


def test_pets_are_fetched_and_not_again(run, tmp_path, monkeypatch):
    (tmp_path / "source").mkdir()
    pets_tree(tmp_path / "source")
    archives = {f"/{name}.tar.gz": tarred(tmp_path / "source", [name]) for name in ("images", "annotations")}
    data = tmp_path / "data"
    data.mkdir()
    with serving(archives, drop_after=[100_000, 500]) as server:
        for name, content in archives.items():
            remote = Remote(server.url + name, hashlib.md5(content).hexdigest(), len(content))
            monkeypatch.setitem(pets.ARCHIVES, name[1:].partition(".")[0], remote)
        result = run("data", "fetch", "pets", "--data", data)
        assert result.exit_code == 0, result.output
        again = run("data", "fetch", "pets", "--data", data)
    assert result.stdout == again.stdout == f"{data}/oxford-iiit-pet\n"
    assert again.stderr == f"{data}/oxford-iiit-pet is complete\n"
    assert len(server.asked) == 3
    assert "captions.jsonl is not included, `sglora data caption DATASET` writes it\n" in result.stderr
    files = {p.relative_to(data / "oxford-iiit-pet"): p.read_bytes() for p in data.rglob("*.*")}
    source = tmp_path / "source"
    assert files == {p.relative_to(source): p.read_bytes() for p in source.rglob("*.*") if p.suffix != ".jsonl"}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(tarfile.SYMTYPE, "is a link or a device"), (tarfile.LNKTYPE, "is a link"), (tarfile.FIFOTYPE, "is a link")],
)
def test_a_link_in_an_archive_is_refused_and_nothing_stays(tmp_path, kind, reason):
    entry = tarfile.TarInfo("images/x.jpg")
    entry.type, entry.linkname = kind, "/etc/passwd"
    refuse(tmp_path, entry, f"entry 'images/x.jpg' {reason}")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../x.jpg", "leads out of the archive"),
        ("/x.jpg", "leads out of the archive"),
        ("images/../../x.jpg", "leads out of the archive"),
        ("a\\x.jpg", "has a backslash, a colon or a control character in its name"),
        ("C:x.jpg", "has a backslash, a colon or a control character in its name"),
        ("x" * 300, "has a part of 300 bytes, more than a file system allows"),
    ],
)
def test_a_name_that_leads_out_is_refused_and_nothing_stays(tmp_path, name, reason):
    refuse(tmp_path, tarfile.TarInfo(name), reason)


def refuse(tmp_path, entry, reason):
    path, root = tmp_path / "a.tar.gz", tmp_path / "root"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("images/first.jpg"))
        archive.addfile(entry)
    with pytest.raises(BadFile, match=reason):
        unpacked(path, root)
    assert list(root.iterdir()) == []


def test_a_zip_is_as_strict(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(zipped({"../x": b""}))
    with pytest.raises(BadFile, match="leads out"):
        unpacked(path, tmp_path / "root")
    link = zipfile.ZipInfo("x")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(BadFile, match="is a link"):
        unpacked(path, tmp_path / "root")


def test_an_archive_is_added_to_a_folder_that_is_there(tmp_path):
    (tmp_path / "root/x").mkdir(parents=True)
    (tmp_path / "root/x/old").write_text("old")
    path = tmp_path / "a.zip"
    path.write_bytes(zipped({"x/new": b"new", "x/not": b"", "y/z/1": b"1"}))
    unpacked(path, tmp_path / "root", lambda name: not name.endswith("not"))
    extracted = sorted(p for p in (tmp_path / "root").rglob("*") if p.is_file())
    assert [p.relative_to(tmp_path / "root").as_posix() for p in extracted] == ["x/new", "x/old", "y/z/1"]


def test_coco_is_fetched_and_read(run, tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    coco_tree(source, {1: [("cat", 0)], 2: [("dog", 0)]}, "val2017")
    coco_tree(source, {3: [("cat", 0)]})
    (source / "annotations/person_keypoints_val2017.json").write_text("{}")
    files = {p.relative_to(source).as_posix(): p.read_bytes() for p in source.rglob("*.*")}
    archives = {
        "/annotations/annotations_trainval2017.zip": zipped({n: b for n, b in files.items() if n[:3] == "ann"}),
        "/zips/val2017.zip": zipped({n: b for n, b in files.items() if n[:3] == "val"}),
    }
    (tmp_path / "data").mkdir()
    with serving(archives, drop_after=[300]) as server:
        monkeypatch.setattr("sglora_datasets.coco.SITE", server.url)
        result = run("data", "fetch", "coco:val2017", "--data", tmp_path / "data")
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("COCO publishes no checksums, so each ZIP")
    root = tmp_path / "data/coco"
    found = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.*"))
    assert found == sorted(n for n in files if n[:5] != "train" and "person" not in n)
    assert [task.name for task in Coco().tasks(root)] == ["cat", "dog"]  # of val2017: train2017 has no photos here
