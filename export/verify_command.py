"""`sottovoce verify`: a bundle against PyTorch, or a smaller bundle against the one it was made from.

Imports nothing heavy: `--against` works where PyTorch is not installed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sottovoce.runtime.commands.options import BUNDLE, FILE, common
from sottovoce.runtime.console import Console
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.manifest import STAGES, StageName

if TYPE_CHECKING:
    from sottovoce.calibration.divergence.report import DivergenceReport, StageDivergence
    from sottovoce.export.parity import ParityReport, StageParity


@click.command("verify")
@BUNDLE
@click.option("--checkpoint", help="The checkpoint that BUNDLE was made from (a folder or a Hugging Face id).")
@click.option(
    "--against", type=FILE, metavar="BUNDLE", help="The bundle in floating point that this one was quantized from."
)
@click.option(
    "--data", type=FILE, metavar="DIR", help="With --against: conversations to hold, a folder with set.jsonl."
)
@click.option(
    "--tolerance",
    metavar="E | STAGE=E,…",
    help="With --against: largest relative error of a value, such as 0.1; default: by each stage's precision.",
)
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
def verify_command(
    bundle: Path, checkpoint: str | None, against: Path | None, as_json: bool, debug: bool, **options: Any
) -> int:
    """Compare BUNDLE with PyTorch, or with the bundle it was made from; exit code 1 where they differ."""
    del debug
    if (checkpoint is None) == (against is None):
        raise click.UsageError("give --checkpoint or --against: what to compare the bundle with")
    console = Console(as_json)
    if against is not None:
        if options["ignored"]:
            raise click.UsageError("--ignore-config-key is for --checkpoint")
        with _needing("quantize", "verify --against"):
            return _against_bundle(console, bundle, against, options)
    if options["data"] is not None or options["tolerance"] is not None:
        raise click.UsageError("--data and --tolerance are for --against")
    with _needing("export", "verify --checkpoint"):
        return _against_checkpoint(console, bundle, str(checkpoint), options)


def parse_tolerance(text: str | None) -> float | dict[StageName, float] | None:
    """`0.1`, or `language_model=0.2,codec=0.05`; None is the default of each stage's precision.

    Raises:
        SottovoceError: an unknown stage, or no number above 0; the valid stages are listed.
    """
    if text is None:
        return None
    if "=" not in text:
        return _error(text)
    chosen: dict[StageName, float] = {}
    for part in text.split(","):
        name, _, error = (piece.strip() for piece in part.partition("="))
        stage = next((known for known in STAGES if known == name), None)
        if stage is None:
            message = f"--tolerance names an unknown stage {name!r}"
            raise SottovoceError(message, fix=f"use one of: {', '.join(STAGES)}")
        chosen[stage] = _error(error)
    return chosen


def show_parity(console: Console, report: ParityReport) -> None:
    """The table people read, and the verdict."""
    rows = [row for stage in report.stages for row in _parity_rows(stage)]
    columns = ["stage", "precision", "tensor", "largest error", "allowed", "cosine", ""]
    console.table("", columns, rows, [3, 4, 5])
    if report.ok:
        console.say("every stage equals PyTorch within its bar", style="green")
    else:
        console.say(f"first divergence: {report.first_divergence}", style="bold red")


def show_divergence(console: Console, report: DivergenceReport) -> None:
    """The table of stages, and the finding."""
    rows = [row for stage in report.stages for row in _divergence_rows(stage)]
    columns = ["stage", "precision", "values", "largest error", "allowed", "cosine", "signal to noise", "", "worst"]
    console.table("", columns, rows, [2, 3, 4, 5, 6])
    if report.ok:
        console.say("every stage is within its tolerance", style="green")
    else:
        console.say(f"first divergence: {report.first_divergence}", style="bold red")


def _against_checkpoint(console: Console, bundle: Path, checkpoint: str, options: Mapping[str, Any]) -> int:
    from sottovoce.export.verify import VerifyOptions, verify

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


def _against_bundle(console: Console, bundle: Path, against: Path, options: Mapping[str, Any]) -> int:
    from sottovoce.calibration.divergence.compare import compare_bundles
    from sottovoce.calibration.divergence.stage_calls import StageInputs
    from sottovoce.runtime.bundle import Bundle

    tolerance = parse_tolerance(options["tolerance"])
    inputs = StageInputs(
        data=options["data"],
        audio=options["audio"],
        image=options["image"],
        text=options["text"],
        steps=options["steps"],
    )
    with console.progress() as progress:
        found, reference = (Bundle.open(path, progress=progress) for path in (bundle, against))
        report = compare_bundles(found, reference, inputs, tolerance, progress)
    show_divergence(console, report)
    console.result(report.as_json())
    return 0 if report.ok else 1


def _error(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        fix = "give a relative error above 0: 0.1 allows a tenth of a value's root mean square"
        raise SottovoceError(f"--tolerance is {text!r}, expected a number above 0", fix=fix)
    return value


@contextmanager
def _needing(extra: str, command: str) -> Iterator[None]:
    """A package that is not installed becomes a message that names the extra which brings it."""
    try:
        yield
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith("sottovoce"):
            raise
        raise SottovoceError(
            f"`sottovoce {command}` needs the Python package {missing.name!r}, which is not installed",
            fix=f"pip install 'sottovoce[{extra}]'",
        ) from missing


def _parity_rows(stage: StageParity) -> list[list[str]]:
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


def _divergence_rows(stage: StageDivergence) -> list[list[str]]:
    if stage.is_same_file:
        same = [stage.stage, stage.precision, "", "the same file", "", "", "", "ok" if stage.ok else "DIFFERS"]
        return [[*same, stage.largest_error_at]]
    decibels = "equal" if stage.signal_to_noise_db is None else f"{stage.signal_to_noise_db:.1f} dB"
    figures = [f"{stage.largest_error:.2g}", f"{stage.allowed:.2g}", f"{stage.cosine:.5f}", decibels]
    verdict = "ok" if stage.ok else "DIFFERS"
    rows = [[stage.stage, stage.precision, str(stage.values), *figures, verdict, stage.largest_error_at]]
    if stage.tokens is not None:
        tokens, first = stage.tokens, stage.tokens.first_difference
        label = "all the same" if first is None else f"{tokens.different} differ"
        where = ""
        if first is not None:
            where = f"token {first.position} of reply {first.reply}: {first.expected_text!r}, here {first.found_text!r}"
            where += f", margin {first.margin:.2g}"
        row = [stage.stage, stage.precision, f"{tokens.tokens} tokens", label, "", "", ""]
        rows.append([*row, "ok" if tokens.ok else "DIFFERS", where])
    return rows
