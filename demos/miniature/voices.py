"""The synthesizers that read the curriculum aloud: espeak-ng, flite, festival's `ked`, Piper's `joe`, and SVOX Pico.

Kept out of all training: five espeak-ng variants, and flite's `slt` and `rms` altogether.
"""

from __future__ import annotations

import io
import random
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sottovoce.runtime.errors import SottovoceError

SAMPLE_RATE = 16000
HELD_OUT_VARIANTS = ("f3", "m5", "croak", "Andy", "steph")
HELD_OUT_FLITE = ("slt", "rms")
TRAINING_FLITE = ("kal", "kal16", "awb")
FLITE_WEIGHTS = (1, 1, 2)
PICO_LANGUAGES = ("en-US", "en-GB")
MENS_THROATS, WOMENS_THROATS = (0.88, 1.28), (0.76, 1.12)
"""Formants of the voices that are few are moved by a factor in this range: from a longer throat to a shorter one,
while speed and pitch are drawn apart from it. So they become many people's. Pico's two are women, the rest men."""
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbcwmd", "en-us-nyc", "en-gb-x-gbclan", "en-029")
ACCENT_WEIGHTS = (6, 4, 1, 2, 1, 2, 1, 1)
# Whispers and effects that a person would hardly follow either.
UNCLEAR_VARIANTS = frozenset({"whisper", "whisperf", "fast", "Demonic", "robosoft6", "robosoft8", "UniRobot", "klatt6"})


@dataclass(frozen=True)
class Voice:
    """One way of speaking; `name` is the synthesizer's own name, `accent` espeak's language."""

    engine: Literal["espeak", "flite", "festival", "piper", "pico"]
    name: str
    accent: str = ""

    @property
    def label(self) -> str:
        """`espeak:en-us+f3`."""
        return f"{self.engine}:{self.accent}+{self.name}" if self.accent else f"{self.engine}:{self.name}"


@lru_cache(maxsize=1)
def espeak_variants() -> tuple[str, ...]:
    """All variants espeak-ng has here that are understood, the held-out ones among them.

    Raises:
        SottovoceError: espeak-ng is not installed, or has fewer than 60 variants.
    """
    listing = _run(["espeak-ng", "--voices=variant"]).decode()
    names = {line.split("!v/")[1].split()[0] for line in listing.splitlines() if "!v/" in line}
    missing = set(HELD_OUT_VARIANTS) - names
    usable = tuple(sorted(names - UNCLEAR_VARIANTS))
    if len(usable) < 60 or missing:
        raise SottovoceError(
            f"espeak-ng lists {len(usable)} usable variants, lacking {sorted(missing)}; expected at least 60",
            file="espeak-ng", fix="install espeak-ng 1.51 or later with its espeak-ng-data",
        )  # fmt: skip
    return usable


def draw_training_voice(draw: random.Random) -> Voice:
    """A voice that may be trained on: a third espeak-ng, the rest of other synthesizers."""
    choice = draw.random()
    if choice < 0.34:
        variant = draw.choice([name for name in espeak_variants() if name not in HELD_OUT_VARIANTS])
        return Voice("espeak", variant, draw.choices(ACCENTS, ACCENT_WEIGHTS)[0])
    if choice < 0.58:
        return Voice("flite", draw.choices(TRAINING_FLITE, FLITE_WEIGHTS)[0])
    if choice < 0.80:
        return Voice("pico", draw.choice(PICO_LANGUAGES))
    return Voice("festival", "ked") if choice < 0.89 else Voice("piper", "joe")


def draw_held_out_voice(draw: random.Random, engine: Literal["espeak", "flite"]) -> Voice:
    """A voice that no training has heard."""
    if engine == "flite":
        return Voice("flite", draw.choice(HELD_OUT_FLITE))
    return Voice("espeak", draw.choice(HELD_OUT_VARIANTS), draw.choice(("en-us", "en-gb")))


def speak(voice: Voice, texts: Sequence[str], draw: random.Random) -> list[NDArray[np.float32]]:
    """Say every text, each at a speed and pitch of its own.

    Returns:
        Samples at 16 kHz, one array a text.

    Raises:
        SottovoceError: the synthesizer is missing or failed.
    """
    if voice.engine == "espeak":
        return [_espeak(voice, text, draw) for text in texts]
    if voice.engine == "flite":
        return [_flite(voice, text, draw) for text in texts]
    if voice.engine == "pico":
        return _pico(voice, texts, draw)
    return _festival(texts, draw) if voice.engine == "festival" else _piper(texts, draw)


def _espeak(voice: Voice, text: str, draw: random.Random) -> NDArray[np.float32]:
    speed, pitch = draw.randint(135, 195), draw.randint(30, 75)
    named = f"{voice.accent}+{voice.name}"
    return _samples(_run(["espeak-ng", "-v", named, "-s", str(speed), "-p", str(pitch), "--stdout", text]))


def _flite(voice: Voice, text: str, draw: random.Random) -> NDArray[np.float32]:
    stretch, pitch, with_pitch = draw.uniform(0.85, 1.25), draw.randint(85, 200), draw.random() < 0.6
    # A held-out voice speaks with the throat it was recorded with: it is what the miniature is measured on.
    throat = 1.0 if voice.name in HELD_OUT_FLITE else draw.uniform(*MENS_THROATS)
    settings = ["--setf", f"duration_stretch={stretch * throat:.2f}"]
    if with_pitch:
        settings += ["--setf", f"int_f0_target_mean={pitch / throat:.0f}"]
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        _run(["flite", "-voice", voice.name, *settings, "-t", text, "-o", file.name])
        return _with_throat(_samples(Path(file.name).read_bytes()), throat)


def _with_throat(samples: NDArray[np.float32], throat: float) -> NDArray[np.float32]:
    """Formants and pitch times `throat`, and as much faster: the synthesizer is told to speak slower before."""
    import soxr

    if throat == 1.0:
        return samples
    return np.asarray(soxr.resample(samples, SAMPLE_RATE * throat, SAMPLE_RATE), dtype=np.float32)


def _festival(texts: Sequence[str], draw: random.Random) -> list[NDArray[np.float32]]:
    with tempfile.TemporaryDirectory() as folder:
        lines = ["(voice_ked_diphone)"]
        throats = [draw.uniform(*MENS_THROATS) for _ in texts]
        for i, (text, throat) in enumerate(zip(texts, throats, strict=True)):
            lines.append(f"(Parameter.set 'Duration_Stretch {draw.uniform(0.85, 1.25) * throat:.2f})")
            lines.append(f'(utt.save.wave (utt.synth (Utterance Text "{text}")) "{folder}/{i}.wav" \'riff)')
        script = Path(folder) / "say.scm"
        script.write_text("\n".join(lines))
        _run(["festival", "-b", str(script)])
        said = [_samples((Path(folder) / f"{i}.wav").read_bytes()) for i in range(len(texts))]
        return [_with_throat(samples, throat) for samples, throat in zip(said, throats, strict=True)]


def _pico(voice: Voice, texts: Sequence[str], draw: random.Random) -> list[NDArray[np.float32]]:
    from ttspico import TtsEngine

    engine = TtsEngine(voice.name)  # a new one each time: what one said before is heard in its breath
    said = []
    for text in texts:
        throat = draw.uniform(*WOMENS_THROATS)
        engine.rate = round(100 * draw.uniform(0.8, 1.18) / throat)
        engine.pitch = round(100 * draw.uniform(0.75, 1.3) / throat)
        samples = np.frombuffer(engine.speak(text), np.int16).astype(np.float32) / 32768.0
        said.append(_with_throat(samples, throat))
    return said


def _piper(texts: Sequence[str], draw: random.Random) -> list[NDArray[np.float32]]:
    import soxr

    from sottovoce.demos.miniature.speech_out.voice import SAMPLE_RATE as PIPER_RATE
    from sottovoce.demos.miniature.speech_out.voice import PiperSpeaker, VoiceSettings

    said = []
    speaker, throat = None, 1.0
    for i, text in enumerate(texts):
        if i % 20 == 0:
            throat = draw.uniform(*MENS_THROATS)
            speaker = PiperSpeaker(VoiceSettings(draw.uniform(0.85, 1.25) * throat, draw.uniform(0.3, 0.7), 0.5,
                                                 seed=draw.randrange(1 << 30)))  # fmt: skip
        assert speaker is not None  # noqa: S101  # for the type checker: made in the first round
        samples = speaker.say(text).samples.astype(np.float32) / 32768.0
        resampled = soxr.resample(samples, PIPER_RATE, SAMPLE_RATE).astype(np.float32)
        said.append(_with_throat(resampled, throat))
    return said


def _samples(wave: bytes) -> NDArray[np.float32]:
    import soundfile
    import soxr

    # A synthesizer writing to a pipe does not know the length, and says so with the largest number: harmless.
    samples, rate = soundfile.read(io.BytesIO(wave), dtype="float32")
    resampled = soxr.resample(samples, rate, SAMPLE_RATE) if rate != SAMPLE_RATE else samples
    return np.asarray(resampled, dtype=np.float32)


def _run(command: list[str]) -> bytes:
    if shutil.which(command[0]) is None:
        raise SottovoceError(f"the synthesizer {command[0]} is not installed", file=command[0],
                             fix="apt-get install espeak-ng flite festival festvox-kdlpc16k")  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603  # our own words, no shell
    if done.returncode != 0:
        message = done.stderr.decode(errors="replace").strip()
        raise SottovoceError(f"{command[0]} ended with {done.returncode}: {message}", file=command[0],
                             fix="run it by hand to see what it lacks")  # fmt: skip
    return done.stdout
