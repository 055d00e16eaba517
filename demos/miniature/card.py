"""The model card beside the packed weights: what it is, what it learned from, and what it was measured to do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sottovoce.demos.miniature.curriculum import questions
from sottovoce.demos.miniature.settings import Workspace
from sottovoce.runtime.errors import SottovoceError

REQUIRED = {
    "spoken_question": ("spoken question, unheard espeak-ng variants", "reply exact", 0.95),
    "spoken_question_new_synthesizer": ("spoken question, unheard synthesizer (flite slt, rms)", "reply exact", 0.85),
    "typed_question": ("typed question", "reply exact", 0.99),
    "follow_up": ("follow-up turns", "reply exact", 0.90),
    "say_after_me": ("say after me", "word error rate", 0.05),
    "picture_caption": ("picture: caption", "exact", 0.95),
    "picture_question": ("picture: typed question", "exact", 0.95),
    "spoken_picture_question": ("picture: spoken question", "exact", 0.95),
    "clip_question": ("clip: question", "exact", 0.90),
    "not_addressed": ("noise or talk meant for others", "answered ☟", 0.98),
}
"""Task → what a person calls it, its measure, and the bar it is held to."""

_TEXT = """---
license: apache-2.0
language: en
tags: [speech, vision, vita, miniature]
---

# The miniature

A VITA-1.5 in the released layout and file formats, small enough to ship in a repository and trained from nothing: it
hears, sees and speaks within a closed curriculum. It is there to show that the tools work and to measure every change
to them; it is not an assistant for real questions.

## What it learned from

* {count} questions with their replies ({held_out} of them kept out of training), follow-up turns, sentences to repeat,
  talk that is meant for others: made by `demos/miniature`, Apache-2.0.
* Pictures and clips drawn with Pillow; a fifth of the combinations (which shape where, which digit in which color) is
  kept out. Beyond them, drills that show no such combination, against the shortcuts that the rest would teach.
* Speech of espeak-ng (GPL-3.0; 60 variants and more, eight accents), flite (`kal`, `kal16`, `awb`), festival (`ked`),
  Piper (`joe`, CC0) and, in the last segment of its training, SVOX Pico (`en-US`, `en-GB`; Apache-2.0), disturbed by
  speed, rooms, noise, gain and clipping. Kept out: espeak-ng `f3`, `m5`, `croak`, `Andy`, `steph`, and flite `slt` and
  `rms`. No recording of a person was used beyond what these voices were built on.

## How

Three stages, as published: vision and language; audio in (the encoder by CTC on letters, the adapter by CTC on the
language model's own embeddings, then spoken questions with state tokens); audio out (what makes codes, codec, then
speech decoder).
Every part starts from a seed; `python -m sottovoce.demos.miniature` makes it all again. Trained on one core each:

{trainings}

The reply's voice is Piper's `joe`: the only one of the synthesizers at hand that sounds like a person and is CC0.

## Measured

On held-out voices and held-out combinations, through the exported bundle:

{table}
{speech}"""


@dataclass(frozen=True)
class Measurements:
    """Files of figures for the card; what is None was not measured.

    Args:
        scores: what `sottovoce evaluate --json` printed for a bundle of this checkpoint.
        stage_one: the same after stage 1, to see what stages 2 and 3 made of it.
        listening: what `listen --json` printed for that bundle.
    """

    scores: Path | None = None
    stage_one: Path | None = None
    listening: Path | None = None


def write_card(workspace: Workspace, target: Path, measured: Measurements) -> None:
    """Write `README.md` into a checkpoint's folder.

    Args:
        workspace: where the curves of the trainings are.
        target: the packed checkpoint.
        measured: figures, where there are any.

    Raises:
        SottovoceError: one of the files is not what it should be.
    """
    listed = questions()
    text = _TEXT.format(
        count=f"{len(listed):,}",
        held_out=f"{sum(one.held_out for one in listed):,}",
        trainings=_trainings(workspace),
        table=_table(measured),
        speech=_speech(measured.listening),
    )
    (target / "README.md").write_text(text, encoding="utf-8")


def _trainings(workspace: Workspace) -> str:
    """Steps and minutes of each training, from its curve."""
    lines = ["| training | steps | minutes |", "| --- | --- | --- |"]
    total = 0.0
    for curve in sorted(workspace.root.rglob("curve.jsonl")):
        rows = [json.loads(line) for line in curve.read_text(encoding="utf-8").splitlines()]
        if rows:
            minutes = _seconds(rows) / 60
            total += minutes
            name = curve.parent.name.replace("_", " ")
            lines.append(f"| {name} | {int(rows[-1]['step']):,} | {minutes:.0f} |")
    return "\n".join([*lines, f"| all | | {total:.0f} |"])


def _seconds(rows: Sequence[Mapping[str, float]]) -> float:
    """A curve's clock starts again whenever the training was taken up again."""
    before, total = 0.0, 0.0
    for row in rows:
        total += row["seconds"] - before if row["seconds"] > before else row["seconds"]
        before = row["seconds"]
    return total


def _read_scores(path: Path) -> Mapping[str, Any]:
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(scores["tasks"], dict) or not isinstance(scores["questions_ignored"], float):
            raise TypeError("tasks and questions_ignored are not what `evaluate` writes")
        return dict(scores)
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise SottovoceError(
            f"not the scores of an evaluation: {problem}",
            file=str(path),
            fix="write them with: sottovoce evaluate BUNDLE --set DIR --json > scores.json",
        ) from problem


def _table(measured: Measurements) -> str:
    if measured.scores is None:
        return "Not measured yet."
    scores = _read_scores(measured.scores)
    before = {"tasks": {}} if measured.stage_one is None else _read_scores(measured.stage_one)
    lines = [
        "| task | measure | must reach | measured | 95 % interval | items | after stage 1 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for task, (name, measure, bar) in REQUIRED.items():
        row = scores["tasks"].get(task)
        if row is None:
            continue
        sign = "≤" if task == "say_after_me" else "≥"
        value, low, high = (f"{100 * row[key]:.1f} %" for key in ("value", "low", "high"))
        earlier = before["tasks"].get(task)
        was = "" if earlier is None else f"{100 * earlier['value']:.1f} %"
        cells = [name, measure, f"{sign} {100 * bar:.0f} %", value, f"{low} to {high}", str(row["count"]), was]
        lines.append(f"| {' | '.join(cells)} |")
    ignored = f"{100 * scores['questions_ignored']:.1f} %"
    lines.append(f"| questions wrongly ignored | share | ≤ 1 % | {ignored} | | | |")
    return "\n".join(lines)


SPEECH_ROWS: Mapping[str, tuple[str, int | None]] = {
    "the_voice": ("the voice itself", None),
    "codec_alone": ("codec alone", 5),
    "text_to_speech": ("reply's speech", 10),
}
"""Key in the listener's JSON → name, and by how many points at most it may be worse than the voice."""


def _speech(path: Path | None) -> str:
    """The listener's table, on sentences that the speech decoder was not trained on."""
    if path is None:
        return ""
    try:
        heard = json.loads(path.read_text(encoding="utf-8"))
        lines = [
            f"\nWhat whisper tiny.en understands of {heard['sentences']} sentences ({heard['words']} words) that were",
            "kept out of training:\n",
            "| sound | word error rate | minus the voice's | at most |",
            "| --- | --- | --- | --- |",
        ]
        for key, (name, bar) in SPEECH_ROWS.items():
            rate, difference = heard[key]["word_error_rate"], heard[key]["minus_voice"]
            limit = "" if bar is None else f"{bar} points"
            lines.append(f"| {name} | {100 * rate:.1f} % | {100 * difference:+.1f} points | {limit} |")
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise SottovoceError(
            f"not what a listener heard: {problem}",
            file=str(path),
            fix="write it with: python -m sottovoce.demos.miniature listen --bundle BUNDLE --json > heard.json",
        ) from problem
    return "\n".join(lines) + "\n"
