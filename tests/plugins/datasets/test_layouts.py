"""COCO, Pets and Flowers in miniature trees of their exact layouts."""

from __future__ import annotations

import io
import json

import pytest
from photo_lists import counts, photos_of
from trees import captions_file, coco_tree, flowers_tree, pets_tree

from sglora_cli.errors import BadFile, Unavailable
from sglora_datasets.coco import Coco
from sglora_datasets.flowers import SPECIES, Flowers
from sglora_datasets.pets import Pets

# SHA-256 modulo 5, by hand: of 1 to 5 only image 1 is for testing.
IMAGES = {
    1: [("cat", 0), ("cat", 0)],
    2: [("cat", 0), ("dog", 0)],
    3: [("dog", 0), ("bottle", 1)],
    4: [("bottle", 1)],
    5: [],
}


def test_an_image_of_coco_belongs_to_every_category_it_has_an_instance_of(tmp_path):
    coco_tree(tmp_path, IMAGES)
    tasks = Coco().tasks(tmp_path)
    assert photos_of(tasks) == {  # no bottle: only a crowd of them; image 5 shows nothing
        "cat": {
            "train": [("000000000002.jpg", ("A 2", "B 2"))],
            "test": [("000000000001.jpg", ("A 1", "B 1"))],
        },
        "dog": {
            "train": [("000000000003.jpg", ("A 3", "B 3")), ("000000000002.jpg", ("A 2", "B 2"))],
            "test": [],
        },
    }
    assert all(photo.path.is_file() for task in tasks for photo in task.photos["train"])
    assert [task.description for task in tasks] == ["cat", "dog"]


def test_images_of_coco_may_lie_in_folders(tmp_path):
    coco_tree(tmp_path, IMAGES)
    before = photos_of(Coco().tasks(tmp_path))
    for path in sorted((tmp_path / "train2017").iterdir()):
        place = tmp_path / "train2017" / f"a/{path.name[-5]}" / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)
    for path in (tmp_path / "annotations").iterdir():
        table = json.loads(path.read_text())
        for row in table["images"]:
            row["file_name"] = f"./a//{row['file_name'][-5]}/{row['file_name']}"
        path.write_text(json.dumps(table))
    assert photos_of(Coco().tasks(tmp_path)) == before
    assert list(Coco().passed_over(tmp_path))[-1] == (
        "train2017/a/5/000000000005.jpg",
        "images without an instance of any category",
    )
    (tmp_path / "train2017/a/2/000000000002.jpg").unlink()
    assert Coco().image_counts(tmp_path) == (len(IMAGES) - 1, len(IMAGES))


def test_the_training_split_of_coco_is_taken_and_what_is_there(tmp_path):
    coco_tree(tmp_path, {2: [("dog", 0)]}, "val2017")
    assert counts(Coco().tasks(tmp_path)) == {"dog": (1, 0)}
    coco_tree(tmp_path, {3: [("cat", 0)]}, "train2014")
    tasks = Coco().tasks(tmp_path)
    assert counts(tasks) == {"cat": (1, 0)}
    assert tasks[0].photos["train"][0].path == tmp_path / "train2014/COCO_train2014_000000000003.jpg"
    coco_tree(tmp_path, {4: [("bottle", 0)]})
    assert list(counts(Coco().tasks(tmp_path))) == ["bottle"]


def test_captions_beside_coco_replace_its_own(tmp_path):
    coco_tree(tmp_path, IMAGES)
    captions_file(tmp_path, {"train2017/000000000003.jpg": ["a fine dog"]})
    assert photos_of(Coco().tasks(tmp_path)) == {"dog": {"train": [("000000000003.jpg", ("a fine dog",))], "test": []}}
    captions_file(tmp_path, {"train2017/000000000099.jpg": ["a fine dog"]})
    with pytest.raises(
        BadFile, match=r"captions.jsonl, line 1: image 'train2017/000000000099.jpg' is not in any annotation"
    ):
        Coco().tasks(tmp_path)


def test_a_breed_is_named_as_its_files(tmp_path):
    pets_tree(tmp_path)
    tasks = Pets().tasks(tmp_path)
    assert counts(tasks) == {"abyssinian": (2, 2), "american bulldog": (2, 2)}
    assert photos_of(tasks)["american bulldog"]["test"] == [
        ("american_bulldog_3.jpg", ("one american_bulldog 2", "other american_bulldog 2")),
        ("american_bulldog_4.jpg", ("one american_bulldog 3", "other american_bulldog 3")),
    ]


@pytest.mark.parametrize(
    ("dataset", "folder"), [("coco", "train2017"), ("coco", "annotations"), ("pets", "images"), ("flowers", "jpg")]
)
def test_a_folder_of_the_layout_may_be_a_link(tmp_path, dataset, folder):
    """Photos are large: people keep them on another disk."""
    root = tmp_path / "data"
    root.mkdir()
    tree(root, dataset)
    before = counts(PLUGINS[dataset].tasks(root))
    (root / folder).rename(tmp_path / "elsewhere")
    (root / folder).symlink_to(tmp_path / "elsewhere")
    assert counts(PLUGINS[dataset].tasks(root)) == before


def test_a_listed_image_without_captions_is_left_out(tmp_path):
    pets_tree(tmp_path)
    captions_file(tmp_path, {"images/Abyssinian_1.jpg": ["a cat"]})
    assert counts(Pets().tasks(tmp_path)) == {"abyssinian": (1, 0)}


def test_a_flower_has_the_name_of_its_class(tmp_path):
    flowers_tree(tmp_path, [1, 74, 102, 74, 74], {"trnid": [2], "valid": [4, 1], "tstid": [5, 3]})
    assert photos_of(Flowers().tasks(tmp_path)) == {
        "pink primrose": {"train": [("image_00001.jpg", ("flower 1",))], "test": []},
        "rose": {
            "train": [("image_00002.jpg", ("flower 2",)), ("image_00004.jpg", ("flower 4",))],
            "test": [("image_00005.jpg", ("flower 5",))],
        },
        "blackberry lily": {"train": [], "test": [("image_00003.jpg", ("flower 3",))]},
    }


@pytest.mark.parametrize("dataset", ["coco", "pets", "flowers"])
def test_images_are_listed_without_captions_as_tasks_have_them_with(tmp_path, dataset):
    tree(tmp_path, dataset)
    tasks = PLUGINS[dataset].tasks(tmp_path)
    places = {(p.path, t.name, split) for t in tasks for split, photos in t.photos.items() for p in photos}
    for path in [*tmp_path.glob("captions.jsonl"), *tmp_path.glob("annotations/captions_*")]:
        path.unlink()
    listed = PLUGINS[dataset].images(tmp_path)
    assert {(one.path, task, one.split) for one in listed for task in one.tasks} == places
    assert all((tmp_path / one.image).samefile(one.path) for one in listed)
    assert len({one.image for one in listed}) == len(listed)


def test_species_are_a_hundred_and_two():
    assert len(set(SPECIES)) == 102


def test_torchvision_reads_the_same_trees(tmp_path):
    """The miniature trees are what torchvision calls these data sets."""
    from torchvision.datasets import Flowers102, OxfordIIITPet

    (tmp_path / "oxford-iiit-pet").mkdir()
    pets_tree(tmp_path / "oxford-iiit-pet")
    theirs = OxfordIIITPet(str(tmp_path), split="test")
    names = {task.name for task in Pets().tasks(tmp_path / "oxford-iiit-pet")}
    assert {name.lower() for name in theirs.classes} == names
    assert [name.rstrip("?") for name in Flowers102.classes] == list(SPECIES)


def coco(tmp_path, **changes):
    """A tree whose instances file is changed: key to its new value, or None to leave it out."""
    coco_tree(tmp_path, IMAGES)
    path = tmp_path / "annotations/instances_train2017.json"
    table = {key: value for key, value in {**json.loads(path.read_text()), **changes}.items() if value is not None}
    path.write_text(json.dumps(table))
    return Coco().tasks(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, " has no list 'images'"),
        ({"annotations": {}}, " has no list 'annotations'"),
        ({"annotations": [3]}, ": annotations[0]: image_id must be a whole number, got 3"),
        ({"annotations": [{"image_id": "1"}]}, ": annotations[0]: image_id must be a whole number, got '1'"),
        (
            {"annotations": [{"image_id": 1, "category_id": 5}]},
            ": annotations[0] has category 5, which is not listed",
        ),
        ({"images": []}, ": image 3 has an annotation but is not in 'images'"),
        ({"annotations": []}, ": no image has an instance and a caption"),
        (
            {"images": [{"id": n, "file_name": f"../{n}.jpg"} for n in IMAGES]},
            ": image 3: 'train2017/../3.jpg' leads outside its folder",
        ),
        (
            {"images": [{"id": 1, "file_name": "1.jpg"}, {"id": 1, "file_name": "2.jpg"}]},
            ": images[1]: image 1 is '2.jpg' here and '1.jpg' before",
        ),
        (
            {"images": [{"id": 1, "file_name": "a//1.jpg"}, {"id": 2, "file_name": "./a/1.jpg"}]},
            ": images[1]: image './a/1.jpg' is already named in image 1, as 'a//1.jpg'",
        ),
        (
            {"images": [{"id": n, "file_name": "../x.jpg"} for n in IMAGES]},
            ": images[1]: image '../x.jpg' is already named in image 1",
        ),
    ],
)
def test_an_instances_file_that_is_not_cocos_is_refused(tmp_path, changes, message):
    with pytest.raises(BadFile) as error:
        coco(tmp_path, **changes)
    assert str(error.value) == f"{tmp_path}/annotations/instances_train2017.json" + message.format(tmp_path)


def test_a_truncated_annotation_file_is_named_with_its_line(tmp_path):
    coco_tree(tmp_path, IMAGES)
    for name in ("captions", "instances"):
        path = tmp_path / f"annotations/{name}_train2017.json"
        path.write_bytes(path.read_bytes()[:300])
        with pytest.raises(BadFile, match=f"{name}_train2017.json, line 1: not JSON"):
            Coco().tasks(tmp_path)


@pytest.mark.parametrize(
    ("dataset", "gone", "message"),
    [
        ("coco", "annotations/instances_train2017.json", "{}/annotations/instances_train2017.json does not exist"),
        ("coco", "annotations/captions_train2017.json", "{}/annotations/captions_train2017.json does not exist"),
        ("pets", "annotations/test.txt", "{}/annotations/test.txt does not exist"),
        ("pets", "captions.jsonl", "{}/captions.jsonl does not exist, and this data set has no built-in captions"),
        ("flowers", "setid.mat", "{}/setid.mat does not exist"),
        ("flowers", "imagelabels.mat", "{}/imagelabels.mat does not exist"),
        ("flowers", "captions.jsonl", "{}/captions.jsonl does not exist, and this data set has no built-in captions"),
    ],
)
def test_a_missing_file_is_unavailable_and_the_hint_says_what_to_do(tmp_path, dataset, gone, message):
    tree(tmp_path, dataset)
    (tmp_path / gone).unlink()
    with pytest.raises(Unavailable) as error:
        PLUGINS[dataset].tasks(tmp_path)
    assert error.value.message == message.format(tmp_path)
    assert error.value.hint


PLUGINS = {"coco": Coco(), "pets": Pets(), "flowers": Flowers()}


def tree(root, dataset):
    if dataset == "coco":
        coco_tree(root, IMAGES)
    elif dataset == "pets":
        pets_tree(root)
    else:
        flowers_tree(root, [1, 74, 102], {"trnid": [2], "valid": [1], "tstid": [3]})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pug_1 3 2", "line 2: expected `Image_id class species breed`, got 'pug_1 3 2'"),
        ("pug_1 three 2 1", "line 2: expected `Image_id class species breed`, got 'pug_1 three 2 1'"),
        ("pug 3 2 1", "line 2: expected `Image_id class species breed`, got 'pug 3 2 1'"),
        ("pug_1 38 2 1", "line 2: the class must be 1 to 37, got 38"),
        ("pug_1 1 2 1", "line 2: class 1 is 'pug' here and 'abyssinian' in {}, line 1"),
    ],
)
def test_a_broken_list_is_named_with_its_line(tmp_path, line, message):
    pets_tree(tmp_path)
    path = tmp_path / "annotations/trainval.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, *lines[1:]]))
    with pytest.raises(BadFile) as error:
        Pets().tasks(tmp_path)
    assert error.value.message == f"{path}, {message.format(path)}"


def test_captions_of_an_image_that_no_list_names_are_refused(tmp_path):
    pets_tree(tmp_path)
    with (tmp_path / "captions.jsonl").open("a") as file:
        file.write('{"image": "images/pug_9.jpg", "captions": ["a pug"]}\n')
    with pytest.raises(BadFile, match=r"captions.jsonl, line 9: image 'images/pug_9.jpg' is not in any list"):
        Pets().tasks(tmp_path)


@pytest.mark.parametrize(
    ("labels", "sides", "message"),
    [
        ([1, 103], {"trnid": [2], "valid": [1], "tstid": [1]}, "imagelabels.mat: image 2 has class 103"),
        ([1, 2], {"trnid": [3], "valid": [1], "tstid": [1]}, "setid.mat, trnid: image 3 does not exist among 2 labels"),
        ([1, 2], {"trnid": [1], "valid": [2]}, "setid.mat has no numbers 'tstid'"),
    ],
)
def test_numbers_that_lie_are_refused(tmp_path, labels, sides, message):
    flowers_tree(tmp_path, labels, sides)
    with pytest.raises(BadFile) as error:
        Flowers().tasks(tmp_path)
    assert error.value.message == f"{tmp_path}/{message}"


@pytest.mark.parametrize("size", [0, 10, 100, 150])
def test_a_truncated_mat_file_is_refused(tmp_path, size):
    tree(tmp_path, "flowers")
    path = tmp_path / "imagelabels.mat"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(BadFile) as error:
        Flowers().tasks(tmp_path)
    assert error.value.message.startswith(f"{path} ")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", ">u2"])
def test_lists_of_mat_files_are_as_scipy_reads_them(packed, kind):
    import numpy as np
    from scipy.io import loadmat, savemat

    from sglora_datasets.mat_files import number_lists

    out = io.BytesIO()
    lists = {
        "a": np.array([[1, 2, 3]]),
        "long_name": np.arange(7)[None],
        "one": np.array([[5]]),
        "deep": np.ones((2, 3)),
    }
    savemat(out, {name: x.astype(kind) for name, x in lists.items()} | {"text": "x"}, do_compression=packed)
    known = loadmat(io.BytesIO(out.getvalue()))
    numbers = number_lists(out.getvalue())
    assert numbers == {name: [int(n) for n in known[name].ravel(order="F")] for name in lists}
