"""The thin part of echo cancelling: libspeexdsp, called through ctypes."""

from __future__ import annotations

import ctypes
import ctypes.util
from typing import Any

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.devices.errors import DeviceError

Pcm = npt.NDArray[np.int16]

# Requests of speex_echo.h and speex_preprocess.h.
ECHO_SET_SAMPLING_RATE = 24
PREPROCESS_SET_DENOISE = 0
PREPROCESS_SET_NOISE_SUPPRESS = 8
PREPROCESS_SET_ECHO_STATE = 24


def load_speexdsp() -> Any:
    """The library.

    Raises:
        DeviceError: it is not installed.
    """
    for name in ("libspeexdsp.so.1", ctypes.util.find_library("speexdsp"), "libspeexdsp.1.dylib"):
        try:
            library = ctypes.CDLL(name) if name else None
        except OSError:
            continue
        if library is not None:
            library.speex_echo_state_init.restype = ctypes.c_void_p
            library.speex_preprocess_state_init.restype = ctypes.c_void_p
            return library
    fix = "apt install libspeexdsp1; or go on half-duplex, with the microphone closed while a reply is played"
    raise DeviceError("cancelling echo needs the library speexdsp, which is not installed", fix=fix)


class SpeexEcho:
    """An adaptive filter that learns the way from loudspeaker to microphone, and takes what comes that way off.

    Args:
        frame: samples that are handed over at a time.
        tail: how many samples of echo are looked back for.
        sample_rate: samples a second.
        suppress: what the filter leaves of the echo is turned down as well.

    Raises:
        DeviceError: the library is not installed.
    """

    def __init__(self, frame: int, tail: int, sample_rate: int, suppress: bool) -> None:
        self.frame = frame
        self._library = load_speexdsp()
        self._preprocess: ctypes.c_void_p | None = None
        self._echo: ctypes.c_void_p | None = ctypes.c_void_p(self._library.speex_echo_state_init(frame, tail))
        rate = ctypes.c_int(sample_rate)
        self._library.speex_echo_ctl(self._echo, ECHO_SET_SAMPLING_RATE, ctypes.byref(rate))
        if suppress:
            self._preprocess = ctypes.c_void_p(self._library.speex_preprocess_state_init(frame, sample_rate))
            self._library.speex_preprocess_ctl(self._preprocess, PREPROCESS_SET_ECHO_STATE, self._echo)
            # Echo is suppressed by the stage that suppresses noise; noise itself is left as it is (0 dB).
            for request, value in ((PREPROCESS_SET_DENOISE, 1), (PREPROCESS_SET_NOISE_SUPPRESS, 0)):
                self._library.speex_preprocess_ctl(self._preprocess, request, ctypes.byref(ctypes.c_int(value)))

    def cancel(self, captured: Pcm, played: Pcm) -> Pcm:
        """One frame (frame,) of each; what was captured without the echo of what was played."""
        if self._echo is None:
            raise ValueError("the echo canceller is closed")
        if captured.shape != (self.frame,) or played.shape != (self.frame,):
            raise ValueError(f"frames of {captured.shape} and {played.shape}, expected ({self.frame},)")
        cleaned = np.empty(self.frame, dtype=np.int16)
        self._library.speex_echo_cancellation(self._echo, _data(captured), _data(played), _data(cleaned))
        if self._preprocess is not None:
            self._library.speex_preprocess_run(self._preprocess, _data(cleaned))
        return cleaned

    def close(self) -> None:
        """Free what the library holds; again is harmless."""
        if self._preprocess is not None:
            self._library.speex_preprocess_state_destroy(self._preprocess)
            self._preprocess = None
        if self._echo is not None:
            self._library.speex_echo_state_destroy(self._echo)
            self._echo = None


def _data(samples: Pcm) -> ctypes.c_void_p:
    return ctypes.c_void_p(samples.ctypes.data)
