"""Clips into frames: one a second, at least and at most so many; decoded with PyAV, which is an extra."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from sottovoce.runtime.errors import InputError, SottovoceError
from sottovoce.runtime.manifest import VideoFrontEnd

if TYPE_CHECKING:
    from types import ModuleType

MAX_FILE_BYTES = 4 << 30
MAX_FRAMES = 500_000
MAX_SIDE = 8192
MAX_ASPECT = 32
DEFAULT_FRAMES_PER_SECOND = 25.0
OPEN_OPTIONS = {
    # A playlist would make FFmpeg read other files, or the network: only formats that hold their own frames are read.
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,gif,mjpeg,m4v,h264,hevc,wav,mp3,flac",
}


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
    """The frames of a clip that the model looks at, RGB, in order (a clip's rotation tag is not applied).

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
        frames_per_second, count = _measure(av, file)
        positions = frame_positions(count, frames_per_second, front_end)
        found = _decode(av, file, positions)
    except (av.error.FFmpegError, OSError, ValueError) as problem:
        fix = "give an MP4, WebM, MKV or AVI file"
        raise InputError(f"the video cannot be decoded: {problem}", file=file, fix=fix) from problem
    if not found:
        raise InputError("the video has no frames", file=file, fix="record it again")
    last = max(found)  # a clip that was cut off has packets that give no frame
    return [found[min(position, last)] for position in positions]


def _import_av() -> ModuleType:
    try:
        import av
    except ModuleNotFoundError as missing:
        fix = "pip install 'sottovoce[video]', or give the frames as pictures"
        raise SottovoceError("reading a video needs PyAV, which is not installed", fix=fix) from missing
    module: ModuleType = av
    return module


def _measure(av: ModuleType, file: Path) -> tuple[float, int]:
    """Frames a second, and how many packets of frames there are: counted, since headers lie, but not decoded."""
    with av.open(str(file.resolve()), options=OPEN_OPTIONS) as container:
        if not container.streams.video:
            fix = "give it with --audio if it is sound"
            raise InputError("there is no picture track in this file", file=file, fix=fix)
        rate = container.streams.video[0].average_rate
        count = sum(1 for packet in container.demux(video=0) if packet.size)
    if count > MAX_FRAMES:
        raise InputError(f"{count} frames, expected at most {MAX_FRAMES}", file=file, fix="cut the video")
    return float(rate) if rate else DEFAULT_FRAMES_PER_SECOND, count


def _decode(av: ModuleType, file: Path, positions: list[int]) -> dict[int, Image.Image]:
    """The pictures at these positions; decoding ends behind the last one."""
    found: dict[int, Image.Image] = {}
    with av.open(str(file.resolve()), options=OPEN_OPTIONS) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        _check_size(stream.codec_context.width, stream.codec_context.height, file)
        for index, frame in enumerate(container.decode(stream)):
            _check_size(frame.width, frame.height, file)  # it may change on the way
            if index in positions or index == 0:
                found[index] = frame.to_image()
            if index >= max(positions, default=0):
                break
    return found


def _check_size(width: int, height: int, file: Path) -> None:
    if max(width, height) > min(MAX_SIDE, MAX_ASPECT * min(width, height)):
        limit = f"at most {MAX_SIDE} a side and {MAX_ASPECT} times as long as wide"
        raise InputError(f"frames of {width}×{height}, expected {limit}", file=file, fix="scale the video")
