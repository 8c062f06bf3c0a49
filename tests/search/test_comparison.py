"""`sglora try`: ranks against the slow, obvious definition, and what is printed."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from obvious import obvious_scores

from sglora_cli.adapter.file import load_adapter, save_adapter
from sglora_cli.search import ranking as ranking_module

TEXT = "a red ball on a blue floor"
OTHER = "white kite above green"


def obvious_ranks(scores: list[float]) -> list[int]:
    return [1 + sum(other > score for other in scores) for score in scores]


def obvious_correlation(before: list[float], after: list[float]) -> float:
    def mean_ranks(scores: list[float]) -> list[float]:
        ordered = sorted(scores)
        return [sum(i for i, x in enumerate(ordered) if x == s) / ordered.count(s) for s in scores]

    a, b = torch.tensor(mean_ranks(before)), torch.tensor(mean_ranks(after))
    return float(torch.corrcoef(torch.stack([a, b]).double())[0, 1])


def expected_lines(
    query: str, items: list[str], before: list[float], after: list[float], top: int, ranked: str
) -> list[str]:
    old, new, width = obvious_ranks(before), obvious_ranks(after), len(str(len(items)))
    order = sorted(range(len(items)), key=lambda i: -after[i])[:top]
    entered = set(order) - set(sorted(range(len(items)), key=lambda i: -before[i])[:top])
    change = sum(abs(a - b) for a, b in zip(after, before, strict=True)) / len(items)
    return [
        f"{query!r}: {len(order)} of {len(items)} {ranked}, rank and score without -> with",
        *(f"{old[i]:>{width}} -> {new[i]:>{width}}  {before[i]:6.3f} -> {after[i]:6.3f}  {items[i]}" for i in order),
        f"change: {change:.4f} per score; {sum(old[i] != new[i] for i in order)} of the top {len(order)} moved, "
        f"{len(entered)} entered; rank correlation {obvious_correlation(before, after):.3f}",
    ]


@pytest.mark.parametrize("seed", range(5))
def test_ranks_and_correlation_are_the_obvious_ones(seed):
    rng = torch.Generator().manual_seed(seed)
    before, after = (torch.randint(6, (12,), generator=rng).float() for _ in range(2))  # many ties
    assert ranking_module.ranks(before).tolist() == obvious_ranks(before.tolist())
    assert ranking_module.correlation(before, after) == pytest.approx(
        obvious_correlation(before.tolist(), after.tolist())
    )


def test_the_correlation_of_what_has_no_order_is_undefined():
    assert ranking_module.correlation(torch.zeros(3), torch.arange(3.0)) is None
    assert ranking_module.correlation(torch.ones(1), torch.ones(1)) is None


def test_moved_and_entered_are_counted_in_the_top():
    ranking = ranking_module.Ranking("q", tuple("abcd"), torch.tensor([4.0, 3, 2, 1]), torch.tensor([4.0, 1, 2, 3]))
    assert [ranking.items[i] for i in ranking.top(2)] == ["a", "d"]
    assert [ranking.items[i] for i in ranking.top(2, before=True)] == ["a", "b"]
    assert ranking.change(2) == ranking_module.Change(1.0, moved=1, entered=1, top=2, correlation=pytest.approx(0.2))
    assert ranking.change(9).top == 4


def test_images_are_ranked_for_each_sentence(run, adapter, images):
    files = sorted(images.iterdir(), key=lambda path: path.name)
    names = [path.name for path in files]
    before, after = obvious_scores(adapter, files, [TEXT, OTHER])
    result = run("try", adapter, "--images", images, "--text", TEXT, "--text", OTHER, "--top", 7)
    expected = []
    for c, text in enumerate((TEXT, OTHER)):
        expected += expected_lines(text, names, [r[c] for r in before], [r[c] for r in after], 7, "images")
    assert result.stdout.splitlines() == expected
    assert result.stderr == (
        "adapter    mug.safetensors, made for 'a photo of a mug'\nbackbone   tiny, fingerprint tiny-1\n"
    )
    assert any(not line.startswith("change:") and re.match(r" *(\d+) -> +(?!\1 )", line) for line in expected)


def test_sentences_are_ranked_for_each_image(run, adapter, images, tmp_path):
    texts = [TEXT, OTHER, "a green hat on a white floor"]
    file = tmp_path / "texts.txt"
    file.write_text(f"\ufeff{OTHER}\n\n  {texts[2]}  \n{TEXT}\n")  # as some editors save it
    photos = [images / "ball_0.png", images / "nest_3.png"]
    before, after = obvious_scores(adapter, photos, texts)
    arguments = [x for path in photos for x in ("--image", path)]
    result = run("try", adapter, *arguments, "--text", TEXT, "--texts", file)
    expected = []
    for n, path in enumerate(photos):
        expected += expected_lines(path.as_posix(), texts, before[n], after[n], 10, "sentences")
    assert result.stdout.splitlines() == expected


def test_without_a_sentence_the_adapters_own_is_taken(run, adapter, images):
    report = json.loads(run("try", adapter, "--images", images, "--json", "--top", 2).stdout)
    assert [ranking["query"] for ranking in report["rankings"]] == ["a photo of a mug"]
    ranking = report.pop("rankings")[0]
    assert report == {
        "adapter": "mug.safetensors",
        "description": "a photo of a mug",
        "backbone": "tiny",
        "fingerprint": "tiny-1",
        "ranked": "images",
        "skipped": [],
        "passed_over": [],
        "relevance": None,
        "report": None,
    }
    assert (ranking["of"], len(ranking["items"]), ranking["change"]["top"]) == (72, 2, 2)
    assert set(ranking["items"][0]) == {"item", "rank_before", "rank_after", "score_before", "score_after"}


def test_equal_images_share_a_rank_in_whatever_batch_they_come(run, adapter, images, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(40):
        shutil.copy(images / f"ball_{n % 2}.png", folder / f"{n:02}.png")
    ranking = json.loads(run("try", adapter, "--images", folder, "--json", "--top", 40).stdout)["rankings"][0]
    assert {item["rank_after"] for item in ranking["items"]} == {1, 21}


def test_a_broken_image_is_named_and_left_out(run, adapter, images):
    broken = images / "ball_0.png"
    broken.write_bytes(broken.read_bytes()[:40])
    result = run("try", adapter, "--images", images, "--text", TEXT)
    assert result.exit_code == 0
    assert re.search(
        rf"^warning: image {re.escape(str(broken))} cannot be decoded: .* \(skipped\)$", result.stderr, re.M
    )
    assert "10 of 71 images" in result.stdout
    assert "ball_0.png" not in result.stdout


def test_files_that_are_not_ranked_are_counted_with_the_reason(run, adapter, images):
    for name in ("a.heic", "b.heic", "notes.txt"):
        (images / name).write_text("")
    result = run("try", adapter, "--images", images, "--top", 1)
    assert result.exit_code == 0
    assert result.stderr.startswith(
        "ignored: .heic images, which are not supported (convert them to JPEG or PNG): 2 (a.heic, b.heic)\n"
        "ignored: files that are not images: 1 (notes.txt)\n"
    )
    facts = json.loads(run("try", adapter, "--images", images, "--top", 1, "--json").stdout)
    assert [(one["count"], one["examples"]) for one in facts["passed_over"]] == [
        (2, ["a.heic", "b.heic"]),
        (1, ["notes.txt"]),
    ]


def test_no_image_that_can_be_read_is_an_error(run, adapter, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    result = run("try", adapter, "--images", folder)
    assert result.exit_code == 4
    assert result.stderr.startswith(f"error: found no images in {folder}\nhint: supported extensions: .")
    assert ", .jpg, " in result.stderr
    (folder / "x.jpg").write_text("no")
    result = run("try", adapter, "--images", folder)
    assert result.exit_code == 4
    assert result.stderr.startswith(f"error: image {folder / 'x.jpg'} cannot be ")
    assert result.stdout == ""


ONE_WAY = "pass either --images or --image, not both or neither"
FOLDER = "pass a folder of photos, or --image FILE for a single image; searched in {cwd}"
PAGE = "try --report x.html"
WAYS = "pass --images DIR, or --image FILE with sentences"


@pytest.mark.parametrize(
    ("arguments", "code", "message", "hint"),
    [
        ([], 2, ONE_WAY, WAYS),
        (["--images", "{images}", "--image", "{images}/ball_0.png"], 2, ONE_WAY, WAYS),
        (["--images", "nowhere"], 2, "the folder nowhere does not exist", FOLDER),
        (["--image", "x.png"], 4, "image x.png does not exist", ""),
        (["--images", "{images}", "--text", " "], 2, "the sentence has no words: ' '", None),
        (["--images", "{images}", "--texts", "none.txt"], 4, "none.txt does not exist", "searched in {cwd}"),
        (["--images", "{images}", "--report", "x.pdf"], 2, "a report file must end in .html, got x.pdf", PAGE),
        (["--images", "{images}", "--backbone", "tinny"], 3, "no backbone named 'tinny'", "did you mean 'tiny'?"),
        (
            ["--images", "{images}", "--backbone", "starter"],
            5,
            "the adapter was made for a backbone with fingerprint tiny-1, this one has e364de69dd4d2c05",
            "generate it again for this backbone",
        ),
    ],
)
def test_a_mistake_is_answered(run, adapter, images, empty_folder, arguments, code, message, hint):
    result = run("try", adapter, *(a.format(images=images) for a in arguments))
    hint = 'describe the task, as in "a photo of a pug"' if hint is None else hint.format(cwd=empty_folder)
    assert result.stderr == f"error: {message}\n" + (f"hint: {hint}\n" if hint else "")
    assert (result.exit_code, result.stdout) == (code, "")


def test_a_file_of_sentences_must_have_one(run, adapter, images, tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("\n \n")
    result = run("try", adapter, "--images", images, "--texts", path)
    assert (result.exit_code, result.stderr) == (
        4,
        f"error: {path} has no sentences\nhint: write one sentence per line\n",
    )
    path.write_bytes(b"\xff")
    result = run("try", adapter, "--images", images, "--texts", path)
    assert (result.exit_code, result.stderr) == (
        4,
        f"error: {path} is not UTF-8 text: invalid start byte in line 1\n"
        "hint: save it as UTF-8, for example with: iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW\n",
    )


def test_an_adapter_that_changes_nothing_is_refused(run, adapter, images):
    loaded = load_adapter(adapter)
    save_adapter(adapter, loaded.layout, loaded.layout.initial(0), loaded.metadata)
    result = run("try", adapter, "--images", images)
    assert result.exit_code == 5
    assert result.stderr.startswith("error: the adapter's update is zero, so it would change nothing\n")


def test_an_adapter_that_does_not_say_what_it_is_for_is_asked_about(run, adapter, images):
    loaded = load_adapter(adapter)
    save_adapter(adapter, loaded.layout, loaded.flat_P, {"fingerprint": "tiny-1"})
    result = run("try", adapter, "--images", images)
    assert (result.exit_code, result.stderr) == (
        2,
        f"error: {adapter} does not record its backbone\nhint: pass --backbone NAME\n",
    )
    result = run("try", adapter, "--images", images, "--backbone", "tiny")
    assert (result.exit_code, result.stderr) == (
        2,
        'error: the adapter has no description\nhint: pass --text "a photo of a ..."\n',
    )
    assert run("try", adapter, "--images", images, "--backbone", "tiny", "--text", TEXT).exit_code == 0


def test_a_peft_folder_is_tried_as_it_is(run, adapter, images, tmp_path):
    assert run("export", adapter, "-o", tmp_path / "mug-peft/").exit_code == 0
    ours, theirs = (run("try", path, "--images", images, "--text", TEXT) for path in (adapter, tmp_path / "mug-peft"))
    assert theirs.exit_code == 0, theirs.output
    assert theirs.stdout == ours.stdout
