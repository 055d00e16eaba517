"""GPU, driver, memory and power: what a machine is, as its driver and its system say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sottovoce.runtime.doctor.findings import Finding
from sottovoce.runtime.doctor.probes import Probes
from sottovoce.runtime.profiling.machine import Machine

TEGRA_RELEASE = "/etc/nv_tegra_release"
CUDA_FOLDER_VERSION = "/usr/local/cuda/version.json"
DRIVER_VERSION = "/proc/driver/nvidia/version"
RELEASE = re.compile(r"R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)")
POWER_MODE = re.compile(r"NV Power Mode:\s*(.+)")
DRIVER = re.compile(r"Kernel Module(?: for \S+)?\s+(\d+[\d.]*)")
CUDA_TOOLKIT = re.compile(r'"cuda"\s*:\s*\{[^}]*"version"\s*:\s*"([\d.]+)"')
JETPACK_OF_L4T: Mapping[int, int] = {35: 5, 36: 6, 38: 7}
"""L4T's major version and JetPack's."""
SLOW_MODE = "sudo nvpmodel -m 0 && sudo jetson_clocks, where the power supply and the cooling allow it"
INSTALL_DRIVER = "install NVIDIA's driver (on Ubuntu: sudo ubuntu-drivers install), then start the machine again"
NO_GPU = "no NVIDIA GPU with a driver"


@dataclass(frozen=True)
class Hardware:
    """What the other checks ask about.

    Args:
        gpu: the driver's answer, see `child.gpu`.
        is_jetson: whether this is NVIDIA's board with its own system.
    """

    gpu: Mapping[str, Any]
    is_jetson: bool

    @property
    def has_gpu(self) -> bool:
        """Whether the driver shows a device."""
        return bool(self.gpu.get("found"))


def look_at_hardware(probes: Probes) -> Hardware:
    """Ask the driver, and whether this is a Jetson."""
    return Hardware(probes.answer_to("gpu"), probes.text_of(TEGRA_RELEASE) is not None)


def machine_findings(machine: Machine) -> tuple[Finding, ...]:
    """Processor, cores and memory."""
    memory = Finding("memory", "not here", "the system does not say")
    if machine.memory_gb is not None:
        memory = Finding("memory", "ok", f"{machine.memory_gb:.1f} GB")
    return (
        Finding("processor", "ok", f"{machine.processor} ({machine.architecture}, {machine.system})"),
        Finding("cores", "ok", f"{machine.cores} for this process"),
        memory,
    )


def gpu_findings(probes: Probes, hardware: Hardware) -> tuple[Finding, ...]:
    """Device, driver, CUDA and, on a Jetson, its system and power mode."""
    found = [_device(hardware), *_driver(probes, hardware), _toolkit(probes)]
    if hardware.is_jetson:
        found += [_jetpack(probes), _power_mode(probes)]
    return tuple(found)


def _device(hardware: Hardware) -> Finding:
    gpu = hardware.gpu
    if hardware.has_gpu:
        shared = ", shared with the processor" if hardware.is_jetson else ""
        memory = f"{gpu['memory_bytes'] / 1e9:.1f} GB{shared}"
        return Finding("GPU", "ok", f"{gpu['name']}, compute capability {gpu['compute_capability']}, {memory}")
    if hardware.is_jetson:
        return Finding("GPU", "missing", "a Jetson whose driver shows no GPU", "install JetPack's system again")
    if "problem" in gpu:
        return Finding("GPU", "missing", f"the driver does not answer: {gpu['problem']}", INSTALL_DRIVER)
    return Finding("GPU", "not here", NO_GPU)


def _driver(probes: Probes, hardware: Hardware) -> list[Finding]:
    printed = probes.output_of(("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"))
    version = (printed or "").strip().partition("\n")[0].strip()
    if not re.fullmatch(r"\d[\d.]*", version):
        loaded = DRIVER.search(probes.text_of(DRIVER_VERSION) or "")
        version = loaded[1] if loaded else ""
    if not hardware.has_gpu:
        if version:
            return [Finding("driver", "missing", f"{version} is loaded and shows no GPU", INSTALL_DRIVER)]
        return [Finding("driver", "not here", "without a GPU there is none to look for")]
    cuda = hardware.gpu.get("cuda")
    takes = f", takes CUDA up to {cuda}" if cuda else ""
    named = version or ("JetPack's own" if hardware.is_jetson else "its version is not told")
    return [Finding("driver", "ok", f"{named}{takes}")]


def _toolkit(probes: Probes) -> Finding:
    listed = CUDA_TOOLKIT.search(probes.text_of(CUDA_FOLDER_VERSION) or "")
    if listed:
        return Finding("CUDA toolkit", "ok", listed[1])
    printed = re.search(r"release ([\d.]+)", probes.output_of(("nvcc", "--version")) or "")
    if printed:
        return Finding("CUDA toolkit", "ok", printed[1])
    return Finding("CUDA toolkit", "not here", "needed only where pycuda is compiled")


def _jetpack(probes: Probes) -> Finding:
    release = RELEASE.search(probes.text_of(TEGRA_RELEASE) or "")
    if release is None:
        return Finding("JetPack", "missing", f"{TEGRA_RELEASE} does not say which", "install JetPack 6 or 7")
    jetpack = JETPACK_OF_L4T.get(int(release[1]))
    name = f"L4T {release[1]}.{release[2]}"
    if jetpack is None or jetpack < 6:
        return Finding("JetPack", "missing", f"{name} is none that bundles are made for", "install JetPack 6 or 7")
    return Finding("JetPack", "ok", f"{jetpack} ({name})")


def _power_mode(probes: Probes) -> Finding:
    printed = probes.output_of(("nvpmodel", "-q"))
    if printed is None:
        return Finding("power mode", "missing", "nvpmodel does not answer", "sudo apt install nvidia-l4t-nvpmodel")
    mode = POWER_MODE.search(printed)
    if mode is None:
        return Finding("power mode", "missing", "nvpmodel names none", SLOW_MODE)
    slow = "" if "MAXN" in mode[1].upper() else f" (for more: {SLOW_MODE})"
    return Finding("power mode", "ok", f"{mode[1].strip()}{slow}")
