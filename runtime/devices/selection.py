"""Which device is meant: by index, by a part of its name, or the system's default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from sottovoce.runtime.devices.errors import DeviceError
from sottovoce.runtime.devices.interface import DeviceInfo

Direction = Literal["microphone", "speaker"]


def choose_device(devices: Sequence[DeviceInfo], direction: Direction, wanted: str | int | None) -> DeviceInfo:
    """The device that `wanted` means.

    Args:
        devices: what there is.
        direction: capture with it, or play.
        wanted: an index, a part of a name (any case; a whole name goes before a part), or None for the default.

    Raises:
        DeviceError: none, or several, are meant; says which there are.
    """
    able = [device for device in devices if channels(device, direction)]
    if not able:
        raise DeviceError(f"there is no {direction}: {_listing(devices)}", fix=_how_to_get_one(direction))
    if wanted is None:
        return next((device for device in able if _is_default(device, direction)), able[0])
    if isinstance(wanted, int) or wanted.isdecimal():
        meant = [device for device in able if device.index == int(wanted)]
    else:
        exact = [device for device in able if device.name.casefold() == wanted.casefold()]
        meant = exact or [device for device in able if wanted.casefold() in device.name.casefold()]
    fix = f"give the index or a part of the name of one {direction} of these, or leave it out for the default"
    if not meant:
        raise DeviceError(f"no {direction} is called {wanted!r}: {_listing(able)}", fix=fix)
    if len(meant) > 1:
        raise DeviceError(f"{wanted!r} may be any of several: {_listing(meant)}", fix=fix)
    return meant[0]


def find_again(
    devices: Sequence[DeviceInfo], direction: Direction, wanted: str | int | None, before: DeviceInfo
) -> DeviceInfo:
    """The device that was `before`, in a new listing: indices mean other devices once one was unplugged; names do not.

    Raises:
        DeviceError: it is not there (yet).
    """
    if wanted is None:  # the default may be another one by now
        return choose_device(devices, direction, None)
    same = [device for device in devices if device.name == before.name and channels(device, direction)]
    if len(same) > 1:  # two of a kind
        return next((device for device in same if device.index == before.index), same[0])
    return choose_device(devices, direction, before.name if isinstance(wanted, int) or wanted.isdecimal() else wanted)


def channels(device: DeviceInfo, direction: Direction) -> int:
    """How many channels the device has in this direction."""
    return device.inputs if direction == "microphone" else device.outputs


def _is_default(device: DeviceInfo, direction: Direction) -> bool:
    return device.is_default_input if direction == "microphone" else device.is_default_output


def _listing(devices: Sequence[DeviceInfo]) -> str:
    if not devices:
        return "the system lists no audio devices at all"
    rows = (
        f"{device.index} {device.name!r} ({device.inputs} in, {device.outputs} out, {device.sample_rate} Hz)"
        for device in devices
    )
    return "there are " + ", ".join(rows)


def _how_to_get_one(direction: Direction) -> str:
    other = "--audio-in F.wav" if direction == "microphone" else "--audio-out F.wav"
    return (
        f"plug in a {direction} and see that `arecord -l` (capture) or `aplay -l` (playback) lists it; with PulseAudio "
        f"or PipeWire install libasound2-plugins (its device is called pulse); or use a file with {other}"
    )
