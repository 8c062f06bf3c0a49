"""The bundled recipes: the paper's experts, tasks that exist, no leak; and a first recipe of one's own."""

from __future__ import annotations

import json

import pytest
import sglora_packs
import tomli
from trees import cifar_speckles, cifar_tree, coco_tree, pets_tree

from sglora_cli.build.prerequisites import plan_tasks
from sglora_cli.errors import SgloraError
from sglora_cli.files import atomic
from sglora_cli.pack.pack import Pack
from sglora_cli.pack.recipe_parser import read
from sglora_cli.plugin.host import Host
from sglora_datasets.flowers import SPECIES

PACKS = sglora_packs.sglora_recipes()[0]
EXPERTS = {
    "coco": "airplane, truck, traffic light, cat, horse, giraffe, handbag, snowboard, wine glass, banana, hot dog, "
    "laptop",
    "pets": "abyssinian, american bulldog, american pit bull terrier, birman, bombay, british shorthair, german "
    "shorthaired, havanese, keeshond, leonberger, newfoundland, scottish terrier",
    "flowers": "sweet pea, tiger lily, monkshood, king protea, corn poppy, daffodil, sunflower, osteospermum, "
    "anthurium, hibiscus, desert-rose, mallow",
}
TASKS = {"coco": 79, "pets": 37, "flowers": 102}  # COCO without `person`


@pytest.mark.parametrize("name", ["coco", "pets", "flowers", "mixed"])
def test_a_recipe_of_the_paper_has_its_numbers_and_experts(name):
    recipe = read(PACKS / f"{name}.toml")
    assert recipe.backbone == "clip-vit-b-16"
    assert (recipe.template, recipe.lora.rank) == ("a photo of a {name}", 2)
    assert (recipe.train.states, recipe.prior.k, recipe.generators["cvae"]["kl_weight"]) == (100, 4, 1.0)
    assert [s.name for s in recipe.sources] == (list(EXPERTS) if name == "mixed" else [name])
    for source in recipe.sources:
        names = [n for names in source.roles.values() for n in names]
        more = ", dog" if (name, source.name) == ("mixed", "coco") else ""
        assert ", ".join(source.roles["expert"]) == EXPERTS[source.name] + more
        assert len(set(names)) == len(names) == TASKS[source.name]
    assert "flowers" not in name or {n for names in recipe.sources[0].roles.values() for n in names} == set(SPECIES)


@pytest.mark.parametrize("name", ["coco", "pets", "flowers"])
def test_mixed_has_the_roles_of_the_others(name):
    mixed = {s.name: s for s in read(PACKS / "mixed.toml").sources}[name]
    (own,) = read(PACKS / f"{name}.toml").sources
    for role, names in own.roles.items():
        assert [n for n in mixed.roles[role] if n != "dog"] == [n for n in names if n != "dog"]


@pytest.mark.parametrize("name", EXPERTS)
def test_a_starter_recipe_has_the_papers_experts_and_the_roles_of_the_paper_recipe(name):
    recipe = read(PACKS / f"starter-{name}.toml")
    (own,), (papers,) = recipe.sources, read(PACKS / f"{name}.toml").sources
    assert recipe.backbone == "starter"
    assert ", ".join(own.roles["expert"]) == EXPERTS[name]
    for role, names in own.roles.items():
        assert set(names) <= set(papers.roles[role])


def test_the_starters_sources_are_those_of_its_parts():
    whole = read(PACKS / "starter.toml")
    parts = [read(PACKS / f"starter-{name}.toml") for name in EXPERTS]
    assert {s.name: s.roles for s in whole.sources} == {s.name: s.roles for part in parts for s in part.sources}
    assert all((part.train, part.lora, part.prior) == (whole.train, whole.lora, whole.prior) for part in parts)


def test_the_papers_unseen_examples_are_unseen():
    unseen = {name: read(PACKS / f"{name}.toml").sources[0].roles["unseen"] for name in ("coco", "pets")}
    assert {"pug", "yorkshire terrier", "egyptian mau", "chihuahua"} <= set(unseen["pets"])
    assert "zebra" in unseen["coco"]


def test_cifars_recipe_has_the_papers_numbers_and_every_superclass(tmp_path):
    recipe = read(PACKS / "cifar100.toml")
    assert (recipe.lora.rank, recipe.train.states, recipe.prior.k) == (2, 100, 4)
    assert recipe.generators["cvae"]["kl_weight"] == 1.0
    (source,) = recipe.sources
    assert {role: len(names) for role, names in source.roles.items()} == {"expert": 8, "training": 6, "unseen": 6}
    dealt = sorted(name for names in source.roles.values() for name in names)
    assert [role for name in dealt for role in source.roles if name in source.roles[role]] == (
        ["expert", "unseen", "training"] * 6 + ["expert"] * 2
    )
    classes = {name.replace(" ", "_"): [f"{name} {letter}" for letter in "ab"] for name in dealt}
    cifar_tree(tmp_path / "cifar-100-python", cifar_speckles(2, 1, classes), classes)
    (planned_tasks,) = plan_tasks(Host.load(), recipe, tmp_path)
    assert (len(planned_tasks["unseen"]), len(planned_tasks["unseen"][0].photos["train"])) == (6, 4)
    task = source.tasks(Host.load(), tmp_path, recipe.template)["unseen"][0]
    assert task.description == ("This is a classification task for recognizing fish, which includes fish a, fish b")


def test_the_recipe_of_learned_generators_is_the_starters_but_for_them():
    own, starter = (read(PACKS / f"{name}.toml") for name in ("starter-learned", "starter"))
    assert (own.sources, own.train, own.prior, own.lora) == (
        starter.sources,
        starter.train,
        starter.prior,
        starter.lora,
    )
    assert {"cvae", "calibrated"} < set(own.generators)
    learned = {one.name for one in Host.load().generators.values() if one.learns}
    assert learned <= set(own.generators)


@pytest.mark.data
def test_all_categories_of_real_coco_have_a_role(data):
    table = json.loads((data / "coco_mini/annotations/instances_train2017.json").read_text())
    (source,) = read(PACKS / "coco.toml").sources
    names = {n for names in source.roles.values() for n in names}
    assert {c["name"] for c in table["categories"]} - names == {"person"}


def test_the_other_description_is_all_that_is_changed():
    own, other = (read(PACKS / f"{name}.toml").raw for name in ("cifar100", "cifar100-template"))
    (source,) = own["source"]
    assert "{classes}" in source["description"]
    plain = {key: value for key, value in source.items() if key != "description"}
    assert {**own, "source": [plain], "summary": ""} == {**other, "summary": ""}


@pytest.mark.parametrize("expert", ["cat", "dog"])
def test_a_related_expert_is_all_that_is_added(expert):
    pets, more = (read(PACKS / f"{name}.toml").raw for name in ("pets", f"pets-{expert}"))
    (coco,) = read(PACKS / "coco.toml").raw["source"]
    added = {key: coco[key] for key in ("name", "dataset", "path", "photos")} | {"expert": [expert]}
    assert {**pets, "source": [*pets["source"], added], "summary": ""} == {**more, "summary": ""}


def test_recipes_are_listed(run):
    result = run("pack", "recipes")
    assert result.exit_code == 0
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [
        ["cifar100", "clip-vit-b-16"],
        ["cifar100-template", "clip-vit-b-16"],
        ["coco", "clip-vit-b-16"],
        ["flowers", "clip-vit-b-16"],
        ["mixed", "clip-vit-b-16"],
        ["pets", "clip-vit-b-16"],
        ["pets-cat", "clip-vit-b-16"],
        ["pets-dog", "clip-vit-b-16"],
        ["starter", "starter"],
        ["starter-coco", "starter"],
        ["starter-flowers", "starter"],
        ["starter-learned", "starter"],
        ["starter-pets", "starter"],
    ]
    rows = json.loads(run("pack", "recipes", "--json").stdout)["recipes"]
    assert rows[2]["summary"] == "MS-COCO by category, for CLIP ViT-B/16: the paper's twelve experts."


def test_a_task_the_data_lack_is_named_with_its_line(run, tmp_path):
    (tmp_path / "oxford-iiit-pet").mkdir()
    pets_tree(tmp_path / "oxford-iiit-pet", ("Abyssinian", "american_bulldog"))
    result = run("pack", "build", "pets", "--data", tmp_path, "--dry-run")
    assert result.exit_code == 4
    lines = result.stderr.splitlines()
    assert lines[0].startswith(f"error: recipe {PACKS}/pets.toml has ")
    unknown = [line for line in lines if "no task in pets named" in line]
    assert len(unknown) == 35
    assert "no task in pets named 'birman'" in unknown[1]


def test_the_first_recipe_of_ones_own_builds(run, tiny, toys, tmp_path, own_home):
    file = tmp_path / "mine.toml"
    result = run("pack", "init", file)
    assert (result.exit_code, result.stdout) == (0, f"{file}\n")
    built = run("pack", "build", file, "--data", toys, "--backbone", "tiny")
    assert built.exit_code == 0, built.output
    assert run("pack", "verify", "mine").exit_code == 0
    assert len(tomli.loads(file.read_text())["source"]) == 1


def test_init_keeps_what_is_there(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("pack", "init").stdout == "recipe.toml\n"
    again = run("pack", "init")
    assert (again.exit_code, again.stdout) == (2, "")
    assert again.stderr == ("error: recipe.toml exists\nhint: choose another name, or pass --force to replace it\n")
    assert run("pack", "init", "--force").exit_code == 0
    assert (
        run("pack", "init", "mine").stderr == "error: a recipe file must end in .toml, got mine\nhint: try mine.toml\n"
    )


def test_a_first_recipe_never_replaces_one_that_appears_meanwhile(run, tmp_path, monkeypatch):
    file, real = tmp_path / "recipe.toml", atomic.check_free
    monkeypatch.setattr(atomic, "check_free", lambda *args: (real(*args), file.write_text("# mine"))[0])
    result = run("pack", "init", file)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: another program has just written {file}\n")
    assert file.read_text() == "# mine"


COCO = """
backbone = "tiny"
[train]
epochs = 4
states = 2
[prior]
k = 1
[[source]]
name = "coco"
dataset = "coco"
path = "coco_small"
photos = 4
expert = ["cat"]
training = ["dog"]
unseen = ["bottle"]
[generators.cvae]
hidden = 4
latent = 2
epochs = 1
"""


def test_a_pack_is_built_from_cocos_own_files(run, tiny, tmp_path, own_home):
    images = {n: [(("cat", "dog", "bottle")[n % 3], 0), ("dog", 0)] for n in range(1, 61)}
    (tmp_path / "coco_small").mkdir()
    coco_tree(tmp_path / "coco_small", images)
    (tmp_path / "mini.toml").write_text(COCO)
    result = run("pack", "build", tmp_path / "mini.toml", "--data", tmp_path)
    assert result.exit_code == 0, result.output
    tasks = Pack(own_home / "cache/packs/mini").tasks
    assert [(t["key"], t["train_photos"]) for t in tasks] == [("coco/cat", 4), ("coco/dog", 4), ("coco/bottle", 4)]
    assert run("bench", "--pack", "mini").exit_code == 0


def test_broken_data_are_refused_before_anything_runs(run, tiny, tmp_path, own_home):
    root = tmp_path / "coco_small"
    root.mkdir()
    coco_tree(root, {n: [(("cat", "dog", "bottle")[n % 3], 0)] for n in range(1, 31)})
    (tmp_path / "mini.toml").write_text(COCO)
    path = root / "annotations/instances_train2017.json"
    content = path.read_bytes()
    for broken, message in (
        (content[:-9], f"{path}, line 1: not JSON: "),
        (b"{}", f"{path} has no list 'categories'\nhint: use the unmodified file that COCO publishes\n"),
    ):
        path.write_bytes(broken)
        result = run("pack", "build", tmp_path / "mini.toml", "--data", tmp_path)
        assert (result.exit_code, result.stdout) == (4, "")
        assert result.stderr.startswith(f"error: {message}")
    path.unlink()
    result = run("pack", "build", tmp_path / "mini.toml", "--data", tmp_path)
    assert (result.exit_code, result.stdout) == (6, "")
    assert result.stderr.startswith("error: 2 requirements are missing to build recipe ")
    assert "  19.6 GB: data set 'coco' is not in " in result.stderr
    assert not (own_home / "cache").exists()


def test_a_task_of_one_photo_is_refused(run, tiny, tmp_path):
    root = tmp_path / "coco_small"
    root.mkdir()
    images = {n: [("cat", 0), ("dog", 0)] for n in range(2, 9)}
    coco_tree(root, {**images, 2: [("bottle", 0)]})
    (tmp_path / "mini.toml").write_text(COCO)
    result = run("pack", "build", tmp_path / "mini.toml", "--data", tmp_path)
    assert result.exit_code == 4
    hint = "add some, or leave the task out of the recipe"
    assert result.stderr == f"error: task coco/bottle has 1 training photo, at least two are needed\nhint: {hint}\n"


PETS = """
backbone = "starter"
[train]
epochs = 2
states = 2
joint_epochs = 1
[prior]
k = 2
[[source]]
name = "pets"
dataset = "pets"
path = "oxford-iiit-pet"
photos = 3
expert = ["birman", "bombay"]
training = ["beagle"]
unseen = ["pug"]
[generators.cvae]
hidden = 4
latent = 2
epochs = 1
"""


@pytest.mark.data
def test_a_pack_is_built_from_real_pets(run, data, tmp_path):
    (tmp_path / "few.toml").write_text(PETS)
    result = run("pack", "build", tmp_path / "few.toml", "--data", data)
    assert result.exit_code == 0, result.output
    assert run("pack", "verify", "few").exit_code == 0
    assert "pug" in run("bench", "--pack", "few", "--json").stdout


@pytest.mark.data
def test_pets_lack_six_breeds_here_and_the_plan_says_so(data):
    with pytest.raises(SgloraError) as error:
        plan_tasks(Host.load(), read(PACKS / "pets.toml"), data)
    assert error.value.message.count("no task in pets named ") == 6
