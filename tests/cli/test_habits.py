"""Help with examples, completion, --version, settings, the cache, pipes and narrow terminals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete
from commands import commands
from filelock import FileLock

from sglora_cli import config
from sglora_cli.adapter import write
from sglora_cli.cli import diagnosis
from sglora_cli.cli.commands import settings as settings_command
from sglora_cli.cli.main import COMMANDS, main
from sglora_cli.cli.versions import Package, wanted
from sglora_cli.errors import Unavailable
from sglora_cli.plugin.host import Host
from sglora_cli.system import cache, hardware, settings


def program(*arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run in a process of its own, piped."""
    return subprocess.run(
        [sys.executable, "-m", "sglora_cli.cli.main", *map(str, arguments)],
        capture_output=True,
        env={**os.environ, **environment},
        check=False,
    )


# Help


def test_every_command_says_what_it_is_for_with_an_example_and_what_options_mean():
    found = list(commands())
    assert len(found) > 30
    for path, command in found:
        help = command.help or ""
        assert help.split("\n\n")[0].strip(), path
        assert f"sglora {' '.join(path)}" in help, f"{path} has no example"
        assert len(command.get_short_help_str(200)) <= 60, path
        for option in command.params:
            assert not isinstance(option, click.Option) or option.help, (path, option.name)


def test_the_main_help_has_a_short_line_a_command():
    assert max(map(len, COMMANDS.values())) <= 60


def test_the_main_help_says_the_exit_codes(run):
    text = run("--help").stdout
    for number, word in enumerate(("done", "a bug", "usage", "unknown name", "bad file", "mismatch", "unavailable")):
        assert f"{number} {word}" in text


def test_a_missing_file_is_looked_for_beside(run, tmp_path):
    (tmp_path / "rows.jsonl").write_text("")
    result = run("report", tmp_path / "row.jsonl")
    assert result.exit_code == 4
    assert result.stderr == (
        f"error: {tmp_path / 'row.jsonl'} does not exist\nhint: did you mean {str(tmp_path / 'rows.jsonl')!r}?\n"
    )
    assert run("report", tmp_path / "xyz").stderr.endswith(f"hint: looked for in {tmp_path}\n")


# Completion


def completed(*words: str) -> list[str]:
    """What bash is offered for the last word."""
    return [item.value for item in BashComplete(main, {}, "sglora", "_X").get_completions(list(words[:-1]), words[-1])]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("comp",), ["completion"]),
        (("pack", "ver"), ["verify"]),
        (("pack", "verify", "sta"), ["starter"]),
        (("generate", "--pack", "s"), ["starter"]),
        (("generate", "--generator", "tie"), ["ties"]),
        (("generate", "--precision", "f"), ["fp32", "fp16"]),
        (("bench", "--baselines", "top-k,nea"), ["top-k,nearest"]),
        (("bench", "--table", "ablation-t"), ["ablation-tau"]),
        (("bench", "--tasks", "pets/pug"), ["pets/pug"]),
        (("plugins", "check", "star"), ["starter"]),
        (("pack", "remove", "starter", "birds/Indigo"), ["birds/Indigo Bunting"]),
        (("export", "a.safetensors", "--format", "peft-"), ["peft-flat"]),
        (("cache", "clean", "fea"), ["features"]),
        (("settings", "set", "gen"), ["generator"]),
        (("settings", "set", "pack", "st"), ["starter"]),
        (("generate", "--sam"), ["--samples"]),
        (("settings", "set", "device", "c"), ["cpu", "cuda"]),
        (("inspect", "starte"), ["starter", "starte"]),  # or a file
        (("pack", "build", "flow"), ["flowers", "flow"]),
        (("bench", "--as", "mark"), ["markdown"]),
        (("docs", "tut"), ["tutorial"]),
        (("nope", "x"), []),
    ],
)
def test_names_are_completed(words, offered):
    assert completed(*words) == offered


def test_completion_survives_a_broken_settings_file(own_home):
    (own_home / "settings.toml").write_text("pack = ]")
    assert completed("bench", "--tasks", "pets/pug") == []
    assert completed("generate", "--pack", "s") == ["starter"]


def test_closed_lists_have_every_name_that_there_is():
    assert list(config.ADAPTER_FORMATS) == list(write.FORMATS)
    assert ("auto", *hardware.PRECISIONS) == config.PRECISIONS


def test_completion_does_not_load_torch():
    code = (
        "import sys; from click.shell_completion import BashComplete; from sglora_cli.cli.main import main\n"
        "found = BashComplete(main, {}, 'sglora', '_X').get_completions(['generate', '--generator'], 'ti')\n"
        "assert [item.value for item in found] == ['ties']\n"
        "BashComplete(main, {}, 'sglora', '_X').get_completions([], '')\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_names_the_program(run, shell):
    script = run("completion", shell).stdout
    assert f"_SGLORA_COMPLETE={shell}_complete" in script


# --version


def test_version_says_what_is_installed_and_loads_nothing():
    done = program("--version")
    lines = done.stdout.decode().splitlines()
    assert lines[0] == "sglora 0.1.0"
    assert any(line.startswith("torch 2.") for line in lines)
    assert any(line.startswith("plugins of sglora 0.1.0: ") and "starter" in line for line in lines)
    code = "import sys; from sglora_cli.cli.versions import about; about(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_packages_that_are_missing_or_too_old_are_named():
    found = wanted(["click>=8.1", "not-there>=1", "numpy>=999.1", "torch", 'pytest>=1; extra == "test"'])
    assert [package.wrong for package in found] == [
        "",
        "not-there is not installed",
        f"numpy is {found[2].version}, 999.1 is wanted",
        "",
        "",
    ]
    assert found[4].extra == "test"
    assert Package("a", "2.6", "2.14.1+cpu").wrong == ""


# Settings


def test_settings_say_where_they_come_from(run, own_home, monkeypatch):
    (own_home / "settings.toml").write_text('pack = "starter"\n')
    monkeypatch.setenv("SGLORA_DATA", "/x")
    lines = [line.split() for line in run("settings").stdout.splitlines()]
    assert ["pack", "starter", "file"] in lines
    assert ["data", "/x", "SGLORA_DATA"] in lines
    assert ["backbone", "clip-vit-b-16", "default"] in lines


def test_changing_a_setting_keeps_everything_else(own_home):
    path = own_home / "settings.toml"
    path.write_text("# mine\npack = \"old\"  # why\n\ndevice = 'cpu'")
    host = Host.load()
    settings_command.put(host, "pack", "starter")
    settings_command.put(host, "generator", "ties:density=0.5")
    assert path.read_text() == ('# mine\npack = "starter"  # why\n\ndevice = \'cpu\'\ngenerator = "ties:density=0.5"\n')
    settings_command.drop("device")
    settings_command.drop("weights")
    assert path.read_text() == '# mine\npack = "starter"  # why\n\ngenerator = "ties:density=0.5"\n'


@pytest.mark.parametrize(
    ("key", "value", "code", "hint"),
    [
        ("pakc", "x", 3, "did you mean 'pack'?"),
        ("pack", "startr", 3, "did you mean 'starter'?"),
        ("generator", "tis", 3, "did you mean 'ties'?"),
        ("data", "/nowhere", 6, "data names a folder"),
        ("device", "", 2, "sglora settings unset device"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(run, own_home, key, value, code, hint):
    result = run("settings", "set", key, value)
    assert result.exit_code == code
    assert f"hint: {hint}\n" in result.stderr
    assert not (own_home / "settings.toml").exists()


# The cache


@pytest.fixture
def cached(own_home):
    """A file of every kind, each 10 bytes, and a draft that is two hours old."""
    root = own_home / "cache"
    paths = {}
    for kind in ("features", "work", "adapters", "rows", "packs"):
        path = root / kind / ("toys/pack.json" if kind == "packs" else "a.safetensors")
        path.parent.mkdir(parents=True)
        path.write_bytes(b"0123456789")
        paths[kind] = path
    draft = root / "work" / ".a.safetensors.12345678.draft"
    draft.write_bytes(b"0123456789")
    os.utime(draft, (time.time() - 7200,) * 2)
    return {**paths, "drafts": draft}


def test_cleaning_takes_what_is_made_again_and_nothing_else(run, cached):
    assert "2 items, 20 B would be removed" not in run("cache", "clean", "--dry-run").stdout  # and the draft
    assert all(path.exists() for path in cached.values())
    assert run("cache", "clean", "--yes").stdout == "3 items, 30 B removed\n"
    assert {kind for kind, path in cached.items() if path.exists()} == {"adapters", "rows", "packs"}
    assert run("cache", "clean", "packs", "--yes").stdout == "1 item, 10 B removed\n"
    assert not cached["packs"].parent.exists()


def test_cleaning_asks(run, cached):
    result = run("cache", "clean")
    assert result.exit_code == 2
    assert "hint: pass --yes" in result.stderr
    assert cached["features"].exists()


def test_cleaning_by_age_and_kind(run, cached):
    os.utime(cached["features"], (time.time() - 86400 * 31,) * 2)
    assert run("cache", "clean", "features", "work", "--older-than", "30d", "--yes").stdout == "1 item, 10 B removed\n"
    assert cached["work"].exists()
    assert run("cache", "clean", "--older-than", "soon").exit_code == 2
    assert "did you mean 'features'?" in run("cache", "clean", "featurs").stderr


def test_what_is_being_made_stays(cached):
    with FileLock(cached["features"].with_name(".a.safetensors.lock")):
        done = cache.clean(cache.chosen(["features", "work"]))
    assert [item.path for item in done.removed] == [cached["work"]]
    assert [(item.path, reason) for item, reason in done.kept] == [(cached["features"], "another process is making it")]


def test_nothing_is_cleaned_under_a_running_build(cached):
    with cache.lease(), pytest.raises(Unavailable, match="another process of sglora is at work"):
        cache.clean(cache.chosen([]))
    assert cached["work"].exists()
    cache.clean(cache.chosen([]))
    assert not cached["work"].exists()


def test_a_killed_process_holds_nothing(cached, own_home):
    code = "import os; from sglora_cli.system import cache\nwith cache.lease(): os._exit(1)"
    subprocess.run([sys.executable, "-c", code], check=False)
    assert list((own_home / "cache/.in-use").glob("*.lock"))
    cache.clean(cache.chosen([]))
    assert not cached["work"].exists()


def test_a_pack_that_was_moved_away_and_never_replaced_is_no_rest(own_home):
    old = own_home / "cache/packs/.toys.old"
    old.mkdir(parents=True)
    (old / "pack.json").write_text("{}")
    assert cache.items("drafts") == []


# doctor


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
    found = diagnosis.examined(Host.load())
    pack = next(one for one in found if (one.area, one.name) == ("pack", "toys"))
    assert (pack.state, pack.text, pack.mend) == (
        "broken",
        "joint.safetensors is missing",
        "sglora pack remove toys",
    )


# Pipes, locales, terminals


def test_who_reads_the_first_line_only_hears_no_complaint():
    command = f"{sys.executable} -m sglora_cli.cli.main pack show --json | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, check=False)
    assert (done.stdout, done.stderr) == (b"{\n", b"")


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, "/katze-猫".encode()),  # click's choice
        ({"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}, rb"/katze-\u732b"),
    ],
)
def test_a_terminal_without_letters_stops_nothing(own_home, environment, shown):
    (own_home / "settings.toml").write_text('data = "/katze-猫"\n', encoding="utf-8")
    done = program("settings", **environment)
    assert done.returncode == 0
    assert shown in done.stdout


@pytest.mark.parametrize("arguments", [["pack", "list"], ["settings"], ["plugins", "list"], ["cache", "info"]])
def test_piped_output_has_no_escapes_and_cuts_nothing(arguments):
    done = program(*arguments, COLUMNS="20", FORCE_COLOR="1")
    assert b"\x1b" not in done.stdout + done.stderr
    assert "…" not in done.stdout.decode()


def test_settings_are_read_anew(own_home):
    assert settings.found()["pack"].origin == "default"
    Path(own_home / "settings.toml").write_text('pack = "x"\n')
    assert settings.found()["pack"] == settings.Found("x", "file")


def test_a_sentence_survives_a_locale_without_its_letters(tmp_path):
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = program("generate", "ein Mops aus Köln", "-o", tmp_path / "a.safetensors", "--json", **ascii_only)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["about"]["description"] == "ein Mops aus Köln"


def test_bytes_that_are_no_text_are_refused(run):
    result = run("generate", b"a \xff".decode("utf-8", "surrogateescape"))
    assert result.exit_code == 2
    assert "hint: write it in UTF-8" in result.stderr
