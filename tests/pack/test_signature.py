"""`sglora pack import --signers`: signatures made and checked by the real ssh-keygen."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from signatures import allow, sign
from zips import packs

from sglora_cli.pack import archive as archive_module


def test_a_pack_signed_by_an_allowed_key_is_taken(run, archive, key, own_home):
    ann = key()
    sign(archive, ann)
    result = run("pack", "import", archive, "--signers", allow(ann))
    assert result.stderr == (
        "pack       toys, 4 experts\nbackbone   tiny, fingerprint tiny-1\nsigned by  ann@example.org\n"
    )
    assert (result.exit_code, packs(own_home)) == (0, ["toys"])


def test_a_signature_may_lie_elsewhere_and_json_says_who_signed(run, archive, key, tmp_path):
    ann = key()
    other = sign(archive, ann).rename(tmp_path / "other.sig")
    arguments = ("--signers", allow(ann, 'namespaces="sglora"'), "--signature", other, "--json")
    assert json.loads(run("pack", "import", archive, *arguments).stdout)["signed_by"] == "ann@example.org"


def refused(run, own_home, archive, signers, message):
    result = run("pack", "import", archive, "--signers", signers)
    assert (result.exit_code, result.stdout, packs(own_home)) == (4, "", [])
    assert result.stderr.startswith(f"error: {message}"), result.stderr


@pytest.mark.parametrize("when", ["find-principals", "verify"])
def test_a_file_that_is_swapped_after_the_check_is_not_what_is_taken(
    run, archive, key, own_home, tmp_path, monkeypatch, when
):
    ann = key()
    sign(archive, ann)
    whole = archive.read_bytes()
    evil = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive) as good, zipfile.ZipFile(evil, "w") as bad:
        for name in good.namelist():
            bad.writestr(name, good.read(name).replace(b'"summary": "toys"', b'"summary": "evil"'))
    asked = archive_module.keygen

    def swapping(path, *arguments):
        answer = asked(path, *arguments)
        if arguments[0] == when:
            shutil.copyfile(evil, archive)
        return answer

    monkeypatch.setattr(archive_module, "keygen", swapping)
    result = run("pack", "import", archive, "--signers", allow(ann))
    assert result.exit_code == 0, result.output
    assert archive.read_bytes() != whole
    assert '"summary": "toys"' in (own_home / "cache/packs/toys/pack.json").read_text()
    assert packs(own_home) == ["toys"]


def test_a_changed_file_is_refused(run, archive, key, own_home):
    ann = key()
    sign(archive, ann)
    archive.write_bytes(archive.read_bytes() + b"x")
    refused(run, own_home, archive, allow(ann), f"{archive} differs from what ann@example.org signed: Signature verif")


def test_a_signature_by_somebody_else_is_refused(run, archive, key, own_home):
    sign(archive, key("eve"))
    signers = allow(key("ann"))
    refused(run, own_home, archive, signers, f"{archive}.sig was not made by any signer in {signers}: ")


def test_a_signature_made_for_another_purpose_is_refused(run, archive, key, own_home):
    ann = key()
    sign(archive, ann, "git")
    refused(run, own_home, archive, allow(ann), f"{archive} differs from what ann@example.org signed: ")


def test_a_key_that_was_allowed_until_a_day_in_the_past_is_refused(run, archive, key, own_home):
    ann = key()
    sign(archive, ann)
    refused(run, own_home, archive, allow(ann, 'valid-before="20200101"'), str(archive))


def test_a_missing_signature_is_refused(run, archive, key, own_home):
    refused(run, own_home, archive, allow(key()), f"{archive}.sig is missing or not a file")


def test_a_missing_list_of_signers_is_refused(run, archive, key, own_home, tmp_path):
    sign(archive, key())
    refused(run, own_home, archive, tmp_path / "gone", f"{tmp_path}/gone is missing or not a file")


@pytest.mark.parametrize("content", [b"", b"junk", b"\0" * 100, b"-----BEGIN SSH SIGNATURE-----\n"])
def test_what_is_no_signature_is_refused(run, archive, key, own_home, content):
    Path(f"{archive}.sig").write_bytes(content)
    refused(run, own_home, archive, allow(key()), f"{archive}.sig was not made by any signer in ")


def test_a_signature_as_large_as_a_pack_is_not_read(run, archive, key, own_home):
    Path(f"{archive}.sig").write_bytes(b"\0" * 70_000)
    refused(run, own_home, archive, allow(key()), f"{archive}.sig is not a signature: it has 70000 bytes")


def test_a_signature_without_signers_is_a_mistake(run, archive, own_home):
    result = run("pack", "import", archive, "--signature", "x.sig")
    assert (result.exit_code, packs(own_home)) == (2, [])
    assert result.stderr == (
        "error: --signature requires --signers, a file of trusted keys\nhint: pass --signers FILE too\n"
    )


def test_without_sshkeygen_nothing_is_taken_on_trust(run, archive, own_home, tmp_path, monkeypatch):
    for name in ("toys.sglora.zip.sig", "allowed"):
        (tmp_path / name).write_text("x")
    monkeypatch.setattr(archive_module.shutil, "which", lambda _: None)
    result = run("pack", "import", archive, "--signers", tmp_path / "allowed")
    assert (result.exit_code, packs(own_home)) == (6, [])
    assert result.stderr.startswith("error: ssh-keygen is not installed, so no signature can be checked\n")
