"""One reply on its way to the loudspeaker, and what of it was heard."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from sottovoce.runtime.features.resampling import StreamingResampler

REMEMBERED_BLOCKS = 64
"""Blocks that a device can hold unplayed: 1.3 s at 20 ms."""


@dataclass(frozen=True)
class HandOver:
    """A block that the device took.

    Attributes:
        moment: when it was taken.
        plays_at: when its first frame of the reply is heard, as far as the device tells.
        frames: frames of the reply in it.
        before: frames of the reply that were taken before.
    """

    moment: float
    plays_at: float
    frames: int
    before: int


@dataclass(eq=False)
class Segment:
    """The samples of one epoch. The first group of fields belongs to the program's side, the second to the device's.

    Attributes:
        epoch: which reply.
        resampler: to the device's rate; None once nothing more is written.
        samples: how many were written, at the speech's rate.
        begin: position of its first frame in the ring,
        written: and after its last one so far.
        finished: no more is written.
        stopped: nothing more may be heard.
        consumed: frames that the device took.
        over: the device is through with it.
        dry_frames: frames of silence since the device wanted some that were not there yet.
        handed_over: the newest blocks that the device took.
        heard: frames that were heard, at least; never becomes less.
        dropped_at: when the device dropped what it held of it, if it did.
    """

    epoch: int
    resampler: StreamingResampler | None
    samples: int = 0
    begin: int = 0
    written: int = 0
    finished: bool = False
    stopped: bool = False

    consumed: int = 0
    over: bool = False
    dry_frames: int = 0
    handed_over: deque[HandOver] = field(default_factory=lambda: deque(maxlen=REMEMBERED_BLOCKS))
    heard: int = 0
    dropped_at: float | None = None

    def hand_over(self, frames: int, moment: float, plays_at: float) -> None:
        """Note that the device took `frames` more."""
        self.handed_over.append(HandOver(moment, plays_at, frames, self.consumed))
        self.consumed += frames

    def heard_frames(self, now: float, device_rate: int) -> int:
        """Frames that were heard by `now`."""
        if self.dropped_at is not None:
            now = min(now, self.dropped_at)
        for block in reversed(list(self.handed_over)):  # list(): one step, so that the device's thread may go on
            if now >= block.plays_at:
                elapsed = round((now - block.plays_at) * device_rate)
                self.heard = max(self.heard, block.before + min(block.frames, elapsed))
                break
        return self.heard

    def is_held(self, now: float, device_rate: int) -> bool:
        """Whether the device still holds frames of it, by what was told of them."""
        if not self.handed_over or self.dropped_at is not None:
            return False
        last = self.handed_over[-1]
        return last.plays_at + last.frames / device_rate > now

    def drop(self, now: float, device_rate: int) -> None:
        """The device drops what it holds: that is never heard."""
        self.heard_frames(now, device_rate)
        self.dropped_at = now

    def forget_unplayed(self, now: float, device_rate: int) -> None:
        """The device went away with what it held: that is not heard any more, nor played again."""
        self.heard_frames(now, device_rate)
        self.handed_over.clear()

    def forget_heard(self, now: float, device_rate: int) -> None:
        """Blocks of a reply of which nothing more will be heard tell nothing any more."""
        if not (self.over and self.handed_over):
            return
        heard = self.heard_frames(now, device_rate)
        if heard == self.consumed or self.dropped_at is not None:
            self.handed_over.clear()

    @property
    def nothing_to_come(self) -> bool:
        """Nothing more of it will be heard: it was stopped, or it went with a device that vanished."""
        return self.stopped or (self.over and not self.handed_over)

    @property
    def all_heard(self) -> bool:
        """It is finished, and every frame of it was heard."""
        return self.finished and not self.stopped and self.heard >= self.written - self.begin
