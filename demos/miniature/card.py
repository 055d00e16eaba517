"""The model card beside the packed weights: what it is, what it learned from, and what it was measured to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
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
* Pictures and clips drawn with Pillow.
* Speech of espeak-ng (GPL-3.0; 60 variants and more, eight accents), flite (`kal`, `kal16`, `awb`), festival (`ked`)
  and Piper (`joe`, CC0), disturbed by speed, rooms, noise, gain and clipping. Kept out: espeak-ng `f3`, `m5`, `croak`,
  `Andy`, `steph`, and flite `slt` and `rms`. No recording of a person was used beyond what these voices were built on.

## How

Three stages, as published: vision and language; audio in (the encoder by CTC on letters, the adapter by CTC on the
language model's own embeddings, then spoken questions with state tokens); audio out (codec, then speech decoder).
Steps trained: {steps}. Every part starts from a seed; `python -m sottovoce.demos.miniature` makes it all again.

## Measured

{table}
"""


def write_card(workspace: Workspace, target: Path, scores: Path | None) -> None:
    """Write `README.md` into a checkpoint's folder.

    Args:
        workspace: where the curves of the trainings are.
        target: the packed checkpoint.
        scores: what `sottovoce evaluate --json` printed for a bundle of this checkpoint; None: not measured yet.

    Raises:
        SottovoceError: `scores` is not such a file.
    """
    listed = questions()
    text = _TEXT.format(
        count=f"{len(listed):,}",
        held_out=f"{sum(one.held_out for one in listed):,}",
        steps=", ".join(_steps(workspace)) or "none",
        table=_table(_read_scores(scores)) if scores is not None else "Not measured yet.",
    )
    (target / "README.md").write_text(text, encoding="utf-8")


def _steps(workspace: Workspace) -> list[str]:
    """The last step in each training's curve."""
    found = []
    for curve in sorted(workspace.root.rglob("curve.jsonl")):
        lines = curve.read_text(encoding="utf-8").splitlines()
        if lines:
            found.append(f"{curve.parent.name.replace('_', ' ')} {int(json.loads(lines[-1])['step']):,}")
    return found


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


def _table(scores: Mapping[str, Any]) -> str:
    lines = [
        "| task | measure | must reach | measured | 95 % interval | items |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for task, (name, measure, bar) in REQUIRED.items():
        row = scores["tasks"].get(task)
        if row is None:
            continue
        sign = "≤" if task == "say_after_me" else "≥"
        value, low, high = (f"{100 * row[key]:.1f} %" for key in ("value", "low", "high"))
        lines.append(f"| {name} | {measure} | {sign} {100 * bar:.0f} % | {value} | {low} to {high} | {row['count']} |")
    lines.append(f"| questions wrongly ignored | share | ≤ 1 % | {100 * scores['questions_ignored']:.1f} % | | |")
    return "\n".join(lines)
