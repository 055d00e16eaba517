"""Speaks a reply while it is being written: each piece of text as soon as it is complete."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.manifest import SpeechSpec, StateTokens
from sottovoce.runtime.speech.heard import SpokenReply
from sottovoce.runtime.speech.output import SpeechOutput
from sottovoce.runtime.text.speech_text import SpeechPiece, SpeechPieces

Samples = npt.NDArray[np.float32]


class Speaker:
    """Text in as it is written, segments of samples out, and a record of which samples say which characters.

    Args:
        spec: where text is cut, among others.
        states: state tokens, which are not spoken.
        open_output: makes the voice; called with the first piece, so that the text does not wait for its loading.
        is_cancelled: asked between two codes; if so, nothing more is given out.
    """

    def __init__(
        self,
        spec: SpeechSpec,
        states: StateTokens,
        open_output: Callable[[], SpeechOutput],
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._pieces = SpeechPieces(spec, states)
        self._open_output = open_output
        self._is_cancelled = is_cancelled
        self._output: SpeechOutput | None = None
        self.spoken = SpokenReply()

    def append(self, text: str) -> Iterator[Samples]:
        """Take what was written; the speech (n,) of the pieces that are complete."""
        yield from self._speak(self._pieces.append(text))

    def finish(self) -> Iterator[Samples]:
        """No more text comes: the speech of what is left."""
        yield from self._speak(self._pieces.finish())

    def _speak(self, pieces: Sequence[SpeechPiece]) -> Iterator[Samples]:
        for piece in pieces:
            if self._is_cancelled():
                return
            if self._output is None:
                self._output = self._open_output()
            spoken = self.spoken.begin(piece)
            for samples in self._output.say(piece.text, self._is_cancelled):
                spoken.append(samples)
                yield samples
            spoken.complete = not self._is_cancelled()
