"""What goes wrong with microphones and loudspeakers, said so that a person can act on it."""

from __future__ import annotations

from sottovoce.runtime.errors import SottovoceError


class DeviceError(SottovoceError):
    """A microphone or loudspeaker is not there, cannot be opened, or went away for good."""
