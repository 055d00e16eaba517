"""A chat session on a microphone and a loudspeaker of a PulseAudio of our own, spoken to by another program."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from subprocess import Popen

import numpy as np
import soxr
from pulse_audio import PulseAudio, TimedRecorder
from spoken_chat import Shown
from spoken_over import NEEDED_AFTER_S, SHORTEST_REPLY_S, Interruption, onset_s

from sottovoce.runtime import Assistant
from sottovoce.runtime.chat.parts import Parts
from sottovoce.runtime.chat.reply_sound import SPEAKER_SECONDS
from sottovoce.runtime.chat.session import ChatSession
from sottovoce.runtime.chat.worker import ConversationWorker
from sottovoce.runtime.devices import DeviceSettings, open_microphone, open_speaker
from sottovoce.runtime.duplex.events import InterruptKey
from sottovoce.runtime.duplex.settings import DuplexSettings

Heard = tuple[Interruption, np.ndarray]


class OnDevices:
    """A session on a microphone and a loudspeaker of PulseAudio."""

    def __init__(self, assistant: Assistant, worker: ConversationWorker, pulse: PulseAudio) -> None:
        self.pulse, self.shown = pulse, Shown()
        settings = DeviceSettings("pulse", "pulse", playback_seconds=SPEAKER_SECONDS)
        self.microphone = open_microphone(settings)
        self.speaker = open_speaker(settings, assistant.sample_rate)
        rate = assistant.sample_rate
        parts = Parts(worker, self.microphone, self.speaker, self.shown, time.monotonic, rate, DuplexSettings())
        self.session = ChatSession(parts)
        self.stopped_at, self._stop = 0.0, self.speaker.stop
        self.speaker.stop = self._note_stop  # type: ignore[method-assign]

    def _note_stop(self, epoch: int) -> None:
        self.stopped_at = time.monotonic()
        self._stop(epoch)

    def close(self) -> None:
        self.microphone.close()
        self.speaker.close()

    def until(self, is_so: Callable[[], bool], within_s: float = 30.0) -> float:
        """Go on until something is so; returns when it was."""
        deadline = time.monotonic() + within_s
        while not is_so():
            if time.monotonic() > deadline:
                raise SystemExit(f"it did not come to that: {self.session.duplex.view}")
            self.session.step()
            time.sleep(0.005)
        return time.monotonic()

    def say(self, question: np.ndarray) -> Popen[bytes]:
        return self.pulse.play("room", soxr.resample(question, 16_000, 48_000), 48_000)

    def interrupt(self, questions: Sequence[np.ndarray], chance: random.Random) -> Heard | None:
        """Ask, speak over the reply, and what was recorded of it; None if the reply is too short for that."""
        session, over = self.session, len(self.shown.over)
        with closing(TimedRecorder(self.pulse, "speaker")) as recorder:
            players = [self.say(questions[0])]
            quiet_from = time.monotonic() + len(questions[0]) / 16_000 + 3
            self.until(
                lambda: (
                    session.duplex.state == "speaking"
                    or len(self.shown.over) > over
                    or (session.duplex.state == "idle" and time.monotonic() > quiet_from)
                )  # it was not heard as speech
            )
            epoch = session.duplex.view.epoch if session.duplex.state == "speaking" else None
            self.until(lambda: epoch is None or bool(session.turns[epoch].timings))
            length = session.turns[epoch].made_seconds if epoch is not None else 0.0
            if length >= SHORTEST_REPLY_S:
                waits = chance.uniform(0.05, length - NEEDED_AFTER_S)
                turn = session.turns[epoch]
                # A question with a pause in it may speak over its own answer.
                self.until(lambda: turn.played_seconds > waits or turn.is_over)
                spoke_at = time.monotonic() + onset_s(questions[1])
                players.append(self.say(questions[1]))
                self.until(lambda: session.duplex.state in ("stopping", "listening") or session.turns[epoch].is_over)
                self.until(lambda: session.turns[epoch].is_over)
            time.sleep(0.2)  # what is on its way to the recorder
        # To the question's end, so that the rest of it is not the next one to be answered.
        self.until(lambda: all(player.poll() is not None for player in players))
        session.tell(InterruptKey(session.now))
        self.until(lambda: session.duplex.state == "idle")
        turn = session.turns.get(epoch) if epoch is not None else None
        if turn is None or len(players) < 2 or turn.reason != "cancelled":
            return None
        sound = recorder.samples
        loud = np.flatnonzero(np.abs(sound) > 1e-3)
        after_stop = max(0.0, recorder.last_sound - self.stopped_at)
        after_speech = self.stopped_at + after_stop - spoke_at
        one = Interruption(self.shown.texts[epoch].strip(), turn.text, turn.played_seconds, after_stop, after_speech)
        return one, sound[loud[0] : loud[-1] + 1]
