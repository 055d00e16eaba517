"""The byte-level BPE tokenizer: text to ids and back, a token at a time."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from pathlib import Path

import tokenizers

from sottovoce.runtime.errors import BundleError, InputError

MAX_FILE_BYTES = 256 << 20


class Tokenizer:
    """`tokenizer.json` of a Qwen2-like model.

    Control tokens (`<|im_start|>` and the like) are produced from *our* framing only: `encode_plain` spells them out as
    ordinary characters, so that nothing a user says or types can end a turn.

    Raises:
        BundleError: missing, too large, not a tokenizer, or not a byte-level one.
    """

    def __init__(self, path: Path) -> None:
        fix = "export the bundle again"
        if not path.is_file():
            raise BundleError("there is no such tokenizer", file=path, fix=fix)
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BundleError(f"more than {MAX_FILE_BYTES >> 20} MB", file=path, fix=fix)
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as problem:  # the library raises bare Exception
            raise BundleError(f"not a tokenizer: {problem}", file=path, fix=fix) from problem
        if not isinstance(self._tokenizer.decoder, tokenizers.decoders.ByteLevel):
            found = type(self._tokenizer.decoder).__name__
            raise BundleError(f"decodes by {found}, expected a byte-level tokenizer", file=path, fix=fix)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        added = self._tokenizer.get_added_tokens_decoder()
        self._control_ids = frozenset(added)
        self._hidden_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        names = (re.escape(token.content) for token in added.values())
        self._control_token = re.compile(f"(?={'|'.join(names)})") if added else re.compile(r"(?!)")

    @property
    def size(self) -> int:
        """Ids, control tokens included."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str) -> list[int]:
        """Ids of trusted text: control tokens written in it count as such.

        Raises:
            InputError: half a surrogate pair, as undecodable bytes of a command line become.
        """
        try:
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)
        except (UnicodeEncodeError, TypeError) as problem:
            fix = "give the text in UTF-8"
            raise InputError(f"the text is not valid Unicode: {problem}", fix=fix) from problem

    def encode_plain(self, text: str) -> list[int]:
        """Ids of a user's text: control tokens in it are only characters.

        Text without any is encoded as `encode` does it; where one is written, the text is cut behind its first
        character, so that no part holds it. Whatever still gives a control token is left out.
        """
        cuts = [match.start() + 1 for match in self._control_token.finditer(text)]
        if not cuts:
            return self.encode(text)
        parts = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        return [token for part in parts if part for token in self.encode(part) if token not in self._control_ids]

    def id_of(self, token: str) -> int | None:
        """The id of one token, None if there is none."""
        found = self._tokenizer.token_to_id(token)
        return int(found) if found is not None else None

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, control tokens left out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def bytes_of(self, token_id: int) -> bytes:
        """What one token adds to the UTF-8 bytes of the text: often not whole characters, none for control tokens."""
        token = None if token_id in self._hidden_ids else self._tokenizer.id_to_token(token_id)
        if token is None:  # the embedding table may have more rows than there are tokens
            return b""
        try:
            return bytes(_BYTE_OF[character] for character in token)
        except KeyError:  # an added token is written as itself
            return str(token).encode()


def _byte_of() -> dict[str, int]:
    """The visible character that stands for each byte in byte-level BPE (GPT-2, Radford et al. 2019), turned round."""
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = (value for value in range(256) if value not in visible)
    return {chr(value): value for value in visible} | {chr(256 + rank): value for rank, value in enumerate(others)}


_BYTE_OF = _byte_of()


class TextStream:
    """Ids of a reply, one at a time, into text that never holds half a character.

    Bytes that are no UTF-8 become the replacement character, as in `Tokenizer.decode`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.reset()

    def reset(self) -> None:
        """Begin a new reply."""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def append(self, token: int) -> str:
        """Take one id; return the text that became certain (none inside a character of several bytes)."""
        return self._decoder.decode(self._tokenizer.bytes_of(token))

    def finish(self) -> str:
        """What is left at the end, a broken character as the replacement character."""
        rest = self._decoder.decode(b"", final=True)
        self.reset()
        return rest
