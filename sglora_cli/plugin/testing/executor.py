"""Conformance checks of executors."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sglora_cli.errors import BadFile
from sglora_cli.files.atomic import write_bytes
from sglora_cli.plugin.contracts import Executor
from sglora_cli.plugin.testing.toys import ask, run_all
from sglora_cli.plugin.values import Resources, Step

_UNITS = 2.0


@dataclass(frozen=True)
class ToyJob:
    """Each step writes the names of the steps before it whose files exist. A step named "bad" fails."""

    folder: str

    def perform(self, step: Step, advance: Callable[[float, str], None], journal: Callable[..., None]) -> None:
        """See Job."""
        if step.name == "bad":
            raise BadFile("a photo is damaged", "replace it")
        folder = Path(self.folder)
        found = [key for key in step.after if (folder / key).exists()]
        write_bytes(folder / step.path, ",".join(found).encode())
        journal("toy", name=step.name)
        advance(step.units, step.name)


@dataclass
class _Trial:
    """A run of toy steps: their files, and what was reported."""

    folder: Path
    counts: Mapping[str, int] = field(default_factory=dict)
    units: list[float] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    callers: set[tuple[int, int]] = field(default_factory=set)
    """Processes and threads that reported."""

    def advance(self, units: float, part: str) -> None:
        self.units.append(units)
        self.callers.add((os.getpid(), threading.get_ident()))

    def journal(self, event: str, **values: Any) -> None:
        self.events.append({"event": event, **values})
        self.callers.add((os.getpid(), threading.get_ident()))

    def run(self, executor: Executor, names: Mapping[str, tuple[str, ...]]) -> None:
        resources = Resources(1)
        executor.check(resources)
        steps = [Step(name, "toy", name, name, after, _UNITS, resources) for name, after in names.items()]
        self.counts = executor.run(ToyJob(str(self.folder)), steps, self.advance, self.journal)


@contextmanager
def _trial() -> Iterator[_Trial]:
    with tempfile.TemporaryDirectory(prefix="sglora-check-") as folder:
        yield _Trial(Path(folder))


_CHAIN: Mapping[str, tuple[str, ...]] = {"a": (), "b": ("a",), "c": (), "d": ("a", "b", "c")}


def every_step_runs_after_the_steps_it_names(executor: Executor) -> None:
    """run performs each step once, after all steps that it names, and counts the steps per machine."""
    with _trial() as trial:
        trial.run(executor, _CHAIN)
        for name, after in _CHAIN.items():
            path = trial.folder / name
            ask(path.exists(), f"step {name!r} was not performed")
            ask(path.read_text() == ",".join(after), f"step {name!r} ran before a step that it names in `after`")
        ask(sum(trial.counts.values()) == len(_CHAIN), f"run counted {trial.counts} for {len(_CHAIN)} steps")


def reports_arrive(executor: Executor) -> None:
    """run calls advance and journal in the calling thread, with all units of each step and every event."""
    with _trial() as trial:
        trial.run(executor, _CHAIN)
        total = _UNITS * len(_CHAIN)
        ask(sum(trial.units) == total, f"advance was called with {sum(trial.units):g} units in all, not {total:g}")
        names = sorted(event.get("name", "") for event in trial.events if event["event"] == "toy")
        ask(names == sorted(_CHAIN), f"journal was called for the steps {', '.join(names) or 'none'}")
        here = {(os.getpid(), threading.get_ident())}
        ask(trial.callers == here, "advance or journal was called in another process or thread")


def errors_keep_their_class_and_hint(executor: Executor) -> None:
    """run raises the error of a failing step with its class, message and hint. It may add the machine."""
    with _trial() as trial:
        try:
            trial.run(executor, {"a": (), "bad": ("a",), "b": ("bad",)})
        except BadFile as error:
            ask("a photo is damaged" in error.message, f"the message of an error was lost: {error.message!r}")
            ask(error.hint == "replace it", f"the hint of an error was lost: {error.hint!r}")
        else:
            ask(False, "run did not raise the error of a failing step")
        ask((trial.folder / "a").exists(), "a finished step was lost")
        ask(not (trial.folder / "b").exists(), "a step ran although a step that it names failed")


def nothing_to_do(executor: Executor) -> None:
    """run with no steps does nothing."""
    with _trial() as trial:
        trial.run(executor, {})
        ask(sum(trial.counts.values()) == 0, f"run counted {trial.counts} for no steps")


EXECUTOR_CHECKS: tuple[Callable[[Executor], None], ...] = (
    every_step_runs_after_the_steps_it_names,
    reports_arrive,
    errors_keep_their_class_and_hint,
    nothing_to_do,
)


def check_executor(executor: Executor) -> None:
    """Raise PluginError listing everything that is wrong with an executor."""
    run_all(EXECUTOR_CHECKS, executor)
