"""Two bundles, stage by stage and value by value, and the first place where the smaller one is wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sottovoce.calibration.divergence import wording
from sottovoce.calibration.divergence.blame import BlameFinder
from sottovoce.calibration.divergence.difference import Difference, relative_error
from sottovoce.calibration.divergence.graph_pair import GraphPair
from sottovoce.calibration.divergence.report import DivergenceReport, FirstDivergence, StageDivergence
from sottovoce.calibration.divergence.same_model import require_same_model
from sottovoce.calibration.divergence.stage_calls import StageCall, StageInputs, record_calls
from sottovoce.calibration.divergence.stage_replay import replaying
from sottovoce.calibration.divergence.tokens import TokenComparer, TokenComparison
from sottovoce.calibration.divergence.tolerance import tolerance_of
from sottovoce.calibration.quantization.tables import TABLES
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.embeddings import EmbeddingTable
from sottovoce.runtime.manifest import STAGES, StageName
from sottovoce.runtime.progress import Progress, SilentProgress
from sottovoce.runtime.text.tokenizer import Tokenizer

VALUES_AT_ONCE = 256
"""Values that are looked at in one run, so that those of a large stage need not all be in memory."""
TABLE_ROWS = 4096
"""Of a larger embedding table, so many rows (evenly spread) are compared."""


def compare_bundles(
    found: Bundle,
    reference: Bundle,
    inputs: StageInputs,
    tolerance: float | Mapping[StageName, float] | None = None,
    progress: Progress | None = None,
) -> DivergenceReport:
    """Compare a smaller bundle with the one it was made from; needs no PyTorch and no checkpoint.

    Args:
        found: the smaller one.
        reference: in floating point.
        inputs: what to feed both with.
        tolerance: largest relative error of any value, for all stages or stage by stage; None: that of each stage's
            precision.
        progress: told of each stage.

    Raises:
        BundleError: the bundles are of different models, or one was not made from the other.
        InputError: a set, recording or picture that cannot be read.
        BackendError: the engine refuses a graph.
    """
    require_same_model(found, reference)
    progress = progress or SilentProgress()
    calls = record_calls(reference, inputs, progress)
    stages: list[StageDivergence] = []
    first: FirstDivergence | None = None
    for number, stage in enumerate(STAGES):
        progress.step("comparing stages", number, len(STAGES))
        allowed = tolerance_of(found.graph(stage), stage, tolerance)
        comparison = _StageComparison(found, reference, stage, calls[stage], allowed)
        stages.append(comparison.run())
        first = first or comparison.first_divergence
    progress.step("comparing stages", len(STAGES), len(STAGES))
    return DivergenceReport(tuple(stages), first)


@dataclass
class _StageComparison:
    """One stage: all its values under both bundles, and its results as they are in a conversation."""

    found: Bundle
    reference: Bundle
    stage: StageName
    calls: Sequence[StageCall]
    allowed: float
    first_divergence: FirstDivergence | None = None
    _values: dict[str, Difference] = field(default_factory=dict)
    _left_at: dict[str, int] = field(default_factory=dict)
    """The first call at which a value left the tolerance."""

    def run(self) -> StageDivergence:
        self._compare_table()
        is_same_file = self._is_same_file()
        result, tokens = Difference(), None
        if not is_same_file:
            pair = GraphPair(self.reference, self.found, self.stage)
            result, tokens = self._walk(pair)
            self.first_divergence = self.first_divergence or self._first(pair, result, tokens)
        worst = max(self._values, key=lambda name: self._values[name].error, default="")
        decibels = result.signal_to_noise_db
        return StageDivergence(
            stage=self.stage,
            precision=self.found.graph(self.stage).precision,
            is_same_file=is_same_file,
            values=len(self._values),
            largest_error=self._values[worst].error if worst else 0.0,
            largest_error_at=worst,
            allowed=self.allowed,
            cosine=result.cosine,
            signal_to_noise_db=decibels if math.isfinite(decibels) else None,
            tokens=tokens,
            ok=self.first_divergence is None,
        )

    @property
    def _output(self) -> str:
        """The name of the stage's one result."""
        outputs = self.found.graph(self.stage).outputs
        return next(tensor.name for tensor in outputs if not tensor.role.startswith("present_"))

    def _is_same_file(self) -> bool:
        hashes = []
        for bundle in (self.found, self.reference):
            spec = bundle.graph(self.stage)
            hashes.append([bundle.manifest.files[name].sha256 for name in (spec.file, *spec.data)])
        return hashes[0] == hashes[1]

    def _walk(self, pair: GraphPair) -> tuple[Difference, TokenComparison | None]:
        """Run all calls through both graphs; the difference of the results, and the tokens."""
        tokens = self._token_comparer()
        result = Difference()
        for start in range(0, len(pair.shared), VALUES_AT_ONCE):
            names = pair.shared[start : start + VALUES_AT_ONCE]
            self._look_at(pair, names)
        with replaying(self.reference, self.stage) as expected, replaying(self.found, self.stage) as found:
            for number, call in enumerate(self.calls):
                first, second = expected.run(call)[self._output], found.run(call)[self._output]
                result.append(Difference.between(first, second))
                if tokens is not None:
                    tokens.append(number, first, second)
        return result, None if tokens is None else tokens.comparison()

    def _look_at(self, pair: GraphPair, names: Sequence[str]) -> None:
        with (
            replaying(self.reference, self.stage, names) as expected,
            replaying(self.found, self.stage, names) as found,
        ):
            for number, call in enumerate(self.calls):
                first, second = expected.run(call), found.run(call)
                for name in names:
                    one = Difference.between(first[name], pair.in_reference_units(name, second[name]))
                    if one.error > self.allowed:
                        self._left_at.setdefault(name, number)
                    self._values.setdefault(name, Difference()).append(one)

    def _token_comparer(self) -> TokenComparer | None:
        if self.found.graph(self.stage).cache is None:
            return None
        manifest = self.reference.manifest
        tokenizer = Tokenizer(self.reference.file(manifest.tokenizer))
        return TokenComparer(self.stage, self.calls, self.allowed, tokenizer, manifest.speech)

    def _first(self, pair: GraphPair, result: Difference, tokens: TokenComparison | None) -> FirstDivergence | None:
        name = next((name for name in pair.shared if self._values[name].error > self.allowed), None)
        if name is not None:
            return self._divergence(pair, name, self._values[name].error)
        output = self._output
        if result.error > self.allowed:
            verdict = wording.fusion(output, result.error, self._values[output].error)
            return FirstDivergence(self.stage, output, result.error, self.allowed, verdict)
        if tokens is not None and not tokens.ok:
            whole = self._divergence(pair, output, result.error)
            return FirstDivergence(
                self.stage, output, result.error, self.allowed, whole.verdict, tokens.first_difference
            )
        return None

    def _divergence(self, pair: GraphPair, name: str, error: float) -> FirstDivergence:
        calls = self.calls[: self._left_at.get(name, 0) + 1]
        return FirstDivergence(self.stage, name, error, self.allowed, BlameFinder(pair, calls).find(name))

    def _compare_table(self) -> None:
        """The embedding table that feeds the stage, where it was changed: rows of it are the stage's own inputs."""
        name = TABLES.get(self.stage)
        if name is None:
            return
        specs = [getattr(bundle.manifest, name) for bundle in (self.reference, self.found)]
        if specs[0].dtype == specs[1].dtype and self._hash_of(self.reference, name) == self._hash_of(self.found, name):
            return
        rows = np.unique(np.linspace(0, specs[0].rows - 1, min(TABLE_ROWS, specs[0].rows)).astype(np.int64))
        tables = [EmbeddingTable(self.reference, specs[0]), EmbeddingTable(self.found, specs[1])]
        first, second = (table.rows(rows) for table in tables)
        self._values[name] = Difference.between(first, second)
        error = relative_error(first, second)
        if error > self.allowed:
            verdict = wording.table(name, specs[1].dtype, error)
            self.first_divergence = FirstDivergence(self.stage, name, error, self.allowed, verdict)

    @staticmethod
    def _hash_of(bundle: Bundle, name: str) -> list[str]:
        return [bundle.manifest.files[file].sha256 for file in getattr(bundle.manifest, name).files]
