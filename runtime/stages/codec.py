"""Codes → samples."""

from __future__ import annotations

from collections.abc import Sequence

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

    def __call__(self, codes: Sequence[int]) -> Floats:
        """(n,) codes, n ≥ 1 → (n · samples per code,) samples between -1 and 1.

        Raises:
            BackendError: the engine failed, or gave another number of samples.
        """
        samples = np.asarray(self._stage.run(np.asarray(codes, dtype=np.int64)[None]), dtype=np.float32).reshape(-1)
        expected = len(codes) * self._samples_per_code
        if samples.size != expected:
            message = f"stage 'codec' gave {samples.size} samples for {len(codes)} codes, expected {expected}"
            raise BackendError(message, fix="export the checkpoint again")
        return samples
