"""Interruptions: how soon the reply is silent, and whether the history is what was heard of it.

    python tests/benchmarks/barge_in.py BUNDLE --set DIR [--interruptions 200] [--devices 20] [--played DIR] [--json]

Recorded questions of the set are spoken over the replies to the questions before them, each from a random moment on.
The replies are played into a file over a clock that stands still while the model computes. The sound that was played,
fade and all, is read by an independent listener (whisper tiny.en); what it hears is compared with what the history
keeps of the reply:

- extent: the listener's words are laid along the whole reply, so that a word it mistakes still shows how far it heard
  (where two extents explain them equally well, both count as what was heard); the difference to the history's words;
- edits: words to change between what it wrote and the history, its own mistakes included.

With `--devices N`, N more through PulseAudio, in real time: null sinks of a daemon of our own for room and loudspeaker,
whose monitor is recorded by another program. There the last sample counts as played when it comes in from the monitor.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import Popen

import numpy as np
import soxr

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "runtime" / "chat"), str(TESTS / "audio")]

from pulse_audio import PulseAudio, TimedRecorder, own_daemon  # noqa: E402  # the tests' folders are on the path only now
from spoken_chat import Shown, SpokenChat, sound_of, spoken_chat  # noqa: E402  # where tests keep it

from sottovoce.calibration.edit_distance import edit_distance  # noqa: E402
from sottovoce.demos.miniature.speech_out.listener import Listener, plain_words  # noqa: E402
from sottovoce.runtime import Assistant, read_audio  # noqa: E402
from sottovoce.runtime.chat.parts import Parts  # noqa: E402
from sottovoce.runtime.chat.reply_sound import SPEAKER_SECONDS  # noqa: E402
from sottovoce.runtime.chat.session import ChatSession  # noqa: E402
from sottovoce.runtime.chat.worker import ConversationWorker  # noqa: E402
from sottovoce.runtime.devices import DeviceSettings, open_microphone, open_speaker  # noqa: E402
from sottovoce.runtime.duplex.events import InterruptKey  # noqa: E402
from sottovoce.runtime.duplex.settings import DuplexSettings  # noqa: E402

TURNS_A_CONVERSATION = 20
SHORTEST_REPLY_S = 1.5
NEEDED_AFTER_S = 0.75
"""An interruption takes half a second of speech: it must begin so long before the reply's end."""
BLOCK_S = 0.02
BAR_WORDS = 0.95
QUIET = 1e-5
MAX_NEW_TOKENS = 60
"""A small model that begins to repeat itself would never end."""


@dataclass
class Interruption:
    """One reply that was spoken over.

    Args:
        reply: its whole text.
        history: what was kept of it.
        played_s: how much was played.
        after_stop_s: from the wish to stop to the last sample that is not zero.
        after_speech_s: the same from the first sample of the question spoken over it.
        heard: what the listener wrote.
        off_by: words between the history and how far the listener heard.
        edits: between the history and what the listener wrote.
    """

    reply: str
    history: str
    played_s: float
    after_stop_s: float
    after_speech_s: float
    heard: str = ""
    off_by: int = 0
    edits: int = 0


def extents(heard: Sequence[str], reply: Sequence[str]) -> list[int]:
    """How many words of `reply` were heard; several if they explain `heard` equally well."""
    costs = [edit_distance(list(reply[:count]), list(heard)) for count in range(len(reply) + 1)]
    return [count for count, cost in enumerate(costs) if cost == min(costs)]


def judge(one: Interruption, samples: np.ndarray, rate: int, listener: Listener) -> None:
    """Let the listener hear what was played."""
    one.heard = listener.transcribe(samples, rate)
    heard, kept = plain_words(one.heard), plain_words(one.history)
    one.off_by = min(abs(count - len(kept)) for count in extents(heard, plain_words(one.reply)))
    one.edits = edit_distance(kept, heard)


def interruptions(
    assistant: Assistant, questions: Sequence[np.ndarray], random_s: random.Random, folder: Path
) -> Iterator[tuple[Interruption, np.ndarray]]:
    """One conversation in which each question is spoken over the reply to the one before, with what was played."""
    folder.mkdir(parents=True, exist_ok=True)
    wav, found = folder / "played.wav", []
    conversation = assistant.conversation(greedy=True, max_new_tokens=MAX_NEW_TOKENS)
    with spoken_chat(conversation, assistant.sample_rate, wav) as chat:
        chat.microphone.say(questions[0])
        for question in questions[1:]:
            place = _interrupt(chat, question, random_s)
            if place is not None:
                found.append(place)
            else:  # that reply was too short to speak over
                chat.until(lambda: chat.state == "idle")
                chat.microphone.say(question)
        chat.until(lambda: chat.state == "idle")
    played, rate = sound_of(wav)
    for epoch, spoke_at in found:
        begin, stop = chat.speaker.written[epoch], chat.speaker.stops[epoch]
        # The block in which the reply is stopped fades out; behind it is silence, up to the next reply.
        sound = played[round(begin * rate) : round((stop + 0.25) * rate)]
        last = begin + (np.flatnonzero(np.abs(sound) > QUIET)[-1] + 1) / rate
        turn = chat.session.turns[epoch]
        yield (
            Interruption(chat.shown.texts[epoch].strip(), turn.text, turn.played_seconds, last - stop, last - spoke_at),
            sound[: round((last - begin) * rate)],
        )


def _interrupt(chat: SpokenChat, question: np.ndarray, random_s: random.Random) -> tuple[int, float] | None:
    """Wait for the reply, and speak over it: which reply, and when it was spoken over."""
    over = len(chat.shown.over)
    chat.until(lambda: chat.state == "speaking" or len(chat.shown.over) > over)
    if chat.state != "speaking":
        return None
    epoch = chat.session.duplex.view.epoch
    length = chat.session.turns[epoch].made_seconds
    if length < SHORTEST_REPLY_S:
        return None
    chat.step(random_s.uniform(0.05, length - NEEDED_AFTER_S))
    spoke_at = chat.clock() + _onset_s(question)
    chat.microphone.say(question)
    chat.until(lambda: chat.session.turns[epoch].is_over and chat.state != "stopping")
    return (epoch, spoke_at) if epoch in chat.speaker.stops else None


def _onset_s(question: np.ndarray) -> float:
    """Where in a recording the speech begins."""
    return float(np.flatnonzero(np.abs(question) > 0.05 * np.abs(question).max())[0]) / 16_000


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

    def interrupt(self, questions: Sequence[np.ndarray], chance: random.Random) -> _Heard | None:
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
                spoke_at = time.monotonic() + _onset_s(questions[1])
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


_Heard = tuple[Interruption, np.ndarray]


def measure_devices(
    assistant: Assistant, options: argparse.Namespace, folder: Path, listener: Listener
) -> list[Interruption]:
    """As many as were asked for, one after another in one conversation."""
    chance, questions, found = random.Random(options.seed), spoken_questions(options.set), []
    folder.mkdir(parents=True, exist_ok=True)
    worker = ConversationWorker(assistant.conversation(greedy=True, max_new_tokens=MAX_NEW_TOKENS))
    try:
        with own_daemon(folder) as pulse:
            os.environ.update(PULSE_SINK="speaker", PULSE_SOURCE="room.monitor")
            with closing(OnDevices(assistant, worker, pulse)) as devices:
                while len(found) < options.devices:
                    heard = devices.interrupt(chance.sample(questions, 2), chance)
                    if heard is not None:
                        judge(*heard, TimedRecorder.rate, listener)
                        found.append(heard[0])
                        print(f"\r{len(found)}", end="", file=sys.stderr)
    finally:
        worker.close()
    return found


def summary(found: Sequence[Interruption]) -> dict[str, object]:
    """Percentiles in milliseconds, and shares of the interruptions."""

    def percentiles(seconds: Sequence[float]) -> dict[str, float]:
        p50, p99 = np.percentile(1000 * np.asarray(seconds), [50, 99])
        return {"p50": round(float(p50), 1), "p99": round(float(p99), 1), "max": round(1000 * float(max(seconds)), 1)}

    def share(holds: Sequence[bool]) -> float:
        return round(sum(holds) / len(holds), 4)

    return {
        "interruptions": len(found),
        "last_sample_after_stop_ms": percentiles([one.after_stop_s for one in found]),
        "last_sample_after_speech_ms": percentiles([one.after_speech_s for one in found]),
        "extent_within_one_word": share([one.off_by <= 1 for one in found]),
        "extent_exact": share([one.off_by == 0 for one in found]),
        "edits_at_most_one": share([one.edits <= 1 for one in found]),
        "history_longer_by_words": round(float(np.mean([_signed(one) for one in found])), 3),
    }


def _signed(one: Interruption) -> int:
    """How many words more the history has than were heard, of several extents by the nearest."""
    kept = len(plain_words(one.history))
    counts = extents(plain_words(one.heard), plain_words(one.reply))
    return kept - min(counts, key=lambda count: abs(count - kept))


def spoken_questions(folder: Path) -> list[np.ndarray]:
    """The set's recorded questions (n,) at 16 kHz that get a spoken answer."""
    items = [json.loads(line) for line in (folder / "set.jsonl").read_text().splitlines()]
    kinds = ("spoken_question", "say_after_me")
    asked = [item["audio"] for item in items if item["task"] in kinds and "audio" in item]
    return [read_audio(folder / name).at_rate(16_000).samples for name in asked]


def measure(assistant: Assistant, options: argparse.Namespace, folder: Path, listener: Listener) -> list[Interruption]:
    """Conversation after conversation, until there are enough."""
    chance, questions, found = random.Random(options.seed), spoken_questions(options.set), []
    for number in range(1000):
        asked = chance.sample(questions, TURNS_A_CONVERSATION)
        for one, sound in interruptions(assistant, asked, chance, folder / f"conversation-{number}"):
            judge(one, sound, assistant.sample_rate, listener)
            found.append(one)
            print(f"\r{len(found)}", end="", file=sys.stderr)
            if len(found) == options.interruptions:
                return found
    raise SystemExit("too few replies of this set are long enough to be spoken over")


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("bundle", type=Path)
    arguments.add_argument("--set", type=Path, required=True, help="recorded questions, as `evaluate` takes them")
    arguments.add_argument("--interruptions", type=int, default=200)
    arguments.add_argument("--devices", type=int, default=0, help="as many more through PulseAudio")
    arguments.add_argument("--seed", type=int, default=7)
    arguments.add_argument("--played", type=Path, help="keep what was played in this folder")
    arguments.add_argument("--details", type=Path, help="write every interruption into this file, one JSON a line")
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary, Assistant.open(options.bundle, threads=1) as assistant:
        folder, listener = options.played or Path(temporary), Listener()
        found = measure(assistant, options, folder, listener) if options.interruptions else []
        devices = measure_devices(assistant, options, folder / "devices", listener) if options.devices else []
    if options.details:
        options.details.write_text("".join(json.dumps(asdict(one)) + "\n" for one in found + devices))
    result = summary(found) if found else {}
    if devices:
        result["devices"] = summary(devices)
    if options.json:
        json.dump(result, sys.stdout)
        return
    for name, value in result.items():
        print(f"{name.replace('_', ' '):30} {value}")


if __name__ == "__main__":
    main()
