"""Command lines of all kinds run in one folder, one after the other, as somebody types them who tries everything."""

from __future__ import annotations

import pytest
from console import newcomer_in
from demo_folder import run_alone, write_demo

COMMANDS = """
generate "a photo of a pug" -o pug.safetensors
generate "a photo of a pug" --explain
generate - -o "{n}.safetensors" < sentences.txt
search photos "a pug on a sofa" --adapter pug.safetensors
classify photos --name pug --name beagle
list
try pug.safetensors --images photos --report pug.html
inspect pug.safetensors
diff pug.safetensors persian.safetensors
export pug.safetensors -o pug-peft/
import pug-peft/ -o pug.safetensors
bench --tasks pug --dry-run
bench --baselines all --tasks pug
bench --pack birds --on flowers --rows rows.jsonl --tasks pug
bench --adapter pug-peft/ --tasks pug
bench --table ablation-k --tasks pug --baselines top-k
report rows.jsonl -o report.html --pack birds
data check folder --path photos --report photos.html
data list
data fetch coco --data DIR --dry-run
data caption pets --path DIR/oxford-iiit-pet --dry-run
data caption folder --path my-photos --captioner names
pack init my.toml --data my-photos
pack init
pack recipes
pack build starter --data DIR --dry-run
pack build starter --data DIR --limit 2 --dry-run
pack add starter teapot-peft/ --text "a photo of a teapot"
pack list
pack show
pack verify
pack remove birds --yes
pack export starter
pack import starter.sglora.zip --name again
pack migrate flowers
plugins list
plugins doctor
plugins check starter
plugins new birds --kind dataset
doctor
settings
settings set data DIR
cache info
cache clean --yes
completion bash
completion zsh
completion fish
schema bench
docs
""".strip().splitlines()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("commands")
    with newcomer_in(folder):
        write_demo(folder)
        return {command: run_alone(f"sglora {command}") for command in COMMANDS}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_line_runs(command, done):
    code, output = done[command]
    assert code == 0, output
