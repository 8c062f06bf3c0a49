"""What a worker must have in common with its driver, and the resources of a step."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch

from sglora_cli.bench.driver import Driver, check_results, performing, resources_of, summary
from sglora_cli.config import StepConfig
from sglora_cli.errors import Mismatch, Unavailable, UnknownName
from sglora_cli.plugin.values import Resources, Step

STEP = Step("key", "features", "toys/mug", "features/key.safetensors")


def test_a_worker_with_the_same_store_and_versions_is_accepted(own_home):
    with Driver.here() as driver:
        driver.check()
    assert not list((own_home / "cache/work").glob("*.token"))


def test_another_version_is_named():
    with Driver.here() as driver:
        old = replace(driver, versions={**driver.versions, "torch": "1.0"})
        with pytest.raises(Mismatch, match=r"this worker has torch .*, and the driver has 1\.0") as caught:
            old.check()
    assert caught.value.hint == "install torch 1.0 on every machine"


def test_another_store_is_named(own_home, monkeypatch, tmp_path):
    with Driver.here() as driver:
        monkeypatch.setenv("SGLORA_HOME", str(tmp_path))
        with pytest.raises(Unavailable) as caught:
            driver.check()
    message = f"the driver uses the store {own_home / 'cache'}, which this worker does not see: its own is "
    assert caught.value.message == f"{message}{tmp_path / 'cache'}"
    assert "SGLORA_HOME" in caught.value.hint


def test_a_missing_plugin_is_named():
    unknown = UnknownName.of("backbone", "small", ["starter"])
    with Driver.here() as driver, pytest.raises(Mismatch) as caught, performing(STEP, driver):
        raise unknown
    assert caught.value.message == "this worker lacks something that the driver has: no backbone named 'small'"
    assert caught.value.hint == "install the same plugins on every machine"
    with pytest.raises(UnknownName), performing(STEP, None):
        raise unknown


def test_a_result_that_is_not_here_is_named(own_home):
    with pytest.raises(
        Unavailable, match=r"executor 'ray' performed step features 'toys/mug', but features/key.* a, b"
    ):
        check_results([STEP], "ray", {"b": 1, "a": 2})
    path = own_home / "cache" / STEP.path
    path.parent.mkdir(parents=True)
    path.touch()
    check_results([STEP], "ray", {"a": 1})


def test_a_step_has_its_threads_and_the_drivers_folder(monkeypatch, tmp_path):
    set_to = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    monkeypatch.chdir(tmp_path)
    with Driver.here() as driver:
        monkeypatch.chdir("/")
        with performing(replace(STEP, resources=Resources(3)), driver):
            assert os.getcwd() == str(tmp_path)
        monkeypatch.chdir("/")
        with performing(STEP, None):
            assert os.getcwd() == os.path.abspath("/")
    assert set_to == [3]


@pytest.mark.parametrize(
    ("option", "recipe", "executor", "device", "expected"),
    [
        (StepConfig(), StepConfig(), "local", "cpu", Resources(0)),
        (StepConfig(), StepConfig(cpus_per_step=2), "local", "cuda", Resources(2)),
        (StepConfig(), StepConfig(), "ray", "cpu", Resources(1)),
        (StepConfig(), StepConfig(), "ray", "cuda", Resources(1, 1.0)),
        (StepConfig(4), StepConfig(2, 0.25, 1.5), "ray", "cuda", Resources(4, 0.25, 1_500_000_000)),
        (StepConfig(gpus_per_step=0.5), StepConfig(), "ray", "cpu", Resources(1)),
    ],
)
def test_resources(option, recipe, executor, device, expected):
    assert resources_of(option.over(recipe), executor, device) == expected


def test_a_summary_names_every_machine():
    assert summary({"b": 3, "a": 12}) == "12 on a, 3 on b"
