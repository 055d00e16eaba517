"""`sottovoce build`: all engines of some targets, from the cache where nothing has changed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.engines.engine_builder import EngineRequest, build_engine
from sottovoce.runtime.engines.engine_files import TIMINGS_FILE, EngineFolderWriter, whole_engine
from sottovoce.runtime.engines.library import EngineLibrary, load_library, target_gpu, this_platform
from sottovoce.runtime.engines.profiles import DEFAULT_MAX_PROMPT, stage_profiles
from sottovoce.runtime.engines.record import (
    EngineRecord,
    EngineSettings,
    Fingerprint,
    engines_folder,
    graph_sha256,
    read_engines,
)
from sottovoce.runtime.engines.refusals import check_target
from sottovoce.runtime.engines.targets import EngineTarget, target_named
from sottovoce.runtime.errors import BundleError
from sottovoce.runtime.manifest import STAGES, StageName
from sottovoce.runtime.progress import Progress, SilentProgress

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class BuildOptions:
    """How to build.

    Args:
        stages: which graphs; the others' engines are left as they are.
        workspace_mb: device memory that one layer may work in, at most (MiB); None: all that there is.
        max_prompt: positions that one call of the language model may take.
        force: build even what has not changed.
    """

    stages: tuple[StageName, ...] = STAGES
    workspace_mb: int | None = None
    max_prompt: int = DEFAULT_MAX_PROMPT
    force: bool = False


@dataclass(frozen=True)
class BuiltEngine:
    """One engine that is there now."""

    target: str
    record: EngineRecord
    cached: bool
    """It was there before: graph, library, GPU and settings are the same, and its file is the one that was written."""


def build_engines(
    bundle: Bundle, targets: Sequence[str], options: BuildOptions | None = None, progress: Progress | None = None
) -> list[BuiltEngine]:
    """Build what is missing or has changed; all of a target's new engines are put in place at once, or none.

    Args:
        bundle: gets the engines, below `engines/<target>/`; nothing else of it is changed. The graphs that engines are
            built from are compared with its hashes here; it may be opened without.
        targets: names of targets; each is checked before the first is built.
        options: how.
        progress: told of each engine.

    Raises:
        InputError: there is no such target.
        BundleError: a target cannot take the bundle's graphs, or one of them is damaged.
        BackendError: a library is missing, broken or too old, there is no GPU where one is needed, or it cannot build.
        OSError: the disk is full or not writable.
    """
    chosen, shown = options or BuildOptions(), progress or SilentProgress()
    wanted = [target_named(name) for name in dict.fromkeys(targets)]
    for target in wanted:
        check_target(bundle, target, chosen.stages)
    builds = [
        TargetBuild(bundle, target, load_library(target.library), target_gpu(target), chosen) for target in wanted
    ]
    return [engine for build in builds for engine in build.run(shown)]


@dataclass(frozen=True)
class TargetBuild:
    """One target's engines, and with what they are built.

    Args:
        bundle: whose graphs.
        target: for what.
        library: that builds.
        compute_capability: of the target's GPU.
        options: how.
    """

    bundle: Bundle
    target: EngineTarget
    library: EngineLibrary
    compute_capability: str
    options: BuildOptions

    def run(self, progress: Progress) -> list[BuiltEngine]:
        """Build what is missing or has changed; the errors of `build_engines`."""
        there = self._engines_there()
        wanted = {stage: self.fingerprint(stage) for stage in self.options.stages}
        found = {stage: self._current(there.get(stage), wanted[stage]) for stage in wanted}
        current: dict[str, EngineRecord] = {stage: record for stage, record in found.items() if record is not None}
        missing = [stage for stage in wanted if stage not in current]
        engines = {**there, **current}
        if missing:
            with EngineFolderWriter(self.bundle, self.target.name) as writer:
                for stage in missing:
                    engines[stage] = self._build(stage, wanted[stage], writer, progress)
                writer.commit(engines)
        elif engines != there:
            self._remember(engines)
        return [BuiltEngine(self.target.name, engines[stage], stage in current) for stage in wanted]

    def fingerprint(self, stage: StageName) -> Fingerprint:
        """What an engine that is built now belongs to."""
        spec, options = self.bundle.graph(stage), self.options
        profiles = stage_profiles(self.bundle, stage, options.max_prompt)
        settings = EngineSettings(
            profiles=tuple(profile.shapes(spec) for profile in profiles),
            profile_names=tuple(profile.name for profile in profiles),
            workspace_bytes=None if options.workspace_mb is None else options.workspace_mb * MEGABYTE,
        )
        return Fingerprint(
            graph_sha256=graph_sha256(self.bundle, stage),
            library=self.library.name,
            library_version=self.library.version,
            compute_capability=self.compute_capability,
            platform=this_platform(),
            settings=settings,
        )

    def _engines_there(self) -> dict[str, EngineRecord]:
        """Without any where the record cannot be read: building again is what repairs it."""
        try:
            return dict(read_engines(self.bundle, self.target.name).engines)
        except BundleError:
            return {}

    def _current(self, record: EngineRecord | None, wanted: Fingerprint) -> EngineRecord | None:
        """The record of an engine that need not be built again."""
        if record is None or self.options.force or record.fingerprint != wanted:
            return None
        return whole_engine(self.bundle, self.target.name, record)

    def _remember(self, engines: Mapping[str, EngineRecord]) -> None:
        """Note when files were written that had to be read this time; a folder that cannot be written may stay."""
        with suppress(OSError), EngineFolderWriter(self.bundle, self.target.name) as writer:
            writer.commit(engines)

    def _build(
        self, stage: StageName, wanted: Fingerprint, writer: EngineFolderWriter, progress: Progress
    ) -> EngineRecord:
        started = time.perf_counter()
        spec = self.bundle.graph(stage)
        self.bundle.verify_hashes(progress, (spec.file, *spec.data))
        request = EngineRequest(
            bundle=self.bundle,
            stage=stage,
            label=f"building {stage} for {self.target.name}",
            library=self.library,
            compute_capability=self.compute_capability,
            settings=wanted.settings,
            timings=engines_folder(self.bundle, self.target.name) / TIMINGS_FILE,
        )
        engine = build_engine(request, progress)
        file, sha256, modified_ns = writer.add(stage, engine.plan)
        return EngineRecord(
            stage=stage,
            file=file,
            bytes=engine.plan.nbytes,
            sha256=sha256,
            seconds=round(time.perf_counter() - started, 3),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            fingerprint=wanted,
            report=engine.report,
            modified_ns=modified_ns,
        )
