"""What people see: aligned tables, progress after two seconds; and one JSON object for programs.

Everything for people goes to standard error when `--json` is given, so that standard output holds one object only.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from sottovoce.runtime.interruption import stop_if_interrupted

PROGRESS_AFTER_SECONDS = 2.0
WIDTH_OF_A_FILE = 400


@dataclass
class Console:
    """One command's output, for a person or for a program.

    Args:
        as_json: print one JSON object on standard output, all else on standard error.
    """

    as_json: bool = False
    _out: RichConsole = field(init=False)
    _err: RichConsole = field(init=False)

    def __post_init__(self) -> None:
        self._err = _console(stderr=True)
        self._out = self._err if self.as_json else _console(stderr=False)

    def say(self, text: str = "", *, style: str = "", end: str = "\n") -> None:
        """One line (or a part of one, with `end=""`) for people; never read as markup."""
        self._out.print(Text(text, style=style), end=end)

    def warn(self, text: str) -> None:
        """A line on standard error."""
        self._err.print(Text(text, style="yellow"))

    def table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()
    ) -> None:
        """An aligned table; `right` holds the indices of right-aligned (number) columns."""
        table = Table(title=title or None, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
        for index, column in enumerate(columns):
            table.add_column(column, justify="right" if index in right else "left", no_wrap=True, header_style="dim")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self._out.print(table)

    def result(self, value: Mapping[str, Any]) -> None:
        """The command's JSON object, when programs asked for it."""
        if self.as_json:
            sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
            sys.stdout.flush()

    def progress(self) -> LateProgress:
        """A progress display that appears once the work has taken two seconds."""
        return LateProgress(self._err)


def _console(*, stderr: bool) -> RichConsole:
    """A file or a pipe has no width of its own: a table there is as wide as it needs to be."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else WIDTH_OF_A_FILE
    return RichConsole(stderr=stderr, highlight=False, soft_wrap=True, width=width)


class LateProgress:
    """Renders `Progress.step` calls, from the third second on; use as a context manager."""

    def __init__(self, console: RichConsole) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._console = console
        self._started = time.monotonic()
        self._visible = False
        self._tasks: dict[str, TaskID] = {}
        self._last_line = self._started

    def __enter__(self) -> LateProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._visible:
            self._bars.stop()

    def step(self, label: str, done: int, total: int) -> None:
        """Remember the step; draw it once two seconds have gone by. A Ctrl-C that a library swallowed stops here."""
        stop_if_interrupted()
        now = time.monotonic()
        if label not in self._tasks:
            self._tasks[label] = self._bars.add_task(label, total=total)
        self._bars.update(self._tasks[label], completed=done, total=total)
        if now - self._started < PROGRESS_AFTER_SECONDS:
            return
        if self._console.is_terminal:
            if not self._visible:
                self._bars.start()
                self._visible = True
        elif now - self._last_line >= PROGRESS_AFTER_SECONDS:
            self._last_line = now
            percent = 100 * done // max(total, 1)
            self._console.print(Text(f"{label}: {percent} %"))
