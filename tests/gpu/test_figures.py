"""The script that measures a GPU runs on a CPU, too, with a tiny CLIP."""

from __future__ import annotations

import pytest
from benchmarks.gpu import CHANGES, main


@pytest.mark.slow
def test_the_figures_of_a_gpu_can_be_tried_on_a_cpu(capsys):
    main(["--device", "cpu", "--small", "--no-compile"])
    lines = capsys.readouterr().out.splitlines()
    for way in CHANGES:
        (line,) = [line for line in lines if way.name in line]
        milliseconds, part, share = line.removeprefix(f"  {way.name}").split()
        assert float(milliseconds) > 0
        assert float(part) > 0
        assert 0 <= float(share.rstrip("%")) < 100  # rounded: a busy machine reaches little of its peak
    assert [line.split()[:2] for line in lines if line.strip()[:1].isdigit() and " x " not in line] == [
        *(["1", "2"], ["2", "2"]),  # the default
        ["2", "2"],  # an epoch
        *(["1", "2"], ["2", "2"]),  # with checkpointing
    ]
