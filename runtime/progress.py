"""How long work says how far it is, without knowing who shows it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told of each step of work that may take more than two seconds."""

    def step(self, label: str, done: int, total: int) -> None:
        """`done` of `total` units of `label` are finished (`done == total`: all of it)."""
        ...


class SilentProgress:
    """Shows nothing: for libraries and tests."""

    def step(self, label: str, done: int, total: int) -> None:
        """Ignore the step."""
