"""Speech made in a thread of its own, so that the language model goes on writing while the first clause is spoken."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import Empty, SimpleQueue

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.speech.speaker import Speaker

Samples = npt.NDArray[np.float32]


class _End:
    """No more text, or no more samples."""


class OverlappedSpeaker:
    """A speaker that is fed text and asked for samples, and never waited for until the text is complete.

    What is queued is bounded by the reply's own limits of tokens and codes. The thread ends with the text, with an
    error, or with `stop`, which waits for it: at most for the code being computed.

    Args:
        speaker: makes the samples; asked for `is_cancelled` between two codes.
    """

    def __init__(self, speaker: Speaker) -> None:
        self._speaker = speaker
        self._text: SimpleQueue[str | _End] = SimpleQueue()
        self._made: SimpleQueue[Samples | _End | BaseException] = SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="speech")
        self._thread.start()

    def append(self, text: str) -> Iterator[Samples]:
        """Hand over what was written; gives the samples (n,) that are there by now."""
        if text:
            self._text.put(text)
        while True:
            try:
                made = self._made.get_nowait()
            except Empty:
                return
            if isinstance(made, _End):
                return
            yield _samples(made)

    def finish(self) -> Iterator[Samples]:
        """No more text comes: the rest of the samples, as they are made."""
        self._text.put(_End())
        while not isinstance(made := self._made.get(), _End):
            yield _samples(made)
        self._thread.join()

    def stop(self) -> None:
        """End the thread; what it still makes is dropped."""
        self._stopped.set()
        self._text.put(_End())
        self._thread.join()

    def _run(self) -> None:
        try:
            while not isinstance(text := self._text.get(), _End):
                self._put_all(self._speaker.append(text))
            if not self._stopped.is_set():
                self._put_all(self._speaker.finish())
        except BaseException as problem:  # noqa: BLE001  # raised again where the samples are taken
            self._made.put(problem)
        self._made.put(_End())

    def _put_all(self, samples: Iterator[Samples]) -> None:
        for segment in samples:
            if self._stopped.is_set():
                return
            self._made.put(segment)


def _samples(made: Samples | BaseException) -> Samples:
    if isinstance(made, BaseException):
        raise made
    return made
