"""Codes into samples while they come: decoded in chunks with context on both sides, cut where it is quiet.

VITA's rule: a chunk is decoded with a few codes of context before and behind, whose samples are dropped. The newest
samples are searched around their middle for a quiet window; if there is one, everything up to its quietest sample is
given out, and the rest waits, so that a segment ends where a pause in playback is not heard.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.manifest import PieceSpec

Samples = npt.NDArray[np.float32]
Step = int | tuple[int, ...]
"""A code, or the codes of one time step where the codec has several codebooks."""
Decode = Callable[[Sequence[Step]], Samples]
"""(n,) codes → (n · samples per code,) samples: the codec."""


@dataclass(frozen=True)
class CutRule:
    """Where to look for a quiet place.

    Args:
        window_samples: length of the window whose mean magnitude is judged.
        search_samples: how far before the middle of the new samples the first window begins.
        threshold: a window below this mean magnitude is quiet.
    """

    window_samples: int
    search_samples: int
    threshold: float

    def find(self, samples: Samples) -> int | None:
        """Index of the quietest sample of the quietest window of (n,) `samples`; None if no window is quiet."""
        first = max(len(samples) // 2 - self.search_samples, 0)
        magnitude = np.abs(samples[first:].astype(np.float64))
        if len(magnitude) < self.window_samples:
            return None
        sums = np.cumsum(np.concatenate(([0.0], magnitude)))
        means = (sums[self.window_samples :] - sums[: -self.window_samples]) / self.window_samples
        start = int(np.argmin(means))
        if means[start] >= self.threshold:
            return None
        return first + start + int(np.argmin(magnitude[start : start + self.window_samples]))


class SpeechStream:
    """The codes of one piece of text, one at a time, into segments of samples.

    Args:
        decode: the codec.
        samples_per_code: samples that one code becomes.
        piece: chunk length and context.
        rule: where a segment may end.
        onset: the first chunks, smaller and given out whole, so that something is heard soon.
    """

    def __init__(
        self,
        decode: Decode,
        samples_per_code: int,
        piece: PieceSpec,
        rule: CutRule,
        onset: Sequence[PieceSpec] = (),
    ) -> None:
        self._decode = decode
        self._samples_per_code = samples_per_code
        self._piece = piece
        self._rule = rule
        self._onset = tuple(onset)
        self.reset()

    def reset(self) -> None:
        """Begin a new piece; what was not given out is dropped."""
        self._codes: list[Step] = []
        """Context on the left, then what is not decoded yet."""
        self._context = 0
        self._kept = np.zeros(0, dtype=np.float32)
        self._chunks = 0

    @property
    def kept_samples(self) -> int:
        """Samples that are decoded and not given out yet."""
        return len(self._kept)

    def append(self, code: Step) -> Samples | None:
        """Take one code; a segment (n,) if one is complete."""
        self._codes.append(code)
        is_onset = self._chunks < len(self._onset)
        piece = self._onset[self._chunks] if is_onset else self._piece
        needed = self._context + piece.chunk_codes + piece.padding_codes
        if len(self._codes) < needed:
            return None
        self._chunks += 1
        samples = self._decode(self._codes[:needed])
        end = needed - piece.padding_codes
        fresh = samples[self._context * self._samples_per_code : end * self._samples_per_code]
        self._context = min(self._piece.padding_codes, end)
        self._codes = self._codes[end - self._context :]
        return fresh if is_onset else self._cut(fresh)

    def finish(self) -> Samples | None:
        """No more codes come: all that is left, or None; then ready for a new piece."""
        rest = self._kept
        if len(self._codes) > self._context:
            samples = self._decode(self._codes)
            rest = np.concatenate([rest, samples[self._context * self._samples_per_code :]])
        self.reset()
        return rest if rest.size else None

    def _cut(self, fresh: Samples) -> Samples | None:
        place = self._rule.find(fresh)
        if place is None:
            self._kept = np.concatenate([self._kept, fresh])
            return None
        segment = np.concatenate([self._kept, fresh[:place]])
        self._kept = fresh[place:]
        return segment if segment.size else None
