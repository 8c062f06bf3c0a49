"""`data check --recipe` ends with an error if and only if the build refuses the data, and both say the same."""

from __future__ import annotations

import json
import random
import shutil

import pytest
from distributions import install
from speckles import speckles

LOOSE = '''
"""A data set that lets anything pass: its file is a list of [image, task, split, captions], and classes of tasks."""
import json
from sglora_cli.api import BadFile, Photo, Task, hookimpl

class Loose:
    name, summary = "loose", "anything"

    def tasks(self, root):
        try:
            table = json.loads((root / "loose.json").read_text())
        except ValueError:
            raise BadFile(f"{root / 'loose.json'} is damaged")
        photos = {}
        for image, task, split, captions in table["rows"]:
            photos.setdefault(task, {}).setdefault(split, []).append(Photo(root / image, tuple(captions)))
        classes = table["classes"]
        return [Task(root.name, n, n, photos[n], tuple(classes.get(n, ()))) for n in sorted(photos)]

@hookimpl
def sglora_datasets():
    return [Loose()]
'''
RECIPE = """
backbone = "tiny"
default_generator = "top-k"
[train]
epochs = 2
states = 1
batch = 4
[prior]
k = 1
[[source]]
name = "set"
dataset = "loose"
expert = ["cat", "dog"]
training = ["owl"]
unseen = ["fox"]
"""
TASKS = ("cat", "dog", "fox", "owl", "pig")


class Data:
    """A small data set and its recipe, as they are before something is damaged."""

    def __init__(self, folder):
        self.root, self.recipe, self.text, self.classes = folder / "data/set", folder / "r.toml", RECIPE, {}
        self.root.mkdir(parents=True)
        self.rows = []
        for t, task in enumerate(TASKS):
            for n in range(5):
                name = f"{task}{n}.png"
                speckles(10 * t + n).save(self.root / name)
                captions = [f"a {task} on a hill {n}", f"the {task} of a farm"]
                self.rows.append([name, task, "train" if n < 3 else "test", captions])

    def of(self, task, split=None):
        return [row for row in self.rows if row[1] == task and split in (None, row[2])]

    def path(self, task, split="train"):
        return self.root / self.of(task, split)[0][0]

    def drop(self, task, split, keep=0):
        gone = self.of(task, split)[keep:]
        self.rows = [row for row in self.rows if row not in gone]

    def put(self, old, new):
        assert old in self.text
        self.text = self.text.replace(old, new)

    def write(self):
        (self.root / "loose.json").write_text(json.dumps({"rows": self.rows, "classes": self.classes}))
        self.recipe.write_text(self.text)


def copied(data, task, source, split):
    """The training photos of a task are those that another task is tested on, under other names."""
    for row, other in zip(data.of(task, "train"), data.of(source, split) * 3, strict=False):
        shutil.copy(data.root / other[0], data.root / row[0])


def bells(data):
    """Every task has a class with a control character in its name, and its description has the classes."""
    for task in TASKS:
        classify(data, task, ["\x07", "blue"])
        data.classes[task] = ["\x07", "blue"]
    data.put('name = "set"', 'name = "set"\ndescription = "{name}: {classes}"')


def classify(data, task, names):
    data.classes[task] = ["red", "blue"]
    for row, name in zip(data.of(task), names * 5, strict=False):
        row[3] = [name]


def captions(data, task, split, some):
    data.of(task, split)[0][3] = some


DAMAGES = {
    "nothing": lambda d: None,
    "a task that is not there": lambda d: d.put('"owl"', '"owls"'),
    "no photo of a task": lambda d: d.drop("dog", None),
    "one training photo": lambda d: d.drop("cat", "train", keep=1),
    "no training photo": lambda d: d.drop("fox", "train"),
    "no test photo": lambda d: d.drop("fox", "test"),
    "no test photo of a seen task": lambda d: d.drop("cat", "test"),
    "a task of no role is empty": lambda d: d.drop("pig", "train"),
    "one photo by the recipe": lambda d: d.put('name = "set"', 'name = "set"\nphotos = 1'),
    "all photos by the recipe": lambda d: (d.drop("cat", "train"), d.put('name = "set"', 'name = "set"\nwhole = true')),
    "a large batch": lambda d: d.put("batch = 4", "batch = 64"),
    "an empty caption": lambda d: captions(d, "cat", "train", ["a cat", " "]),
    "no caption": lambda d: captions(d, "fox", "test", []),
    "an empty caption that nothing reads": lambda d: captions(d, "cat", "test", [""]),
    "an empty caption of a task of no role": lambda d: captions(d, "pig", "train", []),
    "a broken photo": lambda d: d.path("dog").write_bytes(b"no photo"),
    "half a photo": lambda d: d.path("owl").write_bytes(d.path("owl").read_bytes()[:600]),
    "a broken test photo": lambda d: d.path("fox", "test").write_bytes(b""),
    "a broken photo that nothing reads": lambda d: d.path("dog", "test").write_bytes(b"no photo"),
    "a broken photo of a task of no role": lambda d: d.path("pig").write_bytes(b"no photo"),
    "a photo that is not there": lambda d: d.path("cat").unlink(),
    "a test photo that is not there": lambda d: d.path("fox", "test").unlink(),
    "photos that an unseen task is tested on": lambda d: copied(d, "cat", "fox", "test"),
    "some photos that an unseen task is tested on": lambda d: shutil.copy(d.path("fox", "test"), d.path("cat")),
    "photos that two seen tasks learn": lambda d: copied(d, "cat", "dog", "train"),
    "classes": lambda d: classify(d, "cat", ["red", "blue"]),
    "a photo of no class": lambda d: classify(d, "cat", ["red", "green"]),
    "classes in the description": lambda d: d.put('name = "set"', 'name = "set"\ndescription = "{name}: {classes}"'),
    "a description that no pack can keep": bells,
    "phrases": lambda d: d.put(
        "[prior]", '[tasks]\nfrom_captions = ["set"]\nleast_photos = 4\nlargest_share = 1.0\n[prior]'
    ),
    "phrases that are too rare": lambda d: d.put(
        "[prior]", '[tasks]\nfrom_captions = ["set"]\nleast_photos = 50\n[prior]'
    ),
    "two roles": lambda d: d.put('["owl"]', '["owl", "cat"]'),
}
HARMLESS = {
    "nothing",
    "no test photo",
    "no test photo of a seen task",
    "a task of no role is empty",
    "all photos by the recipe",
    "a large batch",
    "an empty caption that nothing reads",
    "an empty caption of a task of no role",
    "a broken photo that nothing reads",
    "a broken photo of a task of no role",
    "some photos that an unseen task is tested on",
    "photos that two seen tasks learn",
    "classes",
    "phrases",
}
"""The rest is refused."""


@pytest.fixture
def data(tmp_path, tiny, site):
    install(site, "sglora-loose", "sglora_loose_refused", LOOSE)
    return Data(tmp_path)


def both(run, data):
    """The exit codes and error lines of the check and of the build, without what is said besides."""
    check = run("data", "check", "loose", "--path", data.root, "--recipe", data.recipe)
    build = run("pack", "build", data.recipe, "--data", data.root.parent, "--dry-run")
    errors = []
    for result in (check, build):
        assert result.exit_code in range(8), result.output
        assert not result.exception or isinstance(result.exception, SystemExit), result.exception
        text = result.stderr
        errors.append(text[text.index("error: ") :] if "error: " in text else "")
    assert (check.exit_code != 0, build.exit_code != 0) == (bool(errors[0]), bool(errors[1]))
    return check, build, errors


@pytest.mark.parametrize("name", DAMAGES)
def test_a_check_refuses_what_the_build_refuses_in_the_same_words(run, data, name):
    DAMAGES[name](data)
    data.write()
    check, build, errors = both(run, data)
    assert (build.exit_code == 0) == (name in HARMLESS), build.output
    assert (check.exit_code, errors[0]) == (build.exit_code, errors[1])
    if name != "two roles":  # which the recipe says, whatever the data
        assert check.stdout.splitlines()[-1].startswith("0 errors, ") == (name in HARMLESS)


@pytest.mark.parametrize("seed", range(16))
def test_several_damages_are_refused_alike(run, data, seed):
    rng = random.Random(seed)
    chosen = rng.sample(
        [name for name in DAMAGES if name not in ("two roles", "phrases", "phrases that are too rare")], 4
    )
    for name in chosen:
        try:
            DAMAGES[name](data)
        except (IndexError, AssertionError, FileNotFoundError):  # another damage removed what it damages
            continue
    data.write()
    check, build, errors = both(run, data)
    assert (check.exit_code, errors[0]) == (build.exit_code, errors[1]), chosen


@pytest.mark.parametrize("content", ["", "{", None], ids=["empty", "cut", "absent"])
def test_a_data_set_that_cannot_be_read_is_refused_alike(run, data, content):
    data.write()
    if content is None:
        shutil.rmtree(data.root)
        data.put('dataset = "loose"', 'dataset = "pets"\npath = "set"')
        data.recipe.write_text(data.text)
        check = run("data", "check", "pets", "--path", data.root, "--recipe", data.recipe)
    else:
        (data.root / "loose.json").write_text(content)
        check = run("data", "check", "loose", "--path", data.root, "--recipe", data.recipe)
    build = run("pack", "build", data.recipe, "--data", data.root.parent, "--dry-run")
    assert (check.exit_code, check.stderr) == (build.exit_code, build.stderr)
    assert build.exit_code in (4, 6)


def test_many_broken_photos_are_named_up_to_twenty(run, data):
    for n in range(30):
        (data.root / f"x{n}.png").write_bytes(b"no photo")
        data.rows.append([f"x{n}.png", "cat", "train", ["a cat"]])
    data.write()
    check, build, errors = both(run, data)
    lines = build.stderr.splitlines()
    assert lines[0] == "error: the data has 21 errors"
    assert lines[-1] == "  10 more photos of these tasks cannot be read"
    assert errors[0] == errors[1]
    assert "error: images that cannot be decoded: 30" in check.stdout


def test_a_photo_that_the_recipe_does_not_need_is_a_warning(run, data):
    DAMAGES["a broken photo of a task of no role"](data)
    DAMAGES["an empty caption of a task of no role"](data)
    data.write()
    check, _, _ = both(run, data)
    assert check.exit_code == 0
    assert "warning: images outside the recipe's tasks that cannot be decoded: 1" in check.stdout
    assert "warning: captions without words outside the recipe's tasks: 1" in check.stdout
    assert run("data", "check", "loose", "--path", data.root).exit_code == 4
