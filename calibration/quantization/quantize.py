"""A bundle in floating point in, a smaller one out: stage by stage, tables, KV cache, and a record of what was done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from sottovoce.calibration.bundles.graph_contract import check_graph
from sottovoce.calibration.bundles.writer import BundleWriter
from sottovoce.calibration.quantization.multiply_adds import count_turn
from sottovoce.calibration.quantization.plan import PrecisionPlan
from sottovoce.calibration.quantization.quality import QualityCost, measure_cost
from sottovoce.calibration.quantization.stage_quantizer import StageQuantizer
from sottovoce.calibration.quantization.tables import TABLES, copy_table, shrink_table
from sottovoce.calibration.ranges.range_file import Ranges
from sottovoce.calibration.sensitivity.report import SearchReport
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.manifest import (
    STAGES,
    BundleManifest,
    EmbeddingTableSpec,
    GraphSpec,
    QuantizationRecord,
    StageName,
)
from sottovoce.runtime.progress import Progress, SilentProgress
from sottovoce.runtime.records import write_record

REPORT_FILE = "quantization.json"
"""The report, in the bundle."""


@dataclass(frozen=True)
class StageChange:
    """One line of the report."""

    stage: StageName
    precision: str
    bytes_before: int
    bytes_after: int
    weights_share: float
    multiply_adds_share: float | None
    smoothed: int


@dataclass(frozen=True)
class QuantizeReport:
    """What was written."""

    bundle: Path
    bytes_before: int
    bytes_after: int
    stages: tuple[StageChange, ...]
    turn_multiply_adds_share: float | None = None
    """Of the multiply-adds of a typical spoken turn, all stages together, how many have both factors in INT8: 0 to 1;
    None: no stage has INT8 activations."""
    cost: QualityCost | None = None
    """What it costs in answers; None: not measured."""
    search: SearchReport | None = None
    """How the weights that stay in floating point were found; None: by no search."""

    def as_json(self) -> dict[str, Any]:
        """The report as `--json` prints it, and as it lies in the bundle."""
        return {
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "stages": write_record(self.stages),
            "turn_multiply_adds_share": self.turn_multiply_adds_share,
            "quality": None if self.cost is None else self.cost.as_json(),
            "search": None if self.search is None else self.search.as_json(),
        }


@dataclass(frozen=True)
class QuantizeJob:
    """What is to be made of what.

    Args:
        source: a checked bundle in floating point.
        plan: what each stage is to be.
        ranges: what real inputs did; None where the plan needs none.
        data: a set to measure the cost in answers on; None: it is not measured.
        kept: names of weights that stay in floating point, with the reason, by stage.
        search: how these were found; None: by no search.
    """

    source: Bundle
    plan: PrecisionPlan
    ranges: Ranges | None = None
    data: Path | None = None
    kept: Mapping[StageName, Mapping[str, str]] = field(default_factory=dict)
    search: SearchReport | None = None


def quantize(job: QuantizeJob, writer: BundleWriter, progress: Progress | None = None) -> QuantizeReport:
    """Write a smaller bundle; stages that the plan does not name are copied as they are.

    Args:
        job: what is to be made.
        writer: of the new bundle, not entered yet.
        progress: told of each stage and each answer.

    Raises:
        SottovoceError: the plan needs ranges and there are none, or they are of another graph; a stage is quantized
            already; the output's place will not do, or the disk is full. Nothing is left behind then.
    """
    progress = progress or SilentProgress()
    check_job(job)
    with writer:
        manifest = writer.seal(_write(job, writer, progress), progress)
        report = _report(job.source, Bundle.open(writer.folder, verify_hashes=False), writer.path)
        report = replace(report, search=job.search)
        if job.data is not None:
            cost = measure_cost(job.source.path, writer.folder, job.data, progress)
            report = replace(report, cost=cost)
            manifest = replace(manifest, quality=cost.summary())
        writer.reopen()
        writer.write_text(REPORT_FILE, json.dumps(report.as_json(), indent=1, ensure_ascii=False) + "\n")
        writer.seal(manifest, progress)
        writer.publish()
    return report


def _write(job: QuantizeJob, writer: BundleWriter, progress: Progress) -> BundleManifest:
    """All files but the report and `bundle.json`."""
    source, plan = job.source, job.plan
    writer.require_space(source.weights_bytes)
    graphs: dict[str, GraphSpec] = {}
    for number, stage in enumerate(STAGES):
        progress.step("quantizing", number, len(STAGES))
        quantizer = StageQuantizer(source, stage, plan.of(stage), job.ranges, job.kept.get(stage, {}))
        if quantizer.changes_nothing:
            graphs[stage] = _copy_stage(source, stage, writer)
        else:
            graphs[stage] = quantizer.write(writer.folder)
        check_graph(writer.folder, graphs[stage])
    progress.step("quantizing", len(STAGES), len(STAGES))
    tables = _write_tables(source, plan, writer)
    return replace(
        source.manifest,
        graphs=graphs,
        tokenizer=writer.copy(source.file(source.manifest.tokenizer), source.manifest.tokenizer),
        token_embeddings=tables["token_embeddings"],
        code_embeddings=tables["code_embeddings"],
        files={},
        quality={},
        quantization=_record(source, job.ranges, writer.folder),
    )


def check_job(job: QuantizeJob) -> None:
    """Refuse what cannot be made, before anything is computed.

    Raises:
        SottovoceError: the plan needs ranges and there are none, or they are of another graph; a stage is quantized
            already.
    """
    source, plan, ranges = job.source, job.plan, job.ranges
    changed = [stage for stage, stage_plan in plan.stages.items() if stage_plan.precision not in ("fp32", "fp16")]
    for stage in changed:
        if source.graph(stage).quantization is not None:
            raise SottovoceError(
                f"stage {stage!r} is quantized already ({source.graph(stage).precision})",
                file=source.path,
                fix="start from the bundle it was made from, in floating point",
            )
    if ranges is not None:
        helped = [stage for stage in changed if stage in ranges.record.graphs]
        ranges.require_graphs(source, [*dict.fromkeys((*plan.ranged_stages, *helped))])
    elif plan.needs_ranges:
        raise SottovoceError(
            f"int8 activations and caches of {', '.join(plan.ranged_stages)} need measured ranges",
            fix="run: sottovoce calibrate BUNDLE --data DIR -o RANGES, then quantize with --ranges RANGES; or choose "
            "int8-weights",
        )


def _copy_stage(source: Bundle, stage: StageName, writer: BundleWriter) -> GraphSpec:
    spec = source.graph(stage)
    for name in (spec.file, *spec.data):
        writer.copy(source.file(name), name)
    return spec


def _write_tables(source: Bundle, plan: PrecisionPlan, writer: BundleWriter) -> dict[str, EmbeddingTableSpec]:
    tables = {}
    for stage, name in TABLES.items():
        spec: EmbeddingTableSpec = getattr(source.manifest, name)
        precision = plan.of(stage).precision
        tables[name] = (
            copy_table(source, writer, spec) if precision is None else shrink_table(source, writer, spec, precision)
        )
    return tables


def _record(source: Bundle, ranges: Ranges | None, folder: Path) -> QuantizationRecord:
    written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return QuantizationRecord(
        tool=f"sottovoce {metadata.version('sottovoce')}",
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        source_sha256=source.sha256,
        ranges_sha256=None if ranges is None else ranges.sha256,
        data_sha256=None if ranges is None else ranges.record.data_sha256,
        bytes_before=sum(record.bytes for record in source.manifest.files.values()),
        bytes_after=written,
    )


def _report(source: Bundle, written: Bundle, path: Path) -> QuantizeReport:
    changes = []
    for stage in STAGES:
        spec = written.graph(stage)
        quantization = spec.quantization
        changes.append(
            StageChange(
                stage,
                spec.precision,
                _stage_bytes(source, stage),
                _stage_bytes(written, stage),
                1.0 if quantization is None else quantization.weights_share,
                None if quantization is None else quantization.multiply_adds_share,
                0 if quantization is None else quantization.smoothed,
            )
        )
    sizes = [sum(record.bytes for record in bundle.manifest.files.values()) for bundle in (source, written)]
    has_int8 = any(change.multiply_adds_share is not None for change in changes)
    share = count_turn(written).share if has_int8 else None
    return QuantizeReport(path, sizes[0], sizes[1], tuple(changes), share)


def _stage_bytes(bundle: Bundle, stage: StageName) -> int:
    """Graph, weights, and the table that feeds it."""
    spec = bundle.graph(stage)
    names = [spec.file, *spec.data]
    if stage in TABLES:
        names += getattr(bundle.manifest, TABLES[stage]).files
    return sum(bundle.manifest.files[name].bytes for name in names)
