"""Clips into frames: one a second, at least and at most so many; decoded with PyAV, which is an extra."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from sottovoce.runtime.errors import InputError, SottovoceError
from sottovoce.runtime.manifest import VideoFrontEnd

if TYPE_CHECKING:
    from types import ModuleType

MAX_FILE_BYTES = 4 << 30
MAX_FRAMES = 1_000_000
MAX_SIDE = 8192
MAX_ASPECT = 32
DEFAULT_FRAMES_PER_SECOND = 25.0


def frame_positions(frame_count: int, fps: float, front_end: VideoFrontEnd) -> list[int]:
    """Which frames of a clip are looked at.

    One in every `round(fps)` frames for a front end of one frame a second; when that gives too many or too few, evenly
    spread ones among them, some twice if need be.
    """
    stride = max(round(fps / front_end.frames_per_second), 1)
    positions = list(range(0, frame_count, stride))
    if not positions:
        return []
    wanted = min(max(len(positions), front_end.min_frames), front_end.max_frames)
    if wanted == len(positions):
        return positions
    return [positions[int(i)] for i in np.linspace(0, len(positions) - 1, wanted)]


def read_video(path: str | os.PathLike[str], front_end: VideoFrontEnd) -> list[Image.Image]:
    """The frames of a clip that the model looks at, RGB, in order.

    Raises:
        InputError: missing, not a video, damaged, or too large.
        SottovoceError: PyAV is not installed.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError("there is no such video", file=file, fix="give the path of an MP4, WebM, MKV or AVI file")
    if file.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"more than {MAX_FILE_BYTES >> 30} GB", file=file, fix="cut the video")
    av = _import_av()
    try:
        fps, count = _measure(av, file)
        positions = frame_positions(count, fps, front_end)
        wanted = set(positions)
        found = {index: frame.to_image() for index, frame in enumerate(_frames(av, file)) if index in wanted}
    except (av.error.FFmpegError, OSError, ValueError) as problem:
        fix = "give an MP4, WebM, MKV or AVI file"
        raise InputError(f"the video cannot be decoded: {problem}", file=file, fix=fix) from problem
    if not found:
        raise InputError("the video has no frames", file=file, fix="record it again")
    return [found[position] for position in positions]


def _import_av() -> ModuleType:
    try:
        import av
    except ModuleNotFoundError as missing:
        fix = "pip install 'sottovoce[video]', or give the frames as pictures"
        raise SottovoceError("reading a video needs PyAV, which is not installed", fix=fix) from missing
    module: ModuleType = av
    return module


def _measure(av: ModuleType, file: Path) -> tuple[float, int]:
    """Frames a second and how many frames there really are (headers lie, so they are counted by decoding)."""
    with av.open(str(file)) as container:
        if not container.streams.video:
            raise InputError("there is no picture track in this file", file=file, fix="give it with --audio if it is sound")
        rate = container.streams.video[0].average_rate
    return float(rate) if rate else DEFAULT_FRAMES_PER_SECOND, sum(1 for _ in _frames(av, file))


def _frames(av: ModuleType, file: Path) -> Iterator[Any]:
    with av.open(str(file)) as container:
        for count, frame in enumerate(container.decode(video=0)):
            width, height = frame.width, frame.height
            if max(width, height) > MAX_SIDE or max(width, height) > MAX_ASPECT * min(width, height):
                raise InputError(f"frames of {width}×{height}, expected at most {MAX_SIDE} a side", file=file)
            if count >= MAX_FRAMES:
                raise InputError(f"more than {MAX_FRAMES} frames", file=file, fix="cut the video")
            yield frame
