"""Experts in files of many are read by row, and tasks by line: the same as all at once, and only what is asked for."""

from __future__ import annotations

import pytest
import torch

from sglora_cli.errors import BadFile
from sglora_cli.files import plain_rows
from sglora_cli.lora.layout import Layout, Site
from sglora_cli.pack.content.format_two import nearest_others
from sglora_cli.pack.content.shards import ExpertShards, save_shard, shard_rows
from sglora_cli.pack.content.tasks import Keys, TaskLines, parts, tasks_file, write_tasks

LAYOUT = Layout((Site("q", 5, 7),), rank=2, alpha=2.0)
SHARDS = (4, 1, 3)


@pytest.fixture
def numbers() -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    mean_EP, variance_EP = torch.randn(8, LAYOUT.size, generator=rng), torch.rand(8, LAYOUT.size, generator=rng)
    index_ED, meaning_EW = torch.randn(8, 6, generator=rng), torch.randn(8, 5, generator=rng)
    return {"mu": mean_EP, "var": variance_EP, "index": index_ED, "meaning": meaning_EW}


@pytest.fixture
def experts(tmp_path, numbers) -> ExpertShards:
    for shard in range(len(SHARDS)):
        save_shard(tmp_path, shard, {name: tensor.split(SHARDS)[shard] for name, tensor in numbers.items()})
    return ExpertShards(tmp_path, SHARDS, [f"x/{n}" for n in range(8)], LAYOUT)


@pytest.mark.parametrize("most", [2, 100])  # experts that stay in memory
def test_rows_of_any_file_are_those_that_were_written(experts, numbers, most, monkeypatch):
    monkeypatch.setattr(experts, "_most", most)
    mean_EP, variance_EP = numbers["mu"], numbers["var"]
    for rows in ([0], [7], [3, 4, 5], [6, 0, 6], [-1]):
        assert torch.equal(experts.means(rows), mean_EP[rows])
        assert torch.equal(experts.variances(rows), variance_EP[rows])
    assert torch.equal(experts.means(), mean_EP)
    assert torch.equal(experts.variances(), variance_EP)
    assert torch.equal(experts.index_ED, numbers["index"])
    assert torch.equal(experts.meaning_EW, numbers["meaning"])
    means, variances = (torch.cat(some) for some in zip(*experts.chunks(), strict=True))
    assert torch.equal(means, mean_EP)
    assert torch.equal(variances, variance_EP)


def test_of_a_file_only_the_rows_that_are_asked_for_are_read(experts, monkeypatch):
    read, real = [], plain_rows.PlainRows.read
    monkeypatch.setattr(plain_rows.PlainRows, "read", lambda rows, n, m: read.append((n, m)) or real(rows, n, m))
    experts.means([1, 6])
    experts.variances([6])  # kept
    assert read == [(1, 1), (1, 1), (1, 1), (1, 1)]  # mean and variance of row 1 of the first file, and of the last


def test_a_bad_row_is_noticed_when_it_is_read_and_not_before(tmp_path, numbers, experts):
    numbers["var"][6, 3] = -1
    save_shard(tmp_path, 2, {name: tensor[5:] for name, tensor in numbers.items()})
    assert torch.equal(experts.means([5]), numbers["mu"][5:6])
    with pytest.raises(BadFile, match=r"00002\.safetensors has a negative variance"):
        experts.means([6])


def test_a_file_has_at_most_1024_experts_and_about_128_mib():
    sizes = {1: 1024, 9216: 1024, 110_592: 128, 10**9: 1}
    for size, rows in sizes.items():
        assert shard_rows(Layout((Site("q", size - 1, 1),), rank=1, alpha=1.0)) == rows
        assert rows == 1 or rows * size * 8 <= 128 << 20


def test_lines_of_any_file_are_the_tasks_that_were_written(tmp_path):
    tasks = [
        {"key": f"a/{n}", "dataset": "a", "name": str(n), "role": "training", "description": f"two lines\n{n}"}
        for n in range(8)
    ]
    write_tasks(tmp_path, "training", tasks, SHARDS)
    lines = TaskLines(tmp_path, "training", SHARDS)
    assert list(lines) == tasks
    assert [lines[n] for n in (0, 4, 7, -1)] == [tasks[n] for n in (0, 4, 7, -1)]
    assert lines[3:6] == tasks[3:6]
    assert list(Keys(lines)) == [task["key"] for task in tasks] == list(Keys(tasks))
    assert (Keys(lines)[4], Keys(lines)[6:], len(Keys(lines))) == ("a/4", ["a/6", "a/7"], 8)
    (tmp_path / tasks_file("training", 2)).write_text("{}\n" * 3)
    again = TaskLines(tmp_path, "training", SHARDS)
    assert again[4] == tasks[4]
    with pytest.raises(BadFile, match=r"training-00002\.jsonl, line 1: a task has no key"):
        again[5]
    with pytest.raises(BadFile, match=r"training-00002\.jsonl, line 1: a task has no key"):
        list(Keys(again))
    with pytest.raises(IndexError):
        again[8]


def test_parts_have_as_many_as_there_are():
    assert [parts(n, 3) for n in (0, 1, 3, 7)] == [[], [1], [3], [3, 3, 1]]


def test_the_nearest_other_is_that_of_all_pairs(monkeypatch):
    monkeypatch.setattr("sglora_cli.pack.content.format_two._AT_ONCE", 3)
    unit_ED = torch.nn.functional.normalize(torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    cosine_EE = (unit_ED @ unit_ED.T).fill_diagonal_(-2)
    assert torch.allclose(nearest_others(unit_ED), cosine_EE.amax(dim=1))
