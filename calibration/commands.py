"""`sottovoce evaluate`: how many of a set's replies are right, by task."""

from __future__ import annotations

from pathlib import Path

import click

from sottovoce.calibration.evaluation import evaluate
from sottovoce.calibration.evaluation_set import read_evaluation_set
from sottovoce.calibration.scores import Outcome, score, table_rows
from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.commands.options import BUNDLE, FILE, backend_choice, common
from sottovoce.runtime.console import Console

SHOWN_MISSES = 20


@click.command("evaluate")
@BUNDLE
@click.option("--set", "folder", type=FILE, required=True, metavar="DIR", help="A folder with set.jsonl and its files.")
@click.option("--misses", type=click.IntRange(0), default=SHOWN_MISSES, show_default=True, help="Misses to list.")
@click.option("--streamed", is_flag=True, help="Hear recordings while they go on, and answer in pauses, as chat does.")
@backend_choice
@common
def evaluate_command(  # noqa: PLR0913  # click hands over one argument a flag
    bundle: Path,
    folder: Path,
    misses: int,
    streamed: bool,
    backend: str,
    require_engine: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Answer every item of a set with BUNDLE and compare with the replies it should give."""
    del debug
    console = Console(as_json)
    items = read_evaluation_set(folder)
    with (
        console.progress() as progress,
        Assistant.open(bundle, backend, require_engine=require_engine, progress=progress) as assistant,
    ):
        scores = score(evaluate(assistant, items, folder, progress, streamed=streamed))
    sampled = sum(item.captured is not None and not item.captured.greedy for item in items)
    if sampled:
        console.warn(f"{sampled} of the replies were not captured greedily: to miss one of these need not be a fault")
    columns = ["task", "measure", "items", "", "95 % interval"]
    console.table(f"{bundle} on {folder}", columns, table_rows(scores.tasks), [2, 3])
    console.say(f"\nexact replies {100 * scores.reply_exact:.1f} %", style="bold")
    console.say(f"questions wrongly ignored {100 * scores.questions_ignored:.1f} %")
    if misses and scores.misses:
        rows = [_miss(outcome, folder) for outcome in scores.misses[:misses]]
        title = f"\n{len(scores.misses)} misses" + (f", the first {misses}" if len(scores.misses) > misses else "")
        console.table(title, ["task", "expected", "got", "state", "file"], rows)
    console.result({**scores.as_json(), "items": len(items)})


def _miss(outcome: Outcome, folder: Path) -> list[str]:
    item = outcome.item
    file = item.audio or item.video or (item.images[0] if item.images else None)
    asked = str(folder / file) if file else f"“{item.text}”"
    return [item.task, item.reply or item.state or "", outcome.reply, outcome.state or "", asked]
