"""PortAudio, ALSA and JACK talk to standard error while they look for devices; not to our users."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_one_at_a_time = threading.RLock()


@contextmanager
def quiet_stderr(debug: bool = False) -> Iterator[None]:
    """Point file descriptor 2 at nothing for a `with` block, and back whatever happens.

    Python's own messages are written out before and after, and one thread at a time may do this: two that overlapped
    would leave the descriptor at nothing for ever.

    Args:
        debug: change nothing.
    """
    with _one_at_a_time:
        if debug or sys.stderr is None:
            yield
            return
        sys.stderr.flush()
        try:
            kept = os.dup(2)
        except OSError:  # there is no standard error: nothing to silence
            yield
            return
        try:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, 2)
            os.close(nothing)
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
