"""Ask what a set asks as `chat` would be asked: its recordings come in as they would be captured, pauses and all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sottovoce.runtime.conversation import Conversation
from sottovoce.runtime.conversation_set.item import EvaluationItem, HistoryTurn
from sottovoce.runtime.duplex.actions import Prepare, Withdraw
from sottovoce.runtime.duplex.events import CAPTURE_RATE, ReplyFinished
from sottovoce.runtime.duplex.machine import Duplex
from sottovoce.runtime.duplex.settings import DuplexSettings
from sottovoce.runtime.duplex.voice_activity import VoiceActivity
from sottovoce.runtime.features.audio_file import Waveform, read_audio
from sottovoce.runtime.reply import ReplyEvent

PIECE_MS = 20
"""What a microphone hands over at a time."""
NO_PAUSE_ENDS_A_TURN = DuplexSettings(end_ms=10_000, max_turn_ms=3_600_000)
"""A recording of a set is one turn, however long it pauses in the middle."""


def can_be_streamed(turn: EvaluationItem | HistoryTurn) -> bool:
    """Whether it could be said to `chat`: nobody speaks and types one question."""
    return turn.audio is not None and not turn.text


def ask_streamed(
    conversation: Conversation, turn: EvaluationItem | HistoryTurn, folder: Path, max_seconds: float
) -> Iterator[ReplyEvent]:
    """Show what is shown, say the recording, and give the reply's events.

    The reply is begun silently in every pause of the recording, and once more at its end, which nothing comes behind.
    Unlike a turn that `chat` finds, the recording is heard whole: it is the same question as when it is asked.

    Args:
        conversation: greedy or not.
        turn: one that `can_be_streamed`.
        folder: of the set.
        max_seconds: longer recordings are refused.

    Raises:
        InputError: a recording, picture or clip that cannot be read.
        BackendError: nothing is installed that tells speech from silence.
    """
    assert turn.audio is not None  # noqa: S101  # see `can_be_streamed`
    waveform = read_audio(folder / turn.audio, max_seconds=max_seconds)
    if turn.images or turn.video:
        video = folder / turn.video if turn.video else None
        conversation.show([folder / image for image in turn.images], video)
    pauses = pauses_of(waveform)
    piece = PIECE_MS * waveform.sample_rate // 1000
    for start in range(0, len(waveform.samples), piece):
        said = waveform.samples[start : start + piece]
        conversation.accept_waveform(said, waveform.sample_rate)
        until_s = (start + len(said)) / waveform.sample_rate
        if pauses and pauses[0] <= until_s:
            pauses = [pause for pause in pauses if pause > until_s]
            conversation.prepare()
    conversation.prepare()
    return conversation.end_of_speech()


def pauses_of(waveform: Waveform) -> list[float]:
    """When `chat` would begin a reply: seconds from the beginning, one for every pause of the speech.

    Raises:
        BackendError: nothing is installed that tells speech from silence.
    """
    samples = waveform.at_rate(CAPTURE_RATE).samples
    duplex, pauses = Duplex(NO_PAUSE_ENDS_A_TURN), []
    for window in VoiceActivity().append(samples, at=len(samples) / CAPTURE_RATE):
        for action in duplex.handle(window):
            match action:
                case Prepare():
                    pauses.append(window.end_sample / CAPTURE_RATE)
                case Withdraw(epoch):  # no other reply is begun before this one is known to be over
                    duplex.handle(ReplyFinished(window.at, epoch, "cancelled"))
    return pauses
