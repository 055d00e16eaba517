"""`sottovoce calibrate` and `sottovoce quantize`: what conversations do to a bundle's tensors, and a smaller one."""

from __future__ import annotations

from pathlib import Path

import click

from sottovoce.calibration.bundles.writer import BundleWriter
from sottovoce.calibration.quantization.plan import parse_plan
from sottovoce.calibration.quantization.quantize import QuantizeJob, QuantizeReport, StageChange, quantize
from sottovoce.calibration.quantization.report_page import report_page
from sottovoce.calibration.ranges.calibrate import calibrate
from sottovoce.calibration.ranges.range_file import read_ranges
from sottovoce.calibration.sensitivity.budget import parse_budget
from sottovoce.calibration.sensitivity.budgeted import BudgetedJob, quantize_within
from sottovoce.calibration.sensitivity.report import SearchReport
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.commands.options import BUNDLE, FILE, common
from sottovoce.runtime.console import Console
from sottovoce.runtime.steady_memory import give_back_freed_memory


@click.command("calibrate")
@BUNDLE
@click.option("--data", type=FILE, required=True, metavar="DIR", help="Conversations: a folder with set.jsonl.")
@click.option("-o", "--output", type=FILE, required=True, metavar="RANGES", help="The range file to write.")
@click.option("--allow-little-data", is_flag=True, help="Take fewer than 32 conversations.")
@common
def calibrate_command(  # noqa: PLR0913  # click hands over one argument a flag
    bundle: Path, data: Path, output: Path, allow_little_data: bool, as_json: bool, debug: bool
) -> None:
    """Hold the conversations of a set with BUNDLE and note the ranges of its tensors."""
    del debug
    give_back_freed_memory()
    console = Console(as_json)
    with console.progress() as progress:
        record = calibrate(
            Bundle.open(bundle, progress=progress), data, output,
            allow_little_data=allow_little_data, progress=progress,
        )  # fmt: skip
    size = output.stat().st_size
    console.say(f"{output}: {record.conversations} conversations, {size / 1e6:.1f} MB, in {record.seconds:.1f} s")
    console.say(f"stages seen: {', '.join(record.graphs)}")
    console.result(
        {
            "ranges": str(output), "bytes": size, "conversations": record.conversations, "tasks": dict(record.tasks),
            "stages": list(record.graphs), "data_sha256": record.data_sha256, "seconds": record.seconds,
        }
    )  # fmt: skip


@click.command("quantize")
@BUNDLE
@click.option(
    "--precision", required=True, metavar="PLAN",
    help="A precision for all stages (fp32, fp16, int8, int8-weights, int4-weights[:32|:128]), or "
    "STAGE=PRECISION,…,kv_cache=fp16|int8.",
)  # fmt: skip
@click.option("--ranges", type=FILE, metavar="RANGES", help="What `calibrate` wrote; int8 and kv_cache=int8 need it.")
@click.option("--data", type=FILE, metavar="DIR", help="A set of conversations to measure the cost in answers on.")
@click.option(
    "--budget", metavar="MEASURE:CHANGE",
    help="Keep in floating point what must be for this to hold: reply-exact:-0.5, wer:1.0 (points) or logit-kl:0.01. "
    "Needs --data; an interrupted search goes on.",
)  # fmt: skip
@click.option("--allow-little-data", is_flag=True, help="Hold a budget on fewer than 32 conversations.")
@click.option("--report", "page", type=FILE, metavar="F.html", help="Write the report as a page, too.")
@click.option("-o", "--output", type=FILE, required=True, metavar="BUNDLE2", help="The bundle to write.")
@click.option("--force", is_flag=True, help="Replace the bundle that is there.")
@common
def quantize_command(  # noqa: PLR0913  # click hands over one argument a flag
    bundle: Path,
    precision: str,
    ranges: Path | None,
    data: Path | None,
    budget: str | None,
    allow_little_data: bool,
    page: Path | None,
    output: Path,
    force: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Make a smaller bundle of BUNDLE, and say what it costs."""
    del debug
    console = Console(as_json)
    plan = parse_plan(precision)
    limit = None if budget is None else parse_budget(budget)
    if limit is not None and data is None:
        raise click.UsageError("--budget needs --data DIR: conversations to hold it on")
    with console.progress() as progress:
        source = Bundle.open(bundle, progress=progress)
        job = QuantizeJob(source, plan, None if ranges is None else read_ranges(ranges), data)
        writer = BundleWriter(output, force=force)
        if limit is None:
            report = quantize(job, writer, progress)
        else:
            report = quantize_within(BudgetedJob(job, limit, allow_little_data), writer, progress)
    if page is not None:
        page.write_text(report_page(report), encoding="utf-8")
    show_quantized(console, report)


def show_quantized(console: Console, report: QuantizeReport) -> None:
    """Sizes and cost, for people and for programs."""
    share = report.bytes_after / report.bytes_before
    console.say(f"{report.bundle}: {report.bytes_after / 1e6:.1f} MB, {share:.3f} × {report.bytes_before / 1e6:.1f} MB")
    columns = ["stage", "precision", "before", "after", "", "weights", "multiply-adds in INT8"]
    console.table("", columns, [_row(change) for change in report.stages], [2, 3, 4, 5, 6])
    if report.turn_multiply_adds_share is not None:
        console.say(f"multiply-adds of a spoken turn in INT8: {100 * report.turn_multiply_adds_share:.1f} %")
    if report.search is not None:
        _say_search(console, report.search)
    _say_cost(console, report)
    console.result({"bundle": str(report.bundle), **report.as_json()})


def _say_search(console: Console, search: SearchReport) -> None:
    rows = [
        [str(point.kept), f"{point.bytes / 1e6:.1f} MB", f"{point.cost:.3g}", "chosen" * (point.kept == search.kept)]
        for point in search.points
    ]
    console.table(f"\nbudget {search.budget}", ["layers kept", "size", search.unit, ""], rows, [0, 1, 2])
    kept = [f"{layer.stage} {layer.layer} ({layer.value:.2g})" for layer in search.layers[: search.kept]]
    console.say(f"kept in floating point, with the KL of each alone: {', '.join(kept) or 'none'}")


def _say_cost(console: Console, report: QuantizeReport) -> None:
    if report.cost is None:
        console.warn("what this costs in answers was not measured: give --data DIR")
        return
    cost = report.cost
    before, after = cost.before.reply_exact, cost.after.reply_exact
    console.say(f"\nexact replies {100 * after:.1f} %, before {100 * before:.1f} %: {cost.points_lost:.1f} points lost")
    console.say(f"{100 * cost.same_replies:.1f} % of {cost.items} replies are the same to the character")


def _row(change: StageChange) -> list[str]:
    multiply_adds = change.multiply_adds_share
    return [
        change.stage,
        change.precision,
        f"{change.bytes_before / 1e6:.1f} MB",
        f"{change.bytes_after / 1e6:.1f} MB",
        f"{change.bytes_after / change.bytes_before:.3f}",
        f"{100 * change.weights_share:.1f} %",
        "" if multiply_adds is None else f"{100 * multiply_adds:.1f} %",
    ]
