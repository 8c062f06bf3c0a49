"""Damaged and odd files are read or refused: never a crash."""

from __future__ import annotations

import contextlib
import json
import random

import pytest
import torch
from thirdparty.sglora_clipling import Clipling

from sglora_cli.adapter.file import AdapterFile
from sglora_cli.adapter.formats import FORMATS
from sglora_cli.adapter.read import read_adapter
from sglora_cli.adapter.write import write_adapter
from sglora_cli.cli.describe_adapter import any_adapter
from sglora_cli.errors import SgloraError
from sglora_cli.files.tensors import load_tensors, save_tensors
from sglora_cli.lora.layout import Layout

pytestmark = pytest.mark.filterwarnings("ignore::sglora_cli.errors.SgloraWarning")
MODEL = Clipling()
LAYOUT = Layout(MODEL.sites, 1, 1.0)
ODD = [None, True, 0, -1, 1.5, float("inf"), "x", "", "(", [], [1], ["q"], [[]], {}, {"a": 1}, [["a", "b"]], 10**30]


@pytest.fixture
def written(tmp_path, request):
    format = FORMATS[request.param]
    path = tmp_path / f"x{format.suffix}"
    metadata = {"fingerprint": MODEL.fingerprint, "backbone": "clipling"}
    write_adapter(path, AdapterFile(LAYOUT, torch.ones(LAYOUT.size), metadata), MODEL, format)
    return path


def read_or_refuse(path) -> None:
    for read in (lambda: read_adapter(path, MODEL), lambda: any_adapter(path)):
        with contextlib.suppress(SgloraError):
            read()


@pytest.mark.parametrize("written", FORMATS, indirect=True)
def test_damaged_bytes(written):
    rng = random.Random(0)
    for file in sorted(written.glob("adapter*")) if written.is_dir() else [written]:
        whole = file.read_bytes()
        for _ in range(40):
            place = rng.randrange(min(len(whole), rng.choice([300, 4000, 10**9])))
            noise = rng.randbytes(rng.randrange(5))
            file.write_bytes(rng.choice([whole[:place], whole[:place] + noise + whole[place + rng.randrange(5) :]]))
            read_or_refuse(written)
        file.write_bytes(whole)
    read_adapter(written, MODEL)


@pytest.mark.parametrize("written", ["peft"], indirect=True)
def test_odd_configurations(written):
    path = written / "adapter_config.json"
    good = json.loads(path.read_text())
    for key in (*good, "rank_pattern", "alpha_pattern", "layers_to_transform", "exclude_modules"):
        for value in ODD:
            path.write_text(json.dumps({**good, key: value}))
            read_or_refuse(written)


@pytest.mark.parametrize("written", ["safetensors", "open_clip"], indirect=True)
def test_odd_provenance(written):
    tensors, good = load_tensors(written)
    for key in (*good, "experts", "imported", "description", "generator"):
        for value in ODD:
            save_tensors(written, tensors, {**good, key: value})
            read_or_refuse(written)


@pytest.mark.parametrize("written", ["clip-lora"], indirect=True)
def test_odd_files_of_clip_lora(written):
    good = torch.load(written, weights_only=True)
    odd = [{**good, "metadata": {**good["metadata"], key: value}} for key in good["metadata"] for value in ODD]
    for value in [*ODD, {"layer_0": None}, {"layer_0": {"q_proj": {}}}, {0: 1}]:
        odd += [{**good, "weights": value}, {**good, "metadata": value}, value, {"state_dict": value}]
    for content in odd:
        torch.save(content, written)
        read_or_refuse(written)
