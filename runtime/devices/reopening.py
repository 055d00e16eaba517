"""When a device has vanished, and when it is tried again: decided over times that are handed in."""

from __future__ import annotations

from sottovoce.runtime.devices.settings import ReopenPolicy


class StallWatch:
    """Notices that a device calls no more.

    Args:
        stall_s: silence that is too long.
        now: when the device was opened.
    """

    def __init__(self, stall_s: float, now: float) -> None:
        self._stall_s = stall_s
        self.last_call = now

    def called(self, now: float) -> None:
        """The device called."""
        self.last_call = now

    def is_stalled(self, now: float) -> bool:
        """It has not called for too long."""
        return now - self.last_call > self._stall_s


class ReopenSchedule:
    """The tries after a device vanished.

    Args:
        policy: how many, and how far apart.
        now: when it vanished.
    """

    def __init__(self, policy: ReopenPolicy, now: float) -> None:
        self._policy = policy
        self._wait_s = policy.first_wait_s
        self.tries = 0
        self.vanished_at = now
        self.next_try = now + policy.first_wait_s

    def is_due(self, now: float) -> bool:
        """It is time for the next try."""
        return not self.is_over and now >= self.next_try

    def failed(self, now: float) -> None:
        """A try did not work: the next one is later."""
        self.tries += 1
        self._wait_s = min(self._wait_s * self._policy.growth, self._policy.longest_wait_s)
        self.next_try = now + self._wait_s

    @property
    def is_over(self) -> bool:
        """There were enough tries."""
        return self.tries >= self._policy.attempts
