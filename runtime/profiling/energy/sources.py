"""Which counters and sensors this machine has: RAPL, Jetson's power monitors, NVIDIA's library."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sottovoce.runtime.profiling.energy.meter import CounterMeter, Meter, PowerMeter

ROOT = Path("/")
RAPL = "sys/class/powercap"
HARDWARE_MONITORS = "sys/class/hwmon"
INA_NAMES = ("ina3221", "ina219", "ina226", "ina230", "ina238")
CHANNELS = range(1, 9)


@dataclass(frozen=True)
class EnergySources:
    """Meters that can be read, and why others that are there cannot."""

    meters: tuple[Meter, ...]
    refused: tuple[str, ...] = ()


def find_sources(root: Path = ROOT) -> EnergySources:
    """All that this machine reports.

    Args:
        root: where `sys` is; tests have one of their own.
    """
    meters: list[Meter] = []
    refused: list[str] = []
    for find in (_rapl, _power_monitors):
        found, unread = find(root)
        meters += found
        refused += unread
    meters += _nvml() if root == ROOT else []
    return EnergySources(tuple(meters), tuple(refused))


def _rapl(root: Path) -> tuple[list[Meter], list[str]]:
    """Intel's and AMD's counters. Packages and memory: parts of a package would be counted twice."""
    meters: list[Meter] = []
    refused = []
    for zone in sorted((root / RAPL).glob("intel-rapl:*")):
        name = _text(zone / "name")
        if name is None or not (name.startswith(("package", "dram", "psys"))):
            continue
        counter = zone / "energy_uj"
        try:
            counter.read_text(encoding="ascii")
        except OSError as problem:
            refused.append(f"RAPL {name} cannot be read ({problem.strerror}): {counter} is often root's alone")
            continue
        wraps_at = _text(zone / "max_energy_range_uj") or ""
        limit = int(wraps_at) / 1e6 if wraps_at.isdigit() else None
        meters.append(CounterMeter(f"RAPL {name}", _micro(counter), limit))
    return meters, refused


def _power_monitors(root: Path) -> tuple[list[Meter], list[str]]:
    """Jetson's INA chips: on each labelled channel millivolts times milliamperes."""
    meters: list[Meter] = []
    for chip in sorted((root / HARDWARE_MONITORS).glob("hwmon*")):
        if (_text(chip / "name") or "") not in INA_NAMES:
            continue
        for channel in CHANNELS:
            volts, amperes = chip / f"in{channel}_input", chip / f"curr{channel}_input"
            label = _text(chip / f"in{channel}_label")
            if label is not None and volts.is_file() and amperes.is_file():
                meters.append(PowerMeter(f"INA {label}", _watts(volts, amperes)))
    return meters, []


def _nvml() -> list[Meter]:
    """One meter a GPU: its own counter where it has one (since Volta), else its power."""
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
        return [_gpu(nvml, number) for number in range(nvml.nvmlDeviceGetCount())]
    except Exception:  # noqa: BLE001  # not installed, or no driver, each with an error of its own: not reported
        return []


def _gpu(nvml: Any, number: int) -> Meter:
    device = nvml.nvmlDeviceGetHandleByIndex(number)
    name = f"NVML GPU {number}"
    try:
        nvml.nvmlDeviceGetTotalEnergyConsumption(device)
    except nvml.NVMLError:
        return PowerMeter(name, _milli(nvml, nvml.nvmlDeviceGetPowerUsage, device))
    return CounterMeter(name, _milli(nvml, nvml.nvmlDeviceGetTotalEnergyConsumption, device))


def _milli(nvml: Any, ask: Callable[[Any], int], device: Any) -> Callable[[], float]:
    def read() -> float:
        try:
            return ask(device) / 1000
        except nvml.NVMLError as problem:
            raise OSError(str(problem)) from problem

    return read


def _micro(path: Path) -> Callable[[], float]:
    return lambda: int(path.read_text(encoding="ascii")) / 1e6


def _watts(volts: Path, amperes: Path) -> Callable[[], float]:
    return lambda: int(volts.read_text(encoding="ascii")) * int(amperes.read_text(encoding="ascii")) / 1e6


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
