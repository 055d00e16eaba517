"""Report, page and trace: whole, readable again, and closed to what strings from elsewhere could do in them."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sottovoce.runtime.console import Console
from sottovoce.runtime.errors import InputError
from sottovoce.runtime.profiling.page.page import report_page
from sottovoce.runtime.profiling.profiler import Profiled
from sottovoce.runtime.profiling.report import ProfileReport
from sottovoce.runtime.profiling.report_file import (
    MAX_REPORT_BYTES,
    check_folder,
    check_place,
    read_report,
    report_json,
    write_whole,
)
from sottovoce.runtime.profiling.tables import show_report
from sottovoce.runtime.profiling.trace import MAX_OPERATORS, trace_events
from sottovoce.runtime.profiling.waterfall import PLAYED

EVIL = "<script>alert('1')</script> & \" \x1b[31m"


class Tags(HTMLParser):
    """Counts tags, and remembers what they point at."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "rect", "path", "circle", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("rect", "path", "circle", "polyline"):
            assert self.open.pop() == tag


def with_strings(report: ProfileReport, text: str) -> ProfileReport:
    """A report whose strings are all such as a bundle could bring."""
    return replace(
        report,
        machine=replace(report.machine, processor=text),
        bundle=replace(report.bundle, name=text),
        setup=replace(report.setup, engine=text),
        question=replace(report.question, text=text, audio=text),
        reply=replace(report.reply, text=text),
        measures=tuple(replace(one, name=text) for one in report.measures[:1]),
        layers=tuple(replace(one, call=text) for one in report.layers),
        shares=tuple(replace(one, call=text, note=text) for one in report.shares),
        energy=replace(report.energy, note=text),
        waterfall=replace(
            report.waterfall,
            moments={text: 1.0},
            rows=tuple(replace(row, name=f"{text} {place}") for place, row in enumerate(report.waterfall.rows)),
        ),
        notes=(text,),
    )


def test_the_page_is_whole_and_needs_nothing_beside_it(report: ProfileReport) -> None:
    page = report_page(report)
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.links == []
    assert "url(" not in page
    assert "http" not in page
    assert page.count("<svg") == 8  # the waterfall, calls, real time, two of contexts, limits, layers, memory
    assert "tone &amp; &lt;noise&gt;.wav" in page
    for name in ("audio features", "speech codes, step", "matrix product", "first audio", PLAYED):
        assert name in page
    assert "nan" not in re.sub(r"<[^>]*>", "", page).lower()


def test_strings_from_elsewhere_are_text_on_the_page(report: ProfileReport) -> None:
    page = report_page(with_strings(report, EVIL))
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert "script" not in tags.seen
    assert "&lt;script&gt;" in page


def test_strings_from_elsewhere_do_not_steer_the_terminal(report: ProfileReport, capsys: Any) -> None:
    show_report(Console(), with_strings(report, EVIL))
    shown = capsys.readouterr().out
    assert "<script>" in shown
    assert "\x1b" not in shown


def test_a_report_is_read_as_it_was_written(report: ProfileReport, tmp_path: Path) -> None:
    write_whole(tmp_path / "reports" / "profile.json", json.dumps(report_json(report)))
    assert read_report(tmp_path / "reports" / "profile.json") == report
    assert read_report(tmp_path / "reports") == report
    assert [path.name for path in (tmp_path / "reports").iterdir()] == ["profile.json"]


def changed(report: ProfileReport, *path: str | int, to: object) -> str:
    value: Any = report_json(report)
    place = value
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return json.dumps(value)


@pytest.mark.parametrize(
    ("path", "to", "words"),
    [
        (("report",), "another tool's", "no profile"),
        (("report_version",), 99, "report_version is 99"),
        (("report_version",), True, "report_version is True"),
        (("ceilings", "read_gbs"), 1.0, r"ceilings.read_gbs'?; did you mean 'read_gb_s'"),
        (("measures", 0, "runs"), "many", r"measures\[0\].runs"),
        (("measures", 0, "runs"), [[1.0, -2.0]], r"measures\[0\].runs\[0\].*no time"),
        (("measures", 0, "runs"), [[]], r"measures\[0\] has no samples"),
        (("measures", 0, "runs"), [[10**400]], "value that no profile has"),
        (("machine", "cores"), "two", "machine.cores"),
        (("energy",), None, "energy is NoneType"),
    ],
)
def test_a_report_that_cannot_be_believed(
    report: ProfileReport, tmp_path: Path, path: tuple[str | int, ...], to: object, words: str
) -> None:
    file = tmp_path / "report.json"
    file.write_text(changed(report, *path, to=to))
    with pytest.raises(InputError, match=words) as refused:
        read_report(file)
    assert refused.value.file == str(file)
    assert refused.value.fix


def test_a_report_with_a_measure_twice(report: ProfileReport, tmp_path: Path) -> None:
    value = report_json(report)
    value["measures"].append(value["measures"][0])
    (tmp_path / "report.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match="twice"):
        read_report(tmp_path / "report.json")


@pytest.mark.parametrize("text", ["", "{not json", "[1, 2]", "null", '{"report": NaN}', "[" * 100_000, "\udcff"])
def test_a_file_that_is_no_report(tmp_path: Path, text: str) -> None:
    file = tmp_path / "report.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError):
        read_report(file)
    with pytest.raises(InputError, match="no such file"):
        read_report(tmp_path / "none.json")


def test_a_report_beyond_all_measure_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "report.json").open("wb") as file:
        file.truncate(MAX_REPORT_BYTES + 1)
    with pytest.raises(InputError, match=str(MAX_REPORT_BYTES)):
        read_report(tmp_path / "report.json")


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "none" / "trace.json", tmp_path / "file" / "trace.json", tmp_path):
        with pytest.raises(InputError) as refused:
            check_place(place)
        assert refused.value.file
    for folder in (tmp_path / "file", tmp_path / "none" / "reports"):
        with pytest.raises(InputError):
            check_folder(folder)
    check_folder(tmp_path / "new")
    check_place(tmp_path / "trace.json")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(InputError, match="cannot be written"):
        write_whole(tmp_path / "none" / "deeper" / "trace.json", "text")


def test_the_trace_holds_every_turn_span_and_call(profiled: Profiled) -> None:
    trace = trace_events(profiled.turns, profiled.layer_runs, "tiny & <b>")
    assert json.loads(json.dumps(trace)) == trace
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert sum(event["name"] == "turn" for event in events) == len(profiled.turns)
    for turn in profiled.turns:
        assert {span.name for span in turn.spans} <= {event["name"] for event in events}
    shown = Counter(event["name"] for event in events if event["pid"] == 1)
    happened = [one.name for turn in profiled.turns for one in (*turn.spans, *turn.calls)]
    assert shown == Counter([*happened, *("turn" for _ in profiled.turns)])
    assert all(event["dur"] >= 0 and event["ts"] >= 0 for event in events)
    rows = {(event["pid"], event["tid"]) for event in events}
    named = [event for event in trace["traceEvents"] if event["ph"] == "M"]
    assert rows <= {(event["pid"], event["tid"]) for event in named}
    operators = [event for event in events if event["pid"] == 2 and event["name"] != "run"]
    runs = {event["tid"]: event for event in reversed(events) if event["pid"] == 2 and event["name"] == "run"}
    of_names = {event["args"]["name"]: event["tid"] for event in named if event["pid"] == 2}
    first = [runs[of_names[name]]["ts"] for name in ("audio_encoder.call", "language_model.prefill", "codec.call")]
    assert first == sorted(first)  # profiles of several graphs are on one clock
    assert len(operators) == sum(len(one.run.operators) for one in profiled.layer_runs)


def test_a_trace_of_very_many_operators_is_cut_and_one_of_none_is_fine(profiled: Profiled) -> None:
    many = profiled.layer_runs * (1 + 2 * MAX_OPERATORS // sum(len(one.run.operators) for one in profiled.layer_runs))
    events = trace_events(profiled.turns, many, "tiny")["traceEvents"]
    assert sum(event["pid"] == 2 and event["ph"] == "X" and event["name"] != "run" for event in events) <= MAX_OPERATORS
    assert trace_events((), (), "nothing")["traceEvents"]


def test_the_waterfall_is_of_the_median_turn(profiled: Profiled, report: ProfileReport) -> None:
    median = sorted(profiled.turns, key=lambda turn: turn.milliseconds)[0]
    shown = report.waterfall
    assert shown.moments["total"] == pytest.approx(median.timings["total"], abs=1e-3)
    rows = {row.name: row.bars for row in shown.rows}
    spans = [1000 * (span.start - median.start) for span in median.spans if span.name == "prefill"]
    assert rows["prefill"][0][0] == pytest.approx(spans[0], abs=1e-3)
    played = sum(end - start for start, end in rows[PLAYED])
    assert played == pytest.approx(1000 * sum(chunk.samples for chunk in median.chunks) / 24000, abs=0.1)
