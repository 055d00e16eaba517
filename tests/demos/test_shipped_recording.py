"""The recorded conversation in tests/recordings, held again with the checkpoint that ships, however it was trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sottovoce.demos.first_answer import TRAINED
from sottovoce.export.export import export
from sottovoce.runtime.cli import main
from sottovoce.runtime.recording.lines import EVENTS_FILE
from sottovoce.runtime.recording.reading import Recording

RECORDING = Path(__file__).parents[1] / "recordings" / "miniature-barge-in"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("miniature") / "miniature.bundle"
    export(TRAINED.checkpoint, folder)
    return folder


def test_turns_are_taken_as_then_and_every_question_is_answered(bundle: Path, capsys) -> None:
    main(["replay", str(RECORDING), "--bundle", str(bundle), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["turn_taking"]["first_difference"] is None
    assert found["turn_taking"]["same"]
    assert [reply["asked"].split()[0] for reply in found["replies"]] == ["spoken", "spoken"]
    for reply in found["replies"]:
        assert reply["error"] is None
        assert reply["now"]["reason"] in ("stop", "length", "cancelled")
        assert reply["now"]["text"].strip()
        assert reply["now"]["samples"] > 0


def test_it_holds_what_a_conversation_is_made_of() -> None:
    events = (RECORDING / EVENTS_FILE).read_text(encoding="utf-8")
    for action in ("Prepare", "Withdraw", "EndOfSpeech", "Duck", "StopPlayback", "CancelReply", "Close"):
        assert f'"action":"{action}"' in events
    assert Recording.open(RECORDING).remarks == ()
    assert sum(path.stat().st_size for path in RECORDING.parent.rglob("*")) < 1 << 20
