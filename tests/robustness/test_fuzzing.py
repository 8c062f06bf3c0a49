"""A little of tests/robustness/fuzz.py: each reader reads what is good, and reads or refuses what is not."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from fuzzing.containers import mutated
from fuzzing.readers import READERS

from sglora_cli.errors import SgloraError

FEW = 25
QUICK = [name for name in READERS if not name.startswith(("command", "pack", "weights"))]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", QUICK)
def test_damaged_files_are_read_or_refused(name, tmp_path):
    reader = READERS[name]
    reader.seed(tmp_path)
    reader.read(tmp_path)
    good = {path: path.read_bytes() for path in sorted(tmp_path.glob(reader.damaged)) if path.is_file()}
    for n in range(FEW):
        rng = random.Random(f"test {name} {n}")
        path = rng.choice(list(good))
        path.write_bytes(mutated(rng, good[path], path.name))
        with suppress(SgloraError):
            reader.read(tmp_path)
        path.write_bytes(good[path])


def test_an_input_depends_on_its_number_alone():
    data = b'{"image": "a.png", "captions": ["x", "y"]}\n' * 3
    one, two = (mutated(random.Random("0 x 7"), data, "captions.jsonl") for _ in range(2))
    assert one == two != data
