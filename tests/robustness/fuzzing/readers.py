"""Who reads files: a good folder to damage, and the call that must read it or raise a SgloraError."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import open_clip
from click.testing import CliRunner
from distributions import HERE, install
from toys import RECIPE

from fuzzing import seeds
from fuzzing.seeds import MODEL, Seed
from sglora_cli.adapter.checkpoint import read_state
from sglora_cli.adapter.read import read_adapter
from sglora_cli.adapter.torch_files import load_pickle
from sglora_cli.bench import rows_file
from sglora_cli.build import prerequisites
from sglora_cli.cli import describe, describe_adapter, describe_recipe
from sglora_cli.cli.main import main
from sglora_cli.config import CaptionConfig, RuntimeConfig
from sglora_cli.data import caption_file, encode
from sglora_cli.data import description as description_module
from sglora_cli.data.caption_writer import CaptionJob, take_captions
from sglora_cli.files import images, tensors, text
from sglora_cli.files.tensor_rows import TensorRows
from sglora_cli.files.tensors import Checkpoint
from sglora_cli.generate.session import Session
from sglora_cli.pack import library, recipe_parser
from sglora_cli.pack import pack as pack_module
from sglora_cli.pack.archive import import_pack
from sglora_cli.pack.coverage import load_coverage
from sglora_cli.pack.loaded import LoadedPack
from sglora_cli.plugin.contracts import ListsImages
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import Listed
from sglora_cli.system import paths, settings
from sglora_datasets.archive import unpacked
from sglora_datasets.cifar100 import Cifar100
from sglora_datasets.coco import Coco
from sglora_datasets.download import Remote, check
from sglora_datasets.flickr30k import Flickr30k
from sglora_datasets.flowers import Flowers
from sglora_datasets.folder import Folder
from sglora_datasets.pets import Pets
from sglora_datasets.webdataset import WebDataset
from sglora_openclip import agreement, weights


class Escape(Exception):
    """A command that let something through: an exception, an exit code of no error, a control character."""


@dataclass(frozen=True)
class Reader:
    name: str
    seed: Seed
    damaged: str
    """Pattern of the files that get damaged."""
    read: Callable[[Path], object]
    share: float = 1.0
    """Of the inputs: the slow readers get fewer."""


@cache
def host() -> Host:
    """With the strangers' backbones `tiny` and `clipling` installed."""
    site = Path(os.environ["SGLORA_HOME"]) / "site"
    site.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(site))
    for name in ("tiny", "clipling"):
        install(site, f"sglora-{name}", f"sglora_{name}", (HERE / f"thirdparty/sglora_{name}.py").read_text())
    return Host.load()


def command(*arguments: object) -> str:
    """What the program prints. Raises Escape for anything but a result or an announced error."""
    host()
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise Escape(f"{arguments[0]}: {type(result.exception).__name__}") from result.exception
    if result.exit_code not in (0, 2, 3, 4, 5, 6, 7):
        raise Escape(f"exit code {result.exit_code}: {result.output[-300:]}")
    if odd := [c for c in result.output if not c.isprintable() and c not in "\n\t"]:
        raise Escape(f"{arguments[:2]} printed {odd[:3]!r}")
    return result.output


def all_tensors(folder: Path) -> None:
    path = folder / "x.safetensors"
    try:
        tensors.load_tensors(path)
    finally:
        Checkpoint(path).load()
        for name in ("rows", "half", "one"):
            rows = TensorRows(folder / "rows.safetensors", name)
            rows.check()
            _ = rows[0], rows[list(range(min(len(rows), 3)))]


def any_adapter(name: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        path = folder / name
        try:
            read_adapter(path, MODEL)
        finally:
            describe_adapter.any_adapter(path)

    return read


def pack_seed(folder: Path) -> None:
    """The toy pack, built once a process."""
    shutil.copytree(built(), folder, dirs_exist_ok=True)


ALIKE = {"ball": "C++", "box": "C#", "cup": "Polish", "hat": "polish", "jar": "猫"}
"""Names of tasks whose files would be hard to tell apart if their names were only simplified."""


def format_one_seed(folder: Path) -> None:
    """A toy pack of the format that no version writes any more."""
    with zipfile.ZipFile(Path(__file__).parents[2] / "pack/content/format-1.sglora.zip") as archive:
        archive.extractall(folder)


@cache
def built() -> Path:
    home = Path(os.environ["SGLORA_HOME"])
    data = home / "data" / "toys"
    data.mkdir(parents=True)
    seeds.toys(data)
    rows, recipe = (data / "captions.jsonl").read_text(), RECIPE.replace("[[source]]", '[[source]]\ndataset = "folder"')
    for name, other in ALIKE.items():
        rows = rows.replace(f'"task": "{name}"', f'"task": "{other}"')
        recipe = recipe.replace(f'"{name}"', f'"{other}"')
    (data / "captions.jsonl").write_text(rows)
    (home / "toys.toml").write_text(recipe)
    command("pack", "build", home / "toys.toml", "--data", data.parent, "-o", home / "built")
    assert (home / "built" / "pack.json").is_file(), "the toy pack is not built"
    return home / "built"


def archive_seed(folder: Path) -> None:
    command("pack", "export", built(), "-o", folder / "x.sglora.zip")


def whole_pack(folder: Path) -> None:
    """Everything a command may ask of a pack: verified, shown, and used to generate."""
    library.PackLocation("x", folder, "folder").summary()
    pack = pack_module.Pack(folder)
    pack.verify()
    describe.pack_facts(pack, describe.pack_health(pack))
    pack.check_content()
    load_coverage(pack)
    _ = pack.gauge, len(list(pack.tasks))
    list(pack.unseen())
    for generator in ("cvae", "top-k", "ties"):
        Session(LoadedPack(host(), pack, RuntimeConfig()), generator, force=True).generate("a photo of a mug")


def imported(folder: Path) -> None:
    try:
        import_pack(host(), folder / "x.sglora.zip")
    finally:
        shutil.rmtree(paths.built_folder(), ignore_errors=True)


def recipe_seed(folder: Path) -> None:
    """A recipe and the data set it names."""
    seeds.recipe(folder)
    (folder / "x/y").mkdir(parents=True)
    seeds.toys(folder / "x/y")


def a_recipe(folder: Path) -> None:
    path = folder / "toys.toml"
    recipe = recipe_parser.read(path)
    describe_recipe.recipe_facts(recipe), describe_recipe.numbers(recipe)
    prerequisites.plan_tasks(host(), recipe, folder)


def user_settings(folder: Path) -> None:
    path = paths.settings_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "settings.toml", path)
    try:
        settings.load()
    finally:
        path.unlink()


def layout(*kinds: object) -> Callable[[Path], None]:
    """Tasks and images of a data set. What it put into the user cache goes again."""

    def read(folder: Path) -> None:
        try:
            for kind in kinds:
                kind.tasks(folder)  # type: ignore[attr-defined]
        finally:
            for name in ("images", "unpacked"):
                shutil.rmtree(paths.cache_folder() / name, ignore_errors=True)
            for kind in kinds:
                if isinstance(kind, ListsImages):
                    kind.images(folder)

    return read


def captions_elsewhere(folder: Path) -> None:
    listed = [Listed(f"images/{n}.png", folder / f"images/{n}.png", ("pug",), "train") for n in (1, 2, 3, 4)]
    for path in sorted(folder.glob("captions.*")):
        if path.suffix == ".jsonl":
            try:
                caption_file.read_lines(path)
            finally:
                text.drop_torn_line(path)
        job = CaptionJob("folder", folder, folder / "made.jsonl", listed, {})
        take_captions(job, path, CaptionConfig(), dry=True)


def archive(name: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        try:
            unpacked(folder / name, folder / "out")
            if name.endswith(".zip"):
                shutil.copyfile(folder / name, folder / "copy.zip")
                check(Remote("http://localhost/x.zip"), folder / "copy.zip")
        finally:
            shutil.rmtree(folder / "out", ignore_errors=True)

    return read


def one_image(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        images.read_image(path)


def each(pattern: str, read: Callable[[Path], object]) -> Callable[[Path], None]:
    def all_of(folder: Path) -> None:
        for path in sorted(folder.glob(pattern)):
            read(path)

    return all_of


def described(path: Path) -> None:
    description = description_module.Description.of(*description_module.read_texts(path))
    MODEL.encode_text(description.texts)
    encode.mean_direction(description.weights, MODEL.encode_text(description.texts))


def clip_weights(folder: Path) -> None:
    found = weights.read(folder)
    config = open_clip.get_model_config("ViT-B-16")
    agreement.preprocessing("ViT-B-16", "", found.path, found.beside)
    agreement.check_architecture(found.beside, "ViT-B-16", config)


PACK_COMMANDS = (
    ("inspect",),
    ("pack", "show"),
    ("generate", "a mug", "--explain", "--pack"),
    ("bench", "--resamples", 100, "--pack"),
)
PAGES = (
    ("--as", "csv"),
    ("--as", "markdown"),
    ("--as", "latex"),
    ("--as", "html"),
    ("--as", "json"),
    ("--as", "table"),
)


def pack_commands(folder: Path) -> None:
    for words in PACK_COMMANDS:
        command(*words, folder)


def report_commands(folder: Path) -> None:
    for words in PAGES:
        command("report", folder / "rows.jsonl", "--resamples", 100, *words)


def data_commands(folder: Path) -> None:
    command("data", "check", "folder", "--path", folder, "--report", folder / "page.html")
    command(
        "data",
        "caption",
        "folder",
        "--path",
        folder,
        "--from",
        folder / "captions.jsonl",
        "-o",
        folder / "made.jsonl",
        "--dry-run",
    )


def file_commands(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        command("inspect", path)
        command("diff", path, path)


def names_of(folder: Path) -> None:
    Folder().images(folder)


def few_and(seed: Seed, *more: Seed) -> Seed:
    return lambda folder: [fill(folder) for fill in (seed, *more)] and None


FEW = {name: seeds.few(f"captions.{name}", text) for name, text in (("jsonl", seeds.JSONL), ("csv", seeds.CSV))}
JSONS = {
    "coco captions": seeds.few("captions.json", seeds.json.dumps(seeds.COCO_CAPTIONS)),
    "karpathy captions": seeds.few(
        "captions.json",
        seeds.json.dumps(seeds.KARPATHY).replace('"filepath": "train2014", ', "").replace(".jpg", ".png"),
    ),
}
FLICKR = {
    "dataset_flickr30k.json": seeds.json.dumps(seeds.KARPATHY),
    "flickr30k_train_karpathy.txt": "title\n1.jpg,a dog\n1.jpg,one dog, two\n2.jpg,a cat\n",
    "results_20130124.token": "1.jpg#0\ta dog\n1.jpg#1\tone dog\n2.jpg#0\ta cat\n",
}
ADAPTERS = {"safetensors": "x.safetensors", "peft": "x", "open_clip": "x.safetensors", "clip-lora": "x.pt"}

READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        Reader("tensors", seeds.tensors, "*.safetensors", all_tensors, 3),
        *(
            Reader(f"adapter {format}", seeds.adapter(format, name), "**/*[st]", any_adapter(name), 0.3)
            for format, name in ADAPTERS.items()
        ),
        Reader("adapter peft config", seeds.adapter("peft", "x"), "x/*.json", any_adapter("x"), 1),
        Reader("adapter peft wrapped", seeds.wrapped_peft, "*.[pj]*", any_adapter("x.pt"), 1),
        Reader("adapter peft old", seeds.old_peft, "*.[bj]*", any_adapter("."), 1.5),
        *(
            Reader(f"adapter layers {kind}", seeds.layers_peft(kind == "zip"), "*.[bj]*", any_adapter("."), 1)
            for kind in ("zip", "stream")
        ),
        *(
            Reader(f"pytorch {kind}", seeds.pytorch(kind == "zip"), "*.pt", each("*.pt", load_pickle), 1.5)
            for kind in ("zip", "stream")
        ),
        Reader("weights .pt", seeds.checkpoint("pytorch_model.pt"), "*.pt", each("*.pt", read_state), 0.4),
        Reader("weights folder", seeds.checkpoint("model.safetensors"), "*", clip_weights, 0.3),
        Reader("pack", pack_seed, "**/*[snl]", whole_pack, 0.3),
        Reader("pack of format 1", format_one_seed, "**/*[sn]", whole_pack, 0.1),
        Reader("pack archive", archive_seed, "*.zip", imported, 0.6),
        Reader("recipe", recipe_seed, "*.toml", a_recipe, 1.5),
        Reader("settings", seeds.user_settings, "*.toml", user_settings, 1.5),
        *(Reader(f"captions {name}", seed, "captions.*", layout(Folder()), 1.5) for name, seed in FEW.items()),
        Reader("captions classes", seeds.few("captions.jsonl", seeds.CLASSES), "captions.*", layout(Folder()), 1),
        Reader("captions names", seeds.few("names.jsonl", seeds.NAMES), "names.*", names_of, 1.5),
        *(
            Reader(f"elsewhere {name}", seed, "captions.*", captions_elsewhere, 1.5)
            for name, seed in (FEW | JSONS).items()
        ),
        Reader("data coco", seeds.coco, "annotations/*", layout(Coco()), 1),
        Reader("data coco karpathy", seeds.karpathy_coco, "*.json", layout(Coco()), 0.7),
        *(
            Reader(f"data flickr {n.rpartition('.')[2]}", seeds.flickr(n, t), n, layout(Flickr30k()))
            for n, t in FLICKR.items()
        ),
        Reader("data pets", seeds.pets, "annotations/*", layout(Pets()), 1),
        Reader("data flowers", seeds.flowers, "*.mat", layout(Flowers()), 1),
        Reader("data cifar", seeds.cifar(False), "[tm]*", layout(Cifar100()), 0.6),
        Reader("data cifar binary", seeds.cifar(True), "*", layout(Cifar100()), 0.3),
        Reader("data shards", seeds.shards, "*.tar", layout(WebDataset()), 1),
        Reader("unpack zip", seeds.archives, "*.zip", archive("x.zip"), 1),
        Reader("unpack tar.gz", seeds.archives, "*.gz", archive("x.tar.gz"), 1),
        Reader("images", seeds.pictures, "*", one_image, 2),
        Reader("rows", seeds.rows, "*", each("*", rows_file.read_rows), 2),
        Reader("sentences", seeds.sentences, "*", each("*", described), 2),
        Reader("command pack", pack_seed, "**/*[snl]", pack_commands, 0.01),
        Reader("command report", seeds.rows, "*", report_commands, 0.02),
        Reader("command data", few_and(FEW["jsonl"]), "captions.*", data_commands, 0.04),
        Reader("command recipe", seeds.recipe, "*.toml", file_commands, 0.1),
        Reader(
            "command adapter",
            few_and(seeds.adapter("safetensors", "x.safetensors"), seeds.adapter("clip-lora", "x.pt")),
            "*",
            file_commands,
            0.05,
        ),
    )
}
