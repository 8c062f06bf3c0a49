"""The executor `ray` on a local cluster of two nodes: same bytes as without it, also if a node is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from distributions import HERE, install

from sglora_cli.errors import BadFile, Mismatch, SgloraWarning, Unavailable, UsageError
from sglora_cli.plugin.values import Resources, Step
from sglora_cli.testing import EXECUTOR_CHECKS

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's own warnings

from ray_jobs import Failing  # noqa: E402

from sglora_ray import executor as executor_module  # noqa: E402
from sglora_ray.executor import Ray  # noqa: E402
from sglora_ray.run import ATTEMPTS  # noqa: E402

LONG = {"epochs = 6": "epochs = 800", "tasks_at_once = 3": "tasks_at_once = 5"}
"""Training that takes long enough to be killed in the middle, in two groups."""
HASTY = "from sglora_cli.files import tensors\nSGLORA_API = '1.0'\ntensors.SECONDS = 0.1\n"
"""A plugin that lets every process save checkpoints all the time."""


class LocalCluster:
    """A head without cores, and two nodes with one core each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        small = {"object_store_memory": 100 << 20}
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
        self.nodes = [self._cluster.add_node(num_cpus=1, **small) for _ in range(2)]
        self._cluster.wait_for_nodes()
        self.address = self._cluster.address

    def kill_a_node(self) -> None:
        self._cluster.remove_node(self.nodes.pop(), allow_graceful=False)

    def shutdown(self) -> None:
        ray.shutdown()
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The cluster. Its nodes have the backbone `tiny`."""
    site = tmp_path_factory.mktemp("site")
    install(site, "sglora-tiny", "sglora_tiny", (HERE / "thirdparty/sglora_tiny.py").read_text())
    install(site, "sglora-hasty", "sglora_hasty", HASTY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(HERE / "support")]))
        patch.setenv("OMP_NUM_THREADS", "1")
        for name, value in executor_module.ENVIRONMENT.items():
            patch.setenv(name, value)
        before = signal.getsignal(signal.SIGTERM)  # Ray replaces it
        cluster = LocalCluster()
        yield cluster
        cluster.shutdown()
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def here(cluster):
    """An executor of this process."""
    yield Ray().member(cluster.address)
    ray.shutdown()


@pytest.fixture
def program(cluster):
    """Start the program in another process: `program(home, "pack", "list")`."""

    def start(home: Path, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "sglora_cli.cli.main", *map(str, arguments)]
        environment = {**os.environ, "SGLORA_HOME": str(home)}
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)

    def finish(home: Path, *arguments: object) -> tuple[str, str]:
        process = start(home, *arguments)
        output, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors
        return output, errors

    finish.start = start
    return finish


def content(home: Path) -> dict[str, bytes]:
    folder = home / "cache/packs/toys"
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def steps(*after: tuple[str, ...], cpus: int = 1) -> list[Step]:
    return [
        Step(f"made-{n}", "test", f"number {n}", f"made-{n}", names, 2.0, Resources(cpus))
        for n, names in enumerate(after)
    ]


def test_a_pack_and_its_rows_are_the_same_and_both_nodes_work(
    cluster, program, run, tiny, recipe, toys, own_home, tmp_path
):
    two = tmp_path / "two"
    recipe.write_text(recipe.read_text().replace("[generators.cvae]", "[generators.cvae]\nheld_out = 3"))
    build = ("pack", "build", recipe, "--data", toys)
    bench = ("bench", "--pack", "toys", "--baselines", "zero-shot,oracle,top-k,cvae", "--rows")
    assert run(*build).exit_code == 0
    assert run(*bench, tmp_path / "one.jsonl").exit_code == 0
    log = tmp_path / "log.jsonl"
    _, said = program(two, *build, "--executor", f"ray:{cluster.address}", "--log", log)
    assert content(two) == content(own_home)
    ran = [line.split(", ")[0] for line in said.splitlines() if " steps, " in line]
    assert ran == ["features: 11 steps", "training: 4 steps", "generators: 4 steps"]
    machines = {line["machine"] for line in map(json.loads, log.read_text().splitlines()) if "machine" in line}
    assert len(machines) == 2
    _, said = program(two, *bench, tmp_path / "two.jsonl", "--executor", f"ray:{cluster.address}")
    assert [name in said for name in machines] == [True, True]
    lines = [(tmp_path / name).read_text().splitlines()[1:] for name in ("one.jsonl", "two.jsonl")]
    assert len(lines[0]) > 100
    assert lines[0] == lines[1]
    assert not [path for path in (two / "cache").rglob("*") if path.suffix in (".part", ".checkpoint", ".token")]


@pytest.mark.parametrize("check", EXECUTOR_CHECKS, ids=lambda check: check.__name__)
def test_it_passes_the_conformance_checks(check, here):
    check(here)


def test_an_error_names_the_machine(here, own_home):
    with pytest.raises(BadFile) as caught:
        here.run(Failing("file"), steps(()), lambda *_: None, lambda *_, **__: None)
    assert caught.value.message.startswith("pug.jpg is damaged (test 'number 0' on machine ")
    assert caught.value.hint == "replace it"
    with pytest.raises(Unavailable, match=r"ZeroDivisionError: a bug \(ray_jobs.py, line \d+\) \(test .* on machine "):
        here.run(Failing("bug"), steps(()), lambda *_: None, lambda *_, **__: None)


def test_a_step_whose_worker_dies_is_attempted_a_few_times(here, own_home):
    log = []
    with (
        pytest.warns(SgloraWarning, match="^step test 'number 0' on machine .* attempted again$") as warned,
        pytest.raises(
            Unavailable, match=f"test 'number 0' was attempted {ATTEMPTS} times, at last on .*lost"
        ) as caught,
    ):
        here.run(Failing("killed"), steps(()), lambda *_: None, lambda event, **_: log.append(event))
    assert log == ["lost"] * ATTEMPTS
    assert len(warned) == ATTEMPTS - 1
    assert "same command resumes" in caught.value.hint


def test_steps_that_no_node_can_run_are_refused(here):
    with pytest.raises(Unavailable, match="each step needs 2 CPU, but no machine of the Ray cluster has more than 1"):
        here.check(Resources(2))
    with pytest.raises(Unavailable, match="each step needs 1 GPU"):
        here.check(Resources(1, 1.0))
    with pytest.raises(Unavailable, match="each step needs 9000 GB of memory"):
        here.check(Resources(1, memory=9 * 10**12))


def test_signals_reach_the_program(here):
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    here.check(Resources(1))
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_a_killed_node_changes_nothing(cluster, program, run, tiny, recipe, toys, own_home, tmp_path):
    two, text = tmp_path / "two", recipe.read_text()
    for before, after in LONG.items():
        text = text.replace(before, after, 1)
    recipe.write_text(text)
    build = ("pack", "build", recipe, "--data", toys)
    assert run(*build).exit_code == 0
    log = tmp_path / "log.jsonl"
    process = program.start(two, *build, "--executor", f"ray:{cluster.address}", "--log", log)
    until = time.monotonic() + 60
    while len(list((two / "cache/work").glob("*.*.checkpoint"))) < 2:  # both nodes have one
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)
    cluster.kill_a_node()
    output, said = process.communicate(timeout=100)
    assert process.returncode == 0, said
    assert output == f"{two / 'cache/packs/toys'}\n"  # without Ray's messages
    assert re.search(
        r"^warning: step training .* on machine \S+: its worker was lost \(.*\), so it is attempted again$", said, re.M
    )
    events = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert {"lost", "resumed"} <= set(events)
    assert content(two) == content(own_home)


@pytest.mark.parametrize("mode", [{}, {"RAY_AUTH_MODE": "token"}], ids=["no mode", "token"])
def test_a_cluster_of_its_own_leaves_no_token(cluster, run, tiny, toy_pack, own_home, tmp_path, mode):
    """A token in the home folder would be required by clusters that are started later."""
    home = tmp_path / "user"
    home.mkdir()
    command = ("bench", "--pack", "toys", "--baselines", "top-k", "--rows")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    result = subprocess.run(
        [sys.executable, "-m", "sglora_cli.cli.main", *command, tmp_path / "ray.jsonl", "--executor", "ray"],
        env={**environment, **mode, "HOME": str(home), "SGLORA_HOME": str(own_home)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert result.returncode == 0, result.stderr
    assert "bench: 8 steps, " in result.stderr
    assert not list(home.rglob("*token*"))
    assert run(*command, tmp_path / "here.jsonl", "--fresh").exit_code == 0
    lines = [(tmp_path / name).read_text().splitlines()[1:] for name in ("here.jsonl", "ray.jsonl")]
    assert lines[0] == lines[1]


# Without a cluster


def test_an_address_is_checked(own_home):
    for name in ("head", "head:port", ":6379", "head:0", "head:70000"):
        with pytest.raises(UsageError, match="is not the address of a Ray cluster"):
            Ray().member(name)
    with pytest.raises(UsageError, match="Ray Client"):
        Ray().member("ray://head:10001")
    assert Ray().member("head:6379").name == "ray:head:6379"


def test_no_cluster_at_the_address(run, recipe, toys, tiny):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    result = run("pack", "build", recipe, "--data", toys, "--executor", f"ray:{address}")
    assert result.exit_code == 6
    assert f"error: no Ray cluster at {address}: " in result.stderr
    assert "hint: start one with `ray start --head --port 6379`" in result.stderr


def test_ray_is_missing(monkeypatch):
    monkeypatch.setattr(executor_module, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="not installed") as caught:
        Ray().check(Resources(1))
    assert caught.value.hint == 'pip install "sglora[ray]"'


def test_a_cluster_is_not_used_offline(monkeypatch):
    monkeypatch.setenv("SGLORA_OFFLINE", "1")
    with pytest.raises(Unavailable, match="SGLORA_OFFLINE is set"):
        Ray().check(Resources(1))


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Failed to connect to Ray cluster at head:6379"),
        ray.exceptions.AuthenticationError("no authentication token was found"),
    ],
)
def test_a_cluster_that_requires_a_token(monkeypatch, error):
    def init(**options):
        raise error

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(executor_module, "ask", lambda address: None)
    with pytest.raises(Unavailable, match=r"^the Ray cluster at head:6379 refuses") as caught:
        Ray().member("head:6379").check(Resources(1))
    assert "RAY_AUTH_MODE=token" in caught.value.hint


def test_other_versions(monkeypatch):
    def init(**options):
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.0")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(
        Mismatch, match=r"has other versions: Version mismatch: The cluster was started with: Ray: 2\.0"
    ):
        Ray().check(Resources(1))
