"""One photo under two names is refused by every list that names photos."""

from __future__ import annotations

import json

import pytest
from trees import captioned, captions_file, flowers_tree, pets_tree, picture

from sglora_cli.errors import BadFile
from sglora_datasets.flickr30k import Flickr30k
from sglora_datasets.flowers import Flowers
from sglora_datasets.folder import Folder
from sglora_datasets.pets import Pets

SPELLINGS = ("./images/1.jpg", "images//1.jpg", "images/./1.jpg", "images/../images/1.jpg", "linked/1.jpg")


@pytest.fixture
def root(tmp_path):
    for n in (1, 2):
        picture(tmp_path / f"images/{n}.jpg", n)
    (tmp_path / "linked").symlink_to("images", target_is_directory=True)
    return tmp_path


@pytest.mark.parametrize("spelled", SPELLINGS)
def test_in_captions_jsonl(root, spelled, run):
    rows = [
        {"image": image, "task": "pug", "split": split, "captions": [image]}
        for image, split in (("images/1.jpg", "train"), ("images/2.jpg", "train"), (spelled, "test"))
    ]
    (root / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run("data", "check", "folder", "--path", root)
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr == (
        f"error: {root}/captions.jsonl, line 3: image {spelled!r} is already named in line 1, as 'images/1.jpg'\n"
        "hint: name it once\n"
    )


@pytest.mark.parametrize("spelled", SPELLINGS)
def test_in_captions_csv(root, spelled):
    (root / "captions.csv").write_text(f"image,task,caption\nimages/1.jpg,pug,one\n{spelled},pug,two\n")
    with pytest.raises(BadFile, match=r"captions.csv, line 3: image '.*1.jpg' is already named in line 2, as "):
        Folder().tasks(root)


@pytest.mark.parametrize("spelled", ["images/1.jpg", *SPELLINGS])
def test_in_names_jsonl(root, spelled):
    lines = [{"image": image, "name": "pug"} for image in ("images/1.jpg", spelled)]
    (root / "names.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(BadFile, match=r"names.jsonl, line 2: image '.*1.jpg' is already named in line 1"):
        Folder().images(root)


def test_an_odd_spelling_alone_is_the_image_it_names(root):
    captions_file(root, {"./images//1.jpg": ["a pug"]})
    text = (root / "captions.jsonl").read_text().replace('"captions"', '"task": "pug", "captions"')
    (root / "captions.jsonl").write_text(text)
    (task,) = Folder().tasks(root)
    assert [photo.path for photo in task.photos["train"]] == [root / "images/1.jpg"]
    assert [name for name, _ in Folder().passed_over(root)] == ["images/2.jpg", "linked/1.jpg", "linked/2.jpg"]


ELSEWHERE = {
    "x.jsonl": [{"image": "images/pug/0.jpg"}, {"image": "./images/pug/0.jpg"}],
    "x.csv": "image,caption\nimages/pug/0.jpg,a small pug\n./images/pug/0.jpg,a pug again\n",
    "coco.json": {
        "images": [{"id": 1, "file_name": "0.jpg"}, {"id": 2, "file_name": "./0.jpg"}],
        "annotations": [{"image_id": n, "caption": f"a pug number {n}"} for n in (1, 2)],
    },
    "karpathy.json": {
        "images": [{"filename": name, "sentences": [{"raw": f"a pug {name}"}]} for name in ("0.jpg", "./0.jpg")]
    },
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_in_captions_made_elsewhere(caption, album, tmp_path, name):
    content = ELSEWHERE[name]
    if name.endswith("l"):
        content = "".join(json.dumps({**row, "captions": [f"a pug of {row['image']}"]}) + "\n" for row in content)
    (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    result = caption("--from", tmp_path / name)
    assert result.exit_code == 4
    assert "0.jpg' is already named in " in result.stderr
    assert not (album / "captions.jsonl").exists()


def test_in_the_file_that_captions_are_added_to(caption, album):
    row = {"image": "images/pug/0.jpg", "task": "pug", "captions": ["a small pug"]}
    lines = [json.dumps(row), json.dumps({**row, "image": "./images/pug/0.jpg"})]
    (album / "captions.jsonl").write_text(lines[1] + "\n")
    assert caption("--limit", 1).exit_code == 0  # an odd spelling alone is the image it names
    assert [one["image"] for one in captioned(album)] == ["./images/pug/0.jpg", "images/cat/6.jpg"]
    (album / "captions.jsonl").write_text("\n".join(lines) + "\n")
    result = caption()
    assert result.exit_code == 4
    assert "line 2: image './images/pug/0.jpg' is already named in " in result.stderr


FLICKR = {
    "dataset_flickr30k.json": json.dumps(
        {
            "images": [
                {"filename": name, "split": split, "sentences": [{"raw": "a dog"}]}
                for name, split in (("1.jpg", "train"), ("./1.jpg", "test"))
            ]
        }
    ),
    "flickr30k_train_karpathy.txt": "image,caption\n1.jpg,a dog\n./1.jpg,one dog\n",
    "results_20130124.token": "1.jpg#0\ta dog\n.//1.jpg#0\tone dog\n",
}


@pytest.mark.parametrize("name", FLICKR)
def test_in_annotations_of_flickr(root, name):
    (root / name).write_text(FLICKR[name])
    with pytest.raises(BadFile, match=r"image '\.//?1\.jpg' is already named in .*, as '1.jpg'|in images\[0\]"):
        Flickr30k().tasks(root)


def test_in_the_lists_of_pets_and_flowers(tmp_path):
    pets, flowers = tmp_path / "pets", tmp_path / "flowers"
    pets.mkdir()
    flowers.mkdir()
    pets_tree(pets)
    with (pets / "annotations/test.txt").open("a") as file:
        file.write("Abyssinian_1 1 1 1\n")
    flowers_tree(flowers, [1, 74, 102], {"trnid": [2], "valid": [1], "tstid": [3, 2]})
    for dataset, root, message in (
        (
            Pets(),
            pets,
            r"test.txt, line 5: image 'images/Abyssinian_1.jpg' is already named in .*trainval.txt, line 1",
        ),
        (Flowers(), flowers, r"tstid: image 'jpg/image_00002.jpg' is already named in .*trnid"),
    ):
        for ask in (dataset.tasks, dataset.images):
            with pytest.raises(BadFile, match=message):
                ask(root)


def test_breeds_of_photos_in_folders_are_named_as_their_files(tmp_path):
    pets_tree(tmp_path, ("Abyssinian",), photos=2)
    for name in ("trainval", "test"):
        path = tmp_path / f"annotations/{name}.txt"
        path.write_text(path.read_text().replace("Abyssinian_", "far/Abyssinian_"))
    (tmp_path / "images/far").mkdir()
    for path in (tmp_path / "images").glob("*.jpg"):
        path.rename(path.parent / "far" / path.name)
    assert [(one.image, one.tasks) for one in Pets().images(tmp_path)] == [
        ("images/far/Abyssinian_1.jpg", ("abyssinian",)),
        ("images/far/Abyssinian_2.jpg", ("abyssinian",)),
    ]
