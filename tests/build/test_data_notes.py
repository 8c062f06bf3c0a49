"""What a build does not see of its data is said before it starts."""

from __future__ import annotations

import json
import warnings
from types import SimpleNamespace

import pytest

from sglora_cli.build.data_notes import say_what_is_not_seen
from sglora_cli.errors import SgloraWarning
from sglora_cli.pack.recipe_parser import read
from sglora_datasets.folder import Folder


class Reader:
    """A text encoder that reads 12 tokens: a letter is one."""

    name, summary = "tiny", ""

    def load(self, runtime):
        raise AssertionError("no weights are needed")

    def token_limit(self):
        return 12

    def count_tokens(self, texts):
        return [len(text) for text in texts]


@pytest.fixture
def noted(toys, recipe):
    """What is said of captions of the toys, when the recipe's backbone is this one."""

    def noted(backbone, captions):
        path = toys / "toys/captions.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows[0]["captions"] = captions
        path.write_text("".join(json.dumps(row | {"captions": row["captions"][:3]}) + "\n" for row in rows[:1]))
        tasks, notes = Folder().tasks(toys / "toys"), []
        host = SimpleNamespace(backbones={"tiny": backbone}, datasets={"folder": Folder()})
        say_what_is_not_seen(host, read(recipe), toys, tasks, notes.append)
        return notes

    return noted


def test_captions_that_are_cut_are_a_warning_with_their_number(noted):
    with pytest.warns(SgloraWarning) as caught:
        noted(Reader(), ["a ball", "thirteen let.", "letters, fourt"])
    assert [str(one.message) for one in caught] == [
        "2 captions have more tokens than the text encoder of tiny reads (12) and will be truncated. "
        "The first, of 13 tokens, begins with 'thirteen let.'. `sglora data check DATASET` lists all of them"
    ]


@pytest.mark.parametrize("backbone", [Reader(), object()], ids=["counts", "does not count"])
def test_captions_that_fit_and_backbones_that_do_not_count_are_no_warning(noted, backbone):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        noted(backbone, ["twelve lett."] if isinstance(backbone, Reader) else ["letters, fourt"])


def test_what_a_source_passes_over_is_noted_with_its_folder(noted, toys):
    (toys / "toys/x.heic").write_text("")
    reasons = [line.removeprefix(f"skipped in {toys / 'toys'}: ") for line in noted(object(), ["a ball"])]
    assert ".heic images, which are not supported (convert them to JPEG or PNG): 1 (x.heic)" in reasons
    assert [line for line in reasons if line.startswith("images not named in captions.jsonl: 71 (")]


def test_a_build_says_it_before_it_starts(run, tiny, toys, recipe):
    (toys / "toys/x.heic").write_text("")
    result = run("pack", "build", recipe, "--data", toys, "--dry-run")
    assert result.exit_code == 0
    assert f"skipped in {toys}/toys: .heic images" in result.stderr


@pytest.mark.parametrize("options", [("--dry-run",), ()], ids=["dry run", "build"])
def test_json_says_what_is_passed_over(run, tiny, toys, recipe, options):
    (toys / "toys/x.heic").write_text("")
    result = run("pack", "build", recipe, "--data", toys, "--json", *options)
    assert result.exit_code == 0
    rows = {row["reason"]: row for row in json.loads(result.stdout)["passed_over"]}
    (reason,) = (reason for reason in rows if reason.startswith(".heic images"))
    assert rows[reason] == {"path": str(toys / "toys"), "reason": reason, "count": 1, "examples": ["x.heic"]}
