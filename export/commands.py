"""`sottovoce export`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from sottovoce.calibration.quantization.commands import show_quantized
from sottovoce.calibration.quantization.plan import PRECISIONS, PrecisionPlan, parse_plan
from sottovoce.export.dialects import TARGETS
from sottovoce.export.export import ExportOptions, export
from sottovoce.export.quantized_export import QuantizedExport, export_quantized, split_plan
from sottovoce.runtime.commands.options import FILE, common
from sottovoce.runtime.console import Console


@click.command("export")
@click.argument("checkpoint")
@click.option("-o", "--output", "bundle", type=FILE, required=True, help="The bundle to write (a folder).")
@click.option("--target", type=click.Choice(list(TARGETS)), default="cpu", show_default=True, help="What will run it.")
@click.option(
    "--precision",
    metavar="P | STAGE=P,…",
    help=f"{', '.join(PRECISIONS)}, for all stages or stage by stage. Default: fp32 for cpu, fp16 for GPUs.",
)
@click.option("--data", type=FILE, metavar="DIR", help="Conversations to measure on, for integer precisions.")
@click.option("--allow-little-data", is_flag=True, help="Measure on fewer than 32 conversations.")
@click.option("--force", is_flag=True, help="Replace the bundle if there is one.")
@click.option("--context-length", type=click.IntRange(64), help="Tokens a conversation may have; default: the model's.")
@click.option(
    "--ignore-config-key", "ignored", multiple=True, metavar="KEY", help="Accept this unknown key of config.json."
)
@common
def export_command(checkpoint: str, bundle: Path, as_json: bool, debug: bool, **options: Any) -> None:
    """Turn CHECKPOINT (a folder or a Hugging Face id) into a bundle of ONNX graphs."""
    del debug
    console = Console(as_json)
    plan = PrecisionPlan() if options["precision"] is None else parse_plan(options["precision"])
    precisions, left = split_plan(plan)
    settings = ExportOptions(
        target=options["target"],
        precision=precisions or None,
        force=options["force"],
        context_length=options["context_length"],
        ignored_config_keys=options["ignored"],
    )
    wanted = QuantizedExport(left, options["data"], options["allow_little_data"])
    started = time.perf_counter()
    with console.progress() as progress:
        if left.changes_something:
            quantized = export_quantized(checkpoint, bundle, settings, wanted, progress)
            show_quantized(console, quantized)
            return
        report = export(checkpoint, bundle, settings, progress)
    seconds = time.perf_counter() - started
    rows = [[stage.stage, stage.dialect, stage.precision, f"{stage.bytes / 1e6:.1f} MB"] for stage in report.stages]
    console.table(
        f"{bundle}: {report.bytes / 1e6:.1f} MB in {seconds:.1f} s",
        ["graph", "dialect", "precision", "weights"],
        rows,
        [3],
    )
    for note in report.notes:
        console.warn(f"note: {note}")
    console.result({"bundle": str(bundle), "seconds": round(seconds, 2), **report.as_json()})
