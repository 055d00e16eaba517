"""The doctor at made-up machines, and at this one with tools that hang, crash and print nonsense."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sottovoce.runtime.backends import BACKENDS
from sottovoce.runtime.backends.onnxruntime_gpu import PROVIDERS
from sottovoce.runtime.cli import main
from sottovoce.runtime.commands import doctor as doctor_module
from sottovoce.runtime.commands.doctor import show_diagnosis
from sottovoce.runtime.console import Console
from sottovoce.runtime.doctor.child import QUESTIONS
from sottovoce.runtime.doctor.examine import examine
from sottovoce.runtime.doctor.findings import Diagnosis, Finding
from sottovoce.runtime.doctor.probes import ThisMachine
from sottovoce.runtime.doctor.software import GPU_PROVIDERS
from sottovoce.runtime.profiling.machine import Machine

ABSENT: Mapping[str, Any] = {"found": False}
CPU_ONLY: Mapping[str, Any] = {"found": True, "version": "1.32.0", "providers": ["CPUExecutionProvider"]}


@dataclass
class MadeUp:
    """A machine that answers what it is told to; to everything else: nothing is there."""

    described: Machine
    tools: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def machine(self) -> Machine:
        return self.described

    def output_of(self, command: Sequence[str]) -> str | None:
        return self.tools.get(command[0])

    def text_of(self, path: str) -> str | None:
        return self.files.get(path)

    def answer_to(self, question: str, *arguments: str) -> Mapping[str, Any]:
        return self.answers.get(" ".join((question, *arguments)), ABSENT)


ORIN = MadeUp(
    Machine("NVIDIA Jetson AGX Orin Developer Kit, ARMv8 Processor", "aarch64", "Linux", 12, 65.0),
    tools={"nvidia-smi": "[N/A]\n", "nvpmodel": "NV Power Mode: MODE_30W\n2\n"},
    files={
        "/etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic, EABI: aarch64\n",
        "/usr/local/cuda/version.json": '{"cuda" : {"name" : "CUDA SDK", "version" : "12.6.11"}}',
    },
    answers={
        "gpu": {"found": True, "name": "Orin", "compute_capability": "8.7", "memory_bytes": 64e9, "cuda": "12.6"},
        "module tensorrt": {"found": True, "version": "10.3.0"},
        "module pycuda.driver": {"found": True, "version": "2024.1.2"},
        "onnxruntime": CPU_ONLY,
        "audio": {"found": True, "microphones": ["USB microphone", "APE"], "speakers": []},
    },
)
DESKTOP = MadeUp(
    Machine("AMD Ryzen 9", "x86_64", "Linux", 32, 128.0),
    tools={"nvidia-smi": "580.65.06\n"},
    answers={
        "gpu": {
            "found": True, "name": "NVIDIA GeForce RTX 4090", "compute_capability": "8.9", "memory_bytes": 25.3e9,
            "cuda": "13.0",
        },
        "module tensorrt": {"found": True, "problem": "RuntimeError: the wheel is a stub"},
        "module tensorrt_rtx": {"found": True, "version": "1.7.1.116"},
        "module pycuda.driver": {"found": True, "version": "2025.1"},
        "onnxruntime": {**CPU_ONLY, "providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]},
        "audio": {"found": True, "microphones": ["pulse"], "speakers": ["pulse"]},
    },
)  # fmt: skip
LAPTOP = MadeUp(
    Machine("Intel Core i5", "x86_64", "Linux", 4, None),
    answers={
        "onnxruntime": CPU_ONLY,
        "audio": {"found": False, "problem": "needs PyAudio", "fix": "pip install 'sottovoce[audio]'"},
    },
)


def found(diagnosis: Diagnosis, name: str) -> Finding:
    everything = [finding for section in diagnosis.findings.values() for finding in section]
    return next(finding for finding in (*everything, *diagnosis.backends) if finding.name == name)


def states(diagnosis: Diagnosis) -> dict[str, str]:
    return {backend.name: backend.state for backend in diagnosis.backends}


def test_a_jetson_orin() -> None:
    diagnosis = examine(ORIN)
    assert diagnosis.working == ("onnxruntime", "tensorrt")
    assert found(diagnosis, "GPU").found == "Orin, compute capability 8.7, 64.0 GB, shared with the processor"
    assert found(diagnosis, "driver").found == "JetPack's own, takes CUDA up to 12.6"
    assert found(diagnosis, "JetPack").found == "6 (L4T 36.4.3)"
    assert found(diagnosis, "CUDA toolkit").found == "12.6.11"
    assert "MODE_30W" in found(diagnosis, "power mode").found
    assert "nvpmodel -m 0" in found(diagnosis, "power mode").found
    assert found(diagnosis, "TensorRT").found == "10.3.0"
    assert found(diagnosis, "TensorRT for RTX") == Finding("TensorRT for RTX", "not here", "not installed")
    assert found(diagnosis, "microphone").found == "USB microphone and 1 more"
    assert found(diagnosis, "speaker").state == "not here"


def test_a_jetson_whose_environment_does_not_see_tensorrt() -> None:
    answers = {name: answer for name, answer in ORIN.answers.items() if name != "module tensorrt"}
    diagnosis = examine(MadeUp(ORIN.described, ORIN.tools, ORIN.files, answers))
    assert diagnosis.working == ("onnxruntime",)
    tensorrt = found(diagnosis, "TensorRT")
    assert tensorrt.state == "missing"
    assert "--system-site-packages" in str(tensorrt.fix)
    assert "sottovoce[rtx]" not in str(found(diagnosis, "tensorrt").fix)


def test_a_jetson_of_an_older_jetpack() -> None:
    files = {**ORIN.files, "/etc/nv_tegra_release": "# R35 (release), REVISION: 4.1, GCID: 1, BOARD: t186ref\n"}
    jetpack = found(examine(MadeUp(ORIN.described, ORIN.tools, files, ORIN.answers)), "JetPack")
    assert (jetpack.state, jetpack.fix) == ("missing", "install JetPack 6 or 7")


def test_a_desktop_with_a_stub_in_tensorrts_place() -> None:
    diagnosis = examine(DESKTOP)
    assert states(diagnosis) == {
        "onnxruntime": "ok", "tensorrt": "ok", "cuda": "ok", "ort-tensorrt": "missing", "nv-tensorrt-rtx": "missing"
    }  # fmt: skip
    assert found(diagnosis, "driver").found == "580.65.06, takes CUDA up to 13.0"
    stub = found(diagnosis, "TensorRT")
    assert stub.state == "missing"
    assert "stub" in stub.found
    assert str(stub.fix).startswith("remove it")
    assert "onnxruntime-ep-nv-tensorrt-rtx" in str(found(diagnosis, "nv-tensorrt-rtx").fix)


def test_a_desktop_without_pycuda() -> None:
    answers = {name: answer for name, answer in DESKTOP.answers.items() if name != "module pycuda.driver"}
    diagnosis = examine(MadeUp(DESKTOP.described, DESKTOP.tools, {}, answers))
    assert found(diagnosis, "tensorrt").state == "missing"
    assert "pip install pycuda" in str(found(diagnosis, "tensorrt").fix)


def test_a_laptop_with_nothing() -> None:
    diagnosis = examine(LAPTOP)
    assert diagnosis.working == ("onnxruntime",)
    assert set(states(diagnosis).values()) == {"ok", "not here"}
    assert found(diagnosis, "audio").fix == "pip install 'sottovoce[audio]'"
    assert found(diagnosis, "memory").state == "not here"
    assert found(diagnosis, "TensorRT for RTX").fix is None


def test_a_driver_that_does_not_answer_is_not_a_machine_without_one() -> None:
    gpu = {"gpu": {"problem": "no answer within 30 s"}}
    diagnosis = examine(MadeUp(LAPTOP.described, DESKTOP.tools, {}, {**LAPTOP.answers, **gpu}))
    assert found(diagnosis, "GPU").state == "missing"
    assert "580.65.06" in found(diagnosis, "driver").found


@pytest.mark.parametrize(
    "machine", [ORIN, DESKTOP, LAPTOP, MadeUp(LAPTOP.described)], ids=["orin", "desktop", "laptop", "nothing"]
)
def test_table_and_json_show_the_same(machine: MadeUp, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(doctor_module, "examine", lambda: examine(machine))
    code = main(["doctor", "--json"])
    printed = capsys.readouterr()
    value = json.loads(printed.out)
    assert code == (0 if value["can_run"] else 1)
    assert value["can_run"] == bool(value["backends"])
    for section in value["findings"].values():
        for finding in section:
            assert finding["state"] in ("ok", "missing", "not here")
            assert finding["found"] in printed.err
            assert finding["state"] != "missing" or finding["fix"] in printed.err


def test_where_nothing_runs_the_exit_code_says_so(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(doctor_module, "examine", lambda: examine(MadeUp(LAPTOP.described)))
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "nothing here can run a bundle" in printed
    assert "pip install sottovoce" in printed


def test_columns_are_aligned(capsys: Any) -> None:
    show_diagnosis(Console(), examine(ORIN))
    lines = capsys.readouterr().out.splitlines()
    starts = {line.index(word) for line in lines for word in (" ok ", " missing ", " not here ") if word in line[:45]}
    assert len(starts) == 1


def test_the_doctor_knows_every_backend() -> None:
    assert [backend.name for backend in examine(LAPTOP).backends] == list(BACKENDS)
    assert {name: (provider.name, provider.plugin) for name, provider in PROVIDERS.items()} == dict(GPU_PROVIDERS)


def test_this_machine_answers_every_question(capsys: Any) -> None:
    assert main(["doctor", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert "onnxruntime" in value["backends"]
    assert value["machine"]["cores"] >= 1


def tool(folder: Path, name: str, script: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_tools_that_fail_hang_or_are_not_there(tmp_path: Path) -> None:
    machine = ThisMachine(command_seconds=0.5)
    assert machine.output_of(("no-such-tool-anywhere",)) is None
    assert machine.output_of((tool(tmp_path, "fails", "exit 9"),)) is None
    assert machine.output_of((tool(tmp_path, "hangs", "exec sleep 60"),)) is None
    assert machine.text_of(str(tmp_path / "none")) is None
    assert machine.text_of(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("source", "seconds", "problem"),
    [
        ("raise RuntimeError('a stub')", 60, "RuntimeError: a stub"),
        ("import time; time.sleep(60)", 2, "no answer within 2 s"),
        ("import os; os.kill(os.getpid(), 11)", 60, "it crashed (signal 11)"),
        ("import no_such_dependency", 60, "No module named 'no_such_dependency'"),
    ],
)
def test_a_library_that_cannot_be_imported_costs_an_answer_only(
    source: str, seconds: float, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_library.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH")))))
    answer = ThisMachine(module_seconds=seconds).answer_to("module", "broken_library")
    assert answer["problem"] == problem


def test_what_a_library_prints_is_not_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "chatty_library.py").write_text("print('{ hello'); print('[1]'); __version__ = '3.1'")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH")))))
    assert ThisMachine().answer_to("module", "chatty_library") == {"found": True, "version": "3.1"}


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ({"found": True, "instructions": "AVX2", "possible": True}, "ok"),
        ({"found": True, "instructions": None, "possible": True}, "not here"),
        ({"found": False, "instructions": None, "possible": True}, "missing"),
        ({"found": False, "instructions": None, "possible": False}, "not here"),
    ],
)
def test_kernels_are_missed_where_a_compiler_would_bring_them(answer: Mapping[str, Any], state: str) -> None:
    (found,) = (
        finding
        for finding in examine(MadeUp(LAPTOP.described, answers={"kernels": answer})).findings["libraries"]
        if finding.name == "kernels"
    )
    assert found.state == state
    assert (found.fix is not None) == (state == "missing")


def test_questions_of_the_child_are_those_that_are_asked() -> None:
    asked: set[str] = set()

    class Listening(MadeUp):
        def answer_to(self, question: str, *arguments: str) -> Mapping[str, Any]:
            asked.add(question)
            return ABSENT

    examine(Listening(LAPTOP.described))
    assert asked == set(QUESTIONS)


def test_looking_imports_none_of_the_libraries() -> None:
    libraries = ("tensorrt", "tensorrt_rtx", "pycuda", "pyaudio", "onnxruntime")
    script = (
        "import sys; import sottovoce.runtime.doctor.examine, sottovoce.runtime.doctor.child;"
        f"print([name for name in {libraries!r} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
