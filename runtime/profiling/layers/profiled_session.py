"""ONNX Runtime with its own profiler on: every operator of every run is written to a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sottovoce.runtime.backends.onnxruntime import OnnxRuntimeSession
from sottovoce.runtime.backends.session import Array, CacheBuffers
from sottovoce.runtime.kernels.fused_graph import fused_graph
from sottovoce.runtime.manifest import GraphSpec, StageName
from sottovoce.runtime.profiling.layers.events import Run, read_runs
from sottovoce.runtime.profiling.recording import Phase
from sottovoce.runtime.profiling.timed_session import CallReader


class ProfiledSession(OnnxRuntimeSession):
    """One graph that is profiled from its first run to `runs`.

    Args:
        stage: its name.
        spec: its contract.
        path: the `.onnx` file.
        threads: cores to compute on.
        folder: where the profile goes; private, and removed by whoever made it.

    Raises:
        BackendError: ONNX Runtime cannot load the graph.
    """

    def __init__(self, stage: StageName, spec: GraphSpec, path: Path, threads: int | None, folder: Path) -> None:
        self._profile = folder / stage
        super().__init__(stage, spec, path, threads)
        self._reads = CallReader(spec)
        self.began_us: float = self._session.get_profiling_start_time_ns() / 1000
        """When the profile's clock began, on one that all profiles of this process share."""
        self.calls: list[tuple[Phase, int, int]] = []
        """Of each run its phase, the size of what was fed, and the positions in the cache before."""

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run once, profiled."""
        results = super().run(feeds, outputs)
        self.calls.append(self._reads.of(feeds))
        return results

    def run_with_cache(self, feeds: Mapping[str, Array], cache: CacheBuffers) -> dict[str, Array]:
        """Run once, profiled."""
        results = super().run_with_cache(feeds, cache)
        self.calls.append(self._reads.of(feeds))
        return results

    def runs(self) -> list[Run]:
        """End the profile and read it: one entry for each of `calls`.

        Raises:
            BackendError: ONNX Runtime wrote none, or not what it writes.
        """
        with self._failures("gave no profile"):
            path = Path(self._session.end_profiling())
        return read_runs(path)

    def _fused(self, threads: int) -> bytes | None:
        """Halves of layers one by one: in a single operator nobody sees what takes how long."""
        return fused_graph(self._path, threads, whole_layers=False)

    def _options(self, kernels: Path | None, threads: int | None) -> Any:
        options = super()._options(kernels, threads)  # as they are when nobody profiles
        options.enable_profiling = True
        options.profile_file_prefix = str(self._profile)
        return options
