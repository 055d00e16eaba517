"""sottovoce's language model stage with its cache and its sampler: `decode_ours.py FOLDER THREADS`.

FOLDER is what `our_stages.py` wrote. Each step is what a conversation does for a token, but for its text.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from peer_protocol import serve
from stage_files import SPEC, TABLE

from sottovoce.runtime.backends.onnxruntime import OnnxRuntimeSession
from sottovoce.runtime.manifest import GraphSpec
from sottovoce.runtime.records import read_record
from sottovoce.runtime.sampling import Sampler, SamplingOptions
from sottovoce.runtime.stages.language_model import LanguageModel


class TimedEngine:
    """An engine's session that notes how long it computes: what is left of a step is our Python."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run_with_iobinding(self, binding: Any) -> None:
        started = time.perf_counter()
        self._engine.run_with_iobinding(binding)
        self.seconds += time.perf_counter() - started


class Ours:
    """The stage."""

    def __init__(self, folder: Path, threads: int) -> None:
        self.versions = {name: metadata.version(name) for name in ("sottovoce", "onnxruntime")}
        spec = read_record(GraphSpec, json.loads((folder / SPEC).read_text()), source=SPEC)
        session = OnnxRuntimeSession("language_model", spec, folder / spec.file, threads)
        self._engine = session._session = TimedEngine(session._session)
        self._model = LanguageModel(session)
        self._cache = self._model.create_cache()
        self._table = np.load(folder / TABLE, mmap_mode="r")
        self._sampler = Sampler(SamplingOptions(greedy=True))

    def start(self, prompt: list[int]) -> None:
        self._cache.reset()
        self._filled = self._logits = self._model.prefill(self._table[prompt], self._cache)

    def rewind(self, length: int) -> None:
        self._cache.rewind(length)
        self._logits = self._filled
        self._engine.seconds = 0.0

    def step(self) -> int:
        token = self._sampler.pick(self._logits)
        self._logits = self._model.step(self._table[[token]], self._cache)
        return token

    def notes(self) -> dict[str, float]:
        return {"engine_seconds": self._engine.seconds}


if __name__ == "__main__":
    serve(Ours(Path(sys.argv[1]), int(sys.argv[2])))
