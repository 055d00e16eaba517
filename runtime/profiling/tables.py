"""A profile as aligned tables, for people."""

from __future__ import annotations

from collections.abc import Sequence

from sottovoce.runtime.console import Console
from sottovoce.runtime.profiling.report import ProfileReport
from sottovoce.runtime.profiling.wording import (
    MEASURE_COLUMNS,
    measure_cells,
    megabytes,
    percent,
    pictures,
    plain,
    shown_ms,
    shown_name,
    threads,
)

NUMBERS = [1, 2, 3, 4, 5, 6]
SHOWN_KINDS = 3
"""Kinds of layers a graph, the largest first; all are in the JSON and on the page."""


def show_report(console: Console, report: ProfileReport) -> None:
    """Everything, the listener's times first."""
    _head(console, report)
    _measures(console, report)
    _speech(console, report)
    _contexts(console, report)
    _limits(console, report)
    _layers(console, report)
    _memory(console, report)
    _energy(console, report)
    for note in report.notes:
        console.say(f"note: {plain(note)}", style="dim")


def asked(report: ProfileReport) -> str:
    """The question in a line."""
    question = report.question
    audio = "" if question.audio_seconds is None else f"{question.audio or 'audio'} ({question.audio_seconds:.2f} s)"
    images = pictures(question.images)
    return ", ".join(filter(None, (repr(question.text) if question.text else "", audio, images)))


def ceilings_line(report: ProfileReport) -> str:
    """The machine's limits in a line."""
    found = report.ceilings
    return (
        f"{found.read_gb_s:.1f} GB/s read, {found.copy_gb_s:.1f} GB/s copied, {found.matmul_gflop_s:.0f} GFLOP/s in a "
        f"float32 product, on {threads(found.threads)}"
    )


def lead_line(report: ProfileReport) -> str:
    """How far speech ran ahead, in a line."""
    least = report.lead.least_ms
    if least is None:
        return "speech came in one piece or not at all: nothing ran ahead of playback"
    if least < 0:
        return f"playback would have stopped: speech came {-least:.0f} ms late at worst"
    return f"speech ran ahead of playback by {least:.0f} ms ({report.lead.least_samples} samples) at the least"


def _table(
    console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()
) -> None:
    """As `Console.table`: names and notes may come from anywhere, and must not steer the terminal."""
    console.table(title, columns, [[plain(cell) for cell in row] for row in rows], right)


def _head(console: Console, report: ProfileReport) -> None:
    machine, setup, reply = report.machine, report.setup, report.reply
    rows = [
        ["bundle", f"{report.bundle.name} ({report.bundle.bytes / 1e6:,.0f} MB)"],
        ["machine", f"{machine.processor}, {machine.cores} cores, {machine.system} {machine.architecture}"],
        ["its best", ceilings_line(report)],
        ["measured", f"{setup.runs} turns after {setup.warm_up}, {setup.engine}, {threads(setup.threads)}"],
        ["asked", asked(report)],
        ["answer", f"{reply.text or '(nothing)'} ({reply.tokens} tokens, {reply.speech_seconds:.2f} s of speech)"],
    ]
    _table(console, "", ["", ""], rows)


def _measures(console: Console, report: ProfileReport) -> None:
    for kind, title in (("turn", "a turn, ms"), ("call", "one call of a graph, ms")):
        rows = [measure_cells(one) for one in report.measures if one.kind == kind]
        if rows:
            _table(console, f"\n{title}", MEASURE_COLUMNS, rows, NUMBERS)


def _speech(console: Console, report: ProfileReport) -> None:
    rows = [
        [one.work, f"{one.factor:.3f}", f"{1 / max(one.factor, 1e-9):.1f} ×",
         "" if one.tokens_per_second is None else f"{one.tokens_per_second:.0f} tokens/s decoded meanwhile"]
        for one in report.real_time
    ]  # fmt: skip
    if rows:
        _table(console, "\nreal-time factor", ["", "factor", "real time", ""], rows, [1, 2])
    if report.setup.speech:
        console.say(lead_line(report))


def _contexts(console: Console, report: ProfileReport) -> None:
    rows = [
        [str(one.context), f"{one.prefill_tokens_per_second:,.0f}", f"{one.decode_tokens_per_second:,.1f}",
         percent(one.python_share)]
        for one in report.contexts
    ]  # fmt: skip
    if rows:
        columns = ["context", "prefill, tokens/s", "decode, tokens/s", "outside the graph"]
        _table(console, "\nlanguage model by context", columns, rows, [0, 1, 2, 3])


def _limits(console: Console, report: ProfileReport) -> None:
    rows = []
    for one in report.shares:
        unit = "GB/s" if one.ceiling == "memory" else "GFLOP/s"
        rows.append([shown_name(one.call), one.ceiling, f"{one.reached:.1f} {unit}", percent(one.share), one.note])
    if rows:
        _table(console, "\nshare of the machine's best", ["", "limit", "reached", "share", ""], rows, [2, 3])


def _layers(console: Console, report: ProfileReport) -> None:
    rows = []
    for graph in report.layers:
        kinds = [f"{layer.kind} {percent(layer.milliseconds / graph.milliseconds)}" for layer in graph.layers]
        rows.append([shown_name(graph.call), str(graph.calls), shown_ms(graph.milliseconds), *kinds[:SHOWN_KINDS]])
    if rows:
        columns = ["", "calls", "ms, profiled", "most", "then", "then"]
        _table(
            console,
            "\ninside the graphs, the first seconds of a turn",
            columns,
            [row + [""] * (6 - len(row)) for row in rows],
            [1, 2],
        )


def _memory(console: Console, report: ProfileReport) -> None:
    rows = [
        [shown_name(one.stage), shown_ms(one.load_ms), megabytes(one.held_mb), megabytes(one.peak_mb)]
        for one in report.memory
    ]
    if rows:
        before = megabytes(report.memory_before_mb)
        columns = ["", "load, ms", "holds, MB", "process's peak, MB"]
        _table(console, f"\nmemory ({before} MB before any graph)", columns, rows, [1, 2, 3])


def _energy(console: Console, report: ProfileReport) -> None:
    rows = [[one.source, f"{one.joules_per_turn:.2f}", f"{one.watts:.1f}"] for one in report.energy.sources]
    if rows:
        _table(console, "\nenergy", ["", "joules a turn", "watts"], rows, [1, 2])
    if report.energy.note:
        console.say(f"\nenergy: {plain(report.energy.note)}")
