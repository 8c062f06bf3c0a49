"""`sglora doctor`: what works on this machine, and what does not."""

from __future__ import annotations

import pytest

from sglora_cli.cli import diagnosis
from sglora_cli.plugin.host import Host


def test_doctor_finds_that_the_job_can_be_done(run):
    result = run("doctor")
    assert result.exit_code == 0
    assert "job       generate: an adapter was made with pack starter" in result.stdout


def test_doctor_names_what_is_wrong_and_what_mends_it(run, own_home, monkeypatch):
    (own_home / "settings.toml").write_text("pack = ]")
    result = run("doctor")
    assert result.exit_code == 6
    assert "NO  setting   file: " in result.stdout
    assert "           -> mend or remove it\n" in result.stdout


@pytest.mark.parametrize("origin", ["file", "environment"])
def test_doctor_says_how_to_get_rid_of_a_setting_that_names_nothing(run, own_home, monkeypatch, origin):
    if origin == "file":
        (own_home / "settings.toml").write_text('pack = "gone"\n')
    else:
        monkeypatch.setenv("SGLORA_PACK", "gone")
    result = run("doctor")
    mend = "sglora settings unset pack" if origin == "file" else "unset SGLORA_PACK"
    assert result.exit_code == 6
    assert f"NO  job       generate: no pack named 'gone'\n           -> {mend}\n" in result.stdout
    assert result.stderr.endswith(f"error: no adapter can be made: no pack named 'gone'\nhint: {mend}\n")


def test_doctor_finds_a_damaged_pack(toy_pack, own_home):
    (own_home / "cache/packs/toys/joint.safetensors").unlink()
    examined = diagnosis.examined(Host.load())
    pack = next(one for one in examined if (one.area, one.name) == ("pack", "toys"))
    assert (pack.state, pack.text, pack.mend) == (
        "broken",
        "joint.safetensors is missing",
        "sglora pack remove toys",
    )
