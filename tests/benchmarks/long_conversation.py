"""Half an hour of conversation: whether sound is always there in time, memory stays flat, and turns stay quick.

    python tests/benchmarks/long_conversation.py BUNDLE --set DIR [--minutes 30] [--devices] [--json]

Recorded questions of the set, one after another, are heard as `chat` hears them, over a clock that goes only while
nothing is computed. What computing took is on the machine's own clock, so the playing of each reply is computed: its
first sample is heard when it was made, and each later chunk must have been made before those before it are through;
`late_ms` is by how much the latest one missed that, `ahead_ms` how much was left at the tightest. Memory is what the
process holds after a turn (and a collection, on files), with freed memory given back as `chat` does; how much of it
comes and goes is counted from the tenth turn on, and from the twentieth, when the context was full once. Lists that
grow are looked for in the session, the worker, the speaker and the conversation, by their length. With `--devices` the
same in real time through a PulseAudio of our own, where the loudspeaker counts its underruns.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "runtime" / "chat"), str(TESTS / "audio")]

import numpy as np  # noqa: E402  # the tests' folders are on the path only now
from barge_in import MAX_NEW_TOKENS  # noqa: E402  # beside this
from judged import Bar, as_records, show  # noqa: E402  # as above
from on_devices import OnDevices  # noqa: E402  # as above
from pulse_audio import own_daemon  # noqa: E402  # as above
from spoken_chat import SpokenChat, spoken_chat  # noqa: E402  # where tests keep it

from sottovoce.runtime import Assistant, AudioChunk, read_audio  # noqa: E402  # as above
from sottovoce.runtime.chat.worker import ConversationWorker, Made, Message  # noqa: E402  # as above
from sottovoce.runtime.console import Console  # noqa: E402  # as above
from sottovoce.runtime.conversation import Conversation  # noqa: E402  # as above
from sottovoce.runtime.progress import Progress  # noqa: E402  # as above
from sottovoce.runtime.steady_memory import give_back_freed_memory, keep_what_is_loaded  # noqa: E402  # as above

FIRST_FLAT_TURN = 20
"""By then the context was full for the first time, and was filled again with what is remembered."""
PAUSES_S = (0.2, 1.5)
"""How long a person waits before the next question; some come while the speaker's last block is played."""
ASKED_KINDS = ("spoken_question", "say_after_me", "not_addressed")
MEMORY_SPAN_MB = 10


class NotingWorker(ConversationWorker):
    """Notes when the chunks of each reply were made."""

    def __init__(self, conversation: Conversation) -> None:
        self.chunks: dict[int, list[tuple[float, int]]] = {}
        super().__init__(conversation)

    def messages(self) -> Iterator[Message]:
        """As the worker gives them."""
        for message in super().messages():
            if isinstance(message, Made) and isinstance(message.event, AudioChunk):
                self.chunks.setdefault(message.epoch, []).append((message.made_at, len(message.event.samples)))
            yield message

    def margins_s(self, epoch: int, rate: int) -> list[float]:
        """By how much each chunk but the first was there before it had to be heard."""
        made, margins = self.chunks.pop(epoch, []), []
        due = made[0][0] if made else 0.0
        for (_, before), (at, _) in pairwise(made):
            due += before / rate
            margins.append(due - at)
            due = max(due, at)
        return margins


def rss_mb() -> float:
    """What the process holds in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def memory(by_turn: Sequence[float]) -> dict[str, object]:
    """How much of it comes and goes, in MB."""
    flat, after_ten = by_turn[FIRST_FLAT_TURN:] or by_turn, by_turn[9:] or by_turn
    return {
        "turn_10": round(after_ten[0], 1), "min_from_turn_10": round(min(after_ten), 1),
        "max_from_turn_10": round(max(after_ten), 1), "turn_20": round(flat[0], 1),
        "min": round(min(flat), 1), "max": round(max(flat), 1), "last": round(flat[-1], 1),
        "every_20_turns": [round(one, 1) for one in by_turn[::20]],
    }  # fmt: skip


def sizes(chat: SpokenChat) -> dict[str, int]:
    """Lengths of everything that has one, but for the turns, which are the conversation's own record."""
    found = {}
    owners = {"session": chat.session, "worker": chat.worker, "speaker": chat.speaker, "queue": chat.speaker._queue,
              "sound": chat.session._sound, "captured": chat.session._captured, "conversation": chat.conversation,
              "context": chat.conversation._context, "listening": chat.session.duplex._listening}  # fmt: skip
    for owner, one in owners.items():
        for name, value in vars(one).items():
            if hasattr(value, "__len__") and not isinstance(value, str) and name not in ("turns", "written", "stops"):
                found[f"{owner}.{name}"] = len(value)
    found["threads"] = threading.active_count()
    return found


def converse(
    chat: SpokenChat, questions: Sequence[np.ndarray], worker: NotingWorker, minutes: float, progress: Progress
) -> dict[str, object]:
    """Turn after turn, until the clock says that it is enough."""
    chance, rows, unheard = np.random.default_rng(3), [], 0
    while chat.clock() < 60 * minutes:
        chat.step(float(chance.uniform(*PAUSES_S)))
        over = len(chat.shown.over)
        chat.microphone.say(questions[int(chance.integers(len(questions)))])
        chat.until(lambda: chat.microphone.is_silent)
        chat.step(1.0)  # until it is a turn, or known to be none: some of what is not meant for us is no speech at all
        chat.until(lambda: chat.state == "idle")
        if len(chat.shown.over) == over:
            unheard += 1
            continue
        turn = chat.shown.over.pop()
        margins = worker.margins_s(turn.epoch, chat.speaker.sample_rate)
        gc.collect()
        rows.append((turn, min(margins, default=None), rss_mb()))
        if len(rows) in (1, FIRST_FLAT_TURN):
            before = sizes(chat)
        chat.shown.lines.clear()
        chat.shown.texts.clear()
        if len(rows) % 20 == 0:
            progress.step("conversing", min(round(chat.clock()), round(60 * minutes)), round(60 * minutes))
    return {**_summary(chat, rows, before), "not_heard_as_speech": unheard}


def _summary(chat: SpokenChat, rows: list[tuple], before: dict[str, int]) -> dict[str, object]:  # type: ignore[type-arg]
    spoken = [row for row in rows if row[0].first_computed_at is not None]
    margins = [row[1] for row in spoken if row[1] is not None]

    def latency(part: Sequence[tuple]) -> float:  # type: ignore[type-arg]
        waits = [1000 * (turn.first_computed_at - turn.computing_since) for turn, *_ in part]
        return round(statistics.median(waits), 2)

    after = sizes(chat)
    grown = {name: (size, after[name]) for name, size in before.items() if after.get(name, 0) > 2 * size + 50}
    return {
        "minutes": round(chat.clock() / 60, 1),
        "turns": len(rows),
        "spoken_replies": len(spoken),
        "forgotten_turns": chat.conversation.forgotten_turns,
        "late_chunks": sum(margin < 0 for margin in margins),
        "late_ms": round(1000 * max(0.0, -min(margins)), 1),
        "ahead_ms": {"min": round(1000 * min(margins)), "median": round(1000 * statistics.median(margins))},
        "own_underruns": chat.speaker.counts.own_underruns,
        "rss_mb": memory([row[2] for row in rows]),
        "latency_ms": {"turns_1_to_5": latency(spoken[:5]), "turns_18_to_22": latency(spoken[17:22] or spoken[-5:]),
                       "last_5": latency(spoken[-5:])},
        "grown": grown,
        "threads": after["threads"],
    }  # fmt: skip


def converse_on_files(
    assistant: Assistant, questions: Sequence[np.ndarray], minutes: float, played: Path, progress: Progress
) -> dict[str, object]:
    """As fast as it can be computed."""
    conversation = assistant.conversation(greedy=True, max_new_tokens=MAX_NEW_TOKENS)
    with spoken_chat(conversation, assistant.sample_rate, played, make_worker=NotingWorker) as chat:
        assert isinstance(chat.worker, NotingWorker)
        return converse(chat, questions, chat.worker, minutes, progress)


def converse_on_devices(
    assistant: Assistant, questions: Sequence[np.ndarray], minutes: float, folder: Path, progress: Progress
) -> dict[str, object]:
    """In real time: what the loudspeaker counted, and how long was waited for its first samples."""
    chance, waits, by_turn = np.random.default_rng(3), [], []
    began, length = time.monotonic(), 60 * minutes
    worker = ConversationWorker(assistant.conversation(greedy=True, max_new_tokens=MAX_NEW_TOKENS))
    try:
        with own_daemon(folder) as pulse:
            os.environ.update(PULSE_SINK="speaker", PULSE_SOURCE="room.monitor")
            with closing(OnDevices(assistant, worker, pulse)) as devices:
                while time.monotonic() < began + length:
                    said = questions[int(chance.integers(len(questions)))]
                    before, over = time.monotonic(), len(devices.shown.over)
                    player = devices.say(said)
                    devices.until(lambda: player.poll() is not None)  # noqa: B023  # heard while it is said
                    heard = before + len(said) / 16_000 + 1.5
                    devices.until(lambda: time.monotonic() > heard and devices.session.duplex.state == "idle", 60)  # noqa: B023
                    waits += [turn.latency_ms for turn in devices.shown.over[over:] if turn.latency_ms is not None]
                    by_turn += [rss_mb()] * (len(devices.shown.over) - over)
                    done = min(round(time.monotonic() - began), round(length))
                    progress.step("conversing through PulseAudio", done, round(length))
                counts = devices.speaker.counts
                captured = devices.microphone.counts
    finally:
        worker.close()
    p50, p99 = np.percentile(waits, [50, 99])
    return {
        "minutes": minutes,
        "spoken_replies": len(waits),
        "latency_ms": {"p50": round(float(p50), 1), "p99": round(float(p99), 1)},
        "own_underruns": counts.own_underruns,
        "own_silence_samples": counts.own_silence,
        "device_underruns": counts.device_underruns,
        "lost_captured_samples": captured.lost_samples,
        "rss_mb": memory(by_turn),
    }


def spoken_questions(folder: Path) -> list[np.ndarray]:
    """The set's recorded questions (n,) at 16 kHz, and some speech that is not meant for the model."""
    items = [json.loads(line) for line in (folder / "set.jsonl").read_text().splitlines()]
    chosen = [item["audio"] for item in items if item["task"] in ASKED_KINDS[:2] and "audio" in item]
    chosen += [item["audio"] for item in items if item["task"] == ASKED_KINDS[2] and "audio" in item][:20]
    return [read_audio(folder / name).at_rate(16_000).samples for name in chosen]


def bars(found: dict[str, Any]) -> list[Bar]:
    """No silence of ours, nothing lost, and memory within 5 MB of its middle after ten turns."""
    rss = found["rss_mb"]
    counted = ("late_chunks", "own_underruns", "own_silence_samples", "lost_captured_samples")
    return [
        *(Bar(name.replace("_", " "), found[name], None, 0) for name in counted if name in found),
        Bar("MB between least and most memory after ten turns", rss["max_from_turn_10"] - rss["min_from_turn_10"], None,
            MEMORY_SPAN_MB),
    ]  # fmt: skip


def main() -> int:
    """Measure and print; 1 when a bar is missed."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("bundle", type=Path)
    arguments.add_argument("--set", type=Path, required=True, help="recorded questions, as `evaluate` takes them")
    arguments.add_argument("--minutes", type=float, default=30)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--devices", action="store_true", help="through PulseAudio, in real time")
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    console = Console(options.json)
    give_back_freed_memory()  # as `chat` does
    questions = spoken_questions(options.set)
    with tempfile.TemporaryDirectory() as folder, Assistant.open(options.bundle, threads=options.threads) as assistant:
        assistant.load()
        keep_what_is_loaded()
        with console.progress() as progress:
            if options.devices:
                found = converse_on_devices(assistant, questions, options.minutes, Path(folder), progress)
            else:
                played = Path(folder) / "played.wav"
                found = converse_on_files(assistant, questions, options.minutes, played, progress)
    for name, value in found.items():
        console.say(f"{name.replace('_', ' '):22} {value}")
    reached = bars(found)
    good = show(console, reached)
    console.result({**found, "bars": as_records(reached)})
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
