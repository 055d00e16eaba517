"""Which of a bundle's engines fits this machine, and why none does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.engines.machine import Machine
from sottovoce.runtime.engines.record import BUILD_AGAIN, ENGINES_FOLDER, EngineRecord, graph_sha256, read_engines
from sottovoce.runtime.errors import BackendError, BundleError
from sottovoce.runtime.manifest import StageName

BUILD = "build them on this machine: sottovoce build {bundle} --target local"


@dataclass(frozen=True)
class MatchedEngine:
    """An engine that was built from this graph, with this library, for this GPU."""

    target: str
    path: Path
    record: EngineRecord


def matching_engine(bundle: Bundle, stage: StageName, machine: Machine) -> MatchedEngine:
    """The engine of a stage that fits.

    Raises:
        BackendError: none does; the message says why of each that there is.
        BundleError: a record of engines cannot be read.
    """
    check_built(bundle)
    reasons = []
    for target in built_targets(bundle):
        record = read_engines(bundle, target).engines.get(stage)
        path = bundle.path / ENGINES_FOLDER / target / (record.file if record is not None else "")
        reason = _misfit(bundle, stage, record, path, machine)
        if record is not None and reason is None:
            return MatchedEngine(target, path, record)
        reasons.append(f"{target}: {reason}")
    message = f"no engine fits this machine: {'; '.join(reasons)}"
    raise BackendError(message, file=bundle.path / ENGINES_FOLDER, fix=BUILD.format(bundle=bundle.path))


def check_built(bundle: Bundle) -> None:
    """Nothing of the machine needs to be looked at where nothing was built.

    Raises:
        BackendError: the bundle has no engines.
    """
    if not built_targets(bundle):
        fix = BUILD.format(bundle=bundle.path)
        raise BackendError("this bundle has no engines", file=bundle.path / ENGINES_FOLDER, fix=fix)


def built_targets(bundle: Bundle) -> list[str]:
    """Targets that there are engines of."""
    folder = bundle.path / ENGINES_FOLDER
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def checked_bytes(engine: MatchedEngine) -> bytes:
    """The engine's file, compared with its record: what is damaged or exchanged never reaches the library.

    Raises:
        BundleError: it cannot be read, or is not what was built.
    """
    fix = BUILD_AGAIN.format(target=engine.target)
    try:
        data = engine.path.read_bytes()
    except OSError as problem:
        raise BundleError(f"the engine cannot be read: {problem}", file=engine.path, fix=fix) from problem
    found = hashlib.sha256(data).hexdigest()
    if found != engine.record.sha256:
        message = f"the engine's SHA-256 is {found}, its record says {engine.record.sha256}: it was changed or damaged"
        raise BundleError(message, file=engine.path, fix=fix)
    return data


def _misfit(bundle: Bundle, stage: StageName, record: EngineRecord | None, path: Path, machine: Machine) -> str | None:
    """What of an engine does not fit; None: all does."""
    if record is None:
        return f"no engine of stage {stage!r}"
    return next(_misfits(bundle, stage, record, path, machine), None)


def _misfits(bundle: Bundle, stage: StageName, record: EngineRecord, path: Path, machine: Machine) -> Iterator[str]:
    built = record.fingerprint
    if built.graph_sha256 != graph_sha256(bundle, stage):
        yield f"built from another graph of stage {stage!r} (the bundle was changed since)"
    if built.platform != machine.platform:
        yield f"built for {built.platform}, this is {machine.platform}"
    version = machine.libraries.get(built.library)
    if version is None:
        here = " and ".join(f"{name} {number}" for name, number in machine.libraries.items())
        yield f"built with {built.library}, which is not installed here ({here} is)"
    if version != built.library_version:
        yield f"built with {built.library} {built.library_version}, here is {version}"
    if built.compute_capability != machine.compute_capability:
        yield f"built for compute capability {built.compute_capability}, this GPU has {machine.compute_capability}"
    if not path.is_file():
        yield f"the file {record.file!r} is missing"
    elif path.stat().st_size != record.bytes:
        yield f"the file {record.file!r} has {path.stat().st_size} bytes, its record says {record.bytes}"
