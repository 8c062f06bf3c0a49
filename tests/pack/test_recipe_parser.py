"""A recipe's errors are said before anything runs: all at once, each with its line."""

from __future__ import annotations

import pytest
import tomli

from sglora_cli.files.toml import toml_lines
from sglora_cli.pack.pack import Pack


def numbered(text: str, part: str) -> int:
    """The last line with `part` in it."""
    return [n for n, line in enumerate(text.splitlines(), 1) if part in line][-1]


@pytest.mark.parametrize(
    ("old", "new", "code", "message", "hint"),
    [
        ("epochs = 6", "epoch = 6", 3, "no key in [train] named 'epoch'", "did you mean 'epochs'?"),
        ("epochs = 6", "epochs = 0", 2, "[train]: epochs must be at least 1, got 0", ""),
        ("k = 2", "k = 5", 4, "4 experts are fewer than K = 5", "list more, or lower k in [prior]"),
        ('backbone = "tiny"', 'backbone = "tinny"', 3, "no backbone named 'tinny'", "did you mean 'tiny'?"),
        ('backbone = "tiny"', "backbone = 3", 4, "backbone must be a string, got 3", ""),
        ("[generators.cvae]", "[generators.cvea]", 3, "no generator named 'cvea'", "did you mean 'cvae'?"),
        ("hidden = 8", "hiden = 8", 3, "no key in [generators.cvae] named 'hiden'", "did you mean 'hidden'?"),
        ("hidden = 8", "hidden = 0", 2, "[generators.cvae]: hidden must be at least 1, got 0", ""),
        (
            "k = 2",
            'space = "mening"\nk = 2',
            2,
            "[prior]: space must be one of embedding, centred, meaning, got 'mening'",
            "",
        ),
        ("[prior]", "[priors]", 3, "no key named 'priors'", "did you mean 'prior'?"),
        (
            '"mug"',
            '"ball"',
            4,
            "toys/ball is listed as expert and as unseen",
            "give each task one role, otherwise its result is a leak",
        ),
        ('"mug"', '"mugg"', 3, "no task in toys named 'mugg'", "did you mean 'mug'?"),
        (
            'name = "toys"',
            'name = "toys"\nphoto = 3',
            3,
            "no key in [[source]] named 'photo'",
            "did you mean 'photos'?",
        ),
        ('name = "toys"', 'name = "toys"\nphotos = 0', 4, "photos must be a whole number of at least 1, got 0", ""),
        ('name = "toys"', 'name = "toys"\nwhole = 1', 4, "whole must be true or false, got 1", ""),
        (
            'name = "toys"',
            'name = "toys"\ndescription = "{x}"',
            4,
            "description must be a string with no other braces than {name} and {classes}, got '{x}'",
            "",
        ),
        (
            'summary = "toys"',
            'template = "a {name} }"',
            4,
            "template must contain {name} and no other braces than {classes}, got 'a {name} }'",
            "",
        ),
        ('name = "toys"', 'dataset = "foldr"\nname = "toys"', 3, "no dataset named 'foldr'", "did you mean 'folder'?"),
    ],
)
def test_one_error_has_its_line(run, tiny, toys, recipe, own_home, old, new, code, message, hint):
    text = recipe.read_text()
    assert old in text
    recipe.write_text(text.replace(old, new))
    line = numbered(recipe.read_text(), next(part for part in new.splitlines() if part != 'name = "toys"'))
    result = run("pack", "build", recipe, "--data", toys)
    expected = f"error: recipe {recipe}, line {line}: {message}\n" + (f"hint: {hint}\n" if hint else "")
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", expected)
    assert not (own_home / "cache").exists()


def test_all_errors_are_said_at_once(run, tiny, toys, recipe, own_home):
    text = recipe.read_text().replace("epochs = 6", "epoch = 6").replace("states = 4", 'states = "4"')
    text = text.replace('"mug"', '"ball"').replace('summary = "toys"', 'sumary = "toys"')
    recipe.write_text(text)
    result = run("pack", "build", recipe, "--data", toys)
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr == (
        f"error: recipe {recipe} has 4 errors\n"
        f"  line {numbered(text, 'sumary')}: no key named 'sumary' (did you mean 'summary'?)\n"
        f"  line {numbered(text, 'epoch = 6')}: no key in [train] named 'epoch' (did you mean 'epochs'?)\n"
        f"  line {numbered(text, 'states =')}: [train]: states must be a whole number, got '4'\n"
        f"  line {numbered(text, 'unseen =')}: toys/ball is listed as expert and as unseen "
        "(give each task one role, otherwise its result is a leak)\n"
    )
    assert not (own_home / "cache").exists()


def test_all_names_nobody_has_are_said_at_once(run, tiny, toys, recipe):
    text = recipe.read_text().replace('"mug"', '"mugg"').replace('"box"', '\n# a comment with "box" in it\n"bxo"')
    recipe.write_text(text)
    result = run("pack", "build", recipe, "--data", toys, "--dry-run")
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr == (
        f"error: recipe {recipe} has 2 errors\n"
        f"  line {numbered(text, 'bxo')}: no task in toys named 'bxo' (did you mean 'box'?)\n"
        f"  line {numbered(text, 'mugg')}: no task in toys named 'mugg' (did you mean 'mug'?)\n"
    )


def test_a_wrong_backbone_on_the_command_line_is_not_the_recipes_error(run, tiny, toys, recipe):
    result = run("pack", "build", recipe, "--data", toys, "--backbone", "tinny")
    assert (result.exit_code, result.stderr) == (3, "error: no backbone named 'tinny'\nhint: did you mean 'tiny'?\n")


def test_a_missing_key_is_missing_from_its_table(run, recipe):
    text = recipe.read_text().replace('name = "toys"\n', "")
    recipe.write_text(text)
    result = run("inspect", recipe)
    line = numbered(text, "[[source]]")
    assert result.stderr == f"error: recipe {recipe}, line {line}: name must be a string, got None\n"


def test_names_with_line_breaks_cannot_pretend_to_be_errors(run, recipe):
    recipe.write_text('"a\\nhint: rm" = 1\n' + recipe.read_text().replace("epochs = 6", '"\\u001b[2J\\n" = 6'))
    result = run("inspect", recipe)
    assert result.exit_code == 4
    assert len(result.stderr.splitlines()) == 3
    assert "\x1b" not in result.stderr


def test_photos_and_description_of_a_source(run, tiny, toys, recipe, own_home):
    more = 'name = "toys"\nphotos = 3\ndescription = "it is a {name}, really"\n'
    recipe.write_text(recipe.read_text().replace('name = "toys"\n', more))
    result = run("pack", "build", recipe, "--data", toys)
    assert result.exit_code == 0, result.output
    tasks = Pack(own_home / "cache/packs/toys").tasks
    assert {(t["train_photos"], t["test_photos"]) for t in tasks} == {(3, 3)}
    assert tasks.of("expert")[0]["description"] == "it is a ball, really"
    assert run("bench", "--json", "--data", toys).exit_code == 0


@pytest.mark.parametrize(
    ("text", "address", "line"),
    [
        ('x = """a\n[t]\n"""\ny = 2', ("y",), 4),
        ("x = '''\n\"\n'''\ny = 2", ("y",), 4),
        ('x = """a""""\ny = "2"', ("y",), 2),
        ("x = '''a''''\ny = 2", ("y",), 2),
        ('x = """"""\ny = 2', ("y",), 2),
        ("x = 1 # [t]\ny = '#'\nz = 3", ("z",), 3),
        ('"a.b" . c = 1', ("a.b", "c"), 1),
        ("[a . 'b c']\nx = 1", ("a", "b c", "x"), 2),
        ("[[s]]\nx=1\n[[s]]\n[s.t]\nx = 1", ("s", 1, "t", "x"), 5),
        ('x = [\n # "p"\n "\\u0070",\n]', ("x", "p"), 3),
        ("x = [\n['a'],\n['b']]\ny = 1", ("x", "b"), 3),
        ("x = { y = 1, z = [\n1] }\nw = 1", ("w",), 3),
        ("a.b = 'q'\r\nc = 1\r\n", ("c",), 2),
        ("d = 1979-05-27T07:32:00Z\ne = +inf", ("e",), 2),
    ],
)
def test_lines_of_tricky_texts(text, address, line):
    tomli.loads(text)
    assert toml_lines(text)[address] == line
