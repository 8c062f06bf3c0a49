"""`sglora pack push`, and the packs of a hub in other commands. The hub is a small one on this machine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml
from hub_server import TOKEN
from signatures import sign
from zips import contents, tree

from sglora_cli.cli.schemas import schema

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's, of httpx


@pytest.fixture
def logged_in(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """The working folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def exported(run, folder: Path) -> bytes:
    path = folder / "exported.sglora.zip"
    assert run("pack", "export", "toys", "-o", path, "--force").exit_code == 0
    return path.read_bytes()


def front_matter(card: bytes) -> dict:
    _, matter, _ = card.decode().split("---\n", 2)
    return yaml.safe_load(matter)


def refused(run, code: int, message: str, hint: str, *arguments: object) -> None:
    result = run("pack", "push", *arguments)
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    lines = result.stderr.splitlines()
    assert lines[-2:] == [f"error: {message}", f"hint: {hint}"]
    assert TOKEN not in result.output


def test_a_pushed_pack_comes_back_as_it_was(run, toy_pack, logged_in, workplace, own_home):
    data, folder = exported(run, workplace), own_home / "cache/packs/toys"
    before = tree(folder)
    result = run("pack", "push", "toys", "hf:ann/toys", "--license", "cc-by-4.0", "--yes")
    assert result.exit_code == 0, result.output
    repo = logged_in.repos["ann/toys"]
    commit = repo.refs["main"]
    assert sorted(repo.files) == [".gitattributes", "README.md", "toys.sglora.zip"]
    assert repo.files["toys.sglora.zip"] == data
    assert result.stdout == f"{logged_in.url}/ann/toys/commit/{commit}\n"
    card = repo.files["README.md"]
    assert result.stderr == (
        f"file       toys.sglora.zip, {len(data)} bytes\nfile       README.md, {len(card)} bytes\n"
        f"commit     {commit}\nto use it  sglora pack pull hf:ann/toys\n"
    )
    assert repo.private is False
    assert run("pack", "remove", "toys", "--yes").exit_code == 0
    assert run("pack", "pull", "hf:ann/toys").exit_code == 0
    assert tree(folder) == before


def test_the_model_card_has_metadata_data_and_how_to_use_it(run, toy_pack, logged_in):
    assert run("pack", "push", "toys", "hf:ann/toys", "--license", "cc-by-4.0", "--yes").exit_code == 0
    card = logged_in.repos["ann/toys"].files["README.md"]
    assert front_matter(card) == {
        "library_name": "sglora",
        "license": "cc-by-4.0",
        "tags": ["sglora", "sg-lora", "lora", "vision-language", "tiny"],
    }
    text = card.decode().split("---\n", 2)[2]
    assert text.startswith("\n# toys\n\ntoys\n\n## How to use it\n\n    sglora pack pull hf:ann/toys\n")
    assert "--pack hf:ann/toys -o adapter.safetensors\n" in text
    assert (
        "## Training data\n\n* `toys`: 4 expert tasks, 3 training tasks, 2 unseen tasks, 35 training photos\n" in text
    )
    assert "| toys/ball | expert |" in text


def test_a_dry_run_uploads_nothing_and_needs_neither_network_nor_token(run, toy_pack, hub, workplace, monkeypatch):
    monkeypatch.setenv("SGLORA_OFFLINE", "1")
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "")
    result = run("pack", "push", "toys", "hf:ann/toys", "--dry-run")
    assert (result.exit_code, result.stdout) == (0, "")
    size = len(exported(run, workplace))
    lines = result.stderr.splitlines()
    assert lines[0] == f"file       toys.sglora.zip, {size} bytes"
    assert lines[1].startswith("file       README.md, ")
    assert lines[2:] == ["note       the model card names no licence; pass --license to name one"]
    facts = json.loads(run("pack", "push", "toys", "hf:ann/toys", "--dry-run", "--json").stdout)
    jsonschema.validate(facts, schema("pack push"))
    assert (facts["files"]["toys.sglora.zip"], facts["commit"]) == (size, None)
    assert hub.asked == []


def test_json_of_push_and_pull_fit_their_schemas(run, toy_pack, logged_in):
    pushed = json.loads(run("pack", "push", "toys", "hf:ann/toys", "--yes", "--json").stdout)
    jsonschema.validate(pushed, schema("pack push"))
    assert pushed["commit"] == logged_in.repos["ann/toys"].refs["main"]
    pulled = json.loads(run("pack", "pull", "hf:ann/toys", "--name", "again", "--json").stdout)
    jsonschema.validate(pulled, schema("pack pull"))
    packs = json.loads(run("pack", "list", "--json").stdout)
    jsonschema.validate(packs, schema("pack list"))
    origins = {one["name"]: one["pulled_from"] for one in packs["packs"]}
    assert origins == {"again": f"hf:ann/toys@{pushed['commit']}", "starter": None, "toys": None}


def test_nobody_is_asked_where_nobody_can_answer(run, toy_pack, logged_in):
    message = "confirmation to upload pack 'toys' to hf:ann/toys (new, private) needs a terminal"
    refused(run, 2, message, "pass --yes", "toys", "hf:ann/toys", "--private")
    assert logged_in.repos == {}


def test_a_private_repository(run, toy_pack, logged_in, monkeypatch):
    assert run("pack", "push", "toys", "hf:ann/toys", "--private", "--yes").exit_code == 0
    assert logged_in.repos["ann/toys"].private is True
    again = run("pack", "push", "toys", "hf:ann/toys")
    assert "replaces   toys.sglora.zip, README.md\n" in again.stderr
    assert "to hf:ann/toys (private)" in again.stderr


def test_a_public_repository_does_not_become_private(run, toy_pack, logged_in):
    logged_in.repo("ann/toys", {".gitattributes": b""})
    hint = "make it private in its settings on the hub, or omit --private"
    refused(run, 2, "hf:ann/toys exists and is public", hint, "toys", "hf:ann/toys", "--private", "--yes")


def test_a_signature_goes_along_and_a_stale_one_is_deleted(run, toy_pack, logged_in, workplace, key):
    archive = workplace / "toys.sglora.zip"
    run("pack", "export", "toys", "-o", archive)
    signature = sign(archive, key("ann")).read_bytes()
    assert run("pack", "push", "toys", "hf:ann/toys", "--yes").exit_code == 0
    repo = logged_in.repos["ann/toys"]
    assert repo.files["toys.sglora.zip.sig"] == signature
    assert b"`--signers FILE`" in repo.files["README.md"]
    (workplace / "toys.sglora.zip.sig").unlink()
    assert run("pack", "push", "toys", "hf:ann/toys", "--yes").exit_code == 0
    assert sorted(repo.files) == [".gitattributes", "README.md", "toys.sglora.zip"]


def test_a_signature_of_other_bytes(run, toy_pack, logged_in, workplace, key):
    other = workplace / "other"
    other.write_text("other")
    signature = sign(other, key("ann"))
    hint = "sglora pack export toys -o toys.sglora.zip --force && ssh-keygen -Y sign -n sglora -f KEY toys.sglora.zip"
    arguments = ("toys", "hf:ann/toys", "--yes", "--signature", signature)
    refused(run, 4, f"{signature} is not a signature of pack 'toys' in its current state", hint, *arguments)
    assert logged_in.repos == {}


def test_a_signature_that_is_missing(run, toy_pack, logged_in, workplace, key):
    arguments = ("toys", "hf:ann/toys", "--yes", "--signature", workplace / "no.sig")
    refused(run, 4, f"{workplace}/no.sig does not exist", f"searched in {workplace}", *arguments)


def test_without_a_token(run, toy_pack, hub):
    message = "no token for the Hugging Face hub was found"
    refused(run, 6, message, "log in: hf auth login, or set HF_TOKEN", "toys", "hf:ann/toys", "--yes")


def test_a_token_that_the_hub_does_not_accept(run, toy_pack, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    hub.repo("ann/toys", {"x": b""})
    hint = "log in again: hf auth login, or correct HF_TOKEN"
    refused(run, 6, "the hub rejected your token", hint, "toys", "hf:ann/toys", "--yes")


def test_a_token_that_may_not_write(run, toy_pack, logged_in):
    logged_in.status["/api/repos/create"] = 403
    hint = "log in with a token that can write to it: hf auth login, or set HF_TOKEN"
    message = "your token cannot write to hf:bob/toys (403)"
    refused(run, 6, message, hint, "toys", "hf:bob/toys", "--yes")


def test_an_upload_that_breaks_off(run, toy_pack, logged_in):
    logged_in.status["/lfs/"] = 403
    hint = "log in with a token that can write to it: hf auth login, or set HF_TOKEN"
    message = "your token cannot write to hf:ann/toys (403)"
    refused(run, 6, message, hint, "toys", "hf:ann/toys", "--yes")
    assert list(logged_in.repos["ann/toys"].files) == [".gitattributes"]


def test_a_repository_that_changed_meanwhile(run, toy_pack, logged_in):
    logged_in.repo("ann/toys", {".gitattributes": b""})
    logged_in.status["/api/models/ann/toys/commit"] = 412
    message = "somebody else changed hf:ann/toys in the meantime (412)"
    refused(run, 6, message, "run the command again", "toys", "hf:ann/toys", "--yes")


def test_a_repository_with_another_pack(run, toy_pack, logged_in):
    logged_in.repo("ann/birds", {"birds.sglora.zip": b""})
    hint = "push to another repository, or delete that file on the hub"
    message = "hf:ann/birds contains another pack: birds.sglora.zip"
    refused(run, 5, message, hint, "toys", "hf:ann/birds", "--yes")


def test_a_push_to_a_revision(run, toy_pack, logged_in):
    message = "hf:ann/toys@v1 names a revision, but a push creates a new one"
    refused(run, 2, message, "use hf:ann/toys", "toys", "hf:ann/toys@v1", "--yes")


def test_a_licence_that_is_none(run, toy_pack, logged_in):
    message = "'CC BY\\n4' is not a valid licence identifier"
    hint = "use an identifier of the hub, such as apache-2.0"
    refused(run, 2, message, hint, "toys", "hf:ann/toys", "--license", "CC BY\n4")


def test_a_push_to_what_is_no_repository(run, toy_pack, hub):
    message = "'toys' is not a reference to a pack on the hub"
    refused(run, 2, message, "use the form hf:OWNER/NAME", "toys", "toys")


def test_a_damaged_pack_is_not_pushed(run, toy_pack, logged_in, own_home):
    (own_home / "cache/packs/toys/README.md").write_text("changed")
    message = "pack 'toys' is damaged: README.md has changed since the pack was built"
    refused(run, 4, message, "build or fetch it again", "toys", "hf:ann/toys", "--yes")
    assert logged_in.repos == {}


def test_a_push_offline(run, toy_pack, logged_in, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hint = "unset HF_HUB_OFFLINE, then: sglora pack push PACK hf:ann/toys"
    refused(run, 6, "hf:ann/toys cannot be pushed: HF_HUB_OFFLINE is set", hint, "toys", "hf:ann/toys", "--yes")


# Packs of the hub in other commands


def test_every_command_that_takes_a_pack_takes_one_of_the_hub(run, toys_hub, tmp_path):
    assert run("bench", "--pack", "starter", "--on", "hf:ann/toys", "--dry-run").exit_code == 5  # another backbone
    for arguments in (
        ("pack", "verify", "hf:ann/toys"),
        ("pack", "export", "hf:ann/toys", "-o", tmp_path / "back.sglora.zip"),
        ("settings", "set", "pack", "hf:ann/toys"),
        ("generate", "a mug"),
        ("pack", "remove", "hf:ann/toys", "--yes"),
    ):
        result = run(*arguments)
        assert result.exit_code == 0, (arguments, result.output)
    archive = toys_hub.repos["ann/toys"].files["toys.sglora.zip"]
    (tmp_path / "first.zip").write_bytes(archive)
    assert contents(tmp_path / "back.sglora.zip") == contents(tmp_path / "first.zip")
    assert (tmp_path / "back.sglora.zip").read_bytes() == archive
    assert len([path for _, path in toys_hub.asked if path.startswith("/cdn/")]) == 1


def test_completion_pulls_nothing(run, hub, monkeypatch):
    monkeypatch.setenv("_SGLORA_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "sglora generate --pack hf:ann/toys --generator ")
    monkeypatch.setenv("COMP_CWORD", "5")
    run()
    assert hub.asked == []


def test_other_commands_do_not_import_the_client_of_the_hub(tmp_path):
    import sys

    code = (
        "import sys\nfrom sglora_cli.cli.main import main\n"
        "try:\n    main(['pack', 'list'])\nexcept SystemExit:\n    pass\n"
        "assert 'huggingface_hub' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
