"""Codes → samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.backends.session import Session
from sottovoce.runtime.errors import BackendError
from sottovoce.runtime.stages.feedforward import FeedForwardStage

Floats = npt.NDArray[np.float32]


class Codec:
    """The codec's decoder: HiFi-GAN on the codes' codebook rows.

    Args:
        session: the loaded graph.
        samples_per_code: how many samples each code becomes.
    """

    def __init__(self, session: Session, samples_per_code: int) -> None:
        self._stage = FeedForwardStage(session, "codes", "samples")
        self._samples_per_code = samples_per_code
        [codes] = [tensor for tensor in session.spec.inputs if tensor.role == "codes"]
        books = codes.shape[2] if len(codes.shape) > 2 else 1
        self.books = books if isinstance(books, int) else 1
        """Codes that make one time step: codebooks side by side, or residual layers; nearly always 1."""

    def __call__(self, steps: Sequence[int | tuple[int, ...]]) -> Floats:
        """(n,) codes, n ≥ 1, or n tuples of `books` codes → (n · samples per code,) samples between -1 and 1.

        Raises:
            BackendError: the engine failed, or gave another number of samples.
        """
        samples = np.asarray(self._stage.run(np.asarray(steps, dtype=np.int64)[None]), dtype=np.float32).reshape(-1)
        expected = len(steps) * self._samples_per_code
        if samples.size != expected:
            message = f"stage 'codec' gave {samples.size} samples for {len(steps)} codes, expected {expected}"
            raise BackendError(message, fix="export the checkpoint again")
        return samples


def time_steps(codes: Iterable[int], books: int) -> Iterator[int | tuple[int, ...]]:
    """Codes as they were said, one after the other, into the codec's time steps; an incomplete last one is dropped."""
    if books == 1:
        yield from codes
        return
    step: list[int] = []
    for code in codes:
        step.append(code)
        if len(step) == books:
            yield tuple(step)
            step = []
