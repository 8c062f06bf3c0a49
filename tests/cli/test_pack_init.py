"""`sglora pack init`: a recipe for one's own photos, a copy of a known one, and what is refused."""

from __future__ import annotations

import json
import shlex

import pytest
import sglora_packs
import tomli
from speckles import speckles
from trees import captions_file, pets_tree

from sglora_cli.pack.recipe_parser import read

PACKS = sglora_packs.sglora_recipes()[0]
TASKS = ("ball", "box", "cup", "hat", "jar", "kite", "mug")


def photos_of(root, tasks=TASKS, photos=12):
    for t, task in enumerate(tasks):
        (root / task).mkdir(parents=True)
        for n in range(photos):
            speckles(100 * t + n).save(root / task / f"{n}.png")
    return root


@pytest.fixture
def own(tmp_path):
    """A folder with a folder of 12 photos for each of 7 tasks, and no captions."""
    return photos_of(tmp_path / "my things")


def roles_in(file):
    (source,) = tomli.loads(file.read_text())["source"]
    return {role: source[role] for role in ("expert", "training", "unseen")}


def test_own_photos_become_a_pack_in_two_steps_and_a_build(run, tiny, own, tmp_path):
    file = tmp_path / "my.toml"
    first = run("pack", "init", file, "--data", own)
    assert first.exit_code == 0, first.output
    lines = first.stderr.splitlines()
    assert lines[0] == "first write captions, which 84 of 84 photos lack:"
    assert shlex.split(lines[1]) == ["sglora", "data", "caption", "folder", "--path", str(own)]
    assert run(*shlex.split(lines[1])[1:], "--captioner", "names").exit_code == 0
    before = roles_in(file)
    again = run("pack", "init", file, "--data", own, "--force")
    assert again.stderr.splitlines()[0].startswith("expert: 4 tasks, ")
    assert roles_in(file) == before  # captions change no role
    assert sorted(name for names in before.values() for name in names) == list(TASKS)
    *rows, command = again.stdout.splitlines()
    assert [row.split()[0] for row in rows] == list(TASKS)
    assert shlex.split(command) == ["sglora", "pack", "build", str(file), "--data", str(tmp_path)]
    text = file.read_text().replace("hide = 0.5", "hide = 0.0")  # tiny cannot hide a part of a photo
    file.write_text(text.replace("epochs = 60", "epochs = 2").replace("states = 20", "states = 2"))
    built = run(*shlex.split(command)[1:], "--backbone", "tiny", "--dry-run")
    assert built.exit_code == 0, built.output
    assert "4 experts (48 photos), 2 training tasks (24 photos), 1 unseen tasks" in built.stdout


def test_what_it_writes_is_a_recipe_with_the_starters_numbers(run, own, tmp_path):
    file = tmp_path / "my.toml"
    assert run("pack", "init", file, "--data", own).exit_code == 0
    recipe, starter = read(file), read(PACKS / "starter.toml")
    assert (recipe.lora, recipe.prior, recipe.default_generator) == (
        starter.lora,
        starter.prior,
        starter.default_generator,
    )
    (source,) = recipe.sources
    assert (source.name, source.dataset, source.path, source.whole) == ("my-things", "folder", "my things", True)
    assert (recipe.train.epochs, recipe.train.states, recipe.train.batch) == (
        60,
        20,
        8,
    )  # 12 photos hold one batch of 8
    assert all("#" in line for line in file.read_text().splitlines() if line.startswith(("backbone", "expert", "k =")))


@pytest.mark.parametrize(("photos", "epochs", "batch"), [(5, 60, 4), (16, 60, 16), (120, 30, 16), (400, 20, 16)])
def test_numbers_suit_the_size(photos, epochs, batch, tmp_path):
    from sglora_cli.pack.own_recipe import OwnData, recipe_text
    from sglora_cli.pack.roles import TaskPhotos, deal_roles

    tasks = [TaskPhotos(name, photos - 2, 2) for name in TASKS]
    data = OwnData("folder", tmp_path / "x", tasks, photos, 0)
    train = tomli.loads(recipe_text(data, deal_roles(tasks), tmp_path / "my.toml"))["train"]
    assert (train["epochs"], train["states"], train["batch"]) == (epochs, epochs // 3, batch)


@pytest.mark.parametrize(("tasks", "has"), [(24, False), (26, True)])
def test_a_generator_is_trained_where_ten_tasks_teach_it(tasks, has, tmp_path):
    from sglora_cli.pack.own_recipe import OwnData, recipe_text
    from sglora_cli.pack.roles import TaskPhotos, deal_roles

    some = [TaskPhotos(f"task {n}", 20, 5) for n in range(tasks)]
    dealt = deal_roles(some)
    assert (len(dealt.roles["training"]) >= 10) == has
    recipe = tomli.loads(recipe_text(OwnData("folder", tmp_path / "x", some, 1, 0), dealt, tmp_path / "my.toml"))
    assert ("generators" in recipe) == has


def test_for_programs_the_whole_deal_is_one_object(run, own, tmp_path):
    (own / "few").mkdir()
    speckles(9999).save(own / "few/1.png")
    result = run("pack", "init", tmp_path / "my.toml", "--data", own, "--json")
    facts = json.loads(result.stdout)
    assert (result.stderr, facts["captioned"], facts["waiting"]) == ("", 0, 85)
    assert [task for task in facts["tasks"] if task["role"] is None] == [
        {"task": "few", "train": facts["tasks"][3]["train"], "test": facts["tasks"][3]["test"], "role": None}
    ]
    assert "left out: 'few': 1 photo, fewer than 5" in facts["reasons"]
    assert shlex.split(facts["command"])[-1] == str(tmp_path)


def test_folders_with_strange_names_are_quoted_everywhere(run, tmp_path):
    names = ['a "b" [c]', "d'e", "f {g}", "h#i", "j\\k", "l\tm", "ünïcode = x"]
    root = photos_of(tmp_path / 'my "own" [photos] $HOME', names, photos=6)
    file = tmp_path / "it's mine.toml"
    result = run("pack", "init", file, "--data", root)
    assert result.exit_code == 0, result.output
    assert run("data", "caption", "folder", "--path", root, "--captioner", "names").exit_code == 0
    dealt = roles_in(file)
    assert sorted(name for some in dealt.values() for name in some) == sorted(n.replace("\t", " ") for n in names)
    command = shlex.split(result.stdout.splitlines()[-1])
    assert command == ["sglora", "pack", "build", str(file), "--data", str(tmp_path)]
    inspected = run("inspect", file)
    assert inspected.exit_code == 0, inspected.output


def test_folders_that_differ_in_case_only_do_not_both_get_a_role(run, tmp_path):
    root = photos_of(tmp_path / "own", [*TASKS, "Mug"])
    if len(list(root.iterdir())) < 8:
        pytest.skip("this file system does not tell A from a")
    result = run("pack", "init", tmp_path / "my.toml", "--data", root)
    assert "left out: 'mug': it has the name of 'Mug' but for upper case; put both into one\n" in result.stderr


def test_copies_of_a_photo_in_two_tasks_keep_both_out_of_the_unseen(run, tmp_path):
    root = photos_of(tmp_path / "own", TASKS)
    alone = run("pack", "init", tmp_path / "alone.toml", "--data", root)
    assert alone.exit_code == 0
    (unseen,) = roles_in(tmp_path / "alone.toml")["unseen"]
    other = next(name for name in TASKS if name != unseen)
    (root / other / "copy.png").write_bytes((root / unseen / "0.png").read_bytes())
    run("pack", "init", tmp_path / "my.toml", "--data", root)
    assert not {unseen, other} & set(roles_in(tmp_path / "my.toml")["unseen"])


def test_folders_of_splits_are_no_tasks(run, tmp_path):
    photos_of(tmp_path / "own/train", TASKS, 8)
    photos_of(tmp_path / "own/val", TASKS, 3)
    result = run("pack", "init", tmp_path / "my.toml", "--data", tmp_path / "own")
    assert [line.split() for line in result.stdout.splitlines()[:-1]] == [
        [name, "8", "train", "3", "test", role]
        for name, role in zip(TASKS, ["unseen", *["expert"] * 4, *["training"] * 2], strict=True)
    ]


def test_another_data_set_is_recognised_or_named(run, tmp_path):
    root = tmp_path / "oxford-iiit-pet"
    root.mkdir()
    pets_tree(root, TASKS, photos=12)
    result = run("pack", "init", tmp_path / "my.toml", "--data", root)
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[0] == "read as data set 'pets'; pass --dataset to choose another"
    assert tomli.loads((tmp_path / "my.toml").read_text())["source"][0]["dataset"] == "pets"
    named = run("pack", "init", tmp_path / "named.toml", "--data", root, "--dataset", "pets")
    assert named.stderr.splitlines() == [*result.stderr.splitlines()[1:-1], f"written: {tmp_path}/named.toml"]
    assert run("pack", "init", tmp_path / "x.toml", "--data", root, "--dataset", "pest").exit_code == 3


def test_half_captioned_photos_are_counted(run, own, tmp_path):
    run("data", "caption", "folder", "--path", own, "--captioner", "names", "--limit", 20)
    result = run("pack", "init", tmp_path / "my.toml", "--data", own)
    assert result.exit_code == 5
    assert result.stderr.splitlines()[0].startswith("error: 2 tasks with at least 5 photos, and a pack needs 6: ")
    assert result.stderr.splitlines()[0].endswith("; 64 more photos have no captions yet")
    assert result.stderr.splitlines()[1] == f"hint: write them first: sglora data caption folder --path '{own}'"
    assert not (tmp_path / "my.toml").exists()


def test_the_folder_above_is_answered_with_the_one_that_is_meant(run, tmp_path):
    photos_of(tmp_path / "above/own photos", TASKS)
    result = run("pack", "init", tmp_path / "my.toml", "--data", tmp_path / "above")
    assert result.exit_code == 5
    assert result.stderr.splitlines()[-1] == f"hint: did you mean --data '{tmp_path}/above/own photos'?"


@pytest.mark.parametrize(
    ("places", "code", "message"),
    [
        ([], 6, "has no names.jsonl, no captions and no images in TASK"),
        (["1.png", "2.png"], 6, "has no names.jsonl, no captions and no images in TASK"),
        ([".hidden/1.png"], 6, "has no names.jsonl, no captions and no images in TASK"),
        (["cat/1.png"], 5, "0 tasks with at least 5 photos, and a pack needs 6"),
    ],
)
def test_a_folder_without_tasks_is_refused_and_nothing_is_written(run, tmp_path, places, code, message):
    root = tmp_path / "own"
    root.mkdir()
    for n, place in enumerate(places):
        (root / place).parent.mkdir(exist_ok=True)
        speckles(n).save(root / place)
    result = run("pack", "init", tmp_path / "my.toml", "--data", root)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr.splitlines()[0]
    assert result.stderr.splitlines()[1].startswith("hint: ")
    assert not (tmp_path / "my.toml").exists()


def test_what_is_there_is_kept_before_the_photos_are_read(run, tmp_path):
    (tmp_path / "my.toml").write_text("# mine")
    result = run("pack", "init", tmp_path / "my.toml", "--data", tmp_path / "gone")
    assert (result.exit_code, (tmp_path / "my.toml").read_text()) == (2, "# mine")
    assert result.stderr.startswith(f"error: {tmp_path}/my.toml exists\n")


def test_a_known_recipe_is_copied_byte_for_byte_below_a_comment(run, tmp_path):
    file = tmp_path / "my.toml"
    result = run("pack", "init", file, "--from", "pets")
    assert (result.exit_code, result.stdout) == (0, f"{file}\n")
    assert result.stderr == f"change it, then: sglora pack build {file} --data DIR\n"
    first, _, rest = file.read_bytes().partition(b"\n")
    assert (first, rest) == (b"# A copy of recipe pets, to be changed.", (PACKS / "pets.toml").read_bytes())
    assert read(file).raw == read(PACKS / "pets.toml").raw
    assert run("pack", "init", tmp_path / "second.toml", "--from", file).exit_code == 0
    assert read(tmp_path / "second.toml").raw == read(file).raw


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--from", "pest"], 3, "no recipe named 'pest'"),
        (["--from", "gone.toml"], 4, "recipe gone.toml does not exist"),
        (["--from", "pets", "--data", "x"], 2, "--data and --from do not go together"),
        (["--dataset", "pets"], 2, "--dataset goes with --data"),
        (["--data", "gone"], 2, "there is no folder gone"),
        (["--data", "/"], 2, "/ is no folder of photos"),
    ],
)
def test_mistakes_are_answered(run, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    result = run("pack", "init", "my.toml", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith(f"error: {message}")
    assert not list(tmp_path.iterdir())


def test_a_data_set_with_captions_of_images_by_name_is_read_as_it_is(run, tmp_path):
    root = tmp_path / "own"
    root.mkdir()
    names = {f"{task} {n}.png": task for task in TASKS for n in range(6)}
    for n, name in enumerate(names):
        speckles(n).save(root / name)
    captions_file(root, {name: [f"a {name}"] for name in names})
    rows = [json.loads(line) for line in (root / "captions.jsonl").read_text().splitlines()]
    for n, row in enumerate(rows):
        row |= {"task": names[row["image"]], "split": "test" if n % 3 == 0 else "train"}
    (root / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run("pack", "init", tmp_path / "my.toml", "--data", root)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0].split() == ["ball", "4", "train", "2", "test", "unseen"]
    assert not result.stderr.startswith("first")
