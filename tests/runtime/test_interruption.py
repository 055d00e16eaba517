"""Ctrl-C is told as such, also where a library turns it into something else."""

from __future__ import annotations

import importlib
import os
import signal
import threading
import time
from typing import Any

import pytest

from sottovoce.runtime.cli import main
from sottovoce.runtime.interruption import Interruption


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)  # it arrives between two steps of Python, long before this is over


def press_ctrl_c_in_a_library_that_wraps() -> None:
    try:
        press_ctrl_c()
    except BaseException as problem:
        raise AttributeError("module 'half.imported' has no attribute 'exc'") from problem


@pytest.mark.parametrize("press", [press_ctrl_c, press_ctrl_c_in_a_library_that_wraps])
def test_ctrl_c_leaves_as_such_and_the_usual_handler_is_back(press: Any) -> None:
    with pytest.raises(KeyboardInterrupt), Interruption():
        press()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_errors_are_left_as_they_are() -> None:
    with pytest.raises(ValueError, match="mine"), Interruption():
        raise ValueError("mine")
    with pytest.raises(SystemExit), Interruption():
        raise SystemExit(3)


def test_a_handler_that_somebody_else_set_stays() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with Interruption():
            os.kill(os.getpid(), signal.SIGINT)
        assert heard == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_nothing_is_changed() -> None:
    problems: list[BaseException] = []

    def enter() -> None:
        try:
            with Interruption():
                pass
        except BaseException as problem:  # noqa: BLE001  # shown to the test's own thread
            problems.append(problem)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert problems == []


def test_the_command_line_says_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def wrapped(name: str) -> Any:
        press_ctrl_c_in_a_library_that_wraps()

    monkeypatch.setattr(importlib, "import_module", wrapped)
    assert main(["export", "anything"]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "error: interrupted"
