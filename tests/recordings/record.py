"""Makes the recording of this folder: `python tests/recordings/record.py BUNDLE`, with a bundle of the miniature.

The shipped question is said with a pause in its middle, in which a reply is prepared in vain, and said again over the
reply, which stops. `sottovoce chat` hears that from a file and records it.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from sottovoce.demos.first_answer import TRAINED
from sottovoce.runtime.cli import main
from sottovoce.runtime.features.audio_file import read_audio

FOLDER = Path(__file__).resolve().parent / "miniature-barge-in"
RATE = 16_000
PAUSE, BEFORE_THE_SECOND, AFTER = int(0.3 * RATE), int(0.55 * RATE), int(0.5 * RATE)
WINDOW = int(0.03 * RATE)


def spoken() -> np.ndarray:
    """What the microphone hears, (n,) at 16 kHz."""
    question = read_audio(TRAINED.question).at_rate(RATE).samples
    third = len(question) // 3
    starts = range(third, 2 * third, WINDOW)
    quietest = min(starts, key=lambda at: float(np.square(question[at : at + WINDOW]).sum()))

    def silence(samples: int) -> np.ndarray:
        return np.random.default_rng(samples).normal(0, 1e-4, samples).astype(np.float32)

    halves = question[:quietest], question[quietest:]
    first = [halves[0], silence(PAUSE), halves[1]]
    return np.concatenate([*first, silence(BEFORE_THE_SECOND), question, silence(AFTER)])


def record(bundle: Path) -> int:
    """Record anew; returns the exit code of `sottovoce chat`."""
    if FOLDER.exists():
        shutil.rmtree(FOLDER)
    with tempfile.TemporaryDirectory() as folder:
        heard, played = Path(folder) / "heard.wav", Path(folder) / "played.wav"
        soundfile.write(heard, spoken(), RATE, "PCM_16")
        sound = ["--audio-in", str(heard), "--audio-out", str(played)]
        return main(["chat", str(bundle), *sound, "--greedy", "--record", str(FOLDER), "--json"])


if __name__ == "__main__":
    sys.exit(record(Path(sys.argv[1])))
