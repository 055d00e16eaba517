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
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "runtime" / "chat"), str(TESTS / "audio")]

from judged import as_records, show  # noqa: E402  # the tests' folders are on the path only now
from on_devices import OnDevices  # noqa: E402  # as above
from pulse_audio import TimedRecorder, own_daemon  # noqa: E402  # as above
from spoken_chat import SpokenChat, sound_of, spoken_chat  # noqa: E402  # as above
from spoken_over import (  # noqa: E402  # as above
    NEEDED_AFTER_S,
    SHORTEST_REPLY_S,
    Interruption,
    bars,
    judge,
    onset_s,
    summary,
)

from sottovoce.demos.miniature.speech_out.listener import Listener  # noqa: E402  # as above
from sottovoce.runtime import Assistant, read_audio  # noqa: E402  # as above
from sottovoce.runtime.chat.worker import ConversationWorker  # noqa: E402  # as above
from sottovoce.runtime.console import Console  # noqa: E402  # as above
from sottovoce.runtime.progress import Progress  # noqa: E402  # as above

TURNS_A_CONVERSATION = 20
BLOCK_S = 0.02
QUIET = 1e-5
MAX_NEW_TOKENS = 60
"""A small model that begins to repeat itself would never end."""


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
    spoke_at = chat.clock() + onset_s(question)
    chat.microphone.say(question)
    chat.until(lambda: chat.session.turns[epoch].is_over and chat.state != "stopping")
    return (epoch, spoke_at) if epoch in chat.speaker.stops else None


def measure_devices(
    assistant: Assistant, options: argparse.Namespace, folder: Path, listener: Listener, progress: Progress
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
                        progress.step("interrupting through PulseAudio", len(found), options.devices)
    finally:
        worker.close()
    return found


def spoken_questions(folder: Path) -> list[np.ndarray]:
    """The set's recorded questions (n,) at 16 kHz that get a spoken answer."""
    items = [json.loads(line) for line in (folder / "set.jsonl").read_text().splitlines()]
    kinds = ("spoken_question", "say_after_me")
    asked = [item["audio"] for item in items if item["task"] in kinds and "audio" in item]
    return [read_audio(folder / name).at_rate(16_000).samples for name in asked]


def measure(
    assistant: Assistant, options: argparse.Namespace, folder: Path, listener: Listener, progress: Progress
) -> list[Interruption]:
    """Conversation after conversation, until there are enough."""
    chance, questions, found = random.Random(options.seed), spoken_questions(options.set), []
    for number in range(1000):
        asked = chance.sample(questions, TURNS_A_CONVERSATION)
        for one, sound in interruptions(assistant, asked, chance, folder / f"conversation-{number}"):
            judge(one, sound, assistant.sample_rate, listener)
            found.append(one)
            progress.step("interrupting", len(found), options.interruptions)
            if len(found) == options.interruptions:
                return found
    raise SystemExit("too few replies of this set are long enough to be spoken over")


def main() -> int:
    """Measure and print; 1 when a bar is missed."""
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
    console, found, devices = Console(options.json), [], []
    with tempfile.TemporaryDirectory() as temporary, Assistant.open(options.bundle, threads=1) as assistant:
        folder, listener = options.played or Path(temporary), Listener()
        with console.progress() as progress:
            if options.interruptions:
                found = measure(assistant, options, folder, listener, progress)
            if options.devices:
                devices = measure_devices(assistant, options, folder / "devices", listener, progress)
    if options.details:
        options.details.write_text("".join(json.dumps(asdict(one)) + "\n" for one in found + devices))
    result = summary(found) if found else {}
    reached = bars(result, "into a file") if found else []
    if devices:
        result["devices"] = through_devices = summary(devices)
        reached += bars(through_devices, "through PulseAudio")
    good = show(console, reached)
    console.result({**result, "bars": as_records(reached)})
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
