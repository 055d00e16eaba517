"""What the machine can do and what it reports of itself, on machines that tests make up."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from sottovoce.runtime.profiling.ceilings import last_cache_bytes, measure_ceilings
from sottovoce.runtime.profiling.energy.meter import CounterMeter, PowerMeter
from sottovoce.runtime.profiling.energy.sources import EnergySources, find_sources
from sottovoce.runtime.profiling.energy.spent import NOT_REPORTED, EnergyOfTurns
from sottovoce.runtime.profiling.machine import this_machine
from sottovoce.runtime.profiling.matmul_graph import matmul_graph
from sottovoce.runtime.progress import SilentProgress


def test_the_product_is_one() -> None:
    session = onnxruntime.InferenceSession(matmul_graph(), providers=["CPUExecutionProvider"])
    a, b = np.arange(12, dtype=np.float32).reshape(3, 4), np.ones((4, 200), np.float32)
    np.testing.assert_array_equal(session.run(["c"], {"a": a, "b": b})[0], a @ b)


def test_ceilings_are_numbers_on_any_count_of_threads() -> None:
    for threads in (1, 3):
        found = measure_ceilings(threads, SilentProgress(), array_bytes=1 << 16, matrix=32)
        assert found.threads == threads
        assert min(found.read_gb_s, found.copy_gb_s, found.matmul_gflop_s) > 0


@pytest.mark.parametrize(("text", "expected"), [("32768K\n", 32 << 20), ("8M", 8 << 20), ("", None), ("many", None)])
def test_the_last_caches_size(tmp_path: Path, text: str, expected: int | None) -> None:
    (tmp_path / "size").write_text(text)
    assert last_cache_bytes(tmp_path / "size") == expected
    assert last_cache_bytes(tmp_path / "none") is None


def machine_of(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / "sys" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "sys" / name).write_text(text)
    return root


def test_rapl_counts_packages_and_memory_but_no_part_twice(tmp_path: Path) -> None:
    zones = {
        "intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:0:1": "dram", "intel-rapl:1": "package-1"
    }  # fmt: skip
    files = {f"class/powercap/{zone}/name": name for zone, name in zones.items()}
    files |= {f"class/powercap/{zone}/energy_uj": "9000000" for zone in zones}
    files |= {f"class/powercap/{zone}/max_energy_range_uj": "10000000" for zone in zones}
    root = machine_of(tmp_path, files)
    meters = find_sources(root).meters
    assert [meter.name for meter in meters] == ["RAPL package-0", "RAPL dram", "RAPL package-1"]
    spent = EnergyOfTurns(EnergySources(meters))
    with spent.measured():
        (root / "sys/class/powercap/intel-rapl:0/energy_uj").write_text("9500000")
        (root / "sys/class/powercap/intel-rapl:0:1/energy_uj").write_text("1000000")  # it went around
        (root / "sys/class/powercap/intel-rapl:1/energy_uj").unlink()
    energy = spent.energy(turns=2)
    assert {one.source: one.joules_per_turn for one in energy.sources} == {
        "RAPL package-0": pytest.approx(0.25),
        "RAPL dram": pytest.approx(1.0),
    }


def test_jetsons_sensors_are_power(tmp_path: Path) -> None:
    chip = "class/hwmon/hwmon3"
    files = {f"{chip}/name": "ina3221", f"{chip}/in1_label": "VDD_IN", f"{chip}/in1_input": "5000",
             f"{chip}/curr1_input": "2000", f"{chip}/in2_label": "no current",
             "class/hwmon/hwmon1/name": "coretemp"}  # fmt: skip
    [meter] = find_sources(machine_of(tmp_path, files)).meters
    spent = EnergyOfTurns(EnergySources((meter,)))
    with spent.measured():
        time.sleep(0.1)
    [source] = spent.energy(turns=1).sources
    assert source.source == "INA VDD_IN"
    assert source.watts == pytest.approx(10.0, rel=0.1)


def test_a_machine_that_reports_nothing_is_not_one_that_needs_nothing(tmp_path: Path) -> None:
    energy = EnergyOfTurns(find_sources(tmp_path)).energy(turns=3)
    assert energy.sources == ()
    assert energy.note == NOT_REPORTED == "not reported by this machine"
    refused = EnergyOfTurns(EnergySources((), ("RAPL package-0 cannot be read",))).energy(turns=3)
    assert "cannot be read" in refused.note


class Nvml:
    """NVIDIA's library with an old GPU, which has no counter, and a new one; both are lost in the end."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.millijoules, self.is_lost = 5000, False

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:
        return number

    def nvmlDeviceGetTotalEnergyConsumption(self, device: int) -> int:
        if device == 0 or self.is_lost:
            raise self.NVMLError("not supported")
        return self.millijoules

    def nvmlDeviceGetPowerUsage(self, device: int) -> int:
        if self.is_lost:
            raise self.NVMLError("lost")
        return 20_000


def test_gpus_are_read_as_far_as_they_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    meters = [meter for meter in find_sources().meters if meter.name.startswith("NVML")]
    for meter in meters:
        meter.start()
    time.sleep(0.05)
    nvml.millijoules += 700
    joules = [meter.stop() for meter in meters]
    assert joules[0] is not None
    assert joules[0] >= 20 * 0.05 * 0.99  # watts for at least so long
    assert joules[1] == pytest.approx(0.7)
    for meter in meters:
        meter.start()
    nvml.is_lost = True
    assert [meter.stop() for meter in meters] == [None, None]


def test_readings_that_fail_are_no_readings() -> None:
    def broken() -> float:
        raise OSError("gone")

    for meter in (CounterMeter("counter", broken), PowerMeter("power", broken)):
        meter.start()
        assert meter.stop() is None
    assert PowerMeter("never started", lambda: 1.0).stop() is None


def test_machines_are_told_apart_by_what_they_are() -> None:
    machine = this_machine()
    assert machine.differences(machine) == []
    assert machine.differences(replace(machine, processor="another one"))[0].startswith("processor")
    assert machine.differences(replace(machine, cores=machine.cores + 2))[0].startswith("cores")
    slightly = replace(machine, memory_gb=(machine.memory_gb or 8.0))
    assert machine.differences(slightly) == []
