"""The whole examination: ask the machine, and say what it can run bundles with."""

from __future__ import annotations

from sottovoce.runtime.doctor.findings import Diagnosis
from sottovoce.runtime.doctor.hardware import gpu_findings, look_at_hardware, machine_findings
from sottovoce.runtime.doctor.probes import Probes, ThisMachine
from sottovoce.runtime.doctor.software import (
    audio_findings,
    backend_findings,
    library_findings,
    look_at_software,
)


def examine(probes: Probes | None = None) -> Diagnosis:
    """What a machine has, and which backends compute on it. Nothing that is missing is an error.

    Args:
        probes: of the machine; by default of the one this runs on.
    """
    probes = probes or ThisMachine()
    machine, hardware, software = probes.machine(), look_at_hardware(probes), look_at_software(probes)
    return Diagnosis(
        machine=machine,
        findings={
            "machine": machine_findings(machine),
            "GPU": gpu_findings(probes, hardware),
            "libraries": library_findings(software, hardware),
            "audio": audio_findings(probes),
        },
        backends=backend_findings(software, hardware),
    )
