"""Ctrl-C is told as such, also where a library turns it into something else."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sottovoce.runtime.cli import main
from sottovoce.runtime.console import Console
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


class PressesCtrlC:
    """Python can only report what is raised in here."""

    def __del__(self) -> None:
        press_ctrl_c()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_ctrl_c_that_got_lost_stops_at_the_next_step() -> None:
    steps = 0
    with pytest.raises(KeyboardInterrupt), Interruption(), Console(as_json=False).progress() as progress:
        for step in range(4):
            progress.step("working", step, 4)
            steps += 1
            if step == 1:
                PressesCtrlC()
    assert steps == 2
    Console(as_json=False).progress().step("another command", 0, 1)


def test_the_exit_code_is_kept_where_ctrl_c_met_code_that_is_text(tmp_path: Path) -> None:
    """As it does inside `import torch`, where dataclasses are made; `python -m` would end with SIGINT's own code."""
    program = """
import os, signal, sys, time
from sottovoce.runtime.interruption import Interruption
try:
    with Interruption():
        exec("os.kill(os.getpid(), signal.SIGINT); time.sleep(5)")
except KeyboardInterrupt:
    sys.exit(130)
"""
    (tmp_path / "interrupted.py").write_text(program, encoding="utf-8")
    ended = subprocess.run([sys.executable, "-m", "interrupted"], cwd=tmp_path, check=False, timeout=60)
    assert ended.returncode == 130


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
