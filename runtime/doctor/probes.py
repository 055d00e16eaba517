"""How a machine is asked: commands, files, and Python modules, each with a time limit and none of them trusted.

Modules are imported in a process of their own: a stub that raises, a driver that hangs or a library that crashes then
costs an answer and not the doctor.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sottovoce.runtime.profiling.machine import Machine, this_machine

COMMAND_SECONDS = 10.0
MODULE_SECONDS = 30.0
"""Importing TensorRT from a slow disk takes seconds."""
MAX_FILE_BYTES = 1 << 20
CHILD = "sottovoce.runtime.doctor.child"


class Probes(Protocol):
    """The questions that a machine is asked; made-up machines answer them in tests."""

    def machine(self) -> Machine:
        """Processor, cores and memory."""
        ...

    def output_of(self, command: Sequence[str]) -> str | None:
        """What a tool prints; None where there is no such tool, or it fails, or takes too long."""
        ...

    def text_of(self, path: str) -> str | None:
        """What a file holds; None where it cannot be read."""
        ...

    def answer_to(self, question: str, *arguments: str) -> Mapping[str, Any]:
        """What Python says here: see `child.py`. With the key "problem" where nothing could be found out."""
        ...


@dataclass(frozen=True)
class ThisMachine:
    """The machine that the program runs on.

    Args:
        command_seconds: how long a tool may take.
        module_seconds: how long a module may take to be imported and asked.
    """

    command_seconds: float = COMMAND_SECONDS
    module_seconds: float = MODULE_SECONDS

    def machine(self) -> Machine:
        """See `Probes`."""
        return this_machine()

    def output_of(self, command: Sequence[str]) -> str | None:
        """See `Probes`."""
        try:
            ran = _run(command, self.command_seconds)
        except (OSError, subprocess.SubprocessError):
            return None
        return ran.stdout if ran.returncode == 0 else None

    def text_of(self, path: str) -> str | None:
        """See `Probes`."""
        try:
            with Path(path).open("rb") as file:
                return file.read(MAX_FILE_BYTES).decode("utf-8", errors="replace")
        except OSError:
            return None

    def answer_to(self, question: str, *arguments: str) -> Mapping[str, Any]:
        """See `Probes`."""
        try:
            ran = _run((sys.executable, "-m", CHILD, question, *arguments), self.module_seconds)
        except subprocess.TimeoutExpired:
            return {"problem": f"no answer within {self.module_seconds:g} s"}
        except (OSError, subprocess.SubprocessError) as problem:
            return {"problem": f"cannot start Python: {problem}"}
        return _last_object(ran.stdout) or {"problem": _why(ran)}


def _run(command: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  # the commands are ours, no text of a user's is in them
        list(command),
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        timeout=seconds,
        check=False,
        env={**os.environ, "PYTHONSAFEPATH": "1"},  # a folder called tensorrt where one happens to be is not TensorRT
    )


def _last_object(printed: str) -> dict[str, Any] | None:
    """The last line that is a JSON object: libraries print what they like when they are imported."""
    for line in reversed(printed.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return None


def _why(ran: subprocess.CompletedProcess[str]) -> str:
    if ran.returncode < 0:
        return f"it crashed (signal {-ran.returncode})"
    lines = ran.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit code {ran.returncode} and no answer"
