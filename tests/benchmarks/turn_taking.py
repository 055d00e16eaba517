"""How well turns are found in a set's recordings, and what that costs.

    python tests/benchmarks/turn_taking.py SET [--count 100] [--json]

Every recording stands between two seconds of silence. If its background is 40 dB below its loudest 10 ms, its speech
begins and ends where 30 ms are 12 dB louder than that background and within 30 dB of the loudest. `start` is the
first voiced window less that truth, `end` the last one's; `cut` are turns that lack speech at an end, `split` are
recordings with more than one turn. `duck` and `stop` are how long after the truth a reply that it is said over
becomes softer and stops. The set's noise sounds over a reply, too: each once, then all one behind the other.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.console import Console
from sottovoce.runtime.duplex.actions import Action, Discard, Duck, EndOfSpeech, Prepare, StopPlayback
from sottovoce.runtime.duplex.events import CAPTURE_RATE, ReplyAudio, TypedLine, VoiceWindow
from sottovoce.runtime.duplex.machine import Duplex
from sottovoce.runtime.duplex.settings import DuplexSettings
from sottovoce.runtime.duplex.voice_activity import VoiceActivity
from sottovoce.runtime.features.audio_file import read_audio

Samples = npt.NDArray[np.float32]
SILENCE_SECONDS = 2
FRAME = CAPTURE_RATE // 100


@dataclass
class Measured:
    """One recording: errors in milliseconds, None where the truth is not clear."""

    file: str
    turns: int
    start_ms: float | None = None
    end_ms: float | None = None
    first_missing_ms: float = 0.0
    last_missing_ms: float = 0.0
    prepare_after_ms: float | None = None
    end_after_ms: float | None = None
    duck_after_ms: float | None = None
    stop_after_ms: float | None = None


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    items = [json.loads(line) for line in (options.set / "set.jsonl").read_text(encoding="utf-8").splitlines()]
    spoken = [item for item in items if item.get("audio") and item["task"].startswith("spoken_question")]
    noises = [item for item in items if item["task"] == "not_addressed" and item.get("voice") == "noise"]
    step = max(1, len(spoken) // options.count)
    measured = [measure(options.set / item["audio"]) for item in spoken[::step][: options.count]]
    report = {
        "spoken": summary(measured),
        "noise": over_reply([load(options.set / item["audio"]) for item in noises]),
        "cost": cost([load(options.set / item["audio"]) for item in spoken[:20]]),
    }
    console = Console(options.json)
    rows = [
        [f"{part}: {name.replace('_', ' ')}", _told(value)] for part in report for name, value in report[part].items()
    ]
    console.table("", ["", "found"], rows)
    console.result(report)


def _told(value: Any) -> str:
    """Names and percentiles side by side."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    return (", ".join(value) or "none") if isinstance(value, list) else str(value)


def load(path: Path) -> Samples:
    """A recording at the capture rate."""
    return read_audio(path).at_rate(CAPTURE_RATE).samples


def windows_of(samples: Samples) -> Iterator[VoiceWindow]:
    """What the detector says of a capture stream."""
    yield from VoiceActivity().append(samples, len(samples) / CAPTURE_RATE)


def between_silence(samples: Samples) -> Samples:
    """The recording as a microphone in a quiet room has it."""
    quiet = np.zeros(SILENCE_SECONDS * CAPTURE_RATE, dtype=np.float32)
    return np.concatenate([quiet, samples, quiet])


def truth(samples: Samples) -> tuple[int, int] | None:
    """Where speech begins and ends, or None if it is not clear."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    level = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)
    level -= level.max()
    quiet = float(np.percentile(level, 10))
    if quiet > -40:
        return None
    loud = level > max(-30.0, quiet + 12)
    steady = np.flatnonzero(loud[:-2] & loud[1:-1] & loud[2:])
    return int(steady[0]) * FRAME, int(steady[-1] + 3) * FRAME


def measure(path: Path) -> Measured:
    """The turns of one recording."""
    samples = load(path)
    duplex, settings = Duplex(), DuplexSettings()
    actions: list[tuple[int, Action]] = []
    windows = list(windows_of(between_silence(samples)))
    for window in windows:
        actions += [(window.end_sample, action) for action in duplex.handle(window)]
    turns = [(at, action) for at, action in actions if isinstance(action, EndOfSpeech)]
    result = Measured(path.name, len(turns))
    true = truth(samples)
    if true is None or len(turns) != 1:
        return result
    begin, end = (place + SILENCE_SECONDS * CAPTURE_RATE for place in true)
    at, turn = turns[0]
    prepared = [at for at, action in actions if isinstance(action, Prepare)]
    result.start_ms = milliseconds(turn.start - begin) + settings.preroll_ms
    result.end_ms = milliseconds(turn.end - end) - settings.prepare_ms
    result.first_missing_ms = max(0.0, milliseconds(turn.start - begin))
    result.last_missing_ms = max(0.0, milliseconds(end - turn.end))
    result.prepare_after_ms, result.end_after_ms = milliseconds(prepared[-1] - end), milliseconds(at - end)
    over = [(window.end_sample, action) for window, action in actions_over_reply(windows)]
    result.duck_after_ms = next((milliseconds(at - begin) for at, action in over if isinstance(action, Duck)), None)
    stops = (milliseconds(at - begin) for at, action in over if isinstance(action, StopPlayback))
    result.stop_after_ms = next(stops, None)
    return result


def actions_over_reply(windows: list[VoiceWindow]) -> Iterator[tuple[VoiceWindow, Action]]:
    """What is done about sound while a reply is being played that goes on for longer."""
    duplex = Duplex()
    duplex.handle(TypedLine(0.0, "talk"))
    duplex.handle(ReplyAudio(0.0, 1, 1 << 30))
    for window in windows:
        for action in duplex.handle(window):
            yield window, action


def milliseconds(samples: int) -> float:
    """Of the capture stream."""
    return samples / CAPTURE_RATE * 1000


def summary(measured: list[Measured]) -> dict[str, Any]:
    """Percentiles of the errors, and the recordings that went wrong."""
    clear = [one for one in measured if one.start_ms is not None]
    columns = ("start_ms", "end_ms", "prepare_after_ms", "end_after_ms", "duck_after_ms", "stop_after_ms")
    values = {name: [value for one in clear if (value := getattr(one, name)) is not None] for name in columns}
    percentiles = {
        name: {f"p{p}": round(float(np.percentile(values[name], p))) for p in (5, 50, 95)} for name in columns
    }
    within = [one for one in clear if abs(one.start_ms or 0) <= 100 and abs(one.end_ms or 0) <= 100]
    return {
        "recordings": len(measured),
        "with_clear_truth": len(clear),
        "one_turn": sum(one.turns == 1 for one in measured),
        "split": [one.file for one in measured if one.turns > 1],
        "not_heard": [one.file for one in measured if one.turns == 0],
        "both_within_100_ms": len(within),
        "stopped_a_reply": len(values["stop_after_ms"]),
        "cut": [one.file for one in clear if one.first_missing_ms or one.last_missing_ms],
        **percentiles,
    }


def over_reply(noises: list[Samples]) -> dict[str, Any]:
    """What noise does to a reply that sounds, and in silence."""
    over, alone, seconds = [], 0, 0.0
    for samples in [*noises, np.concatenate(noises)]:
        stream = between_silence(samples)
        windows = list(windows_of(stream))
        over.append([action for _, action in actions_over_reply(windows)])
        quiet = Duplex()
        alone += sum(isinstance(action, EndOfSpeech) for window in windows for action in quiet.handle(window))
        seconds += len(samples) / CAPTURE_RATE
    return {
        "streams": len(over),
        "seconds": round(seconds),
        "replies_stopped": sum(any(isinstance(action, StopPlayback) for action in actions) for actions in over),
        "ducked": sum(any(isinstance(action, Duck) for action in actions) for actions in over),
        "discarded": sum(any(isinstance(action, Discard) for action in actions) for actions in over),
        "turns_in_silence": alone,
    }


def cost(recordings: list[Samples]) -> dict[str, float]:
    """Milliseconds of processor time for a second of audio, microseconds for an event."""
    stream = np.concatenate([between_silence(samples) for samples in recordings])
    before = time.process_time()
    windows = list(windows_of(stream))
    detecting = time.process_time() - before
    duplex = Duplex()
    before = time.process_time()
    for window in windows:
        duplex.handle(window)
    handling = time.process_time() - before
    return {
        "audio_seconds": round(len(stream) / CAPTURE_RATE, 1),
        "voice_activity_ms_per_second": round(detecting / (len(stream) / CAPTURE_RATE) * 1000, 2),
        "handle_us_per_event": round(handling / len(windows) * 1e6, 2),
    }


if __name__ == "__main__":
    main()
