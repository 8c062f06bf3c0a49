"""How slow a download may be."""

from __future__ import annotations

import pytest

from sglora_cli.system.transfer import LEAST_BYTES, LEAST_SPEED, SPEED_SECONDS, Attempts, Pace


def run(speed: float, seconds: float, pause: float = 1.0) -> None:
    clock = [0.0]
    pace = Pace(lambda: clock[0])
    while clock[0] < seconds:
        clock[0] += pause
        pace.received(int(speed * pause))


def test_a_slow_connection_is_given_up():
    with pytest.raises(TimeoutError, match="only 30690 bytes arrived in 30 s"):
        run(LEAST_SPEED - 1, SPEED_SECONDS)


def test_a_connection_of_the_least_speed_goes_on():
    run(LEAST_SPEED, 600)


def test_a_fast_start_does_not_excuse_a_slow_rest():
    clock = [0.0]
    pace = Pace(lambda: clock[0])
    pace.received(1 << 30)
    clock[0] = SPEED_SECONDS
    pace.received(1)
    clock[0] = 2 * SPEED_SECONDS
    with pytest.raises(TimeoutError):
        pace.received(1)


def test_pauses_grow_until_a_connection_brings_enough():
    attempts = Attempts(tries=3, seconds=1.0)
    assert [attempts.failed(gained) for gained in (LEAST_BYTES, 1, LEAST_BYTES - 1)] == [1.0, 2.0, 4.0]
    assert attempts.failed(LEAST_BYTES) == 1.0
    assert [attempts.failed(-5) for _ in range(3)] == [2.0, 4.0, None]
