"""Speech of one turn on its way in: samples as they are captured → embeddings for the language model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.capture import CapturedSpeech, CaptureSnapshot
from sottovoce.runtime.errors import InputError
from sottovoce.runtime.features.audio_file import Samples, Waveform
from sottovoce.runtime.features.fbank import Frames, MelFilterbank, require_frames
from sottovoce.runtime.features.resampling import StreamingResampler
from sottovoce.runtime.model import Model
from sottovoce.runtime.profile import Stopwatch
from sottovoce.runtime.speech_in.encoder_stream import EncoderSnapshot, EncoderStream
from sottovoce.runtime.stages.audio_encoder import Floats


@dataclass(frozen=True)
class HearingSnapshot:
    """Where a turn was when `Hearing.pause` gave this; it never changes.

    Args:
        captured: all samples of the turn.
        heard: how many of them went on to the filterbank, and how many they were at its rate.
        unframed: samples of frames to come.
        frames: filterbank frames so far.
        encoder: what waits for the encoder, and its state.
    """

    captured: CaptureSnapshot
    heard: tuple[int, int]
    unframed: Samples
    frames: int
    encoder: EncoderSnapshot


class Hearing:
    """Speech of one turn on its way in; takes the spans `audio_features`, `load` and `audio_encoder`.

    All that `append` gives and then what `finish` gives is what the encoder makes of the whole recording at once, but
    for float32 rounding. An encoder with full attention gives everything at the end.

    Args:
        model: the bundle's stages.
        stopwatch: of the turn.
    """

    def __init__(self, model: Model, stopwatch: Stopwatch) -> None:
        self._front_end = model.manifest.audio
        self._stopwatch = stopwatch
        self._captured = CapturedSpeech(self._front_end.max_seconds)
        self._filterbank = MelFilterbank(self._front_end)
        self._encoder = EncoderStream(model, stopwatch)
        self.reset()

    def reset(self) -> None:
        """Begin a new turn."""
        self._captured.reset()
        self._filterbank.reset()
        self._encoder.reset()
        self._resampler: StreamingResampler | None = None
        self._heard = 0
        self._frames = 0
        self._is_finished = False

    def append(self, samples: npt.ArrayLike, sample_rate: int) -> Floats:
        """Take what was just captured, (n,) samples in -1…1 or int16; nothing is fine.

        Returns:
            (tokens, width) embeddings that became certain, often none.

        Raises:
            InputError: the turn is finished, another rate than before, not audio, or longer than the model hears: what
                fits was kept, and counts.
            BackendError: the engine failed; what was captured is kept, and the next call hears it.
        """
        self._require_open()
        self._captured.append(samples, sample_rate)
        return self._encoder.append(self._new_frames())

    def finish(self) -> Floats:
        """The turn is over → (tokens, width), the rest of the embeddings.

        Raises:
            InputError: the turn is finished, or nothing or too little was captured; the turn can go on.
            BackendError: the engine failed; the turn can go on.
        """
        before = self.pause()
        try:
            frames = self._new_frames(is_last=True)
            if self._frames < self._front_end.min_frames:
                require_frames(self._frames, self.waveform, self._front_end)
            rest = self._encoder.finish(frames)
        except BaseException:
            self.resume(before)
            raise
        self._is_finished = True
        return rest

    def pause(self) -> HearingSnapshot:
        """Where the turn is, to go back to when a `finish` turns out to have been early.

        Raises:
            InputError: the turn is finished.
        """
        self._require_open()
        given = 0 if self._resampler is None else self._resampler.given
        return HearingSnapshot(
            self._captured.pause(), (self._heard, given), self._filterbank.pause(), self._frames, self._encoder.pause()
        )

    def resume(self, snapshot: HearingSnapshot) -> None:
        """Go back to where `pause` gave the snapshot, whatever came since."""
        self._captured.resume(snapshot.captured)
        self._heard, given = snapshot.heard
        self._resampler = None
        if self._heard:
            self._resampler = self._new_resampler()
            self._resampler.resume(self._captured.between(0, self._heard), given)
        self._filterbank.resume(snapshot.unframed)
        self._frames = snapshot.frames
        self._encoder.resume(snapshot.encoder)
        self._is_finished = False

    @property
    def waveform(self) -> Waveform:
        """All that was captured in this turn, at the rate at which it was.

        Raises:
            InputError: nothing was captured.
        """
        return self._captured.waveform

    @property
    def seconds(self) -> float:
        """How much was captured in this turn."""
        return self._captured.seconds

    def _new_frames(self, is_last: bool = False) -> Frames:
        """Filterbank frames that became complete: of what was captured since, and at the end of what was held back."""
        with self._stopwatch.measure("audio_features"):
            new = self._captured.between(self._heard, self._captured.count)
            if self._resampler is None and len(new):
                self._resampler = self._new_resampler()
            if self._resampler is None:
                return np.zeros((0, self._front_end.mel_bins), dtype=np.float32)
            self._heard += len(new)
            samples = self._resampler.append(new)
            if is_last:
                samples = np.concatenate((samples, self._resampler.finish()))
            frames = self._filterbank.append(samples)
            self._frames += len(frames)
            return frames

    def _new_resampler(self) -> StreamingResampler:
        rate = self._captured.sample_rate
        return StreamingResampler(rate or self._front_end.sample_rate, self._front_end.sample_rate)

    def _require_open(self) -> None:
        if self._is_finished:
            message = "this turn was finished"
            raise InputError(message, fix="reset() for a new turn, or resume() one that was paused before its end")
