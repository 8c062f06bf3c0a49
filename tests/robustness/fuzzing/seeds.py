"""Good files for every reader, made by the program itself or in the layouts of trees.py: each fills a folder."""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
import trees
from PIL import Image
from safetensors.torch import save_file
from small_clip import small_clip
from speckles import speckles
from thirdparty.sglora_clipling import Clipling
from toys import COLOURS, EXPERTS, RECIPE, TRAINING, UNSEEN

from sglora_cli.adapter.file import AdapterFile
from sglora_cli.adapter.formats import FORMATS
from sglora_cli.adapter.write import write_adapter
from sglora_cli.bench.rows_file import Header, pack_hits, row_line
from sglora_cli.files.tensor_rows import TensorDraft
from sglora_cli.files.tensors import save_tensors
from sglora_cli.lora.layout import Layout

Seed = Callable[[Path], None]
MODEL = Clipling()


def adapter(format: str, name: str) -> Seed:
    def fill(folder: Path) -> None:
        layout = Layout(MODEL.sites, 2, 4.0)
        flat_P = torch.randn(layout.size, generator=torch.Generator().manual_seed(0)) * 0.2
        metadata = {
            "fingerprint": MODEL.fingerprint,
            "backbone": "clipling",
            "description": "a mug",
            "experts": [["toys/ball", 0.5]],
            "generator": "cvae",
            "pack": "toys",
        }
        write_adapter(folder / name, AdapterFile(layout, flat_P, metadata), MODEL, FORMATS[format])

    return fill


def old_peft(folder: Path) -> None:
    """A PEFT folder from before safetensors, with every table its configuration may have."""
    state = {}
    for site in MODEL.sites[:6]:
        state[f"base_model.model.{site.name}.lora_A.weight"] = torch.ones(2, 16)
        state[f"base_model.model.{site.name}.lora_B.weight"] = torch.ones(16, 2)
    torch.save(state, folder / "adapter_model.bin")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": r".*\.layers\.[01]\..*(q|k|v)_proj"}
    tables = {"rank_pattern": {"layers.0.self_attn.q_proj": 2}, "alpha_pattern": {r"layers\.1{1,2}\..*": 8}}
    (folder / "adapter_config.json").write_text(json.dumps({**config, **tables, "use_rslora": True}))


def layers_peft(zipped: bool) -> Seed:
    """A PEFT folder of another program in a new or old PyTorch file: it names its base, its layers and a rank."""

    def fill(folder: Path) -> None:
        state = {}
        for site in MODEL.sites[3:9]:
            rank = 1 if site.name.endswith("layers.1.self_attn.q_proj") else 2
            numbers = torch.arange(16.0 * rank).reshape(rank, 16)
            state[f"base_model.model.{site.name}.lora_A.weight"] = torch.nn.Parameter(numbers.bfloat16())
            state[f"base_model.model.{site.name}.lora_B.weight"] = numbers.T
        torch.save(state, folder / "adapter_model.bin", _use_new_zipfile_serialization=zipped)
        config = {
            "peft_type": "LORA",
            "base_model_name_or_path": "clipling",
            "revision": "main",
            "auto_mapping": {"base_model_class": "CLIPVisionModel", "parent_library": "transformers.models.clip"},
            "task_type": None,
            "r": 2,
            "lora_alpha": 4,
            "target_modules": ["q_proj", "k_proj", "v_proj"],
            "exclude_modules": ["out_proj"],
            "layers_to_transform": [1, 2],
            "layers_pattern": "layers",
            "rank_pattern": {"layers.1.self_attn.q_proj": 1},
        }
        (folder / "adapter_config.json").write_text(json.dumps(config))

    return fill


def wrapped_peft(folder: Path) -> None:
    """A PEFT state in a training checkpoint: of a compiled model, and with the name of its adapter."""
    state = {}
    for site in MODEL.sites[:3]:
        name = f"module._orig_mod.base_model.model.{site.name.replace('self_attn', '_orig_mod.self_attn')}"
        state[f"{name}.lora_A.pug.weight"] = torch.ones(2, 16)
        state[f"{name}.lora_B.pug.weight"] = torch.ones(16, 2)
    torch.save({"model_state_dict": state, "epoch": 3}, folder / "x.pt")
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": r".*\.0\._orig_mod\.self_attn\.[qkv]_proj",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8-sig")


def pytorch(zipped: bool) -> Seed:
    """What torch.save writes of shared, strided and scalar tensors, tables and numbers."""

    def fill(folder: Path) -> None:
        x, state = torch.arange(12.0).reshape(3, 4), torch.nn.Linear(3, 2).half().state_dict()
        content = {"state_dict": state, "t": x.T, "row": x[1], "one": torch.tensor(2.5), "none": torch.ones(0, 4)}
        content |= {"parameter": torch.nn.Parameter(x), "eight": x.to(torch.uint8), "size": x.shape}
        content |= {"epoch": 3, "lr": [0.1, (1, None)], "é": True, "optimizer": {"state": {0: {"step": x}}, "on": [0]}}
        torch.save(content, folder / "x.pt", _use_new_zipfile_serialization=zipped)

    return fill


def tensors(folder: Path) -> None:
    content = {"rows": torch.ones(5, 3), "half": torch.ones(4, 2).half(), "one": torch.tensor([1.0])}
    save_tensors(folder / "x.safetensors", content, {"step": 3, "history": [0.5, 0.25]})
    shapes = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in content.items()}
    draft = TensorDraft(folder / "rows.safetensors", shapes, {"kind": "rows"})
    for name, tensor in content.items():
        draft.put(name, 0, tensor)
    draft.finish()
    draft.close()


def checkpoint(name: str) -> Seed:
    """Weights of a CLIP, a small one, as open_clip's or transformers' files have them."""

    def fill(folder: Path) -> None:
        state = {key: value for key, value in small_clip().clip.state_dict().items() if "transformer" not in key}
        state = {key: value[:20] for key, value in state.items() if value.ndim}
        if name.endswith(".pt"):
            torch.save({"state_dict": state, "epoch": 1}, folder / name)
        else:
            save_file({key: value.contiguous() for key, value in state.items()}, folder / name)
        config = {"model_cfg": {"quick_gelu": True}, "preprocess_cfg": {"size": 224, "mean": [0, 0, 0]}}
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        towers = {"vision_config": {"hidden_size": 768, "image_size": 224}, "text_config": {"hidden_act": "quick_gelu"}}
        (folder / "config.json").write_text(json.dumps({"model_type": "clip", "projection_dim": 512, **towers}))
        photos = {"size": {"shortest_edge": 224}, "crop_size": 224, "resample": 3, "image_mean": [0, 0, 0]}
        photos |= {"do_resize": True, "do_rescale": True, "rescale_factor": 0.00392156862745098}
        (folder / "preprocessor_config.json").write_text(json.dumps(photos))

    return fill


def recipe(folder: Path) -> None:
    """The toys' recipe with every table and key that a recipe may have."""
    head, _, tail = RECIPE.partition("[train]")
    more = (
        'template = "a photo of a {name}"\nprompts = ["Describe the {class}."]\n[lora]\nrank = 2\nalpha = 4.0\n[train]'
    )
    source = 'description = "an old {name}"\nphotos = 5\npath = "x/y"\ndataset = "folder"\n'
    (folder / "toys.toml").write_text(head + more + tail + source)


def user_settings(folder: Path) -> None:
    (folder / "settings.toml").write_text('pack = "toys"\nbackbone = "tiny"\ndata = "/data"\ngenerator = "mean"\n')


def toys(folder: Path) -> None:
    """A data set of four tasks in captions.jsonl."""
    rows = []
    for t, task in enumerate((*EXPERTS, *TRAINING, *UNSEEN)):
        for n in range(8):
            name = f"images/{task}_{n}.png"
            trees.picture(folder / name, t * 10 + n)
            captions = [f"a {list(COLOURS)[n % 5]} {task}", f"{task} number {n}"]
            rows.append({"image": name, "task": task, "split": "train" if n < 5 else "test", "captions": captions})
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def few(name: str, text: str) -> Seed:
    """A captions file, or a list of names, of two images."""

    def fill(folder: Path) -> None:
        for n in (1, 2, 3, 4):
            trees.picture(folder / f"images/{n}.png", n)
        (folder / name).write_text(text)

    return fill


JSONL = (
    '{"image": "images/1.png", "task": "pug", "split": "train", "captions": ["a pug", "one dog"], "by": "x, 4"}\n'
    '{"image": "images/2.png", "task": "cat", "split": "test", "captions": ["a cat"]}\n'
)
CLASSES = "".join(
    f'{{"image": "images/{n}.png", "task": "pug", "split": "train", "class": "{c}"}}\n' for n, c in enumerate("abab", 1)
)
CSV = """\
image,task,split,caption
images/1.png,pug,train,a pug
images/1.png,pug,train,one dog
images/2.png,cat,test,a cat
"""
NAMES = '{"image": "images/1.png", "name": "pug"}\n{"image": "images/2.png", "name": "cat", "split": "test"}\n'
COCO_CAPTIONS = {
    "images": [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": "2.png"}],
    "annotations": [{"image_id": 1, "caption": "a pug"}, {"image_id": 2, "caption": "a cat"}],
}
KARPATHY = {
    "images": [
        {
            "filename": f"{n}.jpg",
            "filepath": "train2014",
            "cocoid": n,
            "split": split,
            "sentences": [{"raw": f"a dog {n}"}],
        }
        for n, split in enumerate(("train", "restval", "test", "val"), 1)
    ]
}


def flickr(name: str, text: str) -> Seed:
    def fill(folder: Path) -> None:
        for n in (1, 2, 3, 4):
            trees.picture(folder / f"images/{n}.jpg", n)
        (folder / name).write_text(text)

    return fill


def karpathy_coco(folder: Path) -> None:
    trees.coco_tree(folder, {n: [("cat", 0)] for n in (1, 2, 3, 4)}, "train2014")
    for n in (1, 2, 3, 4):
        trees.picture(folder / f"train2014/{n}.jpg", n)
    (folder / "dataset_coco.json").write_text(json.dumps(KARPATHY))


def coco(folder: Path) -> None:
    trees.coco_tree(folder, {1: [("cat", 0)], 2: [("dog", 0), ("cat", 1)], 3: [("bottle", 0)]})


def pets(folder: Path) -> None:
    trees.pets_tree(folder)


def flowers(folder: Path) -> None:
    trees.flowers_tree(folder, [1, 1, 2, 2, 3], {"trnid": [1, 3], "valid": [5], "tstid": [2, 4]})


def cifar(binary: bool) -> Seed:
    def fill(folder: Path) -> None:
        trees.cifar_tree(folder, trees.cifar_speckles(2, 1), binary=binary)

    return fill


def shards(folder: Path) -> None:
    for n in range(3):
        speckles(n, 16).save(folder / f"{n}.jpg")
        (folder / f"{n}.txt").write_text(f"a dog {n}\nanother {n}\n")
        (folder / f"{n}.json").write_text(json.dumps({"task": "dog", "split": "train" if n else "test", "cls": 3}))
    with tarfile.open(folder / "0.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(folder.glob("[012].[jt]*[gtn]")):
            tar.add(path, path.name)
            path.unlink()


def archives(folder: Path) -> None:
    files = {"photos/1.jpg": b"\xff\xd8" + bytes(300), "photos/2.jpg": bytes(range(256)), "list.txt": b"1\n2\n"}
    with zipfile.ZipFile(folder / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    (folder / "photos").mkdir()
    with tarfile.open(folder / "x.tar.gz", "w:gz") as tar:
        for name, content in files.items():
            (folder / name).write_bytes(content)
            tar.add(folder / name, name)
            (folder / name).unlink()


def pictures(folder: Path) -> None:
    image = speckles(1, 24)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    image.save(folder / "a.png", exif=exif)
    image.convert("P").save(folder / "b.png", transparency=3)
    image.save(folder / "c.jpg", exif=exif)
    image.save(folder / "d.jpg", progressive=True)
    image.save(folder / "e.webp", exif=exif)
    image.save(folder / "f.gif", save_all=True, append_images=[speckles(2, 24)])
    image.save(folder / "g.bmp")
    image.save(folder / "h.tif", compression="tiff_lzw")
    deep = Image.frombytes("I;16", (24, 24), bytes(range(256)) * 4 + bytes(128))
    deep.save(folder / "i.png")
    deep.save(folder / "j.tif", exif=exif)
    deep.save(folder / "k.pgm")


def rows(folder: Path) -> None:
    from sglora_cli.plugin.values import Row

    header = Header(
        "toys", "tiny", {"zero-shot": "CLIP", "top-k": "Top-K", "oracle": "Oracle"}, more={"protocol": {"rank": 2}}
    )
    lines = [header.line()]
    for method in header.labels:
        for task in ("mug", "nest", "hat"):
            for direction in ("I2T", "T2I", "ACC"):
                hits = [method == "oracle", True, False, task == "mug"]
                value = 100 * sum(hits) / len(hits)
                lines.append(row_line(Row(method, "toys", task, 0, direction, 1, value, 0, pack_hits(hits))))
    (folder / "rows.jsonl").write_text("".join(lines))


def sentences(folder: Path) -> None:
    (folder / "a.txt").write_text("a photo of a pug\n2.0 | a small dog\n\n0.5 | a flat face\n")
    (folder / "b.json").write_text('["a pug", "a small dog"]')
    (folder / "c.json").write_text('{"a pug": 2.0, "a small dog": 1}')
