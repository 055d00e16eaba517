"""Turns of a conversation into token ids and places for what was heard and seen (ChatML, as Qwen2 has it)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sottovoce.runtime.manifest import PromptSpec
from sottovoce.runtime.text.tokenizer import Tokenizer

IMAGE_ID = -200
"""Stands in a prompt for one tile's or frame's embeddings."""
AUDIO_ID = -500
"""Stands in a prompt for one recording's embeddings."""

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class UserContent:
    """What one user turn is made of, in the order the model expects: pictures, text, a recording.

    Args:
        tiles: tiles or frames, each one place in the prompt.
        audio: whether there is a recording.
        text: typed text; a recording follows it.
    """

    tiles: int = 0
    audio: bool = False
    text: str = ""


@dataclass(frozen=True)
class PromptBuilder:
    """Ids of each part of a conversation: one behind the other they are the prompt, so a KV cache can go on."""

    tokenizer: Tokenizer
    spec: PromptSpec

    def system(self, text: str) -> list[int]:
        """The beginning of every conversation."""
        return self._opening("system", text) + self._end_of_turn()

    def user(self, content: UserContent) -> list[int]:
        """One user turn and the opening of the reply: `IMAGE_ID` and `AUDIO_ID` mark the places of embeddings.

        Text is tokenized in one piece from one placeholder to the next, as the model was trained.
        """
        if content.tiles:
            ids = [*self._opening("user", ""), *[IMAGE_ID] * content.tiles]
            ids += self.tokenizer.encode_plain("\n" + content.text)
        else:
            ids = self._opening("user", content.text)
        if content.audio:
            ids.append(AUDIO_ID)
        return ids + self._end_of_turn() + self._opening("assistant", "")

    def after_reply(self) -> list[int]:
        """What closes a reply before the next user turn, when its last token was the end of the turn."""
        return self.tokenizer.encode("\n")

    def reply(self, text: str) -> list[int]:
        """An earlier reply as the model would have said it, the end of its turn included (for restored histories)."""
        return self.tokenizer.encode_plain(text) + self.tokenizer.encode(self.spec.turn_end)

    def system_text(self, *, images: bool, video: bool) -> str:
        """The bundle's own system text for this kind of conversation."""
        if video:
            return self.spec.system_video
        return self.spec.system_image if images else self.spec.system_plain

    def _opening(self, role: Role, text: str) -> list[int]:
        return self.tokenizer.encode(self.spec.turn_start) + self.tokenizer.encode_plain(f"{role}\n{text}")

    def _end_of_turn(self) -> list[int]:
        return self.tokenizer.encode(f"{self.spec.turn_end}\n")
