"""`sglora data check` as its user sees it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from distributions import install
from speckles import speckles, write_rows
from trees import captioned

LOOSE = '''
"""A data set that lets anything pass: its file is a list of [image, task, split, captions]."""
import json
from sglora_cli.api import Photo, Task, hookimpl

class Loose:
    name, summary = "loose", "anything"

    def tasks(self, root):
        photos = {}
        for image, task, split, captions in json.loads((root / "loose.json").read_text()):
            photos.setdefault(task, {}).setdefault(split, []).append(Photo(root / image, tuple(captions)))
        return [Task(root.name, name, name, photos[name]) for name in sorted(photos)]

@hookimpl
def sglora_datasets():
    return [Loose()]
'''


@pytest.fixture
def loose(site) -> None:
    install(site, "sglora-loose", "sglora_loose", LOOSE)


COUNTS = """\
cat  3 train  2 test  10 captions  2 / 2.0 / 2 an image
dog  3 train  2 test  10 captions  2 / 2.0 / 2 an image
2 tasks, 10 images, 20 captions, 2 / 2.0 / 2 an image
"""


def test_a_data_set_without_a_fault_is_counted(check):
    result = check()
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == COUNTS + "0 errors, 0 warnings\n"


def test_the_data_folder_of_the_settings_is_the_default(run, photos, monkeypatch):
    result = run("data", "check", "folder")
    assert result.exit_code == 6
    assert result.stderr == (
        "error: no folder with data is known\n"
        "hint: sglora settings set data DIR, or pass --path DIR, or set SGLORA_DATA\n"
    )
    monkeypatch.setenv("SGLORA_DATA", str(photos.parent))
    result = run("data", "check", "folder")
    assert result.exit_code == 6
    assert result.stderr == f"error: the folder {photos.parent / 'folder'} does not exist\nhint: pass --path DIR\n"
    photos.rename(photos.parent / "folder")
    result = run("data", "check", "folder")
    assert result.stdout == COUNTS + (
        "warning: tasks with at most 10 test images: 2\n"
        "  cat, test  2 image(s)\n"
        "  dog, test  2 image(s)\n"
        "0 errors, 2 warnings\n"
    )


def test_warnings_are_listed_and_stop_nothing(check, photos):
    rows = captioned(photos)
    speckles(3).resize((40, 31)).save(photos / "0.png")  # like 3.png, which is of the same task's test split
    speckles(8).resize((100, 100)).save(photos / "1.png")  # like the test image 8.png of another task
    shutil.copy(photos / "5.png", photos / "6.png")
    rows[1]["captions"] = ["Cat 0", "number 1", "Number  1"]
    rows[2]["captions"] = ["cat 0", "word " * 300]
    rows[5]["captions"] = ["cat 0"]
    write_rows(photos, rows)
    result = check("--backbone", "starter")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "cat  3 train  2 test  11 captions  2 / 2.2 / 3 an image\n"
        "dog  3 train  2 test  9 captions   1 / 1.8 / 2 an image\n"
        "2 tasks, 10 images, 20 captions, 1 / 2.0 / 3 an image\n"
        "warning: images smaller than 32 pixels: 1\n"
        "  0.png  40 x 31\n"
        "warning: captions repeated within an image: 1\n"
        "  1.png  2 times: number 1\n"
        "warning: captions shared by images of one task and split: 1\n"
        "  cat, train  3 images: cat 0\n"
        "warning: captions with more tokens than the text encoder of starter reads (256): 1\n"
        f"  2.png  {('302 tokens: ' + 'word ' * 300)[:107]}...\n"
        "warning: near-identical images across splits: 2\n"
        "  0 bits  0.png = 3.png\n"
        "  0 bits  1.png = 8.png\n"
        "warning: near-identical images within a task and split: 1\n"
        "  equal bytes  5.png = 6.png\n"
        "captions that several images have: 1, the most common:\n"
        "  4 images, 2 tasks  cat 0\n"
        "0 errors, 7 warnings\n"
    )


def test_a_broken_and_a_missing_image_are_errors(check, photos, loose):
    whole = (photos / "4.png").read_bytes()
    (photos / "4.png").write_bytes(whole[: len(whole) // 2])
    (photos / "7.png").unlink()
    result = check(dataset="loose")
    assert result.exit_code == 4
    lines = result.stdout.splitlines()
    assert lines[3] == "error: images that do not decode: 2"
    assert lines[4].startswith("  4.png  cannot be decoded: ")
    assert lines[5:] == ["  7.png  does not exist", "2 errors, 0 warnings"]
    reason = lines[4].removeprefix("  4.png  ")
    assert result.stderr == (
        f"error: images that do not decode: 2, captions without a word: 0; the first: 4.png: {reason}\n"
        "hint: mend or remove them, then check again\n"
    )


def test_captions_without_a_word_are_errors(check, photos, loose):
    rows = captioned(photos)
    rows[2]["captions"], rows[9]["captions"] = ["cat 2", "\t "], []
    write_rows(photos, rows)
    result = check("--top", 1, dataset="loose")
    assert result.exit_code == 4
    assert result.stdout.splitlines()[2:] == [
        "2 tasks, 10 images, 18 captions, 0 / 1.8 / 2 an image",
        "error: captions without a word: 2",
        r"  2.png  caption 2 of 2 is '\t '",
        "  ... and 1 more",
        "2 errors, 0 warnings",
    ]
    assert result.stderr.startswith(
        "error: images that do not decode: 0, captions without a word: 2; the first: 2.png: caption 2 of 2 is '\\t '\n"
    )


RECIPE = """
backbone = "tiny"
[prior]
k = 1
[train]
batch = 4
[[source]]
name = "photos"
expert = ["cat", "bog"]
unseen = ["hamster"]
"""


def test_a_recipe_says_what_is_absent_all_at_once(check, tmp_path):
    path = tmp_path / "few.toml"
    path.write_text(RECIPE)
    result = check("--recipe", path)
    assert result.exit_code == 4
    assert result.stdout == COUNTS + (
        "error: tasks of the recipe that are not there: 2\n"
        "  bog      expert; did you mean 'dog'?\n"
        "  hamster  unseen; there are: cat, dog\n"
        "warning: tasks smaller than the recipe's batch: 1\n"
        "  cat, train  3 image(s), batch 4\n"
        "2 errors, 1 warning\n"
    )
    assert result.stderr == (
        "tokens of captions are not counted: no backbone named 'tiny'\n"
        f"error: recipe {path} has 2 errors\n"
        "  line 9: no task in photos named 'bog' (did you mean 'dog'?)\n"
        "  line 10: no task in photos named 'hamster' (there are: cat, dog)\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "stderr"),
    [
        (["foldr"], 3, "error: no dataset named 'foldr'\nhint: did you mean 'folder'?\n"),
        (["folder", "--recipe", "startr"], 3, "error: no recipe named 'startr'\nhint: did you mean 'starter'?\n"),
        (
            ["folder", "--recipe", "none.toml"],
            4,
            "error: recipe none.toml does not exist\nhint: did you mean 'pyproject.toml'?\n",
        ),
        (["folder", "--report", "x"], 2, "error: a report is written as .html, got x\nhint: try --report x.html\n"),
        (["folder", "--distance", "9"], 2, "error: distance must be at most 8, got 9\n"),
        (["folder", "--backbone", "startr"], 3, "error: no backbone named 'startr'\nhint: did you mean 'starter'?\n"),
    ],
)  # fmt: skip
def test_a_mistake_is_answered(run, photos, arguments, code, stderr):
    result = run("data", "check", *arguments, "--path", photos)
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", stderr)


def test_everything_is_in_the_json(check, photos):
    shutil.copy(photos / "0.png", photos / "3.png")
    result = check("--json", "--top", 0)
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    count = {"captions": 4, "fewest": 2, "images": 2, "mean": 2.0, "most": 2}
    assert report.pop("tasks")["cat"] == {"train": count | {"captions": 6, "images": 3}, "test": count}
    assert report == {
        "dataset": "folder",
        "path": str(photos),
        "recipe": None,
        "config": {"distance": 4, "pixels": 32, "words": 60, "k": 1},
        "total": count | {"tasks": 2, "images": 10, "captions": 20},
        "problems": [],
        "common_captions": [],
        "pairs": [
            {
                "level": "warning",
                "kind": "copies",
                "distance": 0,
                "equal": True,
                "images": [
                    {"name": "0.png", "places": [["cat", "train"]]},
                    {"name": "3.png", "places": [["cat", "test"]]},
                ],
            }
        ],
        "more_pairs": False,
        "tokens": {"backbone": "clip-vit-b-16", "limit": 77, "reason": None},
        "partial": None,
        "passed_over": [],
        "overlaps": [],
        "errors": 0,
        "warnings": 1,
        "report": None,
    }


LONG = {
    "chinese": "\u4e00\u53ea\u5c0f\u72d7" * 81,
    "thai": "\u0e2b\u0e21\u0e32" * 60,
    "address": "https://example.com/photos?id=18446744073709551615&name=" * 9,
    "number": "31415926535897932384" * 15,
    "rare words": "xylographic quincunxial " * 45,
}


@pytest.mark.parametrize("name", LONG)
def test_captions_that_are_cut_are_counted_in_tokens_not_in_words(check, photos, name):
    """An oracle: open_clip's own tokenizer, with room for all of the text."""
    from open_clip import get_tokenizer

    rows = captioned(photos)
    for row, end in zip(rows, "abc", strict=False):
        row["captions"] = [f"{LONG[name]} {end}"]
    write_rows(photos, rows)
    facts = json.loads(check("--json").stdout)
    issues = [one for one in facts["problems"] if one["kind"] == "cut"]
    assert (len(issues), facts["errors"], facts["tokens"]["limit"]) == (3, 0, 77)
    whole = get_tokenizer("ViT-B-16")(rows[0]["captions"][0], context_length=10_000)
    assert issues[0]["text"] == f"{int((whole != 0).sum())} tokens: {rows[0]['captions'][0]}"
    result = check("--top", 1)
    assert "captions with more tokens than the text encoder of clip-vit-b-16 reads (77): 3\n  0.png  " in result.stdout
    if name in ("rare words", "chinese"):
        facts = json.loads(check("--json", "--backbone", "starter").stdout)
        assert [one["kind"] for one in facts["problems"]].count("cut") == 3


def test_a_caption_as_long_as_the_text_encoder_reads_is_no_warning(check, photos):
    """75 words of one token each, with the two that frame them; and one word more."""
    rows = captioned(photos)
    rows[0]["captions"], rows[1]["captions"] = [" ".join(["dog"] * 75)], [" ".join(["dog"] * 76)]
    write_rows(photos, rows)
    facts = json.loads(check("--json").stdout)
    assert [(one["image"], one["text"][:9]) for one in facts["problems"] if one["kind"] == "cut"] == [
        ("1.png", "78 tokens")
    ]


def test_a_text_without_end_takes_no_time(check, photos):
    """Tokenizers may take the square of the time of a text without blanks."""
    rows = captioned(photos)
    rows[0]["captions"] = ["qzxj" * 50_000]
    write_rows(photos, rows)
    facts = json.loads(check("--json").stdout)
    assert facts["problems"][0]["text"].startswith("more than ")


def test_the_backbone_of_a_recipe_or_of_the_settings_reads_the_captions(check, tmp_path, monkeypatch):
    path = tmp_path / "starter.toml"
    path.write_text(RECIPE.replace('"tiny"', '"starter"').replace('"bog"', '"dog"').replace('["hamster"]', "[]"))
    assert json.loads(check("--json", "--recipe", path).stdout)["tokens"]["backbone"] == "starter"
    both = check("--json", "--recipe", path, "--backbone", "clip-vit-b-16")
    assert json.loads(both.stdout)["tokens"]["backbone"] == "clip-vit-b-16"
    monkeypatch.setenv("SGLORA_BACKBONE", "starter")
    assert json.loads(check("--json").stdout)["tokens"] == {"backbone": "starter", "limit": 256, "reason": None}


@pytest.mark.parametrize(
    ("backbone", "reason"),
    [
        ("tiny", "backbone 'tiny' does not count tokens"),
        ("open_clip:ViT-B-16-SigLIP/webli", "the tokenizer of ViT-B-16-SigLIP is not on this machine"),
        ("open_clip:ViT-B-61/x", "no architecture in open_clip named 'ViT-B-61'"),
    ],
)
def test_where_tokens_cannot_be_counted_the_reason_is_said_and_words_are(check, photos, tiny, backbone, reason):
    rows = captioned(photos)
    rows[2]["captions"] = ["word " * 61]
    write_rows(photos, rows)
    result = check("--backbone", backbone)
    assert (result.exit_code, result.stderr) == (0, f"tokens of captions are not counted: {reason}\n")
    assert "warning: captions longer than 60 words: 1\n  2.png  61 words: word word " in result.stdout
    facts = json.loads(check("--json", "--backbone", backbone).stdout)
    assert facts["tokens"]["reason"] == reason


def test_what_is_passed_over_is_counted_with_the_reason(check, photos, tmp_path):
    for name in ("a.heic", "b.heic", "more/c.tif"):
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).write_text("")
    result = check("--report", tmp_path / "report.html")
    lines = [
        ".heic images, which are not supported (convert them to JPEG or PNG): 2 (a.heic, b.heic)",
        "images not named in captions.jsonl: 1 (more/c.tif)",
    ]
    assert result.exit_code == 0
    assert result.stdout == COUNTS + "".join(f"passed over: {line}\n" for line in lines) + "0 errors, 0 warnings\n"
    page = (tmp_path / "report.html").read_text()
    assert "<h2>Skipped files</h2>" in page
    assert "2 .heic images, which are not supported (convert them to JPEG or PNG)" in page
    assert json.loads(check("--json").stdout)["passed_over"] == [
        {"reason": lines[0].rpartition(":")[0], "count": 2, "examples": ["a.heic", "b.heic"]},
        {"reason": "images not named in captions.jsonl", "count": 1, "examples": ["more/c.tif"]},
    ]


def test_the_json_comes_before_the_error(check, photos):
    (photos / "4.png").write_text("no image")
    result = check("--json")
    assert result.exit_code == 4
    report = json.loads(result.stdout)
    assert (report["errors"], report["warnings"]) == (1, 0)
    assert [(p["kind"], p["level"], p["image"], p["task"], p["split"]) for p in report["problems"]] == [
        ("broken", "error", "4.png", "cat", "test")
    ]


@pytest.mark.data
def test_the_known_flaws_of_real_photos_are_found(run, data):
    reports = {
        name: json.loads(run("data", "check", "folder", "--path", data / name, *more, "--json").stdout)
        for name, more in (("birds", ()), ("flowers", ("--recipe", "starter")))
    }
    assert [reports[name]["errors"] for name in reports] == [0, 0]
    common = [row["caption"] for row in reports["birds"]["common_captions"][:3]]
    assert "this bird has wings that are black and has a white belly" in common
    assert reports["flowers"]["common_captions"] == []
    pairs = {
        name: [{Path(image["name"]).stem for image in p["images"]} for p in reports[name]["pairs"]] for name in reports
    }
    assert {"Bronzed_Cowbird_0074_24045", "Bronzed_Cowbird_0025_796213"} in pairs["birds"]
    assert pairs["flowers"] == [{"image_02009", "image_02056"}]


def test_photos_that_tasks_of_a_recipe_share_are_named(run, tiny, toys, recipe, tmp_path):
    root = toys / "toys"
    for photo, name in (("mug_5.png", "ball_0.png"), ("hat_0.png", "cup_1.png"), ("mug_6.png", "nest_5.png")):
        shutil.copy(root / "images" / photo, root / "images" / name)
    page = tmp_path / "page.html"
    result = run("data", "check", "folder", "--path", root, "--recipe", recipe, "--report", page)
    lines = result.stdout.splitlines()
    assert "overlap: 1 photos that unseen tasks are tested on are training photos, too (2 tasks)" in lines
    assert "overlap: 1 photos are training photos of several tasks (2 tasks)" in lines
    assert "overlap: 1 photos are test photos of several unseen tasks (2 tasks)" in lines
    assert any("1 photos: expert ball (train) and unseen mug (test)" in line for line in lines)
    shown = page.read_text()
    assert "<p>1 photos that unseen tasks are tested on are training photos, too (2 tasks)</p>" in shown
    row = '<td class="name">learned and tested</td><td>1 photos: expert ball (train) and unseen mug (test)</td>'
    assert row in shown
    facts = json.loads(run("data", "check", "folder", "--path", root, "--recipe", recipe, "--json").stdout)
    assert [one["kind"] for one in facts["overlaps"]] == ["leak", "train", "test"]
    assert "overlap" not in run("data", "check", "folder", "--path", root).stdout
