"""TensorRT, CUDA for Python, ONNX Runtime and audio; and which of `--backend` they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sottovoce.runtime.doctor.findings import Finding, State
from sottovoce.runtime.doctor.hardware import NO_GPU, Hardware
from sottovoce.runtime.doctor.probes import Probes

Answer = Mapping[str, Any]
CPU_PROVIDER = "CPUExecutionProvider"
GPU_PROVIDERS: Mapping[str, tuple[str, str | None]] = {
    "cuda": ("CUDAExecutionProvider", None),
    "ort-tensorrt": ("TensorrtExecutionProvider", None),
    "nv-tensorrt-rtx": ("NvTensorRTRTXExecutionProvider", "onnxruntime_ep_nv_tensorrt_rtx"),
}
"""ONNX Runtime's ways to a GPU: the provider's name, and the module that brings it."""
PROVIDER_INSTALL: Mapping[str, str] = {
    "cuda": "pip install onnxruntime-gpu in place of onnxruntime",
    "ort-tensorrt": "pip install onnxruntime-gpu in place of onnxruntime, with TensorRT",
    "nv-tensorrt-rtx": "pip install onnxruntime-ep-nv-tensorrt-rtx beside onnxruntime",
}
JETSON_TENSORRT = (
    "sudo apt install nvidia-jetpack, and make the environment with python3 -m venv --system-site-packages, so that it "
    "sees JetPack's TensorRT (no wheel of it fits)"
)
DESKTOP_GPU = "pip install 'sottovoce[gpu]'"
RTX = "pip install 'sottovoce[rtx]'"
PYCUDA = "pip install pycuda (it is compiled: the CUDA toolkit's nvcc must be on PATH)"
RUNTIME = "pip install sottovoce"
KERNELS = "install a C compiler (on Ubuntu: sudo apt install gcc), then: pip install --force-reinstall sottovoce"


@dataclass(frozen=True)
class Software:
    """What Python said of each library."""

    tensorrt: Answer
    tensorrt_rtx: Answer
    pycuda: Answer
    onnxruntime: Answer
    kernels: Answer
    provider_plugins: Mapping[str, Answer]


def look_at_software(probes: Probes) -> Software:
    """Ask for each library, in a process of its own."""
    plugins = {module for _, module in GPU_PROVIDERS.values() if module is not None}
    return Software(
        tensorrt=probes.answer_to("module", "tensorrt"),
        tensorrt_rtx=probes.answer_to("module", "tensorrt_rtx"),
        pycuda=probes.answer_to("module", "pycuda.driver"),
        onnxruntime=probes.answer_to("onnxruntime"),
        kernels=probes.answer_to("kernels"),
        provider_plugins={module: probes.answer_to("module", module) for module in sorted(plugins)},
    )


def library_findings(software: Software, hardware: Hardware) -> tuple[Finding, ...]:
    """The libraries that engines are built and run with, and ONNX Runtime."""
    for_gpu = JETSON_TENSORRT if hardware.is_jetson else DESKTOP_GPU
    runtime = software.onnxruntime
    providers = ", ".join(name.removesuffix("ExecutionProvider") for name in runtime.get("providers", ()))
    return (
        _library("TensorRT", software.tensorrt, for_gpu, wanted=hardware.has_gpu),
        _library("TensorRT for RTX", software.tensorrt_rtx, RTX, wanted=hardware.has_gpu and not hardware.is_jetson),
        _library("pycuda", software.pycuda, PYCUDA, wanted=hardware.has_gpu),
        _library("ONNX Runtime", runtime, RUNTIME, wanted=True, more=f"providers: {providers}" if providers else ""),
        _kernels(software.kernels, hardware),
    )


def backend_findings(software: Software, hardware: Hardware) -> tuple[Finding, ...]:
    """What `--backend` may be, and whether it computes here."""
    return (
        _onnxruntime_backend(software),
        _tensorrt_backend(software, hardware),
        *(_provider_backend(name, software, hardware) for name in GPU_PROVIDERS),
    )


def audio_findings(probes: Probes) -> tuple[Finding, ...]:
    """Microphones and loudspeakers: `chat` needs them, files do without."""
    answer = probes.answer_to("audio")
    if "problem" in answer:
        fix = answer.get("fix") or "see that `arecord -l` and `aplay -l` list devices and that you are in group audio"
        return (Finding("audio", "missing", str(answer["problem"]), str(fix)),)
    return (
        _devices("microphone", answer.get("microphones", ()), "--audio-in F.wav"),
        _devices("speaker", answer.get("speakers", ()), "--audio-out F.wav"),
    )


def _works(answer: Answer) -> bool:
    return bool(answer.get("found")) and "problem" not in answer


def _library(name: str, answer: Answer, install: str, *, wanted: bool, more: str = "") -> Finding:
    """A library is missed only where it would be of use."""
    if _works(answer):
        version = answer.get("version") or "of unknown version"
        return Finding(name, "ok", f"{version}, {more}" if more else str(version))
    absent: State = "missing" if wanted else "not here"
    problem = answer.get("problem")
    if answer.get("found") or (problem and "No module named" not in str(problem)):
        # A stub or broken package may shadow the real one: it is worth a word wherever it is.
        fix = f"remove it, then: {install}" if answer.get("found") else install
        return Finding(name, "missing", f"installed, but cannot be imported: {problem}", fix)
    return Finding(name, absent, "not installed", install if wanted else None)


def _kernels(answer: Answer, hardware: Hardware) -> Finding:
    """They are for some processors alone, and where a GPU computes nothing misses them."""
    if answer.get("instructions"):
        return Finding("kernels", "ok", f"attention, and weights in 4 and 8 bits, with {answer['instructions']}")
    if answer.get("found") or not answer.get("possible"):
        return Finding("kernels", "not here", "for Linux and AVX2 or AVX-512; ONNX Runtime's own compute")
    absent: State = "not here" if hardware.has_gpu else "missing"
    return Finding("kernels", absent, "not compiled: ONNX Runtime's own compute, slower", KERNELS)


def _devices(name: str, names: Sequence[str], otherwise: str) -> Finding:
    if not names:
        return Finding(name, "not here", f"none; chat takes a file: {otherwise}")
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return Finding(name, "ok", f"{names[0]}{more}")


def _onnxruntime_backend(software: Software) -> Finding:
    if _works(software.onnxruntime) and CPU_PROVIDER in software.onnxruntime.get("providers", ()):
        return Finding("onnxruntime", "ok", "on the processor")
    return Finding("onnxruntime", "missing", "ONNX Runtime cannot be used", RUNTIME)


def _tensorrt_backend(software: Software, hardware: Hardware) -> Finding:
    if not hardware.has_gpu:
        return Finding("tensorrt", "not here", NO_GPU)
    usable = [name for name, answer in _engine_libraries(software).items() if _works(answer)]
    if not usable:
        install = JETSON_TENSORRT if hardware.is_jetson else f"{DESKTOP_GPU}, or {RTX}"
        return Finding("tensorrt", "missing", "no library for engines", install)
    if not _works(software.pycuda):
        return Finding("tensorrt", "missing", "pycuda cannot be used", PYCUDA)
    return Finding("tensorrt", "ok", f"engines of {' and '.join(usable)}, built with sottovoce build")


def _engine_libraries(software: Software) -> Mapping[str, Answer]:
    return {"TensorRT": software.tensorrt, "TensorRT for RTX": software.tensorrt_rtx}


def _provider_backend(name: str, software: Software, hardware: Hardware) -> Finding:
    provider, module = GPU_PROVIDERS[name]
    if not hardware.has_gpu:
        return Finding(name, "not here", NO_GPU)
    if provider in software.onnxruntime.get("providers", ()):
        return Finding(name, "ok", f"ONNX Runtime's {provider}")
    if module is not None and _works(software.provider_plugins[module]) and _works(software.onnxruntime):
        return Finding(name, "ok", f"ONNX Runtime with {module}")
    return Finding(name, "missing", f"ONNX Runtime has no {provider}", PROVIDER_INSTALL[name])
