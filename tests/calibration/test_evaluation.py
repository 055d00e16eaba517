"""Sets that are wrong are refused with their line; right and wrong replies are told apart and counted honestly."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sottovoce.calibration.edit_distance import edit_distance
from sottovoce.calibration.evaluation_set import read_evaluation_set
from sottovoce.calibration.scores import Outcome, score, wilson_interval
from sottovoce.runtime.cli import main
from sottovoce.runtime.conversation_set.item import EvaluationItem
from sottovoce.runtime.errors import SottovoceError

TYPED = {"task": "typed_question", "text": "What is the time?", "reply": "Noon.", "state": "☜"}


def write_set(folder: Path, *lines: object) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "set.jsonl").write_text("\n".join(texts) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([TYPED, ""], r"set.jsonl:2: an empty line"),
        ([{**TYPED, "task": "juggling"}], r"unknown task 'juggling'"),
        ([{**TYPED, "audio": "missing.wav"}], r"'missing.wav' is missing"),
        ([{**TYPED, "audio": "../outside.wav"}], r"leaves the folder"),
        ([{**TYPED, "colour": "red"}], r"unknown key 'colour'"),
        ([{"task": "typed_question", "reply": "x"}], r"nothing is asked"),
        ([{**TYPED, "state": "!"}], r"state"),
        ([{**TYPED, "history": [{"role": "user", "text": ""}]}], r"history asks nothing"),
        ([{**TYPED, "history": [{"role": "user", "text": "", "audio": "missing.wav"}]}], r"'missing.wav' is missing"),
        ([{**TYPED, "history": [{"role": "assistant", "text": "", "video": "x.mp4"}]}], r"history has files"),
        ([{**TYPED, "captured": {"greedy": True, "max_new_tokens": 0}}], r"max_new_tokens is 0, expected 1"),
        ([{**TYPED, "captured": {"greedy": True}}], r"'captured.max_new_tokens' is missing"),
        (["{broken"], r"not a JSON object"),
        ([], r"an empty line|is empty"),
    ],
)
def test_a_wrong_set_is_refused_with_its_line(tmp_path: Path, lines: list[object], says: str) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (tmp_path / "outside.wav").write_bytes(b"x")
    with pytest.raises(SottovoceError) as refused:
        read_evaluation_set(write_set(folder, *lines))
    assert re.search(says, str(refused.value)), refused.value
    assert "set.jsonl" in str(refused.value.file)


def test_a_folder_without_a_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SottovoceError, match=r"no set\.jsonl"):
        read_evaluation_set(tmp_path)


def outcome(task: str, expected: str, reply: str, state: str | None = "☞") -> Outcome:
    wanted: Any = "☟" if task == "not_addressed" else "☞"
    return Outcome(EvaluationItem(task=task, reply=expected, state=wanted, text="x"), reply, state)


def test_scores_by_task() -> None:
    scores = score(
        [
            outcome("spoken_question", "Twelve.", "Twelve."),
            outcome("spoken_question", "Twelve.", "Eleven."),
            outcome("typed_question", "Paris.", "Paris."),
            outcome("say_after_me", "the red house", "the read house", "☞"),
            outcome("not_addressed", "", "", "☟"),
            outcome("not_addressed", "", "Hello.", "☞"),
            outcome("spoken_question", "Blue.", "", "☟"),
        ]
    )
    by_task = {row.task: row for row in scores.tasks}
    assert by_task["spoken_question"].value == pytest.approx(1 / 3)
    assert by_task["typed_question"].value == 1.0
    assert by_task["say_after_me"].value == pytest.approx(1 / 3)
    assert by_task["not_addressed"].value == 0.5
    assert scores.reply_exact == pytest.approx(2 / 4)
    assert scores.questions_ignored == pytest.approx(1 / 5)
    assert len(scores.misses) == 4
    for row in scores.tasks:
        assert 0 <= row.low <= row.value <= row.high


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"), [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)]
)
def test_wilson_interval_equals_published_values(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-4)


@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), max_size=8))
def test_word_edits_is_a_distance(a: list[str], b: list[str]) -> None:
    assert edit_distance(a, b) == edit_distance(b, a)
    assert (edit_distance(a, b) == 0) == (a == b)
    assert abs(len(a) - len(b)) <= edit_distance(a, b) <= max(len(a), len(b))


def test_evaluate_through_the_bundle(tiny_bundle: Path, golden_dir: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copy(golden_dir / "speech.wav", tmp_path / "question.wav")
    shutil.copy(golden_dir / "picture.png", tmp_path / "picture.png")
    history = [{"role": "user", "text": "Hello."}, {"role": "assistant", "text": "Hi."}]
    items = [
        TYPED,
        {"task": "spoken_question", "audio": "question.wav", "reply": "Noon.", "state": "☞"},
        {"task": "picture_question", "images": ["picture.png"], "text": "What is it?", "reply": "A door."},
        {"task": "follow_up", "text": "And now?", "reply": "Now.", "history": history},
    ]
    write_set(tmp_path, *items)
    assert main(["evaluate", str(tiny_bundle), "--set", str(tmp_path), "--json"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    # Random weights answer nothing rightly; what counts here is that every kind of item was asked.
    assert found["reply_exact"] == 0.0
    assert found["items"] == 4
    assert set(found["tasks"]) == {item["task"] for item in items}
    assert {miss["audio"] for miss in found["misses"]} == {None, "question.wav"}
    assert "exact replies 0.0 %" in printed.err


def test_evaluate_finds_its_own_answers_right(tiny_bundle: Path, tmp_path: Path, capsys: Any) -> None:
    """What the bundle answered once is what it answers again, so a set made of its answers is all right."""
    write_set(tmp_path, TYPED)
    assert main(["evaluate", str(tiny_bundle), "--set", str(tmp_path), "--json"]) == 0
    reply = json.loads(capsys.readouterr().out)["misses"][0]["reply"]
    write_set(tmp_path, {**TYPED, "reply": reply})
    assert main(["evaluate", str(tiny_bundle), "--set", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reply_exact"] == 1.0
