"""The newest picture of a camera, or of a clip that plays like one, decoded with PyAV in a thread of its own."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image

from sottovoce.runtime.errors import InputError, SottovoceError

FIRST_FRAME_SECONDS = 5.0
CAMERA_FORMATS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}


class Camera:
    """Keeps one frame, the newest; a context manager.

    Args:
        source: `/dev/video0`, a camera's name where the system has names, or a file.

    Raises:
        InputError: it cannot be opened, or gives no picture in five seconds.
        SottovoceError: PyAV is not installed.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._is_file = Path(source).is_file()
        self._newest: Any = None  # a frame of PyAV; made a picture only when somebody wants one
        self._problem: str | None = None
        self._first, self._closed = threading.Event(), threading.Event()
        self._container = self._open()
        self._thread = threading.Thread(target=self._run, name="camera")
        self._thread.start()
        if not self._first.wait(FIRST_FRAME_SECONDS) or self._newest is None:
            self.close()
            reason = self._problem or f"no picture within {FIRST_FRAME_SECONDS:.0f} s"
            raise InputError(f"the camera {source!r} gives nothing: {reason}", fix="choose another with --camera")

    def picture(self) -> Image.Image:
        """What it sees now; the last it saw, when it is gone."""
        if self._newest is None:
            raise InputError(f"the camera {self._source!r} gave no picture", fix="choose another with --camera")
        picture: Image.Image = self._newest.to_image()
        return picture

    def close(self) -> None:
        """Let go of the camera; again is harmless."""
        self._closed.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self.close()

    def _open(self) -> Any:
        try:
            import av
        except ImportError as problem:
            raise SottovoceError("a camera needs PyAV", fix="pip install 'sottovoce[video]'") from problem
        form = None if self._is_file else CAMERA_FORMATS.get(sys.platform)
        fix = "give /dev/video0 or another device, or a clip"
        try:
            container = av.open(self._source, format=form, timeout=FIRST_FRAME_SECONDS)
        except (OSError, ValueError, av.error.FFmpegError) as problem:
            raise InputError(f"the camera {self._source!r} cannot be opened: {problem}", fix=fix) from problem
        if not container.streams.video:
            container.close()
            raise InputError(f"the camera {self._source!r} has no pictures, only sound", fix=fix)
        return container

    def _run(self) -> None:
        try:
            with contextlib.closing(self._container):
                began: float | None = None
                for frame in self._container.decode(video=0):
                    if self._closed.is_set():
                        return
                    if self._is_file and frame.time is not None:  # a clip is played, not raced through
                        began = time.monotonic() - frame.time if began is None else began
                        self._closed.wait(max(0.0, frame.time - (time.monotonic() - began)))
                    self._newest = frame
                    self._first.set()
        except Exception as problem:  # noqa: BLE001  # PyAV's exceptions are many; the last picture stays
            self._problem = f"{type(problem).__name__}: {problem}"
        finally:
            self._first.set()
