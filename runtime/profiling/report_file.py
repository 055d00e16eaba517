"""Reports on disk: written whole or not at all, and read as what they are: files that someone else may have made."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

from sottovoce.runtime.errors import InputError, SottovoceError
from sottovoce.runtime.profiling.report import REPORT_KIND, REPORT_VERSION, ProfileReport
from sottovoce.runtime.records import read_record, write_record

REPORT_FILE, PAGE_FILE, TRACE_FILE = "profile.json", "profile.html", "profile.trace.json"
MAX_REPORT_BYTES = 32 << 20
"""A report of a hundred long turns has some megabytes."""
MEASURE_AGAIN = "give what `sottovoce profile BUNDLE --json` or `-o` wrote, or measure again"


def report_json(report: ProfileReport) -> dict[str, Any]:
    """A report as one JSON object."""
    value: dict[str, Any] = write_record(report)
    return value


def read_report(path: Path) -> ProfileReport:
    """Read a report, or the one in a folder that `-o` wrote.

    Raises:
        InputError: not there, not a report, of another version, damaged, or larger than a report can be.
    """
    file = path / REPORT_FILE if path.is_dir() else path
    data = _read_json(file)
    kind, version = data.get("report"), data.get("report_version")
    if kind != REPORT_KIND:
        raise InputError(f"it is no profile: 'report' is {_short(kind)}, expected {REPORT_KIND!r}", file=file,
                         fix=MEASURE_AGAIN)  # fmt: skip
    if version != REPORT_VERSION or isinstance(version, bool):
        message = f"report_version is {_short(version)}; this sottovoce reads version {REPORT_VERSION}"
        raise InputError(message, file=file, fix="measure again with this sottovoce")
    try:
        report = read_record(ProfileReport, data, source=str(file))
    except SottovoceError as problem:
        raise InputError(problem.message, file=file, fix=problem.fix or MEASURE_AGAIN) from problem
    except (OverflowError, RecursionError) as problem:
        raise InputError(f"it holds a value that no profile has ({problem})", file=file, fix=MEASURE_AGAIN) from problem
    _check(report, file)
    return report


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        what = "this is not a regular file" if file.exists() else "there is no such file"
        raise InputError(f"{what}, expected a report", file=file, fix=MEASURE_AGAIN)
    try:
        size = file.stat().st_size
        if size > MAX_REPORT_BYTES:
            message = f"it has {size} bytes; a report has at most {MAX_REPORT_BYTES}"
            raise InputError(message, file=file, fix=MEASURE_AGAIN)
        data = json.loads(file.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except OSError as problem:
        raise InputError(f"it cannot be read: {problem.strerror}", file=file) from problem
    except (ValueError, RecursionError) as problem:
        raise InputError(f"it is not JSON in UTF-8 ({problem})", file=file, fix=MEASURE_AGAIN) from problem
    if not isinstance(data, dict):
        raise InputError(f"it holds a {type(data).__name__}, expected an object", file=file, fix=MEASURE_AGAIN)
    return data


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is not a number")


def _check(report: ProfileReport, file: Path) -> None:
    """Samples are times; names are those of one thing each."""
    names = [one.name for one in report.measures]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"measures holds {_short(twice)} twice", file=file, fix=MEASURE_AGAIN)
    for place, one in enumerate(report.measures):
        for run, samples in enumerate(one.runs):
            if any(not math.isfinite(value) or value < 0 for value in samples):
                message = f"measures[{place}].runs[{run}] of {_short(one.name)} holds what is no time"
                raise InputError(message, file=file, fix=MEASURE_AGAIN)
        if not one.run_means:
            raise InputError(f"measures[{place}] has no samples", file=file, fix=MEASURE_AGAIN)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_place(path: Path) -> None:
    """Make sure, before minutes of measuring, that a file can be written there.

    Raises:
        InputError: it cannot.
    """
    folder = path.parent
    if not folder.is_dir():
        raise InputError("the folder to write into does not exist", file=folder, fix="create it first")
    if path.exists() and not path.is_file():
        raise InputError("this is not a regular file, expected the name of a file to write", file=path)
    try:
        handle, probe = tempfile.mkstemp(prefix=f".{path.name}.", dir=folder)
        os.close(handle)
        os.unlink(probe)
    except OSError as problem:
        raise _cannot_write(path, problem) from problem


def check_folder(folder: Path) -> None:
    """The same for a folder, which need not be there yet.

    Raises:
        InputError: it cannot be made, or not be written into.
    """
    if folder.is_dir():
        for name in (REPORT_FILE, PAGE_FILE, TRACE_FILE):
            check_place(folder / name)
    elif folder.exists() or folder.is_symlink():
        raise InputError("this is a file, expected a folder to write reports into", file=folder)
    else:
        check_place(folder)


def write_whole(path: Path, text: str) -> None:
    """Write a file under its name when all of it is there.

    Raises:
        InputError: the place cannot be written to, or the disk is full.
    """
    partial: Path | None = None
    try:
        path.parent.mkdir(exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        partial = Path(name)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o666 & ~umask)  # mkstemp made it private
        partial.replace(path)
    except OSError as problem:
        if partial is not None:
            partial.unlink(missing_ok=True)
        raise _cannot_write(path, problem) from problem


def _cannot_write(path: Path, problem: OSError) -> InputError:
    fix = "choose a folder that can be written to and has room"
    return InputError(f"it cannot be written: {problem.strerror or problem}", file=path, fix=fix)
