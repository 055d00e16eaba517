"""`engines/<target>/engines.json` of a bundle: what each engine was built from, with what, and how.

An engine is used only where its fingerprint is that of the graph, the library and the GPU that are here, and its file
has the hash that was written down: a stale or foreign engine never reaches the library.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.engines.targets import Library
from sottovoce.runtime.errors import BundleError
from sottovoce.runtime.manifest import StageName
from sottovoce.runtime.records import RecordError, read_record, write_record

ENGINES_FOLDER = "engines"
RECORD_FILE = "engines.json"
FORMAT_VERSION = 1
MAX_RECORD_BYTES = 4 * 1024 * 1024
ENGINE_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.engine")
"""The name of an engine's file, which cannot lead out of the record's folder."""
BUILD_AGAIN = "build the engines again: sottovoce build BUNDLE --target {target} --force"


@dataclass(frozen=True)
class ShapeRange:
    """The shapes one input may have in one optimization profile: least, most common, greatest."""

    minimum: tuple[int, ...]
    optimum: tuple[int, ...]
    maximum: tuple[int, ...]


@dataclass(frozen=True)
class EngineSettings:
    """All choices of a build that change the engine."""

    profiles: tuple[Mapping[str, ShapeRange], ...]
    """Input's name → its shapes; of a decoder profile 0 is for prefill and profile 1 for one token."""
    profile_names: tuple[str, ...]
    workspace_bytes: int | None = None


@dataclass(frozen=True)
class Fingerprint:
    """What an engine belongs to: another graph, library, GPU or system needs another engine."""

    graph_sha256: str
    """Of the graph's and its weights' own hashes, see `graph_sha256`."""
    library: Library
    library_version: str
    compute_capability: str
    platform: str
    """As "linux-x86_64" or "linux-aarch64"."""
    settings: EngineSettings


@dataclass(frozen=True)
class LayerReport:
    """What the library says of the engine that it built."""

    layers: int
    int8_products: int = 0
    products: int = 0
    int8_multiply_adds_share: float | None = None
    """Of the multiply-adds of matrix products and convolutions, those whose factors are both INT8: 0 to 1."""
    fused_int8_multiply_adds_share: float | None = None
    """Of the same, those that layers of the engine do which read both factors as INT8; None: the builder said none."""
    attention_multiply_adds_share: float | None = None
    """Of all multiply-adds, those in attention operators, which are not among the products and never INT8."""


@dataclass(frozen=True)
class EngineRecord:
    """One built engine."""

    stage: StageName
    file: str
    """In the folder of the record."""
    bytes: int
    sha256: str
    seconds: float
    created: str
    fingerprint: Fingerprint
    report: LayerReport
    modified_ns: int | None = None
    """When the file with this hash was last written, as its folder says: `build` alone believes it."""


@dataclass(frozen=True)
class EngineFolderRecord:
    """All of one target's engines."""

    format_version: int
    target: str
    engines: Mapping[str, EngineRecord] = field(default_factory=dict)


def fingerprint_digest(fingerprint: Fingerprint) -> str:
    """Hexadecimal digits that stand for a whole fingerprint, for people and for comparing."""
    return hashlib.sha256(json.dumps(write_record(fingerprint), sort_keys=True).encode()).hexdigest()[:16]


def engines_folder(bundle: Bundle, target: str) -> Path:
    """Where a target's engines lie."""
    return bundle.path / ENGINES_FOLDER / target


def graph_sha256(bundle: Bundle, stage: StageName) -> str:
    """One hash of a stage's graph and weights, from the hashes of the manifest: no file is read."""
    spec = bundle.graph(stage)
    hashes = [bundle.manifest.files[name].sha256 for name in (spec.file, *spec.data)]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def read_engines(bundle: Bundle, target: str) -> EngineFolderRecord:
    """The record of a target's engines; without engines where nothing was built.

    Raises:
        BundleError: there is a record that cannot be read; the file and the fix are named.
    """
    path = engines_folder(bundle, target) / RECORD_FILE
    fix = BUILD_AGAIN.format(target=target)
    if not path.exists():
        return EngineFolderRecord(FORMAT_VERSION, target)
    if path.stat().st_size > MAX_RECORD_BYTES:
        raise BundleError(
            f"it has {path.stat().st_size} bytes, expected at most {MAX_RECORD_BYTES}", file=path, fix=fix
        )
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise BundleError(f"the record of the engines cannot be read: {problem}", file=path, fix=fix) from problem
    if not isinstance(data, dict) or data.get("format_version") != FORMAT_VERSION:
        raise BundleError(f"not a record of engines of version {FORMAT_VERSION}", file=path, fix=fix)
    try:
        record: EngineFolderRecord = read_record(EngineFolderRecord, data, source=str(path))
    except RecordError as problem:
        raise BundleError(problem.message, file=path, fix=fix) from problem
    if record.target != target:
        raise BundleError(f"it is the record of target {record.target!r}, expected {target!r}", file=path, fix=fix)
    for name, engine in record.engines.items():
        if engine.stage != name or ENGINE_FILE.fullmatch(engine.file) is None:
            raise BundleError(f"the engine {name!r} names the file {engine.file!r}", file=path, fix=fix)
    return record


def record_text(record: EngineFolderRecord) -> str:
    """What `read_engines` reads."""
    return json.dumps(write_record(record), indent=1, ensure_ascii=False) + "\n"
