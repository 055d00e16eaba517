"""What was found: one line for each thing that running a bundle may need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sottovoce.runtime.profiling.machine import Machine
from sottovoce.runtime.records import write_record

State = Literal["ok", "missing", "not here"]
"""`missing` can be installed or repaired; `not here` is another kind of machine, and nothing is wrong."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Args:
        name: what it is.
        state: see `State`.
        found: its version, size or name; or why it is not there.
        fix: what to do where it is missing.
    """

    name: str
    state: State
    found: str
    fix: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """All that was found.

    Args:
        machine: processor, cores and memory.
        findings: by section, in the order in which they are shown.
        backends: what `--backend` may be, and which of them compute here.
    """

    machine: Machine
    findings: Mapping[str, tuple[Finding, ...]]
    backends: tuple[Finding, ...]

    @property
    def working(self) -> tuple[str, ...]:
        """The backends that compute here."""
        return tuple(backend.name for backend in self.backends if backend.state == "ok")

    @property
    def can_run(self) -> bool:
        """Whether anything here can run a bundle."""
        return bool(self.working)

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "can_run": self.can_run,
            "backends": list(self.working),
            "machine": write_record(self.machine),
            "findings": {
                section: write_record(findings)
                for section, findings in {**self.findings, "backends": self.backends}.items()
            },
        }
