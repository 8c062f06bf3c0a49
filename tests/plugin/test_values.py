"""Values that travel between host and plugins."""

from __future__ import annotations

from dataclasses import replace

import torch
from tiny_tasks import task

from sglora_cli.plugin.values import TaskTensors


def test_some_photos_of_a_task_keep_their_own_captions():
    whole = replace(task("a", 5), mirror=task("a", 5))
    some = whole.only([3, 1])
    assert torch.equal(some.stem_N, torch.stack([whole.stem_N[3], whole.stem_N[1]]))
    # Two captions a photo, in the order of the captions: those of photo 1 come first.
    assert torch.equal(some.text_CD, whole.text_CD[[2, 3, 6, 7]])
    assert some.image_of == (1, 1, 0, 0)
    assert some.mirror is not None
    assert torch.equal(some.mirror.stem_N, some.stem_N)


def test_some_photos_of_a_classification_task_keep_all_its_classes():
    whole = TaskTensors("fish", torch.rand(4, 2, 3), torch.rand(3, 8), (), (2, 0, 1, 2))
    some = whole.only([0, 1])
    assert some.label_of == (2, 0)
    assert torch.equal(some.text_CD, whole.text_CD)
