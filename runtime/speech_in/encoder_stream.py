"""The audio encoder fed with filterbank frames as they come, in calls of a size that costs little."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sottovoce.runtime.features.fbank import Frames
from sottovoce.runtime.manifest import AudioStreamSpec
from sottovoce.runtime.model import Model
from sottovoce.runtime.profile import Stopwatch
from sottovoce.runtime.stages.audio_encoder import AudioEncoderState, Floats

FIRST_CALL_MS, CALL_MS = 320.0, 640.0
"""New speech that is worth a call, at first and then. A call reads all weights, whatever it hears: few calls are cheap,
and what is left at the end costs hardly more if it is longer."""


@dataclass(frozen=True)
class EncoderSnapshot:
    """Where an `EncoderStream` is: frames that wait, and the state of the encoder (None: nothing was heard)."""

    waiting: tuple[Frames, ...]
    state: AudioEncoderState | None


class EncoderStream:
    """One utterance's frames on their way to embeddings; takes the spans `load` and `audio_encoder`.

    A chunked encoder is called when `FIRST_CALL_MS` of speech wait, and then for every `CALL_MS`, with whole chunks; at
    least one frame always waits, so that `finish` has something to end with. An encoder with full attention, or of an
    older bundle, is called once, by `finish`.

    Args:
        model: the bundle's stages.
        stopwatch: of the turn.
    """

    def __init__(self, model: Model, stopwatch: Stopwatch) -> None:
        self._model = model
        self._stopwatch = stopwatch
        self._stream = model.bundle.graph("audio_encoder").stream
        self._none = np.zeros((0, model.manifest.token_embeddings.width), dtype=np.float32)
        self.reset()

    def reset(self) -> None:
        """Begin a new utterance."""
        self._waiting: list[Frames] = []
        self._count = 0
        self._state: AudioEncoderState | None = None

    def append(self, frames: Frames) -> Floats:
        """Take (n, mel bins) frames → (tokens, width) embeddings that became certain.

        Raises:
            BackendError: the engine failed; the frames wait.
        """
        self._wait(frames)
        if self._stream is None:
            return self._none
        taken = self._takes(self._stream)
        return self._hear(taken, self._stream) if taken else self._none

    def finish(self, frames: Frames) -> Floats:
        """Take the last frames → (tokens, width), all embeddings that are left; only `reset` and `resume` may follow.

        Raises:
            BackendError: the engine failed.
        """
        self._wait(frames)
        with self._stopwatch.measure("load"):
            encoder = self._model.audio_encoder
        rest = np.concatenate(self._waiting)
        with self._stopwatch.measure("audio_encoder"):
            return encoder(rest) if self._state is None else encoder.finish(rest, self._state)

    def pause(self) -> EncoderSnapshot:
        """Where it is; nothing is copied, and nothing of it changes."""
        return EncoderSnapshot(tuple(self._waiting), self._state)

    def resume(self, snapshot: EncoderSnapshot) -> None:
        """Go on from there."""
        self._waiting = list(snapshot.waiting)
        self._count = sum(len(frames) for frames in snapshot.waiting)
        self._state = snapshot.state

    def _wait(self, frames: Frames) -> None:
        if len(frames):
            self._waiting.append(frames)
            self._count += len(frames)

    def _takes(self, stream: AudioStreamSpec) -> int:
        """How many encoder frames to hear now: 0, or whole steps of them, and at least one stays."""
        frame_ms = stream.stride_frames * self._model.manifest.audio.frame_shift_ms
        call_ms, least = (FIRST_CALL_MS, stream.first_step_frames) if self._state is None else (CALL_MS, 1)
        worth = max(round(call_ms / frame_ms), least)
        ready = (self._count - (stream.receptive_frames - stream.stride_frames)) // stream.stride_frames
        steps = (ready - 1) // stream.step_frames
        return steps * stream.step_frames if steps * stream.step_frames >= worth else 0

    def _hear(self, taken: int, stream: AudioStreamSpec) -> Floats:
        with self._stopwatch.measure("load"):
            encoder = self._model.audio_encoder
        frames = np.concatenate(self._waiting)
        new = taken * stream.stride_frames
        overlap = stream.receptive_frames - stream.stride_frames
        with self._stopwatch.measure("audio_encoder"):
            embeddings, self._state = encoder.append(frames[: new + overlap], self._state or encoder.first_state)
        self._waiting, self._count = [frames[new:]], self._count - new
        return embeddings
