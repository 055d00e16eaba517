"""The whole page of a profile; every string that came from a bundle or a recording is escaped."""

from __future__ import annotations

from html import escape

from sottovoce.runtime.profiling.layers.kinds import KINDS
from sottovoce.runtime.profiling.page.bars import Bar, Part, bars_picture
from sottovoce.runtime.profiling.page.colors import LAYER_COLORS, stage_color
from sottovoce.runtime.profiling.page.context_picture import context_picture
from sottovoce.runtime.profiling.page.waterfall_picture import waterfall_picture
from sottovoce.runtime.profiling.report import ProfileReport
from sottovoce.runtime.profiling.tables import asked, ceilings_line, lead_line
from sottovoce.runtime.profiling.wording import (
    MEASURE_COLUMNS,
    measure_cells,
    megabytes,
    percent,
    shown_ms,
    shown_name,
    threads,
)
from sottovoce.runtime.web_page import html_page, html_table

STYLE = "svg { display: block; } .pair { display: flex; flex-wrap: wrap; } .key { margin-right: 1rem; }"
NUMBERS = (1, 2, 3, 4, 5, 6)


def report_page(report: ProfileReport) -> str:
    """One page."""
    sections = (_head, _turn, _calls, _speech, _contexts, _limits, _layers, _memory, _energy, _notes)
    return html_page(f"{report.bundle.name}, profiled", [section(report) for section in sections], STYLE)


def _head(report: ProfileReport) -> str:
    machine, setup, reply = report.machine, report.setup, report.reply
    rows = [
        ("machine", f"{machine.processor}, {machine.cores} cores, {machine.system} {machine.architecture}"),
        ("its best", ceilings_line(report)),
        ("measured", f"{setup.runs} turns after {setup.warm_up}, {setup.engine}, {threads(setup.threads)}"),
        ("asked", asked(report)),
        ("answer", f"{reply.text or '(nothing)'} ({reply.tokens} tokens, {reply.speech_seconds:.2f} s of speech)"),
        ("bundle", f"{report.bundle.bytes / 1e6:,.0f} MB, {report.bundle.sha256[:16]}"),
        ("when", f"{report.made}, sottovoce {report.sottovoce}"),
    ]
    table = html_table(("", ""), [(escape(name), escape(value)) for name, value in rows])
    return f"<h1>{escape(report.bundle.name)}</h1>{table}"


def _turn(report: ProfileReport) -> str:
    rows = [[escape(cell) for cell in measure_cells(one)] for one in report.measures if one.kind == "turn"]
    return (
        "<h2>One turn</h2><p class='note'>The turn of median length, milliseconds since the question.</p>"
        f"{waterfall_picture(report.waterfall)}<h2>Turns, ms</h2>{html_table(MEASURE_COLUMNS, rows, NUMBERS)}"
    )


def _calls(report: ProfileReport) -> str:
    calls = [one for one in report.measures if one.kind == "call"]
    bars = [
        Bar(shown_name(one.name), (Part(one.p50, stage_color(one.name), f"median {shown_ms(one.p50)} ms"),),
            f"{shown_ms(one.p50)} to {shown_ms(one.p99)}", (one.p90, one.p99))
        for one in calls
    ]  # fmt: skip
    rows = [[escape(cell) for cell in measure_cells(one)] for one in calls]
    return (
        "<h2>One call of each graph, ms</h2><p class='note'>The median as a bar; p90 and p99 as marks.</p>"
        f"{bars_picture(bars, 'Median, p90 and p99 of the calls of each graph')}"
        f"{html_table(MEASURE_COLUMNS, rows, NUMBERS)}"
    )


def _speech(report: ProfileReport) -> str:
    if not report.real_time:
        return ""
    bars = [
        Bar(one.work, (Part(one.factor, "#2f6f8f", f"{one.factor:.3f} s for a second of speech"),),
            f"{1 / max(one.factor, 1e-9):.1f} × real time")
        for one in report.real_time
    ]  # fmt: skip
    lead = f"<p>{escape(lead_line(report))}.</p>" if report.setup.speech else ""
    return (
        "<h2>Real-time factor</h2><p class='note'>Seconds of work for a second of speech; the line is real time.</p>"
        f"{bars_picture(bars, 'Real-time factors', limit=1.0)}{lead}"
    )


def _contexts(report: ProfileReport) -> str:
    if not report.contexts:
        return ""
    rows = [
        [str(one.context), f"{one.prefill_tokens_per_second:,.0f}", f"{one.decode_tokens_per_second:,.1f}",
         percent(one.python_share)]
        for one in report.contexts
    ]  # fmt: skip
    columns = ("context", "prefill, tokens/s", "decode, tokens/s", "of a token's time outside the graph")
    pictures = "".join(context_picture(report.contexts, what) for what in ("prefill", "decode"))
    return (
        f"<h2>Language model by length of context</h2><div class='pair'>{pictures}</div>"
        f"{html_table(columns, rows, (0, 1, 2, 3))}"
    )


def _limits(report: ProfileReport) -> str:
    if not report.shares:
        return ""
    bars = [
        Bar(shown_name(one.call), (Part(100 * one.share, stage_color(one.call), f"of {one.ceiling}: {one.note}"),),
            f"{percent(one.share)} of {'memory' if one.ceiling == 'memory' else 'product'}")
        for one in report.shares
    ]  # fmt: skip
    notes = dict.fromkeys(f"{shown_name(one.call)}: {one.note}" for one in report.shares if one.note)
    said = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return (
        "<h2>Share of the machine's best</h2><p class='note'>Steps read all weights and the cache for one row: their "
        "limit is memory. Other calls multiply: theirs is a float32 product. The line is all of it.</p>"
        f"{bars_picture(bars, 'Share of memory bandwidth or of the matrix product', limit=100.0)}"
        f"<ul class='note'>{said}</ul>"
    )


def _layers(report: ProfileReport) -> str:
    if not report.layers:
        return ""
    colors = dict(zip(KINDS, LAYER_COLORS, strict=True))
    bars = []
    for graph in report.layers:
        parts = tuple(
            Part(100 * layer.milliseconds / max(graph.milliseconds, 1e-9), colors.get(layer.kind, LAYER_COLORS[-1]),
                 f"{layer.kind}: {shown_ms(layer.milliseconds)} ms in {layer.count}")
            for layer in sorted(graph.layers, key=lambda layer: _place(layer.kind))
        )  # fmt: skip
        bars.append(Bar(f"{shown_name(graph.call)} ({graph.calls})", parts, f"{shown_ms(graph.milliseconds)} ms"))
    key = "".join(
        f"<span class='key'><span class='bar' style='width:.7rem;background:{color}'></span> {escape(kind)}</span>"
        for kind, color in colors.items()
    )
    return (
        "<h2>Inside the graphs</h2><p class='note'>Share of each graph's time by kind of layer in a turn's first "
        "seconds, as ONNX Runtime's profiler tells it, which slows small operators down.</p>"
        f"{bars_picture(bars, 'Time by kind of layer')}<p>{key}</p>"
    )


def _place(kind: str) -> int:
    return KINDS.index(kind) if kind in KINDS else len(KINDS)


def _memory(report: ProfileReport) -> str:
    if not report.memory:
        return ""
    bars = [
        Bar(shown_name(one.stage), (Part(max(one.held_mb or 0.0, 0.0), stage_color(one.stage), "once it has run"),),
            f"{megabytes(one.held_mb)} MB", () if one.peak_mb is None else (one.peak_mb,))
        for one in report.memory
    ]  # fmt: skip
    rows = [
        [escape(shown_name(one.stage)), shown_ms(one.load_ms), megabytes(one.held_mb), megabytes(one.peak_mb)]
        for one in report.memory
    ]
    return (
        f"<h2>Memory</h2><p class='note'>{megabytes(report.memory_before_mb)} MB were resident before any graph. A bar "
        "is what a stage holds after its first call; the mark is the whole process's peak while it ran.</p>"
        f"{bars_picture(bars, 'Memory by stage')}"
        f"{html_table(('', 'load, ms', 'holds, MB', 'peak of the process, MB'), rows, (1, 2, 3))}"
    )


def _energy(report: ProfileReport) -> str:
    rows = [[escape(one.source), f"{one.joules_per_turn:.2f}", f"{one.watts:.1f}"] for one in report.energy.sources]
    table = html_table(("", "joules a turn", "watts"), rows, (1, 2)) if rows else ""
    return f"<h2>Energy</h2>{table}<p class='note'>{escape(report.energy.note)}</p>"


def _notes(report: ProfileReport) -> str:
    said = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    return f"<h2>Notes</h2><ul>{said}</ul>" if said else ""
