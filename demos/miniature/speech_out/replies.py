"""The miniature's replies as the speech decoder meets them: cut into pieces, lower-case, some kept out of training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

_CUT_AFTER = ",.?!\n，。？！、"
_SHORTEST_PIECE = 5
_HELD_OUT_SHARE = 0.05


@dataclass(frozen=True)
class ReplyTexts:
    """Pieces of replies, each once, in a fixed order; no held-out piece is among those trained on."""

    training: tuple[str, ...]
    held_out: tuple[str, ...]


def spoken_pieces(reply: str) -> list[str]:
    """Cut after ``, . ? !`` once a piece has five characters, as the runtime does before it speaks; lower-case."""
    pieces, start = [], 0
    for end, character in enumerate(reply, 1):
        if character in _CUT_AFTER and len(reply[start:end].strip()) >= _SHORTEST_PIECE:
            pieces.append(reply[start:end])
            start = end
    pieces.append(reply[start:])
    return [piece for piece in (piece.strip().lower() for piece in pieces) if piece]


def split_replies(replies: Iterable[str]) -> ReplyTexts:
    """Keep one reply in twenty out, by a hash of its text, so that the choice stays when replies are added."""
    held_out: dict[str, None] = {}
    training: dict[str, None] = {}
    for reply in replies:
        chosen = held_out if _hash_share(reply) < _HELD_OUT_SHARE else training
        chosen.update(dict.fromkeys(spoken_pieces(reply)))
    shuffled = sorted(training, key=_hash_share)
    # A short piece ("okay,") may belong to replies on both sides: it is trained on, and not counted as held out.
    return ReplyTexts(tuple(shuffled), tuple(piece for piece in held_out if piece not in training))


def _hash_share(text: str) -> float:
    """A number in 0 … 1 that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
