"""Packs pulled from a hub: what is downloaded, checked and recorded. The hub is a small one on this machine."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shlex
from pathlib import Path

import pytest
from hub_server import TOKEN
from signatures import allow, sign
from zips import contents, listed, packs, rezipped, tree

from sglora_cli.errors import BadFile, UsageError
from sglora_cli.pack import hub, hub_client
from sglora_cli.pack.hub_client import BrokenOff, Counted, Listing, RemoteFile, requests
from sglora_cli.pack.origin import Reference
from sglora_cli.system.progress import size
from sglora_cli.system.transfer import Pace


def downloads(hub) -> list[str]:
    return [path for method, path in hub.asked if path.startswith("/cdn/")]


def left(own_home: Path) -> list[str]:
    """What downloads left in the cache."""
    folder = own_home / "cache/downloads"
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def refused(run, own_home, code: int, message: str, hint: str, *arguments: object) -> None:
    result = run("pack", "pull", *(arguments or ("hf:ann/toys",)))
    assert (result.exit_code, result.stdout, packs(own_home)) == (code, "", []), result.output
    said = "\n".join(line for line in result.stderr.splitlines() if not line.startswith("pulling "))
    assert said == f"error: {message}\nhint: {hint}"


def test_a_pulled_pack_is_what_was_exported(run, toys_hub, archive, own_home):
    result = run("pack", "pull", "hf:ann/toys")
    commit, folder = toys_hub.repos["ann/toys"].refs["main"], own_home / "cache/packs/toys"
    assert result.stderr == (
        f"pulling    hf:ann/toys@{commit[:12]}: toys.sglora.zip, {size(archive.stat().st_size)}\n"
        "pack       toys, 4 experts\nbackbone   tiny, fingerprint tiny-1\n"
        f"from       hf:ann/toys@{commit}\n"
    )
    assert (result.exit_code, result.stdout) == (0, f"{folder}\n")
    assert tree(folder) == contents(archive)
    assert left(own_home) == []
    assert run("pack", "list").stdout.splitlines()[1] == (f"*  toys     tiny     4 experts   hf:ann/toys@{commit[:12]}")
    assert f"from       hf:ann/toys@{commit}\n" in run("pack", "show", "toys").stdout
    assert json.loads(run("pack", "show", "hf:ann/toys", "--json").stdout)["pulled_from"] == f"hf:ann/toys@{commit}"
    assert f"from       hf:ann/toys@{commit}\n" in run("inspect", "hf:ann/toys").stdout


def test_json_says_where_it_came_from(run, toys_hub, own_home):
    facts = json.loads(run("pack", "pull", "hf:ann/toys@v1", "--name", "mine", "--json").stdout)
    assert facts == {
        "pack": "mine",
        "backbone": "tiny",
        "fingerprint": "tiny-1",
        "signed_by": None,
        "folder": str(own_home / "cache/packs/mine"),
        "warnings": [],
        "pulled_from": f"hf:ann/toys@{toys_hub.repos['ann/toys'].refs['v1']}",
        "was_here": False,
    }
    assert run("pack", "pull", "hf:ann/toys@v1", "--name", "mine", "-q").stderr == ""


def test_the_second_pull_downloads_nothing(run, toys_hub):
    run("pack", "pull", "hf:ann/toys")
    again = run("pack", "pull", "hf:ann/toys")
    assert "pack       toys, 4 experts, already here\n" in again.stderr
    assert (again.exit_code, len(downloads(toys_hub))) == (0, 1)
    assert run("pack", "pull", "hf:ann/toys", "--force").exit_code == 0
    assert len(downloads(toys_hub)) == 2


def test_a_commit_that_leaves_the_archive_as_it_was_costs_no_download(run, toys_hub, archive):
    run("pack", "pull", "hf:ann/toys")
    commit = toys_hub.repo("ann/toys", {"toys.sglora.zip": archive.read_bytes()})
    result = run("pack", "pull", "hf:ann/toys")
    assert f"from       hf:ann/toys@{commit}\n" in result.stderr
    assert len(downloads(toys_hub)) == 1


def test_the_token_goes_to_the_hub_and_not_to_the_host_it_redirects_to(run, toys_hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    toys_hub.repos["ann/toys"].private = True
    result = run("pack", "pull", "hf:ann/toys")
    assert result.exit_code == 0, result.output
    assert toys_hub.cdn_tokens == [""]
    assert TOKEN not in result.output


# Which pack a reference means


def test_a_command_pulls_once_and_then_needs_no_network(run, toys_hub, monkeypatch):
    first = run("generate", "a photo of a mug", "--pack", "hf:ann/toys")
    assert first.exit_code == 0, first.output
    assert first.stderr.startswith("pulling    hf:ann/toys@")
    asked = len(toys_hub.asked)
    monkeypatch.setenv("SGLORA_OFFLINE", "1")
    again = run("generate", "a photo of a mug", "--pack", "hf:ann/toys", "--force")
    assert again.exit_code == 0, again.output
    assert "pack       toys (given on the command line)\n" in again.stderr
    assert len(toys_hub.asked) == asked
    commit = toys_hub.repos["ann/toys"].refs["main"]
    for revision in (commit, commit[:7]):
        assert run("bench", "--pack", f"hf:ann/toys@{revision}", "--dry-run").exit_code == 0


def test_another_revision_is_pulled_beside(run, toys_hub, archive, tmp_path, own_home):
    run("pack", "pull", "hf:ann/toys")
    files = contents(archive)
    manifest = json.loads(files["pack.json"])
    newer = listed(files, recipe={**manifest["recipe"], "summary": "newer toys"})
    commit = toys_hub.repo("ann/toys", {"toys.sglora.zip": rezipped(tmp_path / "n.zip", newer).read_bytes()}, "v2")
    for name, expected in (("@v2", "ann-toys"), ("", "toys"), ("@v2", "ann-toys"), (f"@{commit}", "ann-toys")):
        result = run("generate", "a photo of a mug", "--pack", f"hf:ann/toys{name}", "--json", "--force")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["pack"] == expected
    assert len(downloads(toys_hub)) == 2
    refusal = run("pack", "pull", "hf:ann/toys@v2", "--name", "toys")
    assert refusal.stderr == (
        f"error: pack 'toys' exists in {own_home}/cache/packs/toys\nhint: pass --name NAME, or --force to replace it\n"
    )
    assert run("pack", "pull", "hf:ann/toys@v2", "--name", "toys", "--force").exit_code == 0
    assert "newer toys" in run("pack", "show", "toys").stdout


def test_a_command_never_hides_or_replaces_a_pack(run, hub, archive, own_home):
    hub.repo("ann/x", {"starter.sglora.zip": archive.read_bytes()})
    result = run("generate", "a photo of a mug", "--pack", "hf:ann/x")
    assert result.exit_code == 0, result.output
    assert packs(own_home) == ["ann-x"]


def test_a_changed_pack_is_no_longer_the_published_one(run, toys_hub, own_home):
    run("pack", "pull", "hf:ann/toys")
    assert run("pack", "remove", "toys", "toys/ball", "--yes").exit_code == 0
    assert "hf:" not in run("pack", "list").stdout
    result = run("pack", "show", "hf:ann/toys")
    assert (result.exit_code, result.stderr) == (
        6,
        "error: hf:ann/toys is not on this machine\nhint: get it: sglora pack pull hf:ann/toys\n",
    )
    assert run("generate", "a mug", "--pack", "hf:ann/toys").exit_code == 0
    assert sorted(packs(own_home)) == ["ann-toys", "toys"]


def test_an_archive_cannot_claim_an_origin(run, archive, tmp_path, own_home):
    claim = {"repository": "ann/toys", "commit": "0" * 40, "revision": "main", "sha256": "", "pulled": "2026"}
    forged = listed({**contents(archive), "origin.json": json.dumps([claim]).encode()}, pulled_from=claim)
    assert run("pack", "import", rezipped(tmp_path / "f.zip", forged)).exit_code == 0
    assert "hf:" not in run("pack", "list").stdout
    assert run("pack", "show", "hf:ann/toys").exit_code == 6


# References


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("ann/toys", "try hf:ann/toys"),
        ("https://huggingface.co/ann/toys", "try hf:ann/toys"),
        ("hf:toys", "use the form hf:OWNER/NAME"),
        ("hf:", "use the form hf:OWNER/NAME"),
        ("hf:a/b/c", "use the form hf:OWNER/NAME"),
        ("hf:../toys", "use the form hf:OWNER/NAME"),
        ("hf:ann/..", "use the form hf:OWNER/NAME"),
        ("hf:ann/a--b", "use the form hf:OWNER/NAME"),
        ("hf:ann/toys.git", "use the form hf:OWNER/NAME"),
        ("hf:ann/" + "x" * 96, "use the form hf:OWNER/NAME"),
        ("hf:ann/to ys", "use the form hf:OWNER/NAME"),
    ],
)
def test_what_is_no_owner_and_name_is_refused(run, text, hint):
    result = run("pack", "pull", text)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (f"error: {text!r} is not a reference to a pack on the hub\nhint: {hint}\n")


@pytest.mark.parametrize("revision", ["", "a b", "../x", "a..b", "/x", "x" * 201, "a\x1b[31m", "a?b"])
def test_what_is_no_revision_is_refused(revision):
    with pytest.raises(UsageError, match="has no valid revision after @"):
        Reference.parse(f"hf:ann/toys@{revision}")


@pytest.mark.parametrize("revision", ["v1.0", "refs/pr/1", "0123abc", "a_b-c+d"])
def test_branches_tags_and_commits_are_revisions(revision):
    assert str(Reference.parse(f"hf:ann/toys@{revision}")) == f"hf:ann/toys@{revision}"


# What can go wrong


def test_a_repository_that_does_not_exist(run, hub, tiny, own_home):
    message = "hf:ann/toys does not exist on the hub, or it is private"
    refused(run, own_home, 3, message, "check the name; if it is private, log in (hf auth login, or set HF_TOKEN)")


def test_a_private_repository_without_and_with_the_wrong_token(run, toys_hub, own_home, monkeypatch):
    toys_hub.repos["ann/toys"].private = True
    message = "hf:ann/toys does not exist on the hub, or it is private"
    refused(run, own_home, 3, message, "check the name; if it is private, log in (hf auth login, or set HF_TOKEN)")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    hint = "log in again: hf auth login, or correct HF_TOKEN"
    refused(run, own_home, 6, "the hub rejected your token", hint)


def test_a_repository_that_the_token_cannot_see(run, hub, tiny, own_home, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    message = "hf:bob/toys does not exist on the hub, or it is private"
    hint = "check the name; if it is private, check your account: hf auth whoami"
    refused(run, own_home, 3, message, hint, "hf:bob/toys")


def test_a_gated_repository(run, toys_hub, own_home):
    toys_hub.repos["ann/toys"].gated = True
    message = "hf:ann/toys is gated: its owner decides who may read it"
    refused(run, own_home, 6, message, "request access on its page, then log in: hf auth login")


def test_a_revision_that_does_not_exist(run, toys_hub, own_home):
    hint = "omit the revision: sglora pack pull hf:ann/toys"
    refused(run, own_home, 3, "hf:ann/toys has no revision 'v9'", hint, "hf:ann/toys@v9")
    commit = toys_hub.repos["ann/toys"].refs["main"][:7]
    hint = "write all 40 digits of the commit"
    refused(run, own_home, 3, f"hf:ann/toys has no revision {commit!r}", hint, f"hf:ann/toys@{commit}")


def test_a_repository_without_a_pack(run, hub, tiny, own_home):
    hub.repo("ann/toys", {"model.safetensors": b"x", "packs/toys.sglora.zip": b"x"})
    message = "hf:ann/toys has no pack: no file in it ends with .sglora.zip"
    refused(run, own_home, 4, message, "check the name, or ask its owner to run `sglora pack push PACK hf:OWNER/NAME`")


def test_a_repository_of_several_packs(run, hub, archive, own_home):
    commit = hub.repo("ann/many", {"b.sglora.zip": b"b", "a.sglora.zip": b"a"})
    message = "hf:ann/many has several packs, but none is named many.sglora.zip: a.sglora.zip, b.sglora.zip"
    hint = f"hf download ann/many a.sglora.zip --revision {commit} --local-dir . && sglora pack import a.sglora.zip"
    refused(run, own_home, 4, message, hint, "hf:ann/many")
    hub.repo("ann/many", {"b.sglora.zip": b"b", "many.sglora.zip": archive.read_bytes()})
    assert run("pack", "pull", "hf:ann/many").exit_code == 0


def test_a_pack_with_a_wrong_hash(run, hub, archive, tmp_path, own_home):
    files = contents(archive)
    bad = rezipped(tmp_path / "bad.zip", {**files, "joint.safetensors": files["joint.safetensors"] + b"x"})
    hub.repo("ann/toys", {"toys.sglora.zip": bad.read_bytes()})
    message = "hf:ann/toys/toys.sglora.zip: the hash of entry 'joint.safetensors' differs from pack.json"
    hint = "try sglora pack pull hf:ann/toys@REVISION, or tell the owner that the file on the hub is damaged"
    refused(run, own_home, 4, message, hint)
    assert left(own_home) == []


def test_a_file_that_is_no_archive(run, hub, tiny, own_home):
    hub.repo("ann/toys", {"toys.sglora.zip": b"junk"})
    message = "hf:ann/toys/toys.sglora.zip is not a valid ZIP archive: File is not a zip file"
    hint = "try sglora pack pull hf:ann/toys@REVISION, or tell the owner that the file on the hub is damaged"
    refused(run, own_home, 4, message, hint)


def test_a_download_that_arrives_damaged(run, toys_hub, archive, own_home):
    data = archive.read_bytes()
    toys_hub.swap["toys.sglora.zip"] = wrong = b"x" + data[1:]
    got, right = hashlib.sha256(wrong).hexdigest(), hashlib.sha256(data).hexdigest()
    message = f"hf:ann/toys: toys.sglora.zip was damaged in transfer: SHA-256 {got} instead of {right}"
    refused(run, own_home, 4, message, "run `sglora pack pull hf:ann/toys` again; the damaged file was deleted")
    assert left(own_home) == []
    toys_hub.swap.clear()
    assert run("pack", "pull", "hf:ann/toys").exit_code == 0


def test_a_server_that_sends_more_than_it_announced(run, toys_hub, archive, own_home):
    toys_hub.extra = b"x" * 1000
    size = archive.stat().st_size
    refused(run, own_home, 4, f"the hub sent more than the announced {size} bytes", "run the command again")


def test_a_connection_that_breaks_is_resumed_at_once(run, toys_hub, archive, own_home):
    toys_hub.drop_after = [1000, 2000]
    result = run("pack", "pull", "hf:ann/toys")
    assert result.exit_code == 0, result.output
    assert toys_hub.ranges_asked == ["", "bytes=1000-", "bytes=3000-"]
    assert tree(own_home / "cache/packs/toys") == contents(archive)


def test_a_server_that_stops_in_the_middle_is_resumed_by_the_next_pull(run, toys_hub, archive, own_home):
    toys_hub.drop_after = [1000, *[0] * 60]
    result = run("pack", "pull", "hf:ann/toys")
    assert (result.exit_code, packs(own_home)) == (6, [])
    error, hint = result.stderr.splitlines()[-2:]
    assert error.startswith("error: hf:ann/toys cannot be pulled: ")
    assert hint == "hint: run the command again; the download resumes from byte 1000"
    assert left(own_home) == ["toys.sglora.zip.part"]
    toys_hub.drop_after, toys_hub.ranges_asked = [], []
    assert run("pack", "pull", "hf:ann/toys").exit_code == 0
    assert toys_hub.ranges_asked == ["bytes=1000-"]
    assert tree(own_home / "cache/packs/toys") == contents(archive)
    assert left(own_home) == []


def test_a_server_without_ranges_sends_everything_again(run, toys_hub, archive, own_home):
    toys_hub.drop_after, toys_hub.ranges = [1000], False
    assert run("pack", "pull", "hf:ann/toys").exit_code == 0
    assert tree(own_home / "cache/packs/toys") == contents(archive)


def test_a_full_disk_in_the_middle_of_a_download(run, toys_hub, archive, own_home, monkeypatch):
    from sglora_cli.pack import hub

    def full(self, data):
        self.file.write(data)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(hub.Counted, "write", full)
        sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
        part = own_home / f"cache/downloads/ann--toys/{sha256}/toys.sglora.zip.part"
        message = f"cannot write {part}: No space left on device"
        refused(run, own_home, 6, message, "free some space there; the download resumes from byte 500")
    assert run("pack", "pull", "hf:ann/toys").exit_code == 0
    assert toys_hub.ranges_asked == ["", "bytes=500-"]


def test_a_disk_that_is_too_small_is_seen_before_the_download(run, toys_hub, archive, own_home, monkeypatch):
    monkeypatch.setattr("sglora_cli.pack.hub.free_disk", lambda path: 5)
    needed = 2 * archive.stat().st_size
    message = f"{needed} bytes are needed to download and import toys.sglora.zip, but {own_home}/cache has 5 left"
    refused(run, own_home, 6, message, "free some space there, or move the user folders with SGLORA_HOME")
    assert downloads(toys_hub) == []


def test_a_full_disk_at_the_import_keeps_the_download(run, toys_hub, own_home, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("sglora_cli.pack.archive.free_disk", lambda path: 5)
        result = run("pack", "pull", "hf:ann/toys")
    assert (result.exit_code, packs(own_home)) == (6, [])
    assert result.stderr.endswith("\nhint: free some space there; the next pull uses the completed download\n")
    assert left(own_home) == ["toys.sglora.zip"]
    assert run("pack", "pull", "hf:ann/toys").exit_code == 0
    assert len(downloads(toys_hub)) == 1


def test_a_name_that_is_taken_keeps_the_download(run, toys_hub, archive, own_home):
    run("pack", "import", archive)
    result = run("pack", "pull", "hf:ann/toys")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        2,
        "hint: pass --name NAME, or --force to replace it",
    )
    assert run("pack", "pull", "hf:ann/toys", "--name", "other").exit_code == 0
    assert len(downloads(toys_hub)) == 1


@pytest.mark.parametrize("name", ["../x", ".x", "a/b"])
def test_a_bad_name_is_refused_before_anything_is_requested(run, toys_hub, own_home, name):
    message = f"invalid pack name {name!r}"
    refused(
        run,
        own_home,
        2,
        message,
        "use letters, digits and hyphens, and no name that Windows reserves",
        "hf:ann/toys",
        f"--name={name}",
    )
    assert toys_hub.asked == []


def test_a_kill_in_the_middle_leaves_a_part(run, toys_hub, own_home, monkeypatch):
    from sglora_cli.pack import hub

    def stop(self, data):
        self.file.write(data[:10])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(hub.Counted, "write", stop)
        assert run("pack", "pull", "hf:ann/toys").exit_code == 130
    assert (left(own_home), packs(own_home)) == (["toys.sglora.zip.part"], [])
    assert run("pack", "pull", "hf:ann/toys").exit_code == 0
    assert toys_hub.ranges_asked[1:] == ["bytes=10-"]


@pytest.mark.parametrize(
    ("variable", "reason"), [("SGLORA_OFFLINE", "SGLORA_OFFLINE is set"), ("HF_HUB_OFFLINE", "HF_HUB_OFFLINE is set")]
)
@pytest.mark.parametrize("arguments", [("pack", "pull", "hf:ann/toys"), ("generate", "a mug", "--pack", "hf:ann/toys")])
def test_offline(run, toys_hub, own_home, monkeypatch, variable, reason, arguments):
    from huggingface_hub import constants

    monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", variable == "HF_HUB_OFFLINE")
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # SGLORA_OFFLINE sets them for the process
    result = run(*arguments)
    assert (result.exit_code, result.stdout, packs(own_home)) == (6, "", [])
    assert result.stderr == (
        f"error: hf:ann/toys cannot be pulled: {reason}\nhint: unset {variable}, then: sglora pack pull hf:ann/toys\n"
    )
    assert toys_hub.asked == []


def test_no_network(run, toys_hub, own_home, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    hint = "connect to the network, then: sglora pack pull hf:ann/toys"
    refused(run, own_home, 6, "hf:ann/toys cannot be pulled: 127.0.0.1 cannot be reached", hint)


@pytest.mark.parametrize(
    ("status", "message", "hint"),
    [
        (500, "hf:ann/toys cannot be pulled: the hub returned 500", "run the command again later"),
        (
            429,
            "the hub received too many requests (429)",
            "wait a few minutes, then run the command again",
        ),
        (403, "hf:ann/toys needs a token", "log in with a token that can read it: hf auth login, or set HF_TOKEN"),
    ],
)
def test_a_hub_that_refuses(run, toys_hub, own_home, status, message, hint):
    toys_hub.status["/api/models/"] = status
    refused(run, own_home, 6, message, hint)


@pytest.mark.parametrize("body", [b"<html>a login page</html>", b"[]", b'{"id": "x"}', b'{"id": "x", "sha": "../.."}'])
def test_an_endpoint_that_is_no_hub(run, toys_hub, own_home, body):
    toys_hub.body = body
    message = f"hf:ann/toys cannot be pulled: {toys_hub.url} did not answer as a Hugging Face hub does"
    refused(run, own_home, 6, message, "correct or unset HF_ENDPOINT, or run the command again later")


def test_a_token_that_cannot_be_sent_is_not_printed(run, toys_hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_se\x01cret")
    result = run("pack", "pull", "hf:ann/toys")
    assert result.exit_code == 6
    assert "cret" not in result.output


# Signatures


def test_a_signed_pack_and_an_unknown_signer(run, toys_hub, archive, key, own_home):
    ann, eve = key("ann"), key("eve")
    signature = sign(archive, ann).read_bytes()
    files = {"toys.sglora.zip": archive.read_bytes(), "toys.sglora.zip.sig": signature}
    toys_hub.repo("ann/toys", files)
    signers = allow(eve)
    result = run("pack", "pull", "hf:ann/toys", "--signers", signers)
    assert (result.exit_code, packs(own_home)) == (4, ["signed"] if (own_home / "cache/packs/signed").exists() else [])
    assert f"error: hf:ann/toys/toys.sglora.zip.sig was not made by any signer in {signers}: " in result.stderr
    assert result.stderr.endswith(f"hint: verify whose key it is before you add it to {signers}\n")
    result = run("pack", "pull", "hf:ann/toys", "--signers", allow(ann))
    assert result.exit_code == 0, result.output
    assert "signed by  ann@example.org\n" in result.stderr
    assert len(downloads(toys_hub)) == 1
    again = json.loads(run("pack", "pull", "hf:ann/toys", "--signers", allow(ann), "--json").stdout)
    assert (again["was_here"], again["signed_by"]) == (True, "ann@example.org")


def test_a_pack_without_a_signature_is_refused_where_one_is_wanted(run, toys_hub, own_home, key):
    message = "hf:ann/toys has no toys.sglora.zip.sig, so the pack is not signed"
    hint = "ask its owner to sign the pack and push it again; nothing was imported"
    refused(run, own_home, 4, message, hint, "hf:ann/toys", "--signers", allow(key("ann")))


def test_a_missing_list_of_signers_is_seen_before_the_download(run, toys_hub, own_home, tmp_path):
    hint = f"the nearest existing folder is {tmp_path}"
    gone = tmp_path / "no" / "signers"
    refused(run, own_home, 4, f"{gone} does not exist", hint, "hf:ann/toys", "--signers", gone)
    assert toys_hub.asked == []


def test_a_name_on_the_hub_is_quoted_in_the_command_of_a_hint():
    files = {name: RemoteFile(name, 1, "") for name in ("x$(touch y).sglora.zip", "z.sglora.zip")}
    with pytest.raises(BadFile) as error:
        Listing(Reference.parse("hf:ann/toys"), "0" * 40, files, False).archive()
    command, _, then = error.value.hint.partition(" && ")
    assert shlex.split(command)[3] == shlex.split(then)[3] == "x$(touch y).sglora.zip"


def test_a_hub_that_trickles_is_given_up(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(hub_client, "Pace", lambda: Pace(lambda: clock[0]))
    with (tmp_path / "x.part").open("ab") as file:
        output = Counted(file, 10**6, lambda count, part: None)
        with (
            pytest.raises(BrokenOff, match="hf:ann/toys cannot be pulled: only 0 bytes arrived in 30 s"),
            requests(Reference.parse("hf:ann/toys"), "pull", output),
        ):
            any(output.write(b"") for clock[0] in (10.0, 20.0, 30.0))


def test_a_byte_per_connection_is_no_progress(run, toys_hub, own_home, monkeypatch):
    toys_hub.drop_after = [1] * 1000
    slept = []
    monkeypatch.setattr(hub, "_PAUSE_SECONDS", 1.0)
    monkeypatch.setattr(hub.time, "sleep", slept.append)
    result = run("pack", "pull", "hf:ann/toys")
    assert result.exit_code == 6
    assert [seconds for seconds in slept if isinstance(seconds, float)] == [2.0, 4.0]  # others are of its library
