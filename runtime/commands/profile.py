"""`sottovoce profile`: where the time of a turn goes, and what changed between two profiles."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.commands.options import FILE, backend_choice, common
from sottovoce.runtime.console import Console
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.profiling.comparing.compare import compare
from sottovoce.runtime.profiling.comparing.tables import comparison_json, show_comparison
from sottovoce.runtime.profiling.context_speed import CONTEXTS
from sottovoce.runtime.profiling.options import ProfileOptions
from sottovoce.runtime.profiling.page.page import report_page
from sottovoce.runtime.profiling.profiler import Profiled, Profiler
from sottovoce.runtime.profiling.report import ProfileReport
from sottovoce.runtime.profiling.report_file import (
    PAGE_FILE,
    REPORT_FILE,
    TRACE_FILE,
    check_folder,
    check_place,
    read_report,
    report_json,
    write_whole,
)
from sottovoce.runtime.profiling.summing_up import summed_up
from sottovoce.runtime.profiling.tables import show_report
from sottovoce.runtime.profiling.trace import trace_events
from sottovoce.runtime.profiling.wording import plain

COMPARISON_FAILED = 1
PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")


class Percent(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click only
    """`10%` → 0.1. A number without the sign could be either, and a gate that is a hundred times too wide is none."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it."""
        if isinstance(value, float):
            return value
        found = PERCENT.fullmatch(str(value).strip())
        if found is None:
            self.fail(f"{value!r} is not a percentage, expected one such as 10%", param, ctx)
        return float(found[1]) / 100


@dataclass(frozen=True)
class Outputs:
    """Where a profile is written, beside the terminal."""

    folder: Path | None
    page: Path | None
    trace: Path | None

    def check(self) -> None:
        """Refuse places that cannot be written, before anything is measured."""
        if self.folder is not None:
            check_folder(self.folder)
        for path in (self.page, self.trace):
            if path is not None:
                check_place(path)

    def write(self, report: ProfileReport, profiled: Profiled) -> list[Path]:
        """Write what was asked for; returns what there is now."""
        in_folder = [] if self.folder is None else [self.folder / name for name in (PAGE_FILE, TRACE_FILE)]
        pages = [path for path in (*in_folder[:1], self.page) if path is not None]
        traces = [path for path in (*in_folder[1:], self.trace) if path is not None]
        written = []
        if self.folder is not None:
            written.append(self.folder / REPORT_FILE)
            write_whole(written[0], json.dumps(report_json(report), ensure_ascii=False) + "\n")
        for path in pages:
            write_whole(path, report_page(report))
        for path in traces:
            events = trace_events(profiled.turns, profiled.layer_runs, report.bundle.name)
            write_whole(path, json.dumps(events, ensure_ascii=False) + "\n")
        return [*written, *pages, *traces]


@click.command("profile")
@click.argument("bundle", type=FILE, required=False)
@click.option("--audio", type=FILE, metavar="F", help="A recorded question (WAV, FLAC, OGG).")
@click.option("--text", metavar="S", help="A typed question; default, with nothing else asked: a short one.")
@click.option("--image", "images", type=FILE, multiple=True, metavar="F", help="A picture; may be given several times.")
@click.option("--runs", type=click.IntRange(1), default=10, show_default=True, help="Turns to measure.")
@click.option(
    "--warm-up",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    help="Turns before that; with 0, the first loads.",
)
@click.option(
    "--context", "contexts", type=click.IntRange(2), multiple=True, default=CONTEXTS, show_default=True, metavar="N",
    help="Measure the language model at this length of context; may be given several times.",
)  # fmt: skip
@click.option("--stage", "stages", multiple=True, metavar="S", help="Report of this stage alone; several times: these.")
@click.option("--max-new-tokens", type=click.IntRange(1), help="End each reply after so many tokens.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of what is drawn in each turn.")
@click.option("--speech/--no-speech", default=True, help="Compute the spoken reply.")
@click.option("--layers/--no-layers", default=True, help="Look inside the graphs; loads each a second time.")
@click.option("--threads", type=click.IntRange(1), help="CPU cores to use; default: all this process may use.")
@backend_choice
@click.option("-o", "--output", type=FILE, metavar="DIR", help="Write report, page and trace into this folder.")
@click.option("--html", type=FILE, metavar="F.html", help="Write the page here.")
@click.option("--trace", type=FILE, metavar="F.json", help="Write a trace for Perfetto or chrome://tracing here.")
@click.option(
    "--compare", "compared", type=FILE, nargs=2, metavar="A.json B.json", help="Compare two reports; measures nothing."
)
@click.option(
    "--fail-over", type=Percent(), metavar="10%",
    help="With --compare: exit code 1 if anything is shown to be slower by more, or no verdict is possible.",
)  # fmt: skip
@common
@click.pass_context
def profile_command(  # noqa: PLR0913  # click hands over one argument a flag
    context: click.Context,
    /,
    bundle: Path | None,
    compared: tuple[Path, Path] | None,
    fail_over: float | None,
    output: Path | None,
    html: Path | None,
    trace: Path | None,
    as_json: bool,
    debug: bool,
    **flags: Any,
) -> int:
    """Measure where the time of a turn through BUNDLE goes: by stage, by graph, by kind of layer.

    Needs nothing but the bundle; a recording shows hearing, too. What was measured is compared with --compare.
    """
    del debug
    console = Console(as_json)
    if compared:
        if any(str(file).startswith("-") for file in compared):
            raise click.UsageError(
                f"--compare takes two reports, A.json and B.json; found {' '.join(map(str, compared))}"
            )
        _refuse_others(context)
        return _compare(console, compared, fail_over)
    if fail_over is not None:
        raise click.UsageError("--fail-over judges a comparison; give --compare A.json B.json, too")
    if bundle is None:
        raise click.UsageError("nothing to profile: give a bundle, or two reports with --compare")
    outputs = Outputs(output, html, trace)
    outputs.check()
    _measure(console, bundle, _options(flags), outputs)
    return 0


def _options(flags: dict[str, Any]) -> ProfileOptions:
    return ProfileOptions(**{**flags, "contexts": tuple(dict.fromkeys(flags["contexts"]))})


def _refuse_others(context: click.Context) -> None:
    """Flags that would do nothing are mistakes."""
    allowed = {"compared", "fail_over", "as_json", "debug"}
    given = [
        parameter.opts[-1] if parameter.opts else parameter.name
        for parameter in context.command.params
        if parameter.name not in allowed
        and context.get_parameter_source(str(parameter.name)) == click.core.ParameterSource.COMMANDLINE
        and context.params.get(str(parameter.name)) not in (None, ())
    ]
    if given:
        raise click.UsageError(f"--compare measures nothing: leave {given[0]} away")


def _measure(console: Console, bundle: Path, options: ProfileOptions, outputs: Outputs) -> None:
    with console.progress() as progress:
        profiler = Profiler(Bundle.open(bundle, progress=progress), options, progress)
        profiled = profiler.measure()
    report = summed_up(profiled)
    written = outputs.write(report, profiled)
    show_report(console, report)
    for path in written:
        console.say(f"written   {path}")
    console.result(report_json(report))


def _compare(console: Console, files: tuple[Path, Path], fail_over: float | None) -> int:
    before, after = (read_report(file) for file in files)
    comparison = compare(before, after)
    show_comparison(console, comparison, (str(files[0]), str(files[1])))
    if fail_over is not None and comparison.unjudged is not None:  # a gate must not pass what it cannot judge
        fix = "measure both on one machine, with the same stages and --runs 5 or more; or leave --fail-over away"
        raise SottovoceError(f"--fail-over can give no verdict: {plain(comparison.unjudged)}", file=files[1], fix=fix)
    failed = None if fail_over is None else comparison.slower_than(fail_over)
    for change in failed or ():
        console.warn(f"{change.name} is {change.change:+.1%}, more than {fail_over:.0%} over")
    console.result(comparison_json(comparison, failed))
    return COMPARISON_FAILED if failed else 0
