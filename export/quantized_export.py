"""The whole way in one command: export in floating point, measure on conversations, quantize, measure what it costs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sottovoce.calibration.bundles.writer import BundleWriter
from sottovoce.calibration.quantization.plan import PrecisionPlan
from sottovoce.calibration.quantization.quantize import QuantizeJob, QuantizeReport, quantize
from sottovoce.calibration.ranges.calibrate import calibrate
from sottovoce.calibration.ranges.range_file import Ranges, read_ranges
from sottovoce.export.export import ExportOptions, export
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.manifest import Precision
from sottovoce.runtime.progress import Progress, SilentProgress

FLOATS: Mapping[str, Precision] = {"fp32": "fp32", "fp16": "fp16"}


@dataclass(frozen=True)
class QuantizedExport:
    """What is to be exported, and how small.

    Args:
        plan: with at least one stage (or the KV cache) in integers.
        data: conversations to calibrate and to measure on; needed for `int8` and for an int8 cache.
        allow_little_data: take fewer conversations than calibration wants.
    """

    plan: PrecisionPlan
    data: Path | None = None
    allow_little_data: bool = False


def split_plan(plan: PrecisionPlan) -> tuple[dict[str, Precision], PrecisionPlan]:
    """The stages that an export can write by itself, and what is left for quantization."""
    exported: dict[str, Precision] = {
        stage: FLOATS[stage_plan.precision]
        for stage, stage_plan in plan.stages.items()
        if stage_plan.precision is not None and stage_plan.precision in FLOATS
    }
    left = {stage: stage_plan for stage, stage_plan in plan.stages.items() if stage not in exported}
    return exported, replace(plan, stages=left)


def export_quantized(
    checkpoint: str, output: Path, options: ExportOptions, wanted: QuantizedExport, progress: Progress | None = None
) -> QuantizeReport:
    """Write a quantized bundle from a checkpoint; the one in floating point lies beside it meanwhile.

    Args:
        checkpoint: a folder, or a Hugging Face id.
        output: the bundle to write.
        options: of the export; the precisions of stages that are to be in integers are left to their target.
        wanted: what is to become smaller, and on which data.
        progress: told of each step.

    Raises:
        SottovoceError: ranges are needed and there is no data, or whatever export, calibration and quantization raise.
            Nothing is left behind then.
    """
    progress = progress or SilentProgress()
    if wanted.plan.needs_ranges and wanted.data is None:
        raise SottovoceError(
            f"int8 activations and caches of {', '.join(wanted.plan.ranged_stages)} need conversations to measure on",
            fix="give --data DIR (a folder with set.jsonl), or choose int8-weights",
        )
    parent = Path(os.path.abspath(output)).parent
    parent.mkdir(parents=True, exist_ok=True)
    writer = BundleWriter(output, force=options.force)
    scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}.whole-", dir=parent))
    try:
        export(checkpoint, scratch / "float.bundle", replace(options, force=False), progress)
        source = Bundle.open(scratch / "float.bundle", verify_hashes=False)
        ranges = _ranges(source, scratch / "ranges", wanted, progress)
        return quantize(QuantizeJob(source, wanted.plan, ranges, wanted.data), writer, progress)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _ranges(source: Bundle, path: Path, wanted: QuantizedExport, progress: Progress) -> Ranges | None:
    if wanted.data is None:
        return None
    calibrate(source, wanted.data, path, allow_little_data=wanted.allow_little_data, progress=progress)
    return read_ranges(path)
