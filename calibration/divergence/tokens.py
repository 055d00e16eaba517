"""The first greedy token that differs: both decoders are fed the reference's history, and say what comes next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sottovoce.calibration.divergence.stage_calls import StageCall
from sottovoce.runtime.manifest import SpeechSpec, StageName
from sottovoce.runtime.text.tokenizer import Tokenizer

Array = npt.NDArray[Any]

STANDARD_DEVIATIONS = 4.0
"""Two logits come nearer by so many times the allowed error (of a root mean square logit) before that is a fault: three
standard deviations of the difference of two."""


@dataclass(frozen=True)
class TokenDifference:
    """A choice that the two bundles make differently after the same history.

    Args:
        position: of the token in its reply, from 0.
        reply: which one, from 0: every prompt is answered by one, and every piece of text spoken by one.
        expected: the reference's token.
        found: the other's.
        expected_text: what the tokens say; for codes, their names.
        margin: by how much the reference's logit of its own token is above its logit of the other.
        allowed: the largest margin that the tolerance explains.
    """

    position: int
    reply: int
    expected: int
    found: int
    expected_text: str
    found_text: str
    margin: float
    allowed: float


@dataclass(frozen=True)
class TokenComparison:
    """All greedy choices of a decoder.

    Args:
        tokens: how many were compared.
        different: how many differ.
        first_difference: the first of these; None: all are the same.
        ok: whether every difference is between near-ties.
    """

    tokens: int
    different: int
    first_difference: TokenDifference | None
    ok: bool


class TokenComparer:
    """Takes logits call by call.

    Args:
        stage: a decoder.
        calls: all its calls.
        allowed: relative error that the logits may have.
        tokenizer: of both bundles.
        speech: which codes may be said.
    """

    def __init__(
        self, stage: StageName, calls: Sequence[StageCall], allowed: float, tokenizer: Tokenizer, speech: SpeechSpec
    ) -> None:
        self._stage = stage
        self._calls = calls
        self._allowed = allowed
        self._tokenizer = tokenizer
        self._speech = speech
        self._said = 0
        self._reply = -1
        self._different: list[TokenDifference] = []

    def append(self, number: int, reference: Array, found: Array) -> None:
        """Compare the choice after call `number`, if a token is chosen there; logits are (1, V)."""
        call = self._calls[number]
        if call.positions > 1 and (number == 0 or self._calls[number - 1].positions == 1 or call.cached == 0):
            self._reply, self._said = self._reply + 1, 0
        if not self._is_choice(number):
            return
        position = self._said
        self._said += 1
        first, second = self._sayable(reference[0]), self._sayable(found[0])
        expected, chosen = int(first.argmax()), int(second.argmax())
        if expected == chosen:
            return
        spread = float(np.sqrt(np.square(reference[0].astype(np.float64)).mean()))
        self._different.append(
            TokenDifference(
                position=position,
                reply=self._reply,
                expected=expected,
                found=chosen,
                expected_text=self._text(expected),
                found_text=self._text(chosen),
                margin=float(first[expected] - first[chosen]),
                allowed=STANDARD_DEVIATIONS * self._allowed * spread,
            )
        )

    def comparison(self) -> TokenComparison:
        """What was found so far; the first difference is the first that is no near-tie, if there is one."""
        wrong = [difference for difference in self._different if difference.margin > difference.allowed]
        first = next(iter(wrong or self._different), None)
        compared = sum(self._is_choice(number) for number in range(len(self._calls)))
        return TokenComparison(compared, len(self._different), first, not wrong)

    def _is_choice(self, number: int) -> bool:
        """A prompt is appended in slices: only after the last is something said. Codes begin with a start row."""
        call = self._calls[number]
        if call.positions == 1:
            return True
        if self._stage == "speech_codes":
            return False
        later = (other for other in self._calls[number + 1 :] if other.sequence == call.sequence)
        after = next(later, None)
        return after is None or after.positions == 1 or after.cached != call.cached + call.positions

    def _sayable(self, logits: Array) -> Array:
        if self._stage != "speech_codes":
            return logits
        banned = [row for row in range(self._speech.codes, len(logits)) if row != self._speech.end_id]
        sayable = logits.copy()
        sayable[banned] = -np.inf
        return sayable

    def _text(self, token: int) -> str:
        if self._stage == "speech_codes":
            return "the end" if token == self._speech.end_id else f"code {token}"
        return self._tokenizer.bytes_of(token).decode("utf-8", errors="replace")
