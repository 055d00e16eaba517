"""`sottovoce build`: a bundle's graphs into engines for GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.commands.options import BUNDLE, common
from sottovoce.runtime.console import Console
from sottovoce.runtime.engines.build import BuildOptions, BuiltEngine, build_engines
from sottovoce.runtime.engines.profiles import DEFAULT_MAX_PROMPT
from sottovoce.runtime.engines.record import engines_folder, fingerprint_digest
from sottovoce.runtime.engines.targets import TARGETS
from sottovoce.runtime.manifest import STAGES, GraphSpec
from sottovoce.runtime.records import write_record


@click.command("build")
@BUNDLE
@click.option(
    "--target", "targets", type=click.Choice(list(TARGETS)), multiple=True, required=True,
    help="What the engines are for; may be given several times.",
)  # fmt: skip
@click.option(
    "--stage", "stages", type=click.Choice(list(STAGES)), multiple=True,
    help="Build this stage alone; several times: these. Default: all.",
)  # fmt: skip
@click.option(
    "--workspace-mb", type=click.IntRange(1), metavar="N", help="GPU memory that one layer may work in, at most."
)
@click.option(
    "--max-prompt", type=click.IntRange(1), default=DEFAULT_MAX_PROMPT, show_default=True, metavar="N",
    help="Positions that the language model takes in one call; a longer prompt goes in several.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Build even what has not changed.")
@common
def build_command(  # noqa: PLR0913  # click hands over one argument a flag
    bundle: Path,
    targets: tuple[str, ...],
    stages: tuple[Any, ...],
    workspace_mb: int | None,
    max_prompt: int,
    force: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Build engines from BUNDLE's graphs, into BUNDLE; what has not changed is not built again.

    rtx-8.6, rtx-8.9 and rtx-12.0 need no GPU; the other targets are built on the device that they run on.
    """
    del debug
    console = Console(as_json)
    options = BuildOptions(tuple(stages) or STAGES, workspace_mb, max_prompt, force)
    with console.progress() as progress:
        opened = Bundle.open(bundle, verify_hashes=False)
        engines = build_engines(opened, targets, options, progress)
    rows = [_row(opened, engine) for engine in engines]
    columns = ["target", "stage", "precision", "weights", "engine", "built in", "INT8 of multiply-adds"]
    console.table("engines", columns, rows, [3, 4, 5])
    console.result({"engines": [_json(opened, engine) for engine in engines]})


def _row(bundle: Bundle, engine: BuiltEngine) -> list[str]:
    record = engine.record
    spec = bundle.graph(record.stage)
    report = record.report
    share, fused = report.int8_multiply_adds_share, report.fused_int8_multiply_adds_share
    int8 = "" if not share else f"{100 * share:.1f} %"
    if share and fused is not None:
        int8 += f" ({100 * fused:.1f} % in the engine)"
    return [
        engine.target,
        record.stage,
        spec.precision,
        f"{_weights_bytes(bundle, spec) / 1e6:.1f} MB",
        f"{record.bytes / 1e6:.1f} MB",
        "cached" if engine.cached else f"{record.seconds:.1f} s",
        int8,
    ]


def _json(bundle: Bundle, engine: BuiltEngine) -> dict[str, Any]:
    record = engine.record
    spec = bundle.graph(record.stage)
    return {
        "stage": record.stage,
        "target": engine.target,
        "precision": spec.precision,
        "bytes": record.bytes,
        "weights_bytes": _weights_bytes(bundle, spec),
        "seconds": record.seconds,
        "cached": engine.cached,
        "file": str(engines_folder(bundle, engine.target) / record.file),
        "sha256": record.sha256,
        "fingerprint": fingerprint_digest(record.fingerprint),
        "report": write_record(record.report),
    }


def _weights_bytes(bundle: Bundle, spec: GraphSpec) -> int:
    return sum(bundle.manifest.files[name].bytes for name in (spec.file, *spec.data))
