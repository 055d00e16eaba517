"""The byte-level BPE tokenizer: text to ids and back, a token at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tokenizers

from sottovoce.runtime.errors import BundleError

MAX_FILE_BYTES = 256 << 20
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Tokenizer:
    """`tokenizer.json` of a Qwen2-like model.

    Control tokens (`<|im_start|>` and the like) are produced from *our* framing only: `encode_plain` spells them out as
    ordinary characters, so that nothing a user says or types can end a turn.
    """

    def __init__(self, path: Path) -> None:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BundleError(f"more than {MAX_FILE_BYTES >> 20} MB", file=path, fix="export the bundle again")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as problem:  # noqa: BLE001  # the library raises bare Exception
            raise BundleError(f"not a tokenizer: {problem}", file=path, fix="export the bundle again") from problem
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        added = self._tokenizer.get_added_tokens_decoder()
        self._control_tokens = sorted((token.content for token in added.values()), key=len, reverse=True)

    @property
    def size(self) -> int:
        """Ids, control tokens included."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str) -> list[int]:
        """Ids of trusted text: control tokens written in it count as such."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_plain(self, text: str) -> list[int]:
        """Ids of a user's text: control tokens in it are only characters."""
        if not any(token in text for token in self._control_tokens):
            return self.encode(text)
        ids: list[int] = []
        for part in self._around_control_tokens(text):
            ids += self.encode(part)
        return ids

    def _around_control_tokens(self, text: str) -> list[str]:
        """The text in parts none of which holds a control token: each one met is cut behind its first character."""
        for token in self._control_tokens:
            place = text.find(token)
            if place >= 0:
                cut = place + 1
                return [*self._around_control_tokens(text[:cut]), *self._around_control_tokens(text[cut:])]
        return [text] if text else []

    def id_of(self, token: str) -> int | None:
        """The id of one token, None if there is none."""
        found = self._tokenizer.token_to_id(token)
        return int(found) if found is not None else None

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, control tokens left out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


class TextStream:
    """Ids of a reply, one at a time, into text that never holds half a character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.reset()

    def reset(self) -> None:
        """Begin a new reply."""
        self._pending: list[int] = []
        self._shown = ""

    def append(self, token: int) -> str:
        """Take one id; return the text that became certain (often one token behind inside a multi-byte character)."""
        self._pending.append(token)
        text = self._tokenizer.decode(self._pending)
        if text.endswith(REPLACEMENT):
            return ""
        delta = text[len(self._shown) :]
        # Keep one token of context: byte-level tokens join without regard to what was before, so one is enough.
        self._pending = self._pending[-1:]
        self._shown = self._tokenizer.decode(self._pending)
        if self._shown.endswith(REPLACEMENT) or not text.endswith(self._shown):
            self._pending, self._shown = [], ""
        return delta

    def finish(self) -> str:
        """What is left at the end, broken characters as the replacement character."""
        text = self._tokenizer.decode(self._pending)[len(self._shown) :]
        self.reset()
        return text
