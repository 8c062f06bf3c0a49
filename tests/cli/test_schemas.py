"""What --json prints is what `sglora schema` promises, for every command."""

from __future__ import annotations

import json

import jsonschema
import pytest
from commands import commands

from sglora_cli.cli.main import main
from sglora_cli.cli.schemas import SHAPES, schema


def whole(text: str):
    """JSON as the standard has it: no NaN."""

    def refuse(constant: str):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def answer(run):
    """Run with --json; what stands on standard output fits the schema of that name."""

    def call(name: str, *more: object, code: int = 0):
        result = run(*name.split(" "), *more, "--json")
        assert result.exit_code == code, result.output
        content = whole(result.stdout)
        jsonschema.validate(content, schema(name), cls=jsonschema.Draft202012Validator)
        return content

    return call


@pytest.mark.parametrize("name", SHAPES)
def test_schemas_are_schemas(run, name):
    result = run("schema", *name.split(" "))
    assert result.exit_code == 0
    jsonschema.Draft202012Validator.check_schema(json.loads(result.stdout))


def test_every_command_that_has_results_has_json_and_a_schema():
    without = {("schema",), ("completion",)}  # one is JSON, the other a script
    for path, command in commands():
        has = any("--json" in parameter.opts for parameter in command.params)
        assert has == (path not in without), path
        assert not has or " ".join(path) in SHAPES, path


def test_commands_about_this_machine(answer, own_home):
    answer("pack list")
    answer("pack recipes")
    assert answer("pack verify")["wrong"] == []
    answer("pack show")
    answer("inspect", "starter")
    answer("inspect", "coco")
    answer("data list")
    answer("plugins list")
    answer("plugins doctor")
    answer("settings")
    assert answer("settings set", "pack", "starter")["origin"] == "file"
    assert answer("settings unset", "pack")["origin"] == "default"
    answer("cache info")
    answer("cache clean", "--yes")
    assert answer("doctor")["works"] is True


def test_the_papers_tables(answer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = answer("reproduce --list")["targets"]
    assert {one["name"] for one in listed} >= {"table1", "figure9"}
    (tmp_path / "data").mkdir()
    assert answer("reproduce --dry-run", "table1", "--data", "data")["comparable"] is True
    assert answer("reproduce", "table4", "--with", "starter", "--data", "data", "--yes")["comparable"] is False


def test_commands_about_adapters(answer, run, tmp_path, images):
    pug, peft = tmp_path / "pug.safetensors", tmp_path / "peft"
    answer("generate", "a photo of a pug", "-o", pug, "--explain", "--samples", 1)
    answer("generate", "a photo of a pug", "--explain", "--samples", 2)
    answer("inspect", pug)
    answer("export", pug, "-o", peft)
    answer("inspect", peft)
    answer("diff", pug, peft)
    answer("import", peft, "-o", tmp_path / "back.safetensors")
    answer("try", pug, "--images", images, "--report", tmp_path / "try.html")
    teapot = tmp_path / "teapot.safetensors"
    answer("generate", "a photo of a teapot", "-o", teapot, "--generator", "top-k")
    answer("pack add", "starter", teapot, "--text", "a photo of a teapot")
    answer("pack remove", "starter", "added/teapot", "--yes")
    answer("pack remove", "starter", "--yes")


def test_commands_about_packs_and_data(answer, toys, tiny, recipe, tmp_path):
    answer("pack init", tmp_path / "first.toml")
    answer("pack build --dry-run", recipe, "--data", toys)
    answer("pack build", recipe, "--data", toys)
    answer("cache clean", "--dry-run")
    answer("pack export", "toys", "-o", tmp_path / "toys.zip")
    answer("pack import", tmp_path / "toys.zip", "--name", "again")
    answer("pack push", "toys", "hf:ann/toys", "--dry-run")
    answer("plugins check", "tiny")
    answer("bench --dry-run")
    rows = tmp_path / "rows.jsonl"
    answer("bench", "--pack", "toys", "--rows", rows)
    answer("report", rows)
    answer("data check", "folder", "--path", toys / "toys", "--k", 1)
    answer("data fetch --dry-run", "pets", "--data", toys)


def test_captions(answer, tmp_path, toys):
    (tmp_path / "more.csv").write_text("image,caption\nimages/mug_0.png,a mug\n")
    (toys / "toys" / "captions.jsonl").unlink()
    names = [{"image": f"images/mug_{n}.png", "name": "mug"} for n in range(3)]
    (toys / "toys" / "names.jsonl").write_text("".join(json.dumps(row) + "\n" for row in names))
    answer("data caption --dry-run", "folder", "--path", toys / "toys")


def test_many_sentences_are_an_object_a_line(run, monkeypatch):
    from click.testing import CliRunner

    result = CliRunner().invoke(
        main, ["generate", "-", "--json"], input="a photo of a pug\n\nx\n" + "word " * 4000 + "\n"
    )
    lines = [whole(line) for line in result.stdout.splitlines()]
    for line in lines:
        jsonschema.validate(line, schema("generate -"), cls=jsonschema.Draft202012Validator)
    assert len(lines) >= 2


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["pack", "show", "nope"], 3, "UnknownName"),
        (["pack", "show", "--nope"], 2, "UsageError"),
        (["pack"], 2, "UsageError"),
        (["nope"], 2, "UsageError"),
        (["inspect", "nope.safetensors"], 4, "BadFile"),
        (["generate"], 2, "UsageError"),
    ],
)
def test_an_error_is_the_last_line_of_standard_error(run, arguments, code, kind):
    result = run(*arguments, "--json")
    assert (result.exit_code, result.stdout) == (code, "")
    error = whole(result.stderr.splitlines()[-1])
    jsonschema.validate(error, schema("error"))
    assert (error["error"]["exit_code"], error["error"]["class"]) == (code, kind)
    assert error["error"]["hint"]


def test_without_json_errors_are_text(run):
    assert run("pack", "show", "nope").stderr.startswith("error: no pack named 'nope'\nhint: ")
