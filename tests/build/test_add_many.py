"""Many experts are added at once or not at all, and what an edit costs follows from what it changes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from synthetic_packs import synthetic_pack

from sglora_cli.adapter.file import save_adapter
from sglora_cli.errors import BadFile
from sglora_cli.files import atomic
from sglora_cli.generate.session import Session
from sglora_cli.lora.gauge import gauge_of
from sglora_cli.lora.layout import Layout
from sglora_cli.lora.prior import Query
from sglora_cli.pack.content.shards import shard_file
from sglora_cli.pack.content.tasks import tasks_file
from sglora_cli.pack.coverage import SeenTasks, load_coverage
from sglora_cli.pack.pack import Pack

NAMES = [f"things/{n}" for n in range(7)]


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    """Files of three experts at most."""
    monkeypatch.setattr("sglora_cli.pack.draft.shard_rows", lambda layout: 3)


@pytest.fixture
def pack(toy_pack, own_home) -> Pack:
    return Pack(own_home / "cache/packs/toys")


@pytest.fixture
def listed(pack, tmp_path) -> Path:
    """A list of seven adapters beside it."""
    layout = Layout(pack.layout.sites, 2, 5.0)
    lines = []
    for n, name in enumerate(NAMES):
        flat_P = 0.4 * torch.randn(layout.size, generator=torch.Generator().manual_seed(n))
        save_adapter(tmp_path / f"{n}.safetensors", layout, flat_P, {"fingerprint": pack.fingerprint})
        lines.append({"adapter": f"{n}.safetensors", "text": f"a photo of a thing number {n}", "name": name})
    path = tmp_path / "list.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_at_once_they_are_what_they_are_one_after_another(run, pack, listed, tmp_path, own_home):
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    inodes = {p: p.stat().st_ino for p in pack.folder.rglob("*.safetensors")}
    result = run("pack", "add", "toys", "--list", listed, "--json")
    assert result.exit_code == 0, result.output
    assert [task["key"] for task in json.loads(result.stdout)["tasks"]] == NAMES
    whole = Pack(pack.folder)
    assert whole.manifest["shards"] == [4, 3, 3, 1]  # the first file is one of a build, and full
    assert whole.manifest["edits"] == ["added expert things/0 and 6 more, up to things/6"]
    assert whole.verify() == []
    whole.check_content()
    means_EP, index_ED, meaning_EW = whole.experts.means(), whole.index_ED, whole.meaning_EW
    keys = tuple(whole.experts.names)
    seen = load_coverage(whole)
    assert {p for p, inode in inodes.items() if p.exists() and p.stat().st_ino == inode} >= {
        pack.folder / name for name in ("experts/00000.safetensors", "joint.safetensors", "gauge.safetensors")
    }

    for name in NAMES:
        assert run("pack", "remove", "toys", name, "--yes").exit_code == 0
    assert Pack(pack.folder).manifest["shards"] == [4]
    for line in lines:
        path = tmp_path / line["adapter"]
        assert run("pack", "add", "toys", path, "--text", line["text"], "--name", line["name"]).exit_code == 0
    one_by_one = Pack(pack.folder)
    assert one_by_one.verify() == []
    assert tuple(one_by_one.experts.names) == keys
    assert torch.equal(one_by_one.experts.means(), means_EP)
    assert torch.allclose(one_by_one.index_ED, index_ED, atol=1e-6)
    assert torch.allclose(one_by_one.meaning_EW, meaning_EW, atol=1e-6)
    assert load_coverage(one_by_one).keys == seen.keys


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adapter": "gone.safetensors"}, "line 7: {folder}/gone.safetensors does not exist"),
        ({"text": " "}, "line 7: 'text' must be a non-empty string, got ' '"),
        ({"text": 3}, "line 7: 'text' must be a non-empty string, got 3"),
        ({"adapter": [3]}, "line 7: 'adapter' must be a list of strings, got [3]"),
        ({"adapter": []}, "line 7: 'adapter' must be a non-empty string, got []"),
        (
            {"name": "things/0"},
            "line 7: the name 'things/0' is already used in {folder}/list.jsonl, line 1\nhint: set",
        ),
        ({"name": "Toys/BALL"}, "line 7: pack 'toys' already has a task 'toys/ball' with role expert"),
        ({"name": "cap"}, "line 7: 'cap' is not a valid expert name\nhint: set another \"name\" in this line"),
        ({"weight": 1}, "line 7: unknown key 'weight'"),
    ],
)
def test_one_bad_line_and_nothing_is_added(run, pack, listed, change, message):
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    listed.write_text("".join(json.dumps(line) + "\n" for line in [*lines[:-1], lines[-1] | change]))
    before = contents(pack.folder)
    result = run("pack", "add", "toys", "--list", listed)
    assert result.stderr.startswith(f"error: {listed}, " + message.format(folder=listed.parent))
    assert result.exit_code == (5 if "already" in message else 4)
    assert contents(pack.folder) == before


def test_several_states_of_a_line_are_one_expert(run, pack, listed):
    listed.write_text(json.dumps({"adapter": ["0.safetensors", "1.safetensors"], "text": "a cap"}) + "\n")
    assert run("pack", "add", "toys", "--list", listed).exit_code == 0
    new = Pack(pack.folder)
    assert new.tasks.of("expert")[4]["states"] == 2
    assert float(new.experts.variances([4]).sum()) > 0


@pytest.mark.parametrize("words", [("--list", "{}", "--text", "a cap"), ("x", "--list", "{}"), (), ("x",)])
def test_a_list_or_an_adapter_and_its_sentence(run, pack, listed, words):
    result = run("pack", "add", "toys", *(word.format(listed) for word in words))
    assert result.exit_code == 2
    assert "--list" in result.stderr


def test_an_empty_list_is_refused(run, pack, listed):
    listed.write_text("\n")
    result = run("pack", "add", "toys", "--list", listed)
    assert result.stderr.startswith(f"error: {listed} lists no adapters\nhint: each line must be ")
    assert result.exit_code == 4


def test_damage_in_a_file_that_is_written_again_is_named(run, pack, listed):
    """The others keep their old hash, and `verify` finds them."""
    assert run("pack", "add", "toys", "--list", listed).exit_code == 0
    extra = listed.with_name("0.safetensors")
    for name, code in {shard_file(3): 4, tasks_file("expert", 3): 4, shard_file(1): 0}.items():
        path, before = pack.folder / name, (pack.folder / name).read_bytes()
        path.write_bytes(before.replace(b"number", b"Number") if name.endswith("jsonl") else before[:-1] + b"!")
        result = run("pack", "add", "toys", extra, "--text", "a cap")
        assert result.exit_code == code, name
        if code:
            assert f"pack 'toys' is damaged: {name} has changed since the pack was built" in result.stderr
            path.write_bytes(before)
    assert Pack(pack.folder).verify() == [f"{shard_file(1)} has changed since the pack was built"]


def test_an_expert_leaves_its_file_and_no_other_one(run, pack, listed):
    assert run("pack", "add", "toys", "--list", listed).exit_code == 0
    old = Pack(pack.folder)
    means_EP, names = old.experts.means(), list(old.experts.names)
    inodes = [(pack.folder / shard_file(n)).stat().st_ino for n in range(4)]
    for name in ("things/1", "things/6"):  # of the second file, and the only one of the last
        row = names.index(name)
        means_EP = torch.cat([means_EP[:row], means_EP[row + 1 :]])
        names.remove(name)
        assert run("pack", "remove", "toys", name, "--yes").exit_code == 0
        new = Pack(pack.folder)
        assert list(new.experts.names) == names
        assert torch.equal(new.experts.means(), means_EP)
        assert new.verify() == []
    assert new.manifest["shards"] == [4, 2, 3]
    assert [(pack.folder / shard_file(n)).stat().st_ino == inodes[n] for n in range(3)] == [True, False, True]


def test_where_there_are_no_hard_links_files_are_copied(run, pack, listed, monkeypatch):
    def refused(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refused)
    assert run("pack", "add", "toys", "--list", listed).exit_code == 0
    assert Pack(pack.folder).verify() == []
    path = pack.folder / shard_file(0)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    result = run("pack", "add", "toys", listed.with_name("0.safetensors"), "--text", "a cap")
    assert result.exit_code == 4
    assert f"{shard_file(0)} has changed since the pack was built" in result.stderr


def test_nothing_is_ever_written_in_place(run, pack, listed, tmp_path):
    """Two versions of a pack share files, so what one holds must never change under the other."""
    kept = tmp_path / "kept"
    assert atomic.link_files(pack.folder, kept, ["pack.json", *pack.manifest["files"]]) == []
    before = contents(kept)
    assert run("pack", "add", "toys", "--list", listed).exit_code == 0
    assert run("pack", "remove", "toys", "toys/ball", "--yes").exit_code == 0
    assert contents(kept) == before
    assert Pack(kept).verify() == []


def test_a_new_expert_is_near_and_its_sentence_alone_is_encoded(run, pack, listed):
    session, old = Session.open(), load_coverage(pack)
    far = session.generate("a photo of a thing number 3").coverage.closeness
    assert run("pack", "add", "toys", "--list", listed).exit_code == 0
    session = Session.open()
    assert session.generate("a photo of a thing number 3").coverage.closeness > far
    new = session.seen_tasks
    assert new.keys == (*old.keys, *NAMES)
    assert torch.equal(new.others_T[: len(old.keys)], old.others_T)
    asked: list[str] = []

    def encode(texts):
        asked.extend(texts)
        return session._meaning(texts)

    again = old.added(NAMES, [f"a photo of a thing number {n}" for n in range(7)], encode)
    assert torch.equal(again.others_T, new.others_T)
    assert {text for text in asked if "thing" not in text and not text.isdigit()} == {"number"}


def test_what_is_kept_of_tasks_is_bounded_and_has_all_new_ones(monkeypatch):
    monkeypatch.setattr("sglora_cli.pack.coverage._TASKS", 5)

    def encode(texts):
        rows = [torch.randn(16, generator=torch.Generator().manual_seed(sum(map(ord, text)))) for text in texts]
        return torch.nn.functional.normalize(torch.stack(rows), dim=1)

    seen = SeenTasks.measured([f"a/{n}" for n in range(5)], [f"thing{n}" for n in range(5)], encode)
    least = sorted(range(5), key=lambda n: float(seen.others_T[n]))[:3]
    more = seen.added(["b/0", "b/1"], ["teapot", "kettle"], encode)
    assert more.keys == (*(f"a/{n}" for n in sorted(least)), "b/0", "b/1")
    assert len(more.tasks_TW) == len(more.others_T) == 5
    assert more.removed("b/0").keys == (*more.keys[:3], "b/1")


def test_a_gauge_that_does_not_fit_the_pack_is_refused(pack):
    layout = Layout(pack.layout.sites[:1], 2, 2.0)
    from sglora_cli.pack.content.gauge import save_gauge

    save_gauge(pack.folder, gauge_of(layout, lambda: [layout.initial(0)[None]]))
    with pytest.raises(BadFile, match="is not the gauge of this pack's experts"):
        _ = Pack(pack.folder).gauge


def counted() -> tuple[int, int, int]:
    """Bytes read and written by this process so far, and reads."""
    words = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(words["rchar"]), int(words["wchar"]), int(words["syscr"])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="only Linux counts what a process reads")
def test_a_pack_of_a_thousand_costs_what_one_of_ten_does(tiny, run, own_home, tmp_path, monkeypatch):
    monkeypatch.setattr("sglora_cli.pack.draft.shard_rows", lambda layout: 16)
    monkeypatch.setattr("synthetic_packs.shard_rows", lambda layout: 16)
    from thirdparty.sglora_tiny import TinyModel

    layout = Layout(TinyModel.sites, 2, 2.0)
    costs = {}
    for count in (10, 1000):
        folder = own_home / f"cache/packs/p{count}"
        synthetic_pack(folder, count, layout, "tiny", "tiny-1", (8, 8))
        costs[count] = spent = {}
        before = counted()
        pack = Pack(folder)
        spent["open"] = counted()[0] - before[0]
        _ = pack.index_ED
        before = counted()
        pack.prior(Query(unit_D := torch.ones(8) / 8**0.5, unit_D))
        spent["prior"] = counted()[0] - before[0]
        save_adapter(tmp_path / "a.safetensors", layout, pack.experts.means([0])[0], {"fingerprint": "tiny-1"})
        before = counted()
        assert run("pack", "add", folder, tmp_path / "a.safetensors", "--text", "a cap").exit_code == 0
        spent["add"] = counted()[1] - before[1]
    assert abs(costs[1000]["prior"] - costs[10]["prior"]) < 64  # headers with numbers of more digits
    assert costs[1000]["open"] < costs[10]["open"] + 200 * 63  # a name and a hash for each of 63 files more, twice
    assert costs[1000]["add"] < costs[10]["add"] + 100_000  # its index alone has 8 KB; its experts have 2.3 MB
