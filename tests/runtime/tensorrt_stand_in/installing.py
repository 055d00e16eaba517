"""The stand-in in place of the real modules, and engines for it in a bundle."""

from __future__ import annotations

import gc
import hashlib
import importlib.machinery
import json
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from sottovoce.runtime import backends
from sottovoce.runtime.backends import cuda_graph, tensorrt
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.contracts import tensor_by_role
from sottovoce.runtime.engines.library import this_platform
from sottovoce.runtime.engines.matching import MatchedEngine
from sottovoce.runtime.engines.profiles import stage_profiles
from sottovoce.runtime.engines.record import (
    ENGINES_FOLDER,
    FORMAT_VERSION,
    RECORD_FILE,
    EngineFolderRecord,
    EngineRecord,
    EngineSettings,
    Fingerprint,
    LayerReport,
    ShapeRange,
    graph_sha256,
    record_text,
)
from sottovoce.runtime.manifest import STAGES, GraphSpec, StageName
from tensorrt_stand_in.device import Device
from tensorrt_stand_in.driver import make_driver
from tensorrt_stand_in.driver_library import DriverLibrary
from tensorrt_stand_in.library import make_library

VERSION, COMPUTE_CAPABILITY = "10.13.3.9", (8, 9)
Profiles = tuple[Mapping[str, ShapeRange], ...]


@contextmanager
def stand_in(
    monkeypatch: pytest.MonkeyPatch,
    *,
    version: str = VERSION,
    compute_capability: tuple[int, int] = COMPUTE_CAPABILITY,
    gpus: int = 1,
    total_bytes: int = 1 << 30,
    check_leaks: bool = True,
) -> Iterator[Device]:
    """The two modules are the stand-in's; afterwards nothing may be left on its device."""
    device = Device(total_bytes)
    package = types.ModuleType("pycuda")
    package.driver = make_driver(device, compute_capability, gpus)
    library = make_library(device, "tensorrt", version)
    for module in (library, package, package.driver):
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(tensorrt, "installed_libraries", lambda: ("tensorrt",))
    monkeypatch.setattr(cuda_graph, "load_driver", lambda: DriverLibrary(device))
    monkeypatch.setattr(tensorrt, "_shared", [])
    monkeypatch.setattr(tensorrt, "_users", 0)
    tensorrt.logger_of.cache_clear()
    backends.remark_once.cache_clear()
    yield device
    if device.leaks():
        gc.collect()  # slow with PyTorch loaded
    if check_leaks:
        assert device.leaks() == []
    tensorrt.logger_of.cache_clear()


def engine_bytes(graph: Path, spec: GraphSpec, profiles: Profiles, host_inputs: tuple[str, ...] = ()) -> bytes:
    """The stand-in's engine of a graph."""
    aliased = {}
    for tensor in spec.outputs if spec.cache is not None else ():
        if tensor.role.startswith("present_"):
            past = tensor_by_role(spec.inputs, tensor.role.replace("present_", "past_"))
            aliased[tensor.name] = past.name
    shapes = [
        {name: [list(one.minimum), list(one.optimum), list(one.maximum)] for name, one in profile.items()}
        for profile in profiles
    ]
    description = {
        "graph": str(graph.resolve()), "profiles": shapes, "aliased": aliased, "host_inputs": host_inputs,
    }  # fmt: skip
    return json.dumps(description).encode()


def engine_record(stage: StageName, data: bytes, graph_hash: str, profiles: Profiles = ()) -> EngineRecord:
    """What is written down of it."""
    settings = EngineSettings(profiles, tuple(str(index) for index in range(len(profiles))))
    capability = ".".join(map(str, COMPUTE_CAPABILITY))
    fingerprint = Fingerprint(graph_hash, "tensorrt", VERSION, capability, this_platform(), settings)
    digest = hashlib.sha256(data).hexdigest()
    report = LayerReport(layers=1)
    return EngineRecord(stage, f"{stage}.engine", len(data), digest, 0.1, "2026-01-01", fingerprint, report)


def lone_engine(folder: Path, spec: GraphSpec, profiles: Profiles, **options: tuple[str, ...]) -> MatchedEngine:
    """An engine of a graph that belongs to no bundle."""
    data = engine_bytes(folder / spec.file, spec, profiles, **options)
    path = folder / "lone.engine"
    path.write_bytes(data)
    return MatchedEngine("local", path, engine_record("language_model", data, "0" * 64, profiles))


def write_engines(bundle: Bundle, stages: tuple[StageName, ...] = STAGES, target: str = "local") -> EngineFolderRecord:
    """Engines of a bundle's stages, in its folder, with the profiles that `sottovoce build` makes."""
    folder = bundle.path / ENGINES_FOLDER / target
    folder.mkdir(parents=True, exist_ok=True)
    records = {}
    for stage in stages:
        spec = bundle.graph(stage)
        profiles = tuple(profile.shapes(spec) for profile in stage_profiles(bundle, stage))
        data = engine_bytes(bundle.file(spec.file), spec, profiles)
        records[stage] = engine_record(stage, data, graph_sha256(bundle, stage), profiles)
        (folder / records[stage].file).write_bytes(data)
    record = EngineFolderRecord(FORMAT_VERSION, target, records)
    (folder / RECORD_FILE).write_text(record_text(record), encoding="utf-8")
    return record
