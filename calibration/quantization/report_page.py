"""A quantization's report as one HTML page that needs nothing beside it: sizes, answers, misses to hear, layers."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

from sottovoce.calibration.quantization.quality import Miss, QualityCost
from sottovoce.calibration.quantization.quantize import QuantizeReport
from sottovoce.calibration.sensitivity.charts import STYLE as CHART_STYLE
from sottovoce.calibration.sensitivity.charts import search_section
from sottovoce.runtime.web_page import html_page, html_table

SHOWN_MISSES = 40
LARGEST_AUDIO_BYTES = 2 << 20
"""Of one recording in the page; longer ones are named only."""

BAR_REM = 12


def report_page(report: QuantizeReport) -> str:
    """The whole page."""
    share = report.bytes_after / report.bytes_before
    parts = [
        f"<h1>{escape(report.bundle.name)}</h1>",
        f"<p>{report.bytes_before / 1e6:,.1f} MB became {report.bytes_after / 1e6:,.1f} MB ({share:.3f} ×).</p>",
        "<h2>Size</h2>",
        _sizes(report),
        _turn(report.turn_multiply_adds_share),
        "<h2>Answers</h2>",
        "<p class='note'>Not measured: quantize with --data.</p>" if report.cost is None else _answers(report.cost),
    ]
    if report.search is not None:
        parts.append(search_section(report.search))
    return html_page(report.bundle.name, parts, CHART_STYLE)


def _sizes(report: QuantizeReport) -> str:
    rows = []
    for change in report.stages:
        share = change.bytes_after / change.bytes_before
        bar = f"<span class='bar' style='width:{BAR_REM * min(share, 1):.2f}rem'></span>"
        rest = f"<span class='rest' style='width:{BAR_REM * max(1 - share, 0):.2f}rem'></span>"
        counted = "" if change.multiply_adds_share is None else f"{100 * change.multiply_adds_share:.1f} %"
        cells = [
            escape(change.stage), f"<span class='line'>{escape(change.precision)}</span>",
            f"{change.bytes_before / 1e6:,.2f}", f"{change.bytes_after / 1e6:,.2f}",
            f"<span class='line'>{bar}{rest} {share:.3f}</span>", f"{100 * change.weights_share:.1f} %", counted,
        ]  # fmt: skip
        rows.append(cells)
    return html_table(
        ("stage", "precision", "before, MB", "after, MB", "", "weights", "multiply-adds in INT8"), rows, (2, 3)
    )


def _turn(share: float | None) -> str:
    if share is None:
        return ""
    return (
        f"<p>Of the multiply-adds of a typical spoken turn, all stages together, {100 * share:.1f} % are in INT8.</p>"
    )


def _answers(cost: QualityCost) -> str:
    after = {row.task: row for row in cost.after.tasks}
    rows = []
    for row in cost.before.tasks:
        now = after[row.task]
        worse = now.value > row.value if row.measure == "word_error_rate" else now.value < row.value
        mark = " class='worse'" if worse else ""
        rows.append(
            [escape(row.task), escape(row.measure.replace("_", " ")), str(row.count), f"{100 * row.value:.1f} %",
             f"<span{mark}>{100 * now.value:.1f} %</span>", f"{100 * now.low:.1f} to {100 * now.high:.1f}"]
        )  # fmt: skip
    columns = ("task", "measure", "items", "before", "after", "95 % interval")
    lost = f"{cost.points_lost:+.1f}".replace("+-", "-")
    return (
        f"<p>Exact replies {100 * cost.before.reply_exact:.1f} % before, {100 * cost.after.reply_exact:.1f} % after: "
        f"{lost} points lost. {100 * cost.same_replies:.1f} % of {cost.items} replies are the same to the character."
        f"</p><p class='note'>Data {escape(cost.data_sha256)}</p>{html_table(columns, rows, (2, 3, 4))}{_misses(cost)}"
    )


def _misses(cost: QualityCost) -> str:
    if not cost.misses:
        return "<p>Nothing that was right became wrong.</p>"
    rows = [
        [*map(escape, (miss.outcome.item.task, miss.outcome.item.reply, miss.outcome.reply)), _asked(cost.data, miss)]
        for miss in cost.misses[:SHOWN_MISSES]
    ]  # fmt: skip
    more = f", the first {SHOWN_MISSES}" if len(cost.misses) > SHOWN_MISSES else ""
    title = f"<h2>{len(cost.misses)} replies that became wrong{more}</h2>"
    return title + html_table(("task", "expected", "got", "asked"), rows)


def _asked(folder: Path, miss: Miss) -> str:
    item = miss.outcome.item
    if item.audio is None:
        return escape(item.text or ", ".join(item.files))
    path = folder / item.audio
    if path.suffix != ".wav" or path.stat().st_size > LARGEST_AUDIO_BYTES:
        return escape(item.audio)
    sound = base64.b64encode(path.read_bytes()).decode()
    return f"<audio controls preload='none' src='data:audio/wav;base64,{sound}'></audio>"
