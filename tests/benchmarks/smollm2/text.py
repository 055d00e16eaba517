"""English that every Python has: its language reference and library texts, one part to calibrate on, one held back."""

from __future__ import annotations

import re
from pydoc_data.topics import topics

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

Tokens = npt.NDArray[np.int64]
HELD_BACK_EVERY = 4
"""Every fourth topic is held back; the others are for calibration."""


def windows(tokenizer: Tokenizer, held_back: bool, count: int, length: int) -> Tokens:
    """(count, length) tokens of running text, of topics that the other part has not."""
    chosen = [
        text for place, (_, text) in enumerate(sorted(topics.items())) if (place % HELD_BACK_EVERY == 0) == held_back
    ]
    ids: list[int] = []
    for text in chosen:
        ids += tokenizer.encode(_prose(text)).ids
        if len(ids) >= count * length:
            return np.array(ids[: count * length], np.int64).reshape(count, length)
    raise SystemExit(f"{count} windows of {length} tokens are more than there are: {len(ids)} tokens")


def _prose(text: str) -> str:
    """Paragraphs, without underlines and the indentation of a terminal page."""
    kept = [line.strip() for line in text.splitlines() if not re.fullmatch(r"\s*[*=\-~^]{3,}\s*", line)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)) + "\n\n"
