"""One answer as a stream of events: text and sound as they come, and always an end with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.manifest import StateTokens
from sottovoce.runtime.text.tokenizer import TextStream, Tokenizer

Reason = Literal["stop", "length", "cancelled", "not_addressed"]
"""Why a reply ended: the model was done; a limit of tokens or of the context; `cancel`; it was not spoken to."""


@dataclass(frozen=True)
class TextDelta:
    """The next characters of the reply, without the state token."""

    text: str


@dataclass(frozen=True, eq=False)
class AudioChunk:
    """The next samples of the reply's speech.

    Args:
        samples: (n,) float32 between -1 and 1, mono, at the bundle's rate (24 kHz).
        epoch: which reply of the conversation they belong to, so that a player can drop those of a cancelled one.
    """

    samples: npt.NDArray[np.float32]
    epoch: int


@dataclass(frozen=True)
class ReplyDone:
    """The end of a reply; nothing comes after it.

    Args:
        reason: why it ended.
        timings: milliseconds: `first_token`, `first_audio` and `total` since the question, the others per stage.
        text: the whole reply, without the state token; of a cancelled one, what was heard.
        state: the state token that the reply began with, or None.
        tokens: the ids that were generated, state token and stop token included.
    """

    reason: Reason
    timings: Mapping[str, float]
    text: str = ""
    state: str | None = None
    tokens: tuple[int, ...] = ()


ReplyEvent = TextDelta | AudioChunk | ReplyDone


class ReplyText:
    """The tokens of a reply into its text, the state token read and taken off."""

    def __init__(self, tokenizer: Tokenizer, states: StateTokens) -> None:
        self._stream = TextStream(tokenizer)
        self._states = (states.question, states.not_addressed, states.typed)
        self._begun = False
        self.text = ""
        """What was written so far."""
        self.state: str | None = None
        """The state token, once it was read."""
        self.tokens: list[int] = []
        """The ids so far."""
        self.ends: list[int] = []
        """For each id the length of `text` after it."""

    def append(self, token: int) -> str:
        """Take one id; return the text that became certain, often none."""
        delta = self._visible(self._stream.append(token))
        self.text += delta
        self.tokens.append(token)
        self.ends.append(len(self.text))
        return delta

    def finish(self) -> str:
        """No more tokens come: what was still uncertain."""
        delta = self._visible(self._stream.finish())
        self.text += delta
        return delta

    def tokens_within(self, length: int) -> int:
        """How many of the first tokens say nothing beyond the first `length` characters."""
        return sum(end <= length for end in self.ends)

    def _visible(self, delta: str) -> str:
        if self._begun or not delta:
            return delta
        if self.state is None:
            self.state = next((state for state in self._states if delta.startswith(state)), None)
            if self.state is not None:
                delta = delta[len(self.state) :]
        delta = delta.lstrip() if self.state is not None else delta
        self._begun = bool(delta)
        return delta
