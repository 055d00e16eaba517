"""Quantization within a budget: layers are ranked, bundles with ever better guesses are tried, the best is written.

Kept layers stay in the floating point of the source. What is no layer (embedding tables, KV caches) stays as planned.
Only layers that the text goes through are kept: a measure of answers cannot see the others, so none of them could help.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from sottovoce.calibration.bundles.writer import BundleWriter
from sottovoce.calibration.evaluation_set import read_evaluation_set
from sottovoce.calibration.quantization.quantize import QuantizeJob, QuantizeReport, check_job, quantize
from sottovoce.calibration.ranges.calibrate import data_hash
from sottovoce.calibration.sensitivity.acceptance import Acceptance
from sottovoce.calibration.sensitivity.budget import UNITS, Budget
from sottovoce.calibration.sensitivity.layer_meter import LayerMeter
from sottovoce.calibration.sensitivity.layers import Layer, planned_layers
from sottovoce.calibration.sensitivity.report import (
    FrontierPoint,
    LayerSensitivity,
    SearchReport,
    by_sensitivity,
)
from sottovoce.calibration.sensitivity.search import most_trials, search_kept
from sottovoce.calibration.sensitivity.split import DataSplit, split_data
from sottovoce.calibration.sensitivity.state import SearchFile, SearchKey
from sottovoce.calibration.sensitivity.teacher import Conversations
from sottovoce.runtime.conversation_set.capture_record import read_capture_record
from sottovoce.runtime.manifest import StageName
from sottovoce.runtime.progress import Progress, SilentProgress
from sottovoce.runtime.records import write_record


@dataclass(frozen=True)
class BudgetedJob:
    """What is to be made, and what it may cost.

    Args:
        job: with a set of conversations.
        budget: what may be lost.
        allow_little_data: take fewer conversations than a budget wants.
    """

    job: QuantizeJob
    budget: Budget
    allow_little_data: bool = False

    @property
    def data(self) -> Path:
        """The set's folder."""
        if self.job.data is None:
            raise ValueError("a budget needs conversations")
        return self.job.data


def quantize_within(wanted: BudgetedJob, writer: BundleWriter, progress: Progress | None = None) -> QuantizeReport:
    """Write the smallest bundle that was found to hold the budget; goes on with a search that was interrupted.

    Args:
        wanted: what is to be made.
        writer: of the new bundle, not entered yet.
        progress: told of each layer and each bundle that is tried.

    Raises:
        SottovoceError: the budget cannot be met (with what was measured), there is too little data, an unfinished
            search of another kind has the output's place, or whatever `quantize` raises.
    """
    progress = progress or SilentProgress()
    writer.check_place()
    check_job(wanted.job)
    items = read_evaluation_set(wanted.data)
    read_capture_record(wanted.data, wanted.job.source.manifest)  # another model's captures are refused
    split = split_data(items, allow_little_data=wanted.allow_little_data)
    file = SearchFile(writer.path, _key(wanted, data_hash(wanted.data, items)))
    with _scratch(writer.path) as scratch:
        search = _Search(wanted, split, scratch, file, progress)
        report, kept = search.run()
    done = quantize(replace(wanted.job, kept=kept, search=report), writer, progress)
    file.remove()
    return done


class _Search:
    """The two steps, each of which skips what the file knows already."""

    def __init__(
        self, wanted: BudgetedJob, split: DataSplit, scratch: Path, file: SearchFile, progress: Progress
    ) -> None:
        self._wanted, self._split, self._file, self._progress = wanted, split, file, progress
        self._scratch = scratch
        self._layers = planned_layers(wanted.job.source, wanted.job.plan)
        heard = Conversations(split.acceptance, wanted.data, scratch / "acceptance")
        self._acceptance = Acceptance(wanted.job.source, wanted.budget, heard, progress)

    def run(self) -> tuple[SearchReport, Mapping[StageName, Mapping[str, str]]]:
        """What was found, and the weights to keep with the reason, by stage."""
        measured, budget = self._rank(), self._wanted.budget
        ranked = by_sensitivity(measured, "kl")
        order = [_find(self._layers, layer) for layer in ranked]
        found = search_kept(len(order), budget, lambda kept: self._try(order, kept))
        self._progress.step("trying what to keep", 1, 1)
        report = SearchReport(
            budget=str(budget),
            unit=UNITS[budget.measure],
            limit=budget.limit,
            layers=(*ranked, *by_sensitivity(measured, "relative_error")),
            points=found.points,
            kept=found.kept,
            ranked_on=len(self._split.ranking),
            accepted_on=len(self._acceptance.data.items),
        )
        reasons = [f"budget: KL {layer.value:.2g}" for layer in ranked]
        return report, kept_weights(order[: found.kept], reasons)

    def _rank(self) -> tuple[LayerSensitivity, ...]:
        known = {(layer.stage, layer.layer) for layer in self._file.state.layers}
        data = Conversations(self._split.ranking, self._wanted.data, self._scratch / "ranking")
        meter = LayerMeter(self._wanted.job, data, self._progress)
        for number, layer in enumerate(self._layers):
            self._progress.step("measuring layers", number, len(self._layers))
            if (layer.stage, layer.name) not in known:
                self._file.add_layer(meter.measure(layer, _others(self._layers, layer)))
        self._progress.step("measuring layers", len(self._layers), len(self._layers))
        meter.close()
        places = {(layer.stage, layer.name): place for place, layer in enumerate(self._layers)}
        return tuple(sorted(self._file.state.layers, key=lambda layer: places[layer.stage, layer.layer]))

    def _try(self, order: Sequence[Layer], kept: int) -> FrontierPoint:
        points = {point.kept: point for point in self._file.state.points}
        if kept not in points:
            self._progress.step("trying what to keep", len(points), max(most_trials(len(order)), len(points)))
            job = replace(self._wanted.job, kept=kept_weights(order[:kept], ["tried"] * kept), data=None)
            writer = BundleWriter(self._scratch / "tried.bundle", force=True)
            size = quantize(job, writer).bytes_after
            points[kept] = FrontierPoint(kept, size, self._acceptance.cost(writer.path))
            shutil.rmtree(writer.path)
            self._file.add_point(points[kept])
        return points[kept]


def kept_weights(layers: Sequence[Layer], reasons: Sequence[str]) -> dict[StageName, dict[str, str]]:
    """Names of all weights of some layers, with each layer's reason, by stage."""
    kept: dict[StageName, dict[str, str]] = {}
    for layer, reason in zip(layers, reasons, strict=False):
        kept.setdefault(layer.stage, {}).update(dict.fromkeys(layer.weights, reason))
    return kept


def _find(layers: Sequence[Layer], measured: LayerSensitivity) -> Layer:
    return next(layer for layer in layers if (layer.stage, layer.name) == (measured.stage, measured.layer))


def _others(layers: Sequence[Layer], one: Layer) -> list[str]:
    return [name for layer in layers if layer.stage == one.stage and layer.name != one.name for name in layer.weights]


def _key(wanted: BudgetedJob, data_sha256: str) -> SearchKey:
    job = wanted.job
    return SearchKey(
        tool=f"sottovoce {metadata.version('sottovoce')}",
        source_sha256=job.source.sha256,
        ranges_sha256=None if job.ranges is None else job.ranges.sha256,
        data_sha256=data_sha256,
        plan=json.dumps(write_record(job.plan), sort_keys=True),
        measure=wanted.budget.measure,
    )


@contextmanager
def _scratch(output: Path) -> Iterator[Path]:
    """A folder beside the output; what a killed search left there is removed first."""
    folder = output.parent / f".{output.name}.search"
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("ranking", "acceptance"):
        os.makedirs(folder / part)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
