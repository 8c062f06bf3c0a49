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
def told(run):
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


def test_commands_about_this_machine(told, own_home):
    told("pack list")
    told("pack recipes")
    assert told("pack verify")["wrong"] == []
    told("pack show")
    told("inspect", "starter")
    told("inspect", "coco")
    told("data list")
    told("plugins list")
    told("plugins doctor")
    told("settings")
    assert told("settings set", "pack", "starter")["origin"] == "file"
    assert told("settings unset", "pack")["origin"] == "default"
    told("cache info")
    told("cache clean", "--yes")
    assert told("doctor")["works"] is True


def test_commands_about_adapters(told, run, tmp_path, images):
    pug, peft = tmp_path / "pug.safetensors", tmp_path / "peft"
    told("generate", "a photo of a pug", "-o", pug, "--explain", "--samples", 1)
    told("generate", "a photo of a pug", "--explain", "--samples", 2)
    told("inspect", pug)
    told("export", pug, "-o", peft)
    told("inspect", peft)
    told("import", peft, "-o", tmp_path / "back.safetensors")
    told("try", pug, "--images", images, "--report", tmp_path / "try.html")
    told("pack add", "starter", pug, "--text", "a photo of a teapot")
    told("pack remove", "starter", "added/teapot", "--yes")
    told("pack remove", "starter", "--yes")


def test_commands_about_packs_and_data(told, toys, tiny, recipe, tmp_path):
    told("pack init", tmp_path / "first.toml")
    told("pack build --dry-run", recipe, "--data", toys)
    told("pack build", recipe, "--data", toys)
    told("cache clean", "--dry-run")
    told("pack export", "toys", "-o", tmp_path / "toys.zip")
    told("pack import", tmp_path / "toys.zip", "--name", "again")
    told("plugins check", "tiny")
    told("bench --dry-run")
    rows = tmp_path / "rows.jsonl"
    told("bench", "--pack", "toys", "--rows", rows)
    told("report", rows)
    told("data check", "folder", "--path", toys / "toys", "--k", 1)


def test_captions(told, tmp_path, toys):
    (tmp_path / "more.csv").write_text("image,caption\nimages/mug_0.png,a mug\n")
    (toys / "toys" / "captions.jsonl").unlink()
    names = [{"image": f"images/mug_{n}.png", "name": "mug"} for n in range(3)]
    (toys / "toys" / "names.jsonl").write_text("".join(json.dumps(row) + "\n" for row in names))
    told("data caption --dry-run", "folder", "--path", toys / "toys")


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
        (["nope"], 3, "UnknownName"),
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
