"""Every command of README.md runs, in its order, in a folder that has what README's readers have."""

from __future__ import annotations

import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
from console import blocks, run
from speckles import speckles, write_rows
from trees import karpathy_files

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"

NOT_RUN = {
    "pip install .": "needs the package index; .ci/run does it in a fresh environment",
    "pip install '.[test,oracle]'": "as above",
    "pytest": "this is pytest",
    "sglora pack import birds.sglora.zip --signers allowed_signers": "needs a key; test_signature.py makes one",
    "sglora data fetch": "needs the network; test_download.py fetches from a server of its own",
}
MORE = {  # what is added to a command as README has it: to name what a list of commands leaves open, or to save time
    "sglora bench --baselines all": "--tasks pug",
    "sglora bench --pack birds --on flowers --rows rows.jsonl": "--tasks pug",
    "sglora bench --table ablation-k": "--tasks pug --baselines top-k",
    "sglora data caption pets --path DIR/oxford-iiit-pet": "--dry-run",  # Qwen2-VL's weights are not here
    "sglora pack build starter --data DIR": "--limit 2 --dry-run",  # test_tutorial.py builds a pack
    "sglora pack remove": "birds --yes",
    "sglora pack export": "starter",
    "sglora pack import": "starter.sglora.zip --name again",
    "sglora plugins check": "starter",
    "sglora cache clean": "--yes",
}


def commands() -> list[str]:
    """Of README's lines: `a && b` and `sglora pack list | show` are two each; comments and repetitions are none."""
    examples = []
    for line in README.read_text(encoding="utf-8").splitlines():
        if line.startswith(("    sglora ", "    pip ")):
            for words in split(shlex.split(line, comments=True), "&&"):
                first, *others = split(words, "|")
                examples += [first, *([*first[:-1], *other] for other in others)]
    return list(dict.fromkeys(shlex.join(words).replace(" '<' ", " < ") for words in examples))


def split(words: list[str], at: str) -> list[list[str]]:
    ends = [n for n, word in enumerate(words) if word == at]
    return [words[start:end] for start, end in zip([0, *(n + 1 for n in ends)], [*ends, None], strict=True)]


COMMANDS = commands()


def write_data(data: Path) -> None:
    """All tasks of the starter recipe, three small pictures each; pets in torchvision's layout besides its own."""
    recipe = tomllib.loads((ROOT / "packs/starter.toml").read_text(encoding="utf-8"))
    seed = 0
    for source in recipe["source"]:
        rows, root = [], data / source["path"]
        photos = "train2014" if source["dataset"] == "coco" else "images"
        (root / photos).mkdir(parents=True)
        for task in [*source["expert"], *source["training"], *source["unseen"]]:
            for n in range(3):
                seed += 1
                image = f"{photos}/{task.replace(' ', '_')}_{n}.jpg"
                speckles(seed).save(root / image)
                texts = [f"the {task} number {n}", f"{task} {n} of three"]
                rows.append({"image": image, "task": task, "split": "test" if n == 2 else "train", "captions": texts})
        karpathy_files(root, rows) if source["dataset"] == "coco" else write_rows(root, rows)
    pets = data / "oxford-iiit-pet"  # the recipe's last source
    (pets / "annotations").mkdir()
    tasks = [*source["expert"], *source["training"], *source["unseen"]]
    for name, numbers in (("trainval", (0, 1)), ("test", (2,))):
        lines = [f"{t.replace(' ', '_')}_{n} {i} 1 {i}\n" for i, t in enumerate(tasks, 1) for n in numbers]
        (pets / "annotations" / f"{name}.txt").write_text("".join(lines))


def prepare(folder: Path) -> None:
    """What README's placeholders stand for: DIR, photos, sentences, a second pack, an adapter made elsewhere."""
    write_data(folder / "DIR")
    shutil.copytree(folder / "DIR" / "flowers", folder / "photos")
    for seed in range(80):  # of eight tasks, a folder each, without captions
        place = folder / "my-photos" / f"task {seed % 8}"
        place.mkdir(parents=True, exist_ok=True)
        speckles(1000 + seed).save(place / f"{seed}.jpg")
    (folder / "sentences.txt").write_text("a photo of a pug\na photo of a rose\n")
    for command in (
        'sglora generate "a photo of a teapot" --generator cvae -o teapot-peft/',
        'sglora generate "a photo of a persian" -o persian.safetensors',
        "sglora pack export starter -o both.sglora.zip",
        "sglora pack import both.sglora.zip --name birds",
        "sglora pack import both.sglora.zip --name flowers",
    ):
        code, output = run(command)
        assert code == 0, output


def run_alone(command: str) -> tuple[int, str]:
    """Run it as if no earlier line had written a file of the name that it writes."""
    words = shlex.split(command)
    if "-o" in words and (out := Path(words[words.index("-o") + 1])).is_file():
        out.unlink()
    return run(f"{command} {MORE.get(command, '')}")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("readme")
        patch.chdir(folder)
        patch.setenv("SGLORA_HOME", str(folder / "home"))
        patch.setenv("SGLORA_OFFLINE", "1")
        prepare(folder)
        return {command: run_alone(command) for command in COMMANDS if command not in NOT_RUN}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_runs(command, done):
    if command in NOT_RUN:
        pytest.skip(NOT_RUN[command])
    code, output = done[command]
    assert code == 0, output


def test_the_tables_above_speak_of_commands_that_are_there():
    assert set(NOT_RUN) | set(MORE) <= set(COMMANDS)


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for seed in range(3):
        speckles(seed).save(f"photos/{seed}.jpg")
    (python,) = (block.text for block in blocks(README) if block.language == "python")
    exec(compile(python, "README.md", "exec"), {})
