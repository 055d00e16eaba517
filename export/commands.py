"""`sottovoce export` and `sottovoce verify`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, get_args

import click

from sottovoce.export.dialects import TARGETS
from sottovoce.export.export import ExportOptions, export
from sottovoce.export.parity import ParityReport, StageParity
from sottovoce.export.verify import VerifyOptions, verify
from sottovoce.runtime.commands.options import BUNDLE, FILE, common
from sottovoce.runtime.console import Console
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.manifest import STAGES, Precision

PRECISIONS = get_args(Precision)


@click.command("export")
@click.argument("checkpoint")
@click.option("-o", "--output", "bundle", type=FILE, required=True, help="The bundle to write (a folder).")
@click.option("--target", type=click.Choice(list(TARGETS)), default="cpu", show_default=True, help="What will run it.")
@click.option(
    "--precision",
    metavar="P | STAGE=P,…",
    help=f"{' or '.join(PRECISIONS)}, for all stages or stage by stage. Default: fp32 for cpu, fp16 for GPUs.",
)
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
    settings = ExportOptions(
        target=options["target"],
        precision=parse_precision(options["precision"]),
        force=options["force"],
        context_length=options["context_length"],
        ignored_config_keys=options["ignored"],
    )
    started = time.perf_counter()
    with console.progress() as progress:
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


def parse_precision(text: str | None) -> Precision | dict[str, Precision] | None:
    """`fp16`, or `language_model=fp16,codec=fp32`; None is the target's default.

    Raises:
        SottovoceError: an unknown stage or precision; the valid ones are listed.
    """
    if text is None:
        return None
    if "=" not in text:
        return _precision(text)
    chosen: dict[str, Precision] = {}
    for part in text.split(","):
        stage, _, precision = part.strip().partition("=")
        if stage not in STAGES:
            raise SottovoceError(
                f"--precision names an unknown stage {stage!r}", fix=f"use one of: {', '.join(STAGES)}"
            )
        chosen[stage] = _precision(precision)
    return chosen


def _precision(text: str) -> Precision:
    for precision in PRECISIONS:
        if text == precision:
            return precision  # type: ignore[no-any-return]  # get_args is untyped
    raise SottovoceError(f"--precision is {text!r}", fix=f"use one of: {', '.join(PRECISIONS)}")


@click.command("verify")
@BUNDLE
@click.option("--checkpoint", required=True, help="What the bundle was made from (a folder or a Hugging Face id).")
@click.option("--audio", type=FILE, help="A recording to verify with; default: a synthetic one.")
@click.option("--image", type=FILE, help="A picture to verify with; default: a synthetic one.")
@click.option(
    "--text", default="What is the time?", show_default=True, help="The text of the prompt and of the speech."
)
@click.option("--steps", type=click.IntRange(1, 512), default=24, show_default=True, help="Greedy tokens to compare.")
@click.option(
    "--ignore-config-key", "ignored", multiple=True, metavar="KEY", help="Accept this unknown key of config.json."
)
@common
def verify_command(bundle: Path, checkpoint: str, as_json: bool, debug: bool, **options: Any) -> int:
    """Compare the bundle with PyTorch, stage by stage; exit code 1 where they differ."""
    del debug
    console = Console(as_json)
    settings = VerifyOptions(
        audio=options["audio"],
        image=options["image"],
        text=options["text"],
        steps=options["steps"],
        ignored_config_keys=options["ignored"],
    )
    with console.progress() as progress:
        report = verify(bundle, checkpoint, settings, progress)
    show_parity(console, report)
    console.result(report.as_json())
    return 0 if report.ok else 1


def show_parity(console: Console, report: ParityReport) -> None:
    """The table people read, and the verdict."""
    rows = [row for stage in report.stages for row in _stage_rows(stage)]
    columns = ["stage", "precision", "tensor", "largest error", "allowed", "cosine", ""]
    console.table("", columns, rows, [3, 4, 5])
    if report.ok:
        console.say("every stage equals PyTorch within its bar", style="green")
    else:
        console.say(f"first divergence: {report.first_divergence}", style="bold red")


def _stage_rows(stage: StageParity) -> list[list[str]]:
    rows = []
    for tensor in stage.tensors:
        allowed = "" if tensor.allowed_error is None else f"{tensor.allowed_error:.1e}"
        figures = [f"{tensor.largest_error:.1e}", allowed, f"{tensor.cosine:.7f}", "ok" if tensor.ok else "DIFFERS"]
        rows.append([stage.stage, stage.precision, tensor.tensor, *figures])
    if stage.tokens is not None:
        tokens = stage.tokens
        different = "all the same" if tokens.first_difference is None else f"differ at {tokens.first_difference}"
        label = f"{tokens.steps} greedy tokens"
        rows.append([stage.stage, stage.precision, label, different, "", "", "ok" if tokens.ok else "DIFFERS"])
    return rows
