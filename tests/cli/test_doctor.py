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
    assert "broken   setting   file: " in result.stdout
    assert "                -> fix or delete it\n" in result.stdout


@pytest.mark.parametrize("origin", ["file", "environment"])
def test_doctor_says_how_to_get_rid_of_a_setting_that_names_nothing(run, own_home, monkeypatch, origin):
    if origin == "file":
        (own_home / "settings.toml").write_text('pack = "gone"\n')
    else:
        monkeypatch.setenv("SGLORA_PACK", "gone")
    result = run("doctor")
    mend = "sglora settings unset pack" if origin == "file" else "unset SGLORA_PACK"
    assert result.exit_code == 6
    assert result.stdout.startswith(f"broken   job       generate: no pack named 'gone'\n                -> {mend}\n")
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


def test_doctor_says_what_is_broken_first_then_what_is_missing_and_counts_the_rest(run, own_home, toy_pack):
    (own_home / "cache/packs/toys/joint.safetensors").unlink()
    short, every = run("doctor").stdout.splitlines(), run("doctor", "--all").stdout.splitlines()
    states = [line.split()[0] for line in every if not line.startswith(" ")]
    assert states == sorted(states, key=["broken", "missing", "ok"].index)
    assert short[:2] == [
        "broken   pack      toys: joint.safetensors is missing",
        "                -> sglora pack remove toys",
    ]
    assert short[-1] == f"ok       {states.count('ok') - 1} other things are fine; --all lists them"
    assert short[-2].startswith("ok       job       generate: an adapter was made with pack toys")
    assert [line for line in short[:-2] if line not in every] == []


@pytest.mark.parametrize("origin", ["file", "environment"])
def test_a_device_of_the_settings_that_is_not_here_is_missing_and_the_job_is_done(run, own_home, monkeypatch, origin):
    if origin == "file":
        (own_home / "settings.toml").write_text('device = "cuda"\n')
    else:
        monkeypatch.setenv("SGLORA_DEVICE", "cuda")
    result = run("doctor")
    assert result.exit_code == 0
    text = "device 'cuda' is not available, because PyTorch finds no CUDA GPU; cpu is used where no --device is given"
    mend = "sglora settings unset device" if origin == "file" else "unset SGLORA_DEVICE"
    assert f"missing  device    default: {text}\n                -> {mend}\n" in result.stdout
