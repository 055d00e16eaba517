"""How an assistant answers in one conversation, all defaults filled in."""

from __future__ import annotations

from dataclasses import dataclass

from sottovoce.runtime.sampling import SamplingOptions
from sottovoce.runtime.tensor_dump import TensorDump


@dataclass(frozen=True)
class ConversationOptions:
    """What `Assistant.conversation` was asked for; see there.

    Args:
        system: the system text; None takes the bundle's own for the kind of the first question.
        text_sampling: how the language model picks its tokens.
        speech_sampling: how the speech decoder picks its codes.
        seed: of everything drawn in the conversation; None draws a fresh one.
        max_new_tokens: a reply ends after so many.
        speech: False for text alone.
        overlap: speech is made in a thread of its own, while the language model goes on writing.
        dump: collects the stages' tensors.
    """

    system: str | None
    text_sampling: SamplingOptions
    speech_sampling: SamplingOptions
    seed: int | None
    max_new_tokens: int
    speech: bool = True
    overlap: bool = False
    dump: TensorDump | None = None
