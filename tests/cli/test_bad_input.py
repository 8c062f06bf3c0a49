"""What a user mistypes, or hands over broken: the message, the hint, the exit code, and nothing written."""

from __future__ import annotations

import json

import pytest
from pack_folders import BUNDLED


@pytest.mark.parametrize(
    ("arguments", "code", "message", "hint"),
    [
        (["genrate"], 2, "no command named 'genrate'", "did you mean 'generate'?"),
        (["generate", "a mug", "--pack", "toyz"], 3, "no pack named 'toyz'", "did you mean 'toys'?"),
        (
            ["generate", "a mug", "--pack", "toys", "--backbone", "starter"],
            2,
            "pack 'toys' is for backbone 'tiny', not 'starter'",
            "omit one of the two",
        ),
        (
            ["generate", "a mug", "--backbone", "clip-vit-b-16"],
            3,
            "no pack for a backbone named 'clip-vit-b-16'",
            "available: starter, tiny; build one with `sglora pack build RECIPE --backbone clip-vit-b-16`",
        ),
        (["generate", "a mug", "--generator", "cvea"], 3, "no generator named 'cvea'", "did you mean 'cvae'?"),
        (["generate", "  "], 2, "the sentence has no words: '  '", 'describe the task, as in "a photo of a pug"'),
        (["generate", "a" * 2001], 2, "the sentence has 2001 characters, the limit is 2000", "shorten it"),
        (
            ["generate", "--images", "nowhere"],
            2,
            "the folder nowhere does not exist",
            "pass a folder of photos; searched in {cwd}",
        ),
        (["generate", "a mug", "--samples", "0"], 2, "samples must be at least 1, got 0", ""),
        (["generate", "a mug", "--temperature", "nan"], 2, "temperature must be finite, got nan", ""),
        (["generate", "a mug", "--space", "meanings"], 3, "no space named 'meanings'", "did you mean 'meaning'?"),
        (
            ["generate", "--images", ".", "--space", "meaning"],
            2,
            "--space meaning compares sentences and cannot be combined with --images",
            "leave out --space",
        ),
        (["generate", "a mug", "--k", "9"], 5, "K = 9 exceeds the 4 available experts", ""),
        (
            ["generate", "a mug", "-o", "mug.bin"],
            2,
            "the suffix of an adapter file must be .safetensors, got mug.bin",
            "try -o mug.safetensors",
        ),
        (["bench", "--baselines", "topk"], 3, "no method named 'topk'", "did you mean 'top-k'?"),
        (
            ["bench", "--dataset", "toy"],
            3,
            "no dataset with unseen tasks in this pack named 'toy'",
            "did you mean 'toys'?",
        ),
        (["bench", "--as", "jsn"], 3, "no reporter named 'jsn'", "did you mean 'json'?"),
        (
            ["diff", str(BUNDLED), str(BUNDLED)],
            4,
            f"{BUNDLED} is a pack, not an adapter",
            f'generate an adapter: sglora generate "a photo of a ..." --pack {BUNDLED} -o adapter.safetensors',
        ),
        (
            ["diff", str(BUNDLED / "joint.safetensors"), str(BUNDLED)],
            4,
            f"{BUNDLED / 'joint.safetensors'} is an sglora file of kind 'joint', not an adapter",
            "pass an adapter's file or folder",
        ),
        (["pack", "verify", "toyz"], 3, "no pack named 'toyz'", "did you mean 'toys'?"),
        (["pack", "build", "starte"], 3, "no recipe named 'starte'", "did you mean 'starter'?"),
        (["inspect", "toyz"], 3, "no adapter file, pack or recipe named 'toyz'", "did you mean 'toys'?"),
        (["inspect", "none.safetensors"], 4, "none.safetensors does not exist", "searched in {cwd}"),
    ],
)
def test_a_mistake_is_answered(run, toy_pack, own_home, empty_folder, arguments, code, message, hint):
    before, hint = sorted(own_home.rglob("*")), hint.replace("{cwd}", str(empty_folder))
    result = run(*arguments)
    assert result.stderr == f"error: {message}\n" + (f"hint: {hint}\n" if hint else "")
    assert result.exit_code == code
    assert result.stdout == ""
    assert sorted(own_home.rglob("*")) == before


def test_an_existing_file_is_kept(run, toy_pack, tmp_path):
    out = tmp_path / "mug.safetensors"
    out.write_text("mine")
    result = run("generate", "a mug", "-o", out)
    assert (result.exit_code, out.read_text()) == (2, "mine")
    assert run("generate", "a mug", "-o", out, "--force").exit_code == 0


CASES = {
    "not json": ("{", "not JSON"),
    "a list": ("[1]", "expected an object, got list"),
    "no captions": ('{"image": "i.png", "task": "t", "captions": []}', "has no caption or an empty one"),
    "wrong type": (
        '{"image": "i.png", "task": "t", "captions": "red"}',
        "'captions' must be a list of strings, got 'red'",
    ),
    "wrong split": (
        '{"image": "i.png", "task": "t", "split": "dev", "captions": ["a"]}',
        "'split' must be one of train, test",
    ),
    "missing image": ('{"image": "gone.png", "task": "t", "captions": ["a"]}', "gone.png does not exist"),
    "outside": ('{"image": "../../x.png", "task": "t", "captions": ["a"]}', "leads out of"),
    "no task": ('{"image": "i.png", "captions": ["a"]}', "'task' must be a non-empty string, got None"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_broken_captions_file_is_named_with_its_line(run, tiny, toys, recipe, own_home, case):
    line, message = CASES[case]
    path = toys / "toys" / "captions.jsonl"
    good = path.read_text().splitlines()
    path.write_text("\n".join([good[0], "", line, *good[1:]]) + "\n")
    result = run("pack", "build", recipe, "--data", toys)
    assert result.exit_code == 4
    assert message in result.stderr
    if case != "outside":
        assert f"{path}, line 3: " in result.stderr
    assert not (own_home / "cache").exists()


def test_an_image_named_twice_is_refused(run, tiny, toys, recipe):
    path = toys / "toys" / "captions.jsonl"
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")
    result = run("pack", "build", recipe, "--data", toys)
    assert result.exit_code == 4
    assert "is already named in line 1" in result.stderr


def test_a_broken_image_is_named(run, tiny, toys, recipe):
    image = toys / "toys" / json.loads((toys / "toys" / "captions.jsonl").read_text().splitlines()[0])["image"]
    image.write_bytes(image.read_bytes()[:40])
    result = run("pack", "build", recipe, "--data", toys)
    assert result.exit_code == 4
    assert f"image {image} cannot be decoded" in result.stderr


@pytest.mark.parametrize(
    ("old", "new", "code", "message", "hint"),
    [
        ("epochs = 6", "epoch = 6", 3, "no key in [train] named 'epoch'", "did you mean 'epochs'?"),
        ("epochs = 6", "epochs = 0", 2, "[train]: epochs must be at least 1, got 0", ""),
        ("epochs = 6", 'epochs = "6"', 2, "[train]: epochs must be a whole number, got '6'", ""),
        ('backbone = "tiny"', 'backbone = "tinny"', 3, "no backbone named 'tinny'", "did you mean 'tiny'?"),
        ("k = 2", "k = 5", 4, "4 experts are fewer than K = 5", "list more, or lower k in [prior]"),
        (
            '"mug"',
            '"ball"',
            4,
            "toys/ball is listed as expert and as unseen",
            "give each task one role, otherwise its result is a leak",
        ),
        ('"mug"', '"mugg"', 3, "no task in toys named 'mugg'", "did you mean 'mug'?"),
        ("[generators.cvae]", "[generators.cvea]", 3, "no generator named 'cvea'", "did you mean 'cvae'?"),
        ("[prior]", "[priors]", 3, "no key named 'priors'", "did you mean 'prior'?"),
        ("[prior]", "[prior", 4, "", ""),
    ],
)
def test_a_broken_recipe_is_refused_before_anything_runs(
    run, tiny, toys, recipe, own_home, old, new, code, message, hint
):
    text = recipe.read_text()
    assert old in text
    recipe.write_text(text.replace(old, new))
    result = run("pack", "build", recipe, "--data", toys)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert hint in result.stderr
    assert not (own_home / "cache").exists()


def test_a_changed_pack_is_found(run, toy_pack, own_home):
    pack = own_home / "cache/packs/toys"
    (pack / "README.md").write_text("changed")
    (pack / "extra").write_text("x")
    (pack / "joint.safetensors").unlink()
    result = run("pack", "verify", "toys")
    assert result.exit_code == 4
    assert result.stderr == (
        "error: pack 'toys': joint.safetensors is missing; extra is not listed in pack.json; "
        "README.md has changed since the pack was built\nhint: build or import the pack again\n"
    )


def test_data_that_is_not_named_is_asked_for(run, tiny, recipe):
    result = run("pack", "build", recipe)
    assert result.exit_code == 6
    assert result.stderr == (
        f"error: 2 requirements are missing to build recipe {recipe}\n"
        "  no folder with data is known (sglora settings set data DIR, or pass --data DIR, or set SGLORA_DATA)\n"
        "  DIR/toys is needed, unless you have it elsewhere "
        "(put photos with captions into DIR/toys; `sglora docs how-to-data` explains the formats)\n"
    )


def test_a_missing_file_is_looked_for_beside(run, tmp_path):
    (tmp_path / "rows.jsonl").write_text("")
    result = run("report", tmp_path / "row.jsonl")
    assert result.exit_code == 4
    assert result.stderr == (
        f"error: {tmp_path / 'row.jsonl'} does not exist\nhint: did you mean {str(tmp_path / 'rows.jsonl')!r}?\n"
    )
    assert run("report", tmp_path / "xyz").stderr.endswith(f"hint: searched in {tmp_path}\n")


def test_bytes_that_are_no_text_are_refused(run):
    result = run("generate", b"a \xff".decode("utf-8", "surrogateescape"))
    assert result.exit_code == 2
    assert "hint: write it in UTF-8" in result.stderr
