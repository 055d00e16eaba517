"""Mel filterbank frames → embeddings that the language model reads in place of `<audio>`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.backends.session import Array, Session
from sottovoce.runtime.contracts import tensor_by_role
from sottovoce.runtime.errors import BackendError
from sottovoce.runtime.manifest import AudioStreamSpec
from sottovoce.runtime.stages.tensors import finite, input_name, output_name
from sottovoce.runtime.stream_contract import state_roles

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class AudioEncoderState:
    """What the encoder keeps of an utterance between calls; never changed, so that one can go back to it.

    Args:
        position: place of the next encoder frame.
        tensors: the graph's inputs by name.
    """

    position: int
    tensors: Mapping[str, Array]


class AudioEncoder:
    """The audio encoder with its adapter (and CMVN) in one graph.

    One that streams takes an utterance in several calls, `append`, `append`, …, `finish`, each with the state that the
    one before gave. Any others take it whole.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._features = input_name(session, "features")
        self._embeddings = output_name(session, "embeddings")
        self._stream = session.spec.stream
        if self._stream is None:
            return
        self._position = input_name(session, "position")
        self._kept = {
            output_name(session, f"present_{role}"): input_name(session, f"past_{role}")
            for role in (past.removeprefix("past_") for past in state_roles(self._stream, "past"))
        }
        """Names of the state's tensors: as they come out, and as they go in."""
        self._no_padding, self._padding = self._paddings(self._stream)
        self._first_state = AudioEncoderState(0, self._first_tensors(self._stream))

    def __call__(self, features: Floats) -> Floats:
        """A whole utterance, (frames, mel bins) → (tokens, width).

        Raises:
            BackendError: the engine failed, or a result is no number.
        """
        if self._stream is None:
            return self._run(features, {})[0]
        return self.finish(features, self._first_state)

    @property
    def first_state(self) -> AudioEncoderState:
        """Of an utterance of which nothing was heard yet.

        Raises:
            BackendError: the encoder takes utterances whole.
        """
        self._spec()
        return self._first_state

    def append(self, features: Floats, state: AudioEncoderState) -> tuple[Floats, AudioEncoderState]:
        """Hear the next part of an utterance that goes on.

        Args:
            features: (frames, mel bins) from `stride_frames` · `state.position` on, for a multiple of `step_frames`
                encoder frames (the numbers of the graph's `stream`): its last ones come again in the next call.
            state: what the call before gave.

        Returns:
            (tokens, width) embeddings that became certain, and the state for the next call.

        Raises:
            BackendError: the encoder takes utterances whole, the engine failed, or a result is no number.
            ValueError: a number of frames that is none of these, a mistake of the caller.
        """
        stream = self._spec()
        frames, rest = divmod(len(features) - (stream.receptive_frames - stream.stride_frames), stream.stride_frames)
        least = stream.step_frames if state.position else stream.first_step_frames
        if rest or frames % stream.step_frames or frames < least:
            raise ValueError(f"{len(features)} filterbank frames make no whole step of an utterance that goes on")
        embeddings, tensors = self._run(features, {**self._fed(state), **self._no_padding}, self._kept)
        return self._own(embeddings, state), AudioEncoderState(state.position + frames, tensors)

    def finish(self, features: Floats, state: AudioEncoderState) -> Floats:
        """Hear the last part, at least `receptive_frames` → (tokens, width) embeddings, all that are left.

        Raises:
            BackendError: as for `append`.
        """
        self._spec()
        return self._own(self._run(features, {**self._fed(state), **self._padding})[0], state)

    def _spec(self) -> AudioStreamSpec:
        if self._stream is None:
            message = f"stage {self._session.stage!r} takes utterances whole: it attends to all of them, or is old"
            raise BackendError(message, fix="call it with the whole utterance")
        return self._stream

    def _fed(self, state: AudioEncoderState) -> dict[str, Array]:
        return {**state.tensors, self._position: np.array([state.position], dtype=np.int64)}

    def _own(self, embeddings: Floats, state: AudioEncoderState) -> Floats:
        """Without the learned prompts that every call gives again."""
        return embeddings if state.position == 0 else embeddings[self._spec().prompt_tokens :]

    def _run(
        self, features: Floats, feeds: Mapping[str, Array], kept: Mapping[str, str] | None = None
    ) -> tuple[Floats, dict[str, Array]]:
        """Run once → embeddings (tokens, width), and the tensors to be kept under the names they go in by."""
        names = kept or {}
        batch = np.ascontiguousarray(features, dtype=np.float32)[None]
        results = self._session.run({self._features: batch, **feeds}, [self._embeddings, *names])
        embeddings = finite(self._session, "embeddings", results[self._embeddings])
        return np.asarray(embeddings[0], dtype=np.float32), {past: results[name] for name, past in names.items()}

    def _first_tensors(self, stream: AudioStreamSpec) -> dict[str, Array]:
        tensors: dict[str, Array] = {}
        for role in state_roles(stream, "past"):
            tensor = tensor_by_role(self._session.spec.inputs, role)
            first = (stream.first_tail_frames or 0) if role == "past_frames" else 0
            axis = 1 if role == "past_frames" else 2
            shape = [first if place == axis else int(size) for place, size in enumerate(tensor.shape)]
            tensors[tensor.name] = np.zeros(shape, dtype=np.float32)
        return tensors

    def _paddings(self, stream: AudioStreamSpec) -> tuple[dict[str, Array], dict[str, Array]]:
        """The zeros behind an utterance that goes on (none), and behind one that ends."""
        if not stream.padding_frames:
            return {}, {}
        tensor = tensor_by_role(self._session.spec.inputs, "padding")
        none, zeros = (np.zeros((1, n, int(tensor.shape[2])), np.float32) for n in (0, stream.padding_frames))
        return {tensor.name: none}, {tensor.name: zeros}
