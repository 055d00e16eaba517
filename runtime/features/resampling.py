"""Sound at another rate while it comes: the pieces together are to the bit what `Waveform.at_rate` gives."""

from __future__ import annotations

import numpy as np
import soxr

from sottovoce.runtime.features.audio_file import Samples


class StreamingResampler:
    """Resamples one stretch of sound (soxr, high quality); at the right rate already, it does nothing.

    Output sample k lies at input sample k · source / target: there is no delay in the signal, though a sample is given
    out only when the filter has seen what follows (6 to 40 ms, 20 on average, from 48 kHz to 16 kHz).

    Args:
        source_rate: samples a second that come in.
        target_rate: samples a second that go out.
    """

    def __init__(self, source_rate: int, target_rate: int) -> None:
        self._rates = (source_rate, target_rate)
        self.reset()

    def reset(self) -> None:
        """Begin a new stretch."""
        source, target = self._rates
        same = source == target
        self._stream = None if same else soxr.ResampleStream(source, target, 1, dtype="float32", quality="HQ")
        self._given = 0
        self._skipped = 0
        self._ahead = np.zeros(0, dtype=np.float32)

    @property
    def given(self) -> int:
        """Samples that were given out of this stretch."""
        return self._given

    def append(self, samples: Samples) -> Samples:
        """Take (n,) samples; give those that became certain."""
        return self._give(samples, is_last=False)

    def finish(self) -> Samples:
        """The rest, after which only `reset` and `resume` make sense."""
        return self._give(np.zeros(0, dtype=np.float32), is_last=True)

    def resume(self, heard: Samples, given: int) -> None:
        """Go back to where (n,) samples were `heard` and so many given out. All are resampled again: soxr's state
        cannot be copied, and a second of sound costs it less than a millisecond.
        """
        self.reset()
        self._skipped = given
        self._ahead = self._resampled(heard, is_last=False)
        self._given = given

    def _give(self, samples: Samples, is_last: bool) -> Samples:
        resampled = np.concatenate((self._ahead, self._resampled(samples, is_last)))
        self._ahead = self._ahead[:0]
        self._given += len(resampled)
        return resampled

    def _resampled(self, samples: Samples, is_last: bool) -> Samples:
        """What comes out of soxr, without what was given out before `resume`."""
        made = samples if self._stream is None else self._stream.resample_chunk(samples, last=is_last)
        skipped = min(self._skipped, len(made))
        self._skipped -= skipped
        return np.asarray(made[skipped:], dtype=np.float32)
