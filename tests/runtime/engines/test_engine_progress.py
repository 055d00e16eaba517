"""What the library says while it builds, and how a build is told to stop."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from sottovoce.runtime.engines.build_log import MAX_ERRORS, BuildLog, Phases, interruptible


def test_progress_goes_from_nothing_to_all_and_never_back() -> None:
    phases = Phases()
    shares = []
    phases.start("building", 2)
    for phase in ("parsing", "timing"):
        phases.start(phase, 4)
        shares += [phases.step(phase) for _ in range(4)]
        shares.append(phases.finish(phase))
        shares.append(phases.step("building"))
    shares.append(phases.finish("building"))
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(0.125)
    assert shares[5] == pytest.approx(0.5)
    assert shares[-1] == 1.0


def test_phases_that_come_again_do_not_go_beyond_all() -> None:
    phases = Phases()
    phases.start("building", 1)
    for _ in range(3):
        phases.start("timing", 0)
        assert phases.step("timing") <= 1
        phases.finish("timing")
        assert phases.step("building") <= 1
    phases.finish("unknown")
    assert phases.finish("building") == 1.0


def test_the_last_errors_are_kept_and_the_layers() -> None:
    log = BuildLog()
    for number in range(3 * MAX_ERRORS):
        log.add(1, f"error {number}\n")
        log.add(4, "chatter")
    log.add(4, "Layers:\nName: a")
    assert len(log.errors) == MAX_ERRORS
    assert log.errors[-1] == f"error {3 * MAX_ERRORS - 1}"
    assert log.layers == ["Layers:\nName: a"]


def test_an_interruption_waits_until_the_library_has_stopped() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []
    with pytest.raises(KeyboardInterrupt), interruptible() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        seen.append(stop.is_set())
    assert seen == [True]
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_are_not_interrupted() -> None:
    found = []

    def build() -> None:
        with interruptible() as stop:
            found.append(stop.is_set())

    thread = threading.Thread(target=build)
    thread.start()
    thread.join()
    assert found == [False]
