"""The conformance checks of executors: the built-in one passes, and faults are found."""

from __future__ import annotations

import threading

import pytest

from sglora_cli.errors import PluginError
from sglora_cli.plugin.executors import InProcess
from sglora_cli.testing import check_executor


class Backwards(InProcess):
    def run(self, job, steps, advance, journal):
        return super().run(job, steps[::-1], advance, journal)


class Forgets(InProcess):
    def run(self, job, steps, advance, journal):
        return super().run(job, steps[:-1], advance, journal)


class Silent(InProcess):
    def run(self, job, steps, advance, journal):
        return super().run(job, steps, lambda *_: None, lambda *_, **__: None)


class Hides(InProcess):
    def run(self, job, steps, advance, journal):
        try:
            return super().run(job, steps, advance, journal)
        except Exception:
            return {"here": len(steps)}


class Threads(InProcess):
    def run(self, job, steps, advance, journal):
        counts = []
        work = threading.Thread(target=lambda: counts.append(super(Threads, self).run(job, steps, advance, journal)))
        work.start()
        work.join()
        return counts[0]


def test_the_built_in_executor_passes():
    check_executor(InProcess())


@pytest.mark.parametrize(
    ("executor", "message"),
    [
        (Backwards, "step 'b' ran before a step that it names"),
        (Forgets, "step 'd' was not performed"),
        (Silent, "advance was called with 0 units in all, not 8"),
        (Hides, "run did not raise the error of a failing step"),
        (Threads, "advance or journal was called in another process or thread"),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_broken_executor_is_found(executor, message):
    with pytest.raises(PluginError, match=message):
        check_executor(executor())
